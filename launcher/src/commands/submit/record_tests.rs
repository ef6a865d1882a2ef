use std::time::Duration;

use serde_json::Value;
use svcmap_proto::names::InstanceKey;
use svcmap_worker::{Refusal, Reply};

use super::*;

fn record(name: Name, outcome: Outcome) -> Record {
    Record {
        number: 1,
        name,
        ending: Ending::Outcome(outcome),
        is_interrupted: false,
        attempts_before: 0,
    }
}

fn done(payload: &[u8]) -> Record {
    let by = InstanceKey { service: "s".parse().unwrap(), instance: "i".parse().unwrap() };
    let (waited, ran) = (Duration::from_millis(500), Duration::from_millis(250));
    let reply = Reply { payload: payload.to_vec().into(), by, attempts: 1, waited, ran };
    record(Name::File("f.txt".into()), Outcome::Done(reply))
}

fn refused(reason: Reason) -> Record {
    let refusal = Refusal { reason, attempts: 2, waited: Duration::from_millis(1500) };
    record(Name::Line(b"g\xff".to_vec()), Outcome::Refused(refusal))
}

#[test]
fn results_are_one_line_each_or_untouched() {
    let labelled = Form { with_label: true, ..Form::default() };
    let line = |result: &[u8], form| done(result).line(form).unwrap();
    assert_eq!(line(b"abc  -\n", labelled), b"f.txt: abc  -\n");
    assert_eq!(line(b"", labelled), b"f.txt: \n");
    assert_eq!(line(b"abc\n\n", Form::default()), b"abc\n\n");
    assert_eq!(line(b"\x1b[m\xff", Form::default()), b"\x1b[m\xff");
    assert_eq!(refused(Reason::Full).line(labelled), None);
    let many = Form { one_of_many: true, ..Form::default() };
    assert_eq!([line(b"a", many), line(b"a\n", many), line(b"", many)].concat(), b"a\na\n\n");
}

#[test]
fn results_and_names_command_no_terminal() {
    let terminal = Form { on_terminal: true, ..Form::default() };
    let line = |result: &[u8], form| String::from_utf8(done(result).line(form).unwrap());
    assert_eq!(line(b"\x1b[2J\xff", terminal).unwrap(), "\\u{1b}[2J\\xff\n");
    assert_eq!(line(b"", terminal).unwrap(), "");
    let labelled = Form { with_label: true, ..terminal };
    let evil = Record { name: Name::File("\u{7}".into()), ..done(b"a\n") };
    assert_eq!(evil.line(labelled).unwrap(), b"\\u{7}: a\n");
}

#[test]
fn json_keeps_any_bytes_and_leaves_out_what_is_not_known() {
    let json = |record: &Record, with_result| -> Value {
        serde_json::to_value(record.fields(with_result)).unwrap()
    };
    assert_eq!(
        json(&done(b"text"), true),
        serde_json::json!({
            "number": 1, "input": "f.txt", "outcome": "done", "result": "text", "by": "s/i",
            "attempts": 1, "waited_s": 0.5, "ran_s": 0.25,
        })
    );
    assert_eq!(json(&done(b"\xff"), true)["result_base64"], "/w==");
    assert_eq!(json(&done(b"text"), false).get("result"), None);
    assert_eq!(
        json(&refused(Reason::Full), true),
        serde_json::json!({
            "number": 1, "input_base64": "Z/8=", "outcome": "refused", "reason": "full",
            "attempts": 2, "waited_s": 1.5,
        })
    );
    let interrupted = Record { is_interrupted: true, ..refused(Reason::Cancelled) };
    assert_eq!(json(&interrupted, true)["interrupted"], true);
}

#[test]
fn of_a_program_its_exit_status_and_its_last_words_are_told() {
    let by = InstanceKey { service: "s".parse().unwrap(), instance: "i".parse().unwrap() };
    let (waited, ran) = (Duration::ZERO, Duration::from_millis(250));
    let error = "exit status 3: no such model".to_owned();
    let failure = svcmap_worker::Failure { error, code: Some(3), by, attempts: 1, waited, ran };
    let record = Record { attempts_before: 2, ..record(Name::Data, Outcome::Failed(failure)) };
    let json = serde_json::to_value(record.fields(true)).unwrap();
    assert_eq!((&json["exit_status"], &json["stderr"]), (&3.into(), &"no such model".into()));
    assert_eq!((&json["attempts"], record.ran()), (&3.into(), Some(ran)));
}

#[test]
fn programs_that_name_their_inputs_fail_alike() {
    let failed = |name: &[u8], error: &str| {
        let by = InstanceKey { service: "s".parse().unwrap(), instance: "i".parse().unwrap() };
        let (waited, ran) = Default::default();
        let error = error.to_owned();
        let failure = svcmap_worker::Failure { error, code: Some(1), by, attempts: 1, waited, ran };
        record(Name::Line(name.to_vec()), Outcome::Failed(failure)).kind()
    };
    assert_eq!(failed(b"a/b.txt", "cat: a/b.txt: gone"), "failed: cat: …: gone");
    assert_eq!(failed(b"./c", "cat: ./c: gone"), "failed: cat: …: gone");
    // A short one is found in other words, and in the status.
    assert_eq!(
        failed(b"1", "exit status 1: line 1 of 10: gone"),
        "failed: exit status 1: line … of 10: gone"
    );
    assert_eq!(failed(b"a", "cat: a: gone, aa, a"), "failed: cat: …: gone, aa, …");
    assert_eq!(failed(b"", "exit status 1: gone"), "failed: exit status 1: gone");
    assert_eq!(failed("ä".as_bytes(), "ää ä"), "failed: ää …");
}
