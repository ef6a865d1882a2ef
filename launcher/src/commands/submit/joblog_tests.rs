use std::fs;

use svcmap_proto::names::Name as Service;

use super::super::record::{Ending, Trouble};
use super::*;

fn service() -> Service {
    "sum".parse().unwrap()
}

fn line(text: &[u8]) -> Name {
    Name::Line(text.to_vec())
}

fn not_sent(number: u64, text: &[u8]) -> Record {
    let ending = Ending::NotSent(Trouble::new("gone"));
    Record { number, name: line(text), ending, is_interrupted: false, attempts_before: 0 }
}

fn open(path: &Path, again: Again) -> Result<(Joblog, Past), Failure> {
    Joblog::open(path, &service(), again)
}

const RESUME: Again = Again::Interrupted { idempotent: false };

#[test]
fn what_is_run_again_is_what_did_not_run_unless_more_is_wanted() {
    let wanted = |again: Again| {
        let all = [
            (Word::Done, false),
            (Word::Accepted, false),
            (Word::Failed, false),
            (Word::Failed, true),
            (Word::Unknown, false),
            (Word::Unknown, true),
            (Word::Refused, false),
            (Word::NotSent, false),
            (Word::NotKept, false),
        ];
        all.map(|(word, is_interrupted)| u8::from(again.wants(word, is_interrupted)))
    };
    assert_eq!(wanted(RESUME), [0, 0, 0, 1, 0, 0, 1, 1, 1]);
    assert_eq!(wanted(Again::Interrupted { idempotent: true }), [0, 0, 0, 1, 1, 1, 1, 1, 1]);
    assert_eq!(wanted(Again::Undone), [0, 0, 1, 1, 1, 1, 1, 1, 1]);
}

#[test]
fn a_log_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (mut log, past) = open(&path, RESUME).unwrap();
    assert_eq!(past.verdict(1, &line(b"a")), Verdict::Run);
    log.add(&not_sent(1, b"a")).unwrap();
    log.add(&not_sent(7, b"\xff\n")).unwrap();
    drop(log);
    let done = fs::read_to_string(&path).unwrap().replace("not sent", "done");
    fs::write(&path, done).unwrap();
    let (_log, past) = open(&path, RESUME).unwrap();
    assert_eq!(past.verdict(1, &line(b"a")), Verdict::Ended(Word::Done));
    assert_eq!(past.verdict(7, &line(b"\xff\n")), Verdict::Ended(Word::Done));
    assert_eq!(past.verdict(7, &line(b"\xff")), Verdict::Another);
    assert_eq!(past.verdict(2, &line(b"b")), Verdict::Run);
    assert!(open(&path, Again::Never).unwrap_err().message.contains("jobs before"));
}

#[test]
fn the_last_word_on_a_job_counts() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (mut log, _) = open(&path, RESUME).unwrap();
    log.add(&not_sent(1, b"a")).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let last = text.lines().last().unwrap().replace("not sent", "done");
    fs::write(&path, format!("{text}{last}\n")).unwrap();
    let (_log, past) = open(&path, Again::Undone).unwrap();
    assert_eq!(past.verdict(1, &line(b"a")), Verdict::Ended(Word::Done));
}

#[test]
fn a_line_that_was_not_finished_never_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let (mut log, _) = open(&path, RESUME).unwrap();
    log.add(&not_sent(1, b"a")).unwrap();
    let whole = fs::read(&path).unwrap();
    log.add(&not_sent(2, b"b")).unwrap();
    let both = fs::read(&path).unwrap();
    drop(log);
    for length in 0..both.len() {
        fs::write(&path, &both[..length]).unwrap();
        let (mut log, _) = open(&path, RESUME).unwrap();
        let mended = fs::read(&path).unwrap();
        assert_eq!(mended.last(), Some(&b'\n'), "{length}");
        if length >= whole.len() {
            assert_eq!(mended, whole, "{length}");
        }
        log.add(&not_sent(3, b"c")).unwrap();
        drop(log);
        // What was added is a line of its own.
        open(&path, RESUME).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.lines().next().unwrap().contains("svcmap"), "{length}: {text}");
    }
}

#[test]
fn what_is_no_log_of_these_jobs_stays_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    let (mut log, _) = open(&path, RESUME).unwrap();
    log.add(&not_sent(1, b"a")).unwrap();
    drop(log);
    let error =
        |service: &str| Joblog::open(&path, &service.parse().unwrap(), RESUME).unwrap_err().message;
    assert!(error("other").contains("`sum`, not `other`"));
    let good = fs::read_to_string(&path).unwrap();
    for bad in [
        "precious".to_owned(),
        "precious\n".to_owned(),
        format!("{good}\n"),
        format!("{good}{{}}\n"),
    ] {
        fs::write(&path, &bad).unwrap();
        let error = error("sum");
        assert!(error.contains("no job log") || error.contains("line 3"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
}

#[test]
fn a_log_without_a_job_is_as_good_as_new() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    drop(open(&path, Again::Never).unwrap());
    drop(open(&path, Again::Never).unwrap());
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
}

#[test]
fn the_time_of_day_is_told_as_rfc_3339_has_it() {
    let now = now();
    assert!(now.len() >= 20 && &now[10..11] == "T" && now.ends_with('Z'), "{now}");
}
