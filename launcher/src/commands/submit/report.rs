//! What became of each job, for people and as JSON, and the exit code that follows.

use std::process::ExitCode;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use svcmap_proto::names::Name;
use svcmap_worker::{Outcome, Reason};

use crate::errors::{Exit, Failure};

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

    /// What goes to stdout: the result as it is, or `LABEL: result` and the end of the line.
    pub fn line(&self, untouched: bool) -> Vec<u8> {
        let Ending::Outcome(Outcome::Done(reply)) = &self.ending else { return Vec::new() };
        if untouched {
            return reply.payload.clone();
        }
        let end = reply.payload.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
        let mut line = format!("{}: ", self.label).into_bytes();
        line.extend_from_slice(&reply.payload[..end]);
        line.push(b'\n');
        line
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

/// What to do about a refusal.
fn remedy(reason: Reason, service: &Name) -> String {
    match reason {
        Reason::Full | Reason::NoCredit => {
            format!("retry later, or start more: svcmap worker --service {service} …")
        }
        Reason::TooLarge => "send less, or raise --payload-max here and at the workers".to_owned(),
        Reason::Expired => "retry later, or give it more time: --deadline".to_owned(),
        Reason::NotJson => {
            format!("send one JSON value, or start: svcmap worker --service {service} …")
        }
        Reason::NoMapper => "svcmap mapper, or name the one that runs: --mapper".to_owned(),
        Reason::CannotStart => format!("look at the workers' logs: svcmap status {service}"),
        Reason::Draining
        | Reason::NotHere
        | Reason::NoSuchService
        | Reason::Cancelled
        | Reason::Unreachable => format!("svcmap status {service}"),
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

    /// 0 if all are done, 75 if all others were refused (69 if for want of any worker), else 1.
    pub fn exit(&self) -> ExitCode {
        if self.failed + self.unknown + self.not_sent > 0 {
            Exit::Failed.into()
        } else if self.refused == 0 {
            ExitCode::SUCCESS
        } else if self.found_nobody() {
            Exit::Unavailable.into()
        } else {
            Exit::Refused.into()
        }
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
        let reply = Reply { payload: payload.to_vec(), by };
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
        assert_eq!(done(b"abc  -\n").line(false), b"f.txt: abc  -\n");
        assert_eq!(done(b"").line(false), b"f.txt: \n");
        assert_eq!(done(b"abc\n\n").line(true), b"abc\n\n");
        assert_eq!(refused(Reason::Full).line(false), b"");
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
