use serde_json::Value;
use svcmap_proto::names::InstanceKey;
use svcmap_worker::{Cause, Refusal, Reply};

use super::super::input::Name;
use super::super::record::Trouble;
use super::*;

fn record(ending: Ending) -> Record {
    Record { number: 1, name: Name::Data, ending, is_interrupted: false, attempts_before: 0 }
}

fn done() -> Record {
    ran(Duration::ZERO)
}

fn ran(ran: Duration) -> Record {
    let by = InstanceKey { service: "s".parse().unwrap(), instance: "i".parse().unwrap() };
    let (payload, attempts, waited) = (Vec::new().into(), 1, Duration::ZERO);
    record(Ending::Outcome(Outcome::Done(Reply { payload, by, attempts, waited, ran })))
}

fn refused(reason: Reason) -> Record {
    let refusal = Refusal { reason, attempts: 2, waited: Duration::ZERO };
    record(Ending::Outcome(Outcome::Refused(refusal)))
}

fn report(records: &[Record]) -> Report {
    let mut report = Report::default();
    records.iter().for_each(|record| report.add(record, None));
    report
}

fn has_exit(records: &[Record], code: u8) -> bool {
    format!("{:?}", report(records).exit()) == format!("{:?}", ExitCode::from(code))
}

#[test]
fn the_exit_code_says_whether_trying_again_helps() {
    assert!(has_exit(&[done()], 0));
    assert!(has_exit(&[done(), refused(Reason::Full)], 75));
    assert!(has_exit(&[refused(Reason::NoSuchService)], 69));
    assert!(has_exit(&[refused(Reason::NoMapper)], 69));
    let unknown = record(Ending::Outcome(Outcome::Unknown(Cause::Deadline)));
    assert!(has_exit(&[refused(Reason::Full), unknown], 1));
    // What stays as it is, whatever else may pass.
    for reason in [Reason::TooLarge, Reason::NotJson] {
        assert!(has_exit(&[refused(reason), refused(Reason::Full)], 1), "{reason}");
    }
    assert!(has_exit(&[refused(Reason::NoMapper), refused(Reason::Unreachable)], 69));
    assert!(has_exit(&[refused(Reason::NoSuchService), refused(Reason::Full)], 75));
    assert!(has_exit(&[record(Ending::NotSent(Trouble::new("too large")))], 1));
    // What was to end says nothing about itself.
    assert!(has_exit(&[Record { is_interrupted: true, ..refused(Reason::Cancelled) }], 0));
}

#[test]
fn what_was_not_run_again_counts_as_it_ended() {
    let mut report = report(&[done()]);
    report.add_before(Word::Done);
    assert!(report.is_content());
    report.add_before(Word::Failed);
    report.add_before(Word::Unknown);
    assert_eq!((report.is_content(), report.len()), (false, 4));
    let summary = report.summary(Duration::from_secs(2), &[], 0);
    let said = "\n3 jobs had ended before, of which 1 failed and 1 may have run or not (unknown): \
                --resume-failed runs them again";
    assert!(summary.ends_with(said), "{summary}");
}

#[test]
fn what_was_accepted_is_counted_in_a_note() {
    let accepted = || record(Ending::Outcome(Outcome::Accepted));
    let report = report(&[accepted(), accepted()]);
    let note = "2 jobs were accepted by workers that report no more";
    assert_eq!(report.note(false).as_deref(), Some(note));
    assert!(report.is_content() && Report::default().note(false).is_none());
}

#[test]
fn a_summary_tells_what_became_of_all_and_the_commonest_errors() {
    let cancelled = Record { is_interrupted: true, ..refused(Reason::Cancelled) };
    let long_one = ran(Duration::from_secs(3));
    let report = report(&[done(), long_one, refused(Reason::Full), cancelled]);
    let long = "x".repeat(2 * KIND_CHARS);
    let summary = report.summary(Duration::from_secs(2), &[("a\nb", 7), (&long, 1)], 5);
    let lines: Vec<_> = summary.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "4 jobs in 2s (1.0/s): 2 done, 2 refused (1 of them interrupted); the longest ran 3s: \
             --data",
            "  7 x a\\nb"
        ]
    );
    assert_eq!(lines[2].chars().count(), "  1 x …".chars().count() + KIND_CHARS);
    assert_eq!(lines[3], "  5 more were not shown: --joblog and --json-lines tell of each");
}

#[test]
fn json_has_the_order_of_the_jobs() {
    let mut report = Report::default();
    for number in [2, 1] {
        let record = Record { number, ..done() };
        let json = serde_json::value::to_raw_value(&record.fields(true)).unwrap();
        report.add(&record, Some(json));
    }
    let value: Value = serde_json::from_str(&report.take_json()).unwrap();
    assert_eq!(value["outcomes"][0]["number"], 1);
    assert_eq!((&value["totals"]["done"], report.len()), (&Value::from(2), 2));
}
