//! Clients of the JSON dialect at a server.

use super::*;
use crate::intake::Ending;
use crate::testing::*;

const LIFE: Incarnation = Incarnation(11);

fn server(concurrency: u32, queue: u32) -> Server {
    Server::new(key(), LIFE, IntakeConfig { concurrency, queue, ..IntakeConfig::default() })
}

/// A client's request; `number` tells clients apart.
fn ask(server: &mut Server, number: u8, body: &str) -> Result<(), svcmap_proto::json::JsonError> {
    let frames: [&[u8]; 3] = [&[number], b"", body.as_bytes()];
    let (from, body) = svcmap_proto::json::open(&frames).unwrap();
    server.handle_request(at(0), from, body)
}

/// What the server wants done: replies as (client, text), and the jobs that it starts.
fn outputs(server: &mut Server, now: Timestamp) -> (Vec<(u8, String)>, Vec<Task>) {
    let (mut replies, mut started) = (Vec::new(), Vec::new());
    while let Some(output) = server.poll_output(now) {
        match output {
            ServerOutput::Reply { to, body } => {
                let [client, b"", body] = to.around(&body)[..] else { panic!("{to:?}") };
                replies.push((client[0], String::from_utf8(body.to_vec()).unwrap()));
            }
            ServerOutput::Start(task) => started.push(task),
            // It is idle, and may have peers.
            ServerOutput::Cancel(_) | ServerOutput::Offer { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    (replies, started)
}

fn submit(body: &str) -> String {
    format!(r#"{{"command":"SUBMIT","payload":{body}}}"#)
}

const ACCEPTED: &str = r#"{"status":"ok","message":"job accepted"}"#;
const QUEUE_FULL: &str = r#"{"status":"error","message":"queue full"}"#;

#[test]
fn original_jobs_are_taken_until_the_queue_is_full_and_end_in_silence() {
    let mut server = server(1, 1);
    for client in 1..=3 {
        ask(&mut server, client, r#"{"task":"t"}"#).unwrap();
    }
    let (replies, started) = outputs(&mut server, at(0));
    let expected = [(1, ACCEPTED), (2, ACCEPTED), (3, QUEUE_FULL)];
    assert_eq!(replies, expected.map(|(client, text)| (client, text.to_owned())));
    assert_eq!(started[0].payload[..], *br#"{"task":"t"}"#);
    // It has no deadline to speak of.
    server.handle_timeout(at(24 * 3_600_000));
    server.handle_finished(at(24 * 3_600_000), started[0].id, Ending::Done, b"1".to_vec());
    let (replies, started) = outputs(&mut server, at(24 * 3_600_000));
    assert_eq!((replies, started.len()), (Vec::new(), 1));
}

#[test]
fn a_client_that_waits_is_told_once_how_its_job_ended() {
    let mut server = server(2, 0);
    ask(&mut server, 1, &submit(r#"{"body":[1]}"#)).unwrap();
    ask(&mut server, 2, &submit(r#"{"body":2,"deadline_ms":50}"#)).unwrap();
    ask(&mut server, 3, &submit(r#"{"body":3}"#)).unwrap();
    let (replies, started) = outputs(&mut server, at(0));
    let full = r#"{"status":"refused","reason":"full","load":1.0}"#.to_owned();
    assert_eq!((replies, started.len()), (vec![(3, full)], 2));
    server.handle_finished(at(10), started[0].id, Ending::Done, b"[1]".to_vec());
    let done = r#"{"status":"done","result":[1]}"#.to_owned();
    assert_eq!(outputs(&mut server, at(10)).0, [(1, done)]);
    // The deadline passes while the handler runs, and what that says later concerns nobody.
    server.handle_timeout(at(50));
    let unknown = r#"{"status":"unknown","message":"no answer by the deadline"}"#.to_owned();
    assert_eq!(outputs(&mut server, at(50)).0, [(2, unknown)]);
    server.handle_finished(at(60), started[1].id, FAILING, b"late".to_vec());
    assert_eq!(outputs(&mut server, at(60)).0, []);
}

#[test]
fn a_job_that_runs_for_as_long_as_it_may_has_failed_once() {
    let mut server = server(1, 1);
    ask(&mut server, 1, &submit(r#"{"body":1,"run_limit_ms":50}"#)).unwrap();
    ask(&mut server, 2, &submit(r#"{"body":2,"run_limit_ms":50}"#)).unwrap();
    let (_, started) = outputs(&mut server, at(0));
    server.handle_timeout(at(50));
    let failed = r#"{"status":"failed","message":"reached its run limit of 50ms"}"#.to_owned();
    let (replies, next) = outputs(&mut server, at(50));
    assert_eq!((replies, next.len()), (vec![(1, failed)], 0), "the handler has not ended");
    server.handle_finished(at(200), started[0].id, Ending::Done, b"late".to_vec());
    let (replies, next) = outputs(&mut server, at(200));
    // The time that the other waited does not count.
    assert_eq!((replies, next.len(), server.poll_timeout()), (Vec::new(), 1, Some(at(250))));
    // One that goes on until the worker ends is known to have been answered.
    server.handle_timeout(at(250));
    server.drain(at(250), Duration::ZERO);
    server.handle_timeout(at(250));
    server.handle_timeout(at(5000));
    let report = server.drained().unwrap();
    assert_eq!((report.abandoned, report.dropped), (1, 0));
}

#[test]
fn a_handler_that_ends_itself_at_its_run_limit_has_reached_that() {
    let failed = r#"{"status":"failed","message":"reached its run limit of 50ms"}"#;
    let done = r#"{"status":"done","result":1}"#;
    for (ending, told) in [(FAILING, failed), (Ending::Done, done)] {
        let mut server = server(1, 0);
        ask(&mut server, 1, &submit(r#"{"body":1,"run_limit_ms":50}"#)).unwrap();
        let (_, started) = outputs(&mut server, at(0));
        server.handle_finished(at(50), started[0].id, ending, b"1".to_vec());
        assert_eq!(outputs(&mut server, at(50)).0, [(1, told.to_owned())]);
        assert_eq!(server.intake().poll_timeout(), None);
    }
}

#[test]
fn who_waits_when_the_worker_stops_is_told_so() {
    let mut server = server(1, 4);
    ask(&mut server, 1, &submit(r#"{"body":1}"#)).unwrap();
    ask(&mut server, 2, &submit(r#"{"body":2}"#)).unwrap();
    ask(&mut server, 3, r#"{"task":3}"#).unwrap();
    outputs(&mut server, at(0));
    server.stop();
    let unknown = r#"{"status":"unknown","message":"the worker ended before it answered"}"#;
    let expected = [(1, unknown.to_owned()), (2, unknown.to_owned())];
    assert_eq!(outputs(&mut server, at(1)).0, expected);
}

#[test]
fn who_says_nonsense_is_told_so() {
    let mut server = server(1, 0);
    for nonsense in ["", "[]", "{", "{\"command\":\"SUBMIT\"}"] {
        assert!(ask(&mut server, 1, nonsense).is_err());
        let (replies, started) = outputs(&mut server, at(0));
        assert!(replies[0].1.starts_with(r#"{"status":"error","message":""#), "{replies:?}");
        assert_eq!((replies.len(), started.len()), (1, 0));
    }
}

#[test]
fn a_drain_finishes_first_what_nobody_would_send_again() {
    let mut server = server(1, 4);
    ask(&mut server, 1, &submit(r#"{"body":1}"#)).unwrap();
    ask(&mut server, 2, &submit(r#"{"body":2}"#)).unwrap();
    ask(&mut server, 3, r#"{"task":3}"#).unwrap();
    ask(&mut server, 4, r#"{"task":4}"#).unwrap();
    let (_, started) = outputs(&mut server, at(0));
    server.drain(at(1), ms(100));
    ask(&mut server, 5, r#"{"task":5}"#).unwrap();
    server.handle_finished(at(2), started[0].id, Ending::Done, b"1".to_vec());
    let (replies, started) = outputs(&mut server, at(2));
    let draining = r#"{"status":"error","message":"draining"}"#.to_owned();
    let done = r#"{"status":"done","result":1}"#.to_owned();
    assert_eq!(replies, [(5, draining), (1, done)]);
    assert_eq!(started[0].payload[..], *br#"{"task":3}"#);
    server.handle_timeout(at(101));
    let (replies, _) = outputs(&mut server, at(101));
    let refused = r#"{"status":"refused","reason":"draining","load":0.0}"#.to_owned();
    assert_eq!(replies, [(2, refused)]);
    let report = server.drained().unwrap();
    assert_eq!((report.handed_back, report.abandoned, report.dropped), (1, 1, 1));
}

#[test]
fn what_is_too_large_to_hold_a_payload_is_not_read() {
    let mut server = server(1, 1);
    let limit = IntakeConfig::default().json_bytes_max();
    let no_json = "{".repeat(limit);
    assert!(ask(&mut server, 1, &no_json).unwrap_err().to_string().contains("key must be"));
    let error = ask(&mut server, 2, &format!("{no_json}{{")).unwrap_err().to_string();
    assert_eq!(error, format!("larger than {limit} bytes"));
    let (replies, _) = outputs(&mut server, at(0));
    assert!(replies[1].1.contains("larger than"), "{replies:?}");
    // The largest payload passes, in base64 as well.
    let text = "A".repeat(limit - 4096);
    ask(&mut server, 3, &submit(&format!(r#"{{"body_base64":"{text}"}}"#))).unwrap();
}
