//! What a job carries beside its payload, and what its outcome tells beside the result.

use std::sync::{Arc, Barrier, Mutex};
use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_tests::{Count, PATIENCE, deployment};
use svcmap_worker::{Client, HandlerError, Job, MetadataError, Outcome, Priority, SubmitError};

fn last_for(time: Duration) {
    let began_at = Clock.now();
    while Clock.now().since(began_at) < time {
        std::thread::yield_now();
    }
}

/// Says what it knows of its job.
fn describe(job: &Job) -> Result<Vec<u8>, HandlerError> {
    last_for(Duration::from_millis(20));
    let metadata: Vec<_> =
        job.metadata().iter().map(|(name, value)| format!("{name}={value}")).collect();
    let (number, attempt, priority) = (job.number(), job.attempt(), job.priority());
    assert!(job.sender().is_some());
    let text = format!("{number} {attempt} {priority:?} {}", metadata.join(" "));
    match job.payload() {
        b"fail" => Err(HandlerError::new(text).with_code(3)),
        _ => Ok(text.into_bytes()),
    }
}

#[test]
fn what_is_said_of_a_job_reaches_its_handler_and_its_times_come_back() {
    let deployment = deployment();
    let worker = deployment.access().worker("describe").serve(describe).unwrap();
    let client = deployment.client().unwrap();
    let submit = |payload: &'static str| {
        let job = client.job("describe", payload).priority(Priority::High);
        let ticket = job.metadata("input", "a b.jpg").metadata("note", "Grüße").submit().unwrap();
        let number = ticket.job().0;
        (number, ticket.wait_timeout(PATIENCE).unwrap())
    };
    let (number, Outcome::Done(reply)) = submit("do") else { panic!("not done") };
    let text = format!("{number} 1 High input=a b.jpg note=Grüße");
    assert_eq!(String::from_utf8_lossy(&reply), text);
    assert_eq!((&reply.by, reply.attempts), (worker.key(), 1));
    assert!(reply.ran >= Duration::from_millis(20) && reply.ran < PATIENCE, "{reply:?}");
    assert!(!reply.waited.is_zero() && reply.waited < PATIENCE, "{reply:?}");

    let (number, Outcome::Failed(failure)) = submit("fail") else { panic!("not failed") };
    assert_eq!(failure.error, text.replacen(char::is_numeric, &number.to_string(), 1));
    assert_eq!((failure.code, failure.attempts), (Some(3), 1));
    assert!(failure.ran >= Duration::from_millis(20));
}

#[test]
fn metadata_that_is_not_taken_is_refused_before_it_is_sent() {
    let deployment = deployment();
    let client = deployment.client().unwrap();
    let submit = |name: &str, value: &str| {
        let error = client.job("describe", "").metadata(name, value).submit().unwrap_err();
        let SubmitError::Metadata(error) = error else { panic!("{error}") };
        error
    };
    assert_eq!(submit("a name", ""), MetadataError::Name("a name".to_owned()));
    assert_eq!(submit("name", &"x".repeat(2000)), MetadataError::TooLarge);
}

/// Does one job after the other and notes in which order. The first tells that it runs, and ends once it
/// may.
fn notes(order: &Arc<Mutex<Vec<String>>>, gate: &Arc<Barrier>, job: &Job) {
    match job.payload() {
        b"first" => {
            gate.wait();
            gate.wait();
        }
        _ => last_for(Duration::from_millis(5)),
    }
    order.lock().unwrap().push(String::from_utf8_lossy(job.payload()).into_owned());
}

#[test]
fn jobs_of_a_higher_priority_go_first_whoever_sends_them() {
    let deployment = deployment();
    let (order, gate) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Barrier::new(2)));
    let (ordered, gated) = (Arc::clone(&order), Arc::clone(&gate));
    let worker = deployment.access().worker("note").serve(move |job: &Job| {
        notes(&ordered, &gated, job);
    });
    let _worker = worker.unwrap();
    let (one, other) = (deployment.client().unwrap(), deployment.client().unwrap());
    let submit = |client: &Client, name: &'static str, priority| {
        client.job("note", name).priority(priority).submit().unwrap()
    };
    // Both have a connection.
    for client in [&one, &other] {
        let ticket = submit(client, "before", Priority::Normal);
        assert!(matches!(ticket.wait_timeout(PATIENCE), Ok(Outcome::Done(_))));
    }
    order.lock().unwrap().clear();
    let mut tickets = vec![submit(&one, "first", Priority::Normal)];
    gate.wait();
    let jobs = |count, name| std::iter::repeat_n(name, count);
    tickets.extend(jobs(5, "low").map(|name| submit(&one, name, Priority::Low)));
    tickets.extend(jobs(10, "normal").map(|name| submit(&one, name, Priority::Normal)));
    tickets.extend(jobs(5, "high").map(|name| submit(&other, name, Priority::High)));
    // They have taken all of that into account, and told the worker.
    assert_eq!((one.statistics().submitted, other.statistics().submitted), (17, 6));
    gate.wait();
    assert_eq!(Count::of(tickets).done, 21);
    let order = order.lock().unwrap();
    let last = |name: &str| order.iter().rposition(|other| other == name).unwrap();
    assert_eq!(order[0], "first");
    // What was already there when the others came, or was promised to them, stays where it is.
    assert!(last("high") <= 5 + 3, "{order:?}");
    assert!(last("normal") <= 5 + 10 + 3, "{order:?}");
}
