//! How far a running job is, as its sender sees it.

use std::sync::{Mutex, mpsc};
use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_tests::{PATIENCE, deployment, eventually};
use svcmap_worker::{HandlerError, Job, Outcome, Worker};

#[test]
fn a_ticket_sees_what_its_handler_says_of_how_far_it_is() {
    let deployment = deployment();
    let (go_on, waits) = mpsc::channel();
    let waits = Mutex::new(waits);
    let handler = move |job: &Job| -> Result<Vec<u8>, HandlerError> {
        let wait = || waits.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        wait();
        job.progress("half of it");
        wait();
        // From whatever thread has the job.
        std::thread::scope(|scope| scope.spawn(|| job.progress("é".repeat(200))).join().unwrap());
        wait();
        Ok(b"all of it".to_vec())
    };
    let mapper = deployment.mapper();
    let _worker = Worker::builder("slow").mapper(mapper.as_str()).start(handler).unwrap();
    let client = deployment.client().unwrap();
    let ticket = client.submit("slow", "").unwrap();
    assert_eq!(ticket.progress(), None);
    go_on.send(()).unwrap();
    assert_eq!(ticket.wait_progress(PATIENCE).as_deref(), Some("half of it"));
    assert_eq!(ticket.progress().as_deref(), Some("half of it"));
    go_on.send(()).unwrap();
    assert_eq!(ticket.wait_progress(PATIENCE), Some("é".repeat(128)));
    go_on.send(()).unwrap();
    assert_eq!(ticket.wait_progress(PATIENCE), None, "the outcome comes");
    let Ok(Outcome::Done(reply)) = ticket.wait_timeout(Duration::ZERO) else { panic!("not done") };
    assert_eq!(&reply[..], b"all of it");
}

#[test]
fn a_handler_that_says_much_costs_few_messages() {
    let deployment = deployment();
    let spoken = |job: &Job| -> Result<Vec<u8>, HandlerError> {
        let (began_at, mut count) = (Clock.now(), 0_u32);
        while Clock.now().since(began_at) < Duration::from_millis(500) {
            count += 1;
            job.progress(count.to_string());
        }
        job.progress("the end");
        while !job.is_cancelled() {
            std::thread::yield_now();
        }
        Ok(count.to_string().into_bytes())
    };
    let mapper = deployment.mapper();
    let _worker = Worker::builder("chatty").mapper(mapper.as_str()).start(spoken).unwrap();
    let client = deployment.client().unwrap();
    let began_at = Clock.now();
    let ticket = client.submit("chatty", "").unwrap();
    eventually("the newest", || ticket.progress().as_deref() == Some("the end"));
    ticket.cancel();
    let Ok(Outcome::Done(reply)) = ticket.wait_timeout(PATIENCE) else { panic!("not done") };
    let count: u64 = std::str::from_utf8(&reply).unwrap().parse().unwrap();
    // One in 100 ms, and those around the job: HELLO, credits, a beat each second and its answer.
    let messages = client.statistics().messages;
    let expected = 20 + 20 * (1 + Clock.now().since(began_at).as_secs());
    assert!(count > expected && messages < expected, "{messages} messages, {count} words");
}
