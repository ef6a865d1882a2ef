//! What became of each job, for people and as JSON, and the exit code that follows.

use std::collections::BTreeSet;
use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use svcmap_proto::names::Name;
use svcmap_worker::{Outcome, Reason};

use crate::errors::{Exit, Failure};
use crate::text::printable_bytes;

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// As `LABEL: result`, one line for each; else untouched.
    pub with_label: bool,
    /// Several results of the same input follow each other: each ends its line.
    pub one_of_many: bool,
    /// A terminal gets no commands, and each result ends its line.
    pub on_terminal: bool,
}

/// One job and what became of it.
pub struct Record {
    label: String,
    ending: Ending,
}

enum Ending {
    Outcome(Outcome),
    /// It was not sent, for this reason.
    NotSent(String),
}

impl Record {
    /// A job that has its outcome.
    pub fn new(label: String, outcome: Outcome) -> Self {
        Self { label, ending: Ending::Outcome(outcome) }
    }

    /// A job that was never sent.
    pub fn not_sent(label: String, error: String) -> Self {
        Self { label, ending: Ending::NotSent(error) }
    }

    /// What goes to stdout, if there is a result.
    pub fn line(&self, form: Form) -> Option<Vec<u8>> {
        let Ending::Outcome(Outcome::Done(reply)) = &self.ending else { return None };
        let mut line = Vec::with_capacity(reply.payload.len() + 1);
        if form.with_label {
            let end =
                reply.payload.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
            line.extend_from_slice(format!("{}: ", self.label).as_bytes());
            line.extend_from_slice(&reply.payload[..end]);
        } else {
            line.extend_from_slice(&reply.payload);
        }
        if form.on_terminal {
            line = printable_bytes(&line).into_bytes();
        }
        // On a terminal the prompt would follow on the same line, but nothing stays nothing.
        let ends = form.with_label || form.one_of_many || (form.on_terminal && !line.is_empty());
        if ends && line.last() != Some(&b'\n') {
            line.push(b'\n');
        }
        Some(line)
    }

    /// What it has in common with others that say the same: the reason, without what was measured.
    pub fn kind(&self) -> String {
        let label = &self.label;
        match &self.ending {
            Ending::NotSent(error) => format!("{label}: {error}"),
            Ending::Outcome(Outcome::Refused(refusal)) => format!("{label}: {}", refusal.reason),
            Ending::Outcome(outcome) => format!("{label}: {outcome}"),
        }
    }

    /// What goes to stderr, if it is no result. `after_others`: of other jobs, one found a worker.
    pub fn failure(&self, service: &Name, after_others: bool) -> Option<Failure> {
        let label = &self.label;
        match &self.ending {
            Ending::NotSent(error) => Some(Failure::failed(format!("{label}: {error}"))),
            Ending::Outcome(Outcome::Done(_) | Outcome::Accepted) => None,
            // Said once for all of them, with the names that were meant.
            Ending::Outcome(Outcome::Refused(refusal))
                if is_nobody(refusal.reason) && !after_others =>
            {
                None
            }
            Ending::Outcome(outcome) => {
                let failure = Failure::failed(format!("{label}: {outcome}"));
                Some(match outcome {
                    Outcome::Refused(refusal) => failure.fix(remedy(refusal.reason, service)),
                    Outcome::Unknown(_) => failure.fix(
                        "it may have run: see to that before you send it again, or let svcmap do so \
                            if it does no harm: --idempotent",
                    ),
                    _ => failure,
                })
            }
        }
    }

    fn to_json(&self) -> Value {
        let mut fields = Map::new();
        fields.insert("input".to_owned(), json!(self.label));
        let (word, more) = match &self.ending {
            Ending::NotSent(error) => ("not sent", vec![("message", json!(error))]),
            Ending::Outcome(Outcome::Done(reply)) => {
                let result = match std::str::from_utf8(&reply.payload) {
                    Ok(text) => ("result", json!(text)),
                    Err(_) => ("result_base64", json!(STANDARD.encode(&reply.payload))),
                };
                ("done", vec![result, ("by", json!(reply.by.to_string()))])
            }
            Ending::Outcome(Outcome::Failed(failure)) => {
                let by = json!(failure.by.to_string());
                ("failed", vec![("message", json!(failure.error)), ("by", by)])
            }
            Ending::Outcome(Outcome::Refused(refusal)) => {
                let reason = json!(refusal.reason.to_string());
                ("refused", vec![("reason", reason), ("attempts", json!(refusal.attempts))])
            }
            Ending::Outcome(Outcome::Unknown(cause)) => {
                ("unknown", vec![("reason", json!(cause.to_string()))])
            }
            Ending::Outcome(Outcome::Accepted) => ("accepted", Vec::new()),
        };
        fields.insert("outcome".to_owned(), json!(word));
        fields.extend(more.into_iter().map(|(key, value)| (key.to_owned(), value)));
        Value::Object(fields)
    }
}

/// Whether a job met no worker, nor a mapper that knows one.
fn is_nobody(reason: Reason) -> bool {
    matches!(reason, Reason::NoSuchService | Reason::NoMapper)
}

/// What a refusal means for the exit code.
fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::NoSuchService | Reason::NoMapper | Reason::Unreachable => Exit::Unavailable,
        reason if reason.may_pass() => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// What to do about a refusal.
fn remedy(reason: Reason, service: &Name) -> String {
    match reason {
        Reason::Full | Reason::NoCredit | Reason::Draining => {
            format!("retry later, or start more: svcmap worker --service {service} …")
        }
        Reason::TooLarge => "send less, or raise --payload-max here and at the workers".to_owned(),
        Reason::Expired => "retry later, or give it more time: --deadline".to_owned(),
        Reason::NotJson => {
            format!("send one JSON value, or start: svcmap worker --service {service} …")
        }
        Reason::NoMapper => "svcmap mapper, or name the one that runs: --mapper".to_owned(),
        Reason::CannotStart => format!("look at the workers' logs: svcmap status {service}"),
        Reason::TooManyServices => "wait for the outcomes of others first".to_owned(),
        Reason::NotHere | Reason::NoSuchService | Reason::Cancelled | Reason::Unreachable => {
            format!("svcmap status {service}")
        }
    }
}

/// All jobs together.
#[derive(Default)]
pub struct Report {
    records: Vec<Value>,
    done: u64,
    failed: u64,
    refused: u64,
    unknown: u64,
    accepted: u64,
    not_sent: u64,
    nobody: u64,
    /// Refusals by what they mean for the exit code.
    refusals: BTreeSet<Exit>,
}

impl Report {
    /// Counts a job, and keeps it if it is to be printed at the end.
    pub fn add(&mut self, record: Record, keep: bool) {
        *match &record.ending {
            Ending::NotSent(_) => &mut self.not_sent,
            Ending::Outcome(Outcome::Done(_)) => &mut self.done,
            Ending::Outcome(Outcome::Failed(_)) => &mut self.failed,
            Ending::Outcome(Outcome::Unknown(_)) => &mut self.unknown,
            Ending::Outcome(Outcome::Accepted) => &mut self.accepted,
            Ending::Outcome(Outcome::Refused(refusal)) => {
                self.nobody += u64::from(is_nobody(refusal.reason));
                self.refusals.insert(exit_of(refusal.reason));
                &mut self.refused
            }
        } += 1;
        if keep {
            self.records.push(record.to_json());
        }
    }

    /// Jobs that were counted.
    pub fn len(&self) -> usize {
        let settled = self.done + self.failed + self.refused + self.unknown + self.accepted;
        usize::try_from(settled + self.not_sent).unwrap_or(usize::MAX)
    }

    /// 0 if all are done; else the worst of what became of the others: 1, then 75, then 69.
    pub fn exit(&self) -> ExitCode {
        if self.failed + self.unknown + self.not_sent > 0 {
            return Exit::Failed.into();
        }
        self.refusals.last().map_or(ExitCode::SUCCESS, |worst| (*worst).into())
    }

    /// Whether every job was refused for want of any worker.
    pub fn found_nobody(&self) -> bool {
        self.nobody > 0 && !self.found_anybody()
    }

    /// Whether any job got further than that.
    pub fn found_anybody(&self) -> bool {
        self.len() as u64 > self.nobody
    }

    /// What people should know of jobs that ended without a result and without an error.
    pub fn note(&self) -> Option<String> {
        let (jobs, were) = if self.accepted == 1 { ("job", "was") } else { ("jobs", "were") };
        let text =
            || format!("{} {jobs} {were} accepted by workers that report no more", self.accepted);
        (self.accepted > 0).then(text)
    }

    /// One object with `outcomes[]`, in the order of the input, and `totals`.
    pub fn to_json(&self) -> String {
        let report = json!({
            "outcomes": self.records,
            "totals": {
                "done": self.done,
                "failed": self.failed,
                "refused": self.refused,
                "unknown": self.unknown,
                "accepted": self.accepted,
                "not_sent": self.not_sent,
            },
        });
        format!("{report}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use svcmap_proto::names::InstanceKey;
    use svcmap_worker::{Cause, Refusal, Reply};

    use super::*;

    fn done(payload: &[u8]) -> Record {
        let by = InstanceKey { service: "s".parse().unwrap(), instance: "i".parse().unwrap() };
        let (waited, ran) = (Duration::from_millis(1), Duration::from_millis(2));
        let reply = Reply { payload: payload.to_vec().into(), by, attempts: 1, waited, ran };
        Record::new("f.txt".to_owned(), Outcome::Done(reply))
    }

    fn refused(reason: Reason) -> Record {
        let refusal = Refusal { reason, attempts: 2, waited: Duration::ZERO };
        Record::new("g".to_owned(), Outcome::Refused(refusal))
    }

    fn exit(records: Vec<Record>) -> ExitCode {
        let mut report = Report::default();
        records.into_iter().for_each(|record| report.add(record, true));
        report.exit()
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
        let evil = Record { label: "\u{7}".to_owned(), ..done(b"a\n") };
        assert_eq!(evil.line(labelled).unwrap(), b"\\u{7}: a\n");
    }

    #[test]
    fn the_exit_code_says_whether_trying_again_helps() {
        let same = |a: ExitCode, b: u8| format!("{a:?}") == format!("{:?}", ExitCode::from(b));
        assert!(same(exit(vec![done(b"")]), 0));
        assert!(same(exit(vec![done(b""), refused(Reason::Full)]), 75));
        assert!(same(exit(vec![refused(Reason::NoSuchService)]), 69));
        assert!(same(exit(vec![refused(Reason::NoMapper)]), 69));
        let unknown = Record::new("h".to_owned(), Outcome::Unknown(Cause::Deadline));
        assert!(same(exit(vec![refused(Reason::Full), unknown]), 1));
        // What stays as it is, whatever else may pass.
        for reason in [Reason::TooLarge, Reason::NotJson] {
            assert!(same(exit(vec![refused(reason), refused(Reason::Full)]), 1), "{reason}");
        }
        assert!(same(exit(vec![refused(Reason::NoMapper), refused(Reason::Unreachable)]), 69));
        assert!(same(exit(vec![refused(Reason::NoSuchService), refused(Reason::Full)]), 75));
        assert!(same(exit(vec![Record::not_sent("x".to_owned(), "too large".to_owned())]), 1));
    }

    #[test]
    fn what_was_accepted_is_counted_in_a_note() {
        let mut report = Report::default();
        assert_eq!(report.note(), None);
        (0..2).for_each(|_| report.add(Record::new(String::new(), Outcome::Accepted), false));
        let note = "2 jobs were accepted by workers that report no more";
        assert_eq!(report.note().as_deref(), Some(note));
        assert_eq!(report.exit(), ExitCode::SUCCESS);
    }

    #[test]
    fn json_keeps_the_order_and_any_bytes() {
        let mut report = Report::default();
        report.add(done(b"text"), true);
        report.add(done(b"\xff"), true);
        report.add(refused(Reason::Full), true);
        let value: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(value["outcomes"][0]["result"], "text");
        assert_eq!(value["outcomes"][1]["result_base64"], "/w==");
        assert_eq!(value["outcomes"][2]["reason"], "full");
        assert_eq!(value["totals"]["done"], 2);
        assert_eq!(report.len(), 3);
    }
}
