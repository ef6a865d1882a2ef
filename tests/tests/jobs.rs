//! What a job carries beside its payload, and what its outcome tells beside the result.

use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_tests::{PATIENCE, deployment};
use svcmap_worker::{HandlerError, Job, MetadataError, Outcome, Priority, SubmitError, Worker};

/// Says what it knows of its job.
fn describe(job: &Job) -> Result<Vec<u8>, HandlerError> {
    let began_at = Clock.now();
    while Clock.now().since(began_at) < Duration::from_millis(20) {
        std::thread::yield_now();
    }
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
    let worker =
        Worker::builder("describe").mapper(deployment.mapper().as_str()).start(describe).unwrap();
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
