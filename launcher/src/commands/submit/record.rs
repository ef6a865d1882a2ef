//! One job and what became of it: as a line, as a complaint, as JSON.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use svcmap_proto::names;
use svcmap_worker::{Outcome, Reason};

use super::input::Name;
use crate::errors::{Exit, Failure};
use crate::exec::last_words;
use crate::text::{printable_bytes, printable_path};

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// As `NAME: result`, one line for each; else untouched.
    pub with_label: bool,
    /// Several results follow each other: each ends its line.
    pub one_of_many: bool,
    /// A terminal gets no commands, and each result ends its line.
    pub on_terminal: bool,
}

/// One job and what became of it.
#[derive(Debug)]
pub struct Record {
    /// The number of the job, from 1.
    pub number: u64,
    /// What its input is called.
    pub name: Name,
    /// How it ended.
    pub ending: Ending,
    /// It ended so because all of them were to end.
    pub is_interrupted: bool,
    /// How often it was sent to a worker before it was tried again as it had failed.
    pub attempts_before: u32,
}

/// How a job ended.
#[derive(Debug)]
pub enum Ending {
    /// As its worker or svcmap says.
    Outcome(Outcome),
    /// It was not sent.
    NotSent(Trouble),
    /// It is done, and its result is lost.
    NotKept(Trouble),
}

/// What went wrong here, and with which file, if that is not the input itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// What it has in common with that of other jobs.
    pub what: String,
    /// The file.
    pub file: Option<PathBuf>,
}

impl Trouble {
    /// Something about no other file.
    pub fn new(what: impl ToString) -> Self {
        Self { what: what.to_string(), file: None }
    }

    /// Something about that file.
    pub fn with(file: &Path, what: impl ToString) -> Self {
        Self { what: what.to_string(), file: Some(file.to_owned()) }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}: ", printable_path(file))?;
        }
        f.write_str(&self.what)
    }
}

/// The word for how a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Word {
    /// Its result is where it belongs.
    #[serde(rename = "done")]
    Done,
    /// Its handler failed.
    #[serde(rename = "failed")]
    Failed,
    /// No handler began it.
    #[serde(rename = "refused")]
    Refused,
    /// It may have run.
    #[serde(rename = "unknown")]
    Unknown,
    /// A worker took it that reports no more.
    #[serde(rename = "accepted")]
    Accepted,
    /// It did not leave this process.
    #[serde(rename = "not sent")]
    NotSent,
    /// It is done, but its result is lost.
    #[serde(rename = "not kept")]
    NotKept,
}

/// A record in JSON; what is not known is left out.
#[derive(Debug, Default, Serialize)]
pub struct Fields {
    number: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    input: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Word>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waited_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ran_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exit_status: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interrupted: Option<bool>,
    /// When it ended, in the joblog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
}

/// Bytes as text if they are some, else in Base64.
pub fn text_or_base64(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(STANDARD.encode(bytes))),
    }
}

impl Record {
    /// The word for how it ended.
    pub fn word(&self) -> Word {
        match &self.ending {
            Ending::NotSent(_) => Word::NotSent,
            Ending::NotKept(_) => Word::NotKept,
            Ending::Outcome(Outcome::Done(_)) => Word::Done,
            Ending::Outcome(Outcome::Failed(_)) => Word::Failed,
            Ending::Outcome(Outcome::Refused(_)) => Word::Refused,
            Ending::Outcome(Outcome::Unknown(_)) => Word::Unknown,
            Ending::Outcome(Outcome::Accepted) => Word::Accepted,
        }
    }

    /// Its result, if there is one.
    pub fn result(&self) -> Option<&[u8]> {
        match &self.ending {
            Ending::Outcome(Outcome::Done(reply)) => Some(reply),
            _ => None,
        }
    }

    /// What goes to stdout, if there is a result.
    pub fn line(&self, form: Form) -> Option<Vec<u8>> {
        let result = self.result()?;
        let mut line = Vec::with_capacity(result.len() + 1);
        if form.with_label {
            let end = result.iter().rposition(|byte| *byte != b'\n').map_or(0, |last| last + 1);
            line.extend_from_slice(self.name.bytes());
            line.extend_from_slice(b": ");
            line.extend_from_slice(&result[..end]);
        } else {
            line.extend_from_slice(result);
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

    /// What it has in common with others that ended like it: the reason, without what was measured
    /// and where, and without its own name.
    pub fn kind(&self) -> String {
        match &self.ending {
            Ending::NotSent(trouble) => format!("not sent: {}", trouble.what),
            Ending::NotKept(trouble) => format!("not kept: {}", trouble.what),
            Ending::Outcome(Outcome::Failed(failure)) => {
                format!("failed: {}", self.without_name(failure))
            }
            Ending::Outcome(Outcome::Refused(refusal)) => format!("refused: {}", refusal.reason),
            Ending::Outcome(outcome) => outcome.to_string(),
        }
    }

    /// Programs like to tell what they failed with. Their status is not meant, which may look like it.
    fn without_name(&self, failure: &svcmap_worker::Failure) -> String {
        let error = failure.error.as_str();
        let words = words(failure).unwrap_or(error);
        match (&self.name, std::str::from_utf8(self.name.bytes())) {
            (Name::File(_) | Name::Line(_), Ok(name)) => {
                let (status, words) = error.split_at(error.len() - words.len());
                format!("{status}{}", without_word(words, name))
            }
            _ => error.to_owned(),
        }
    }

    /// What goes to stderr, if it is no result. `after_others`: of other jobs, one found a worker.
    pub fn failure(&self, service: &names::Name, after_others: bool) -> Option<Failure> {
        let label = self.name.label(self.number);
        let failed = |what: &dyn std::fmt::Display| Failure::failed(format!("{label}: {what}"));
        match &self.ending {
            Ending::NotSent(trouble) | Ending::NotKept(trouble) => Some(failed(trouble)),
            Ending::Outcome(Outcome::Done(_) | Outcome::Accepted) => None,
            Ending::Outcome(outcome @ Outcome::Refused(refusal)) => {
                // Said once for all of them, with the names that were meant.
                let is_said = is_nobody(refusal.reason) && !after_others;
                (!is_said).then(|| failed(outcome).fix(remedy(refusal.reason, service)))
            }
            Ending::Outcome(outcome @ Outcome::Unknown(_)) => Some(failed(outcome).fix(
                "it may have run: see to that before you send it again, or let svcmap do so if it \
                 does no harm: --idempotent",
            )),
            Ending::Outcome(outcome) => Some(failed(outcome)),
        }
    }

    /// With its result if that is wanted.
    pub fn fields(&self, with_result: bool) -> Fields {
        let (input, input_base64) = text_or_base64(self.name.bytes());
        let interrupted = self.is_interrupted.then_some(true);
        let (number, outcome) = (self.number, Some(self.word()));
        let fields =
            Fields { number, input, input_base64, outcome, interrupted, ..Fields::default() };
        let Ending::Outcome(outcome) = &self.ending else {
            let (Ending::NotSent(trouble) | Ending::NotKept(trouble)) = &self.ending else {
                return fields;
            };
            return Fields { message: Some(trouble.to_string()), ..fields };
        };
        let attempts = |attempts: u32| Some(self.attempts_before + attempts);
        let seconds = |time: Duration| Some(time.as_secs_f64());
        match outcome {
            Outcome::Done(reply) => {
                let result = with_result.then(|| text_or_base64(reply));
                let (result, result_base64) = result.unwrap_or_default();
                Fields {
                    result,
                    result_base64,
                    by: Some(reply.by.to_string()),
                    attempts: attempts(reply.attempts),
                    waited_s: seconds(reply.waited),
                    ran_s: seconds(reply.ran),
                    ..fields
                }
            }
            Outcome::Failed(failure) => Fields {
                message: Some(failure.error.clone()),
                by: Some(failure.by.to_string()),
                attempts: attempts(failure.attempts),
                waited_s: seconds(failure.waited),
                ran_s: seconds(failure.ran),
                exit_status: failure.code,
                stderr: words(failure).map(str::to_owned),
                ..fields
            },
            Outcome::Refused(refusal) => Fields {
                reason: Some(refusal.reason.to_string()),
                attempts: attempts(refusal.attempts),
                waited_s: seconds(refusal.waited),
                ..fields
            },
            Outcome::Unknown(cause) => Fields { reason: Some(cause.to_string()), ..fields },
            Outcome::Accepted => fields,
        }
    }

    /// How long it ran, if its worker said so.
    pub fn ran(&self) -> Option<Duration> {
        let ran = match &self.ending {
            Ending::Outcome(Outcome::Done(reply)) => reply.ran,
            Ending::Outcome(Outcome::Failed(failure)) => failure.ran,
            _ => return None,
        };
        Some(ran).filter(|ran| !ran.is_zero())
    }
}

/// What a program said last, if the job failed as one ended.
fn words(failure: &svcmap_worker::Failure) -> Option<&str> {
    last_words(&failure.error, failure.code?)
}

/// A text with … in place of that word, where it is not part of another.
fn without_word(text: &str, word: &str) -> String {
    let is_part = |neighbour: Option<char>| neighbour.is_some_and(char::is_alphanumeric);
    let (mut left, mut after, mut shown) = (text, None, String::new());
    while let Some(place) = left.find(word).filter(|_| !word.is_empty()) {
        let (before, rest) = (&left[..place], &left[place + word.len()..]);
        let is_within =
            is_part(before.chars().next_back().or(after)) || is_part(rest.chars().next());
        shown.push_str(before);
        shown.push_str(if is_within { word } else { "…" });
        (left, after) = (rest, word.chars().next_back());
    }
    shown + left
}

/// Whether a job met no worker, nor a mapper that knows one.
pub fn is_nobody(reason: Reason) -> bool {
    matches!(reason, Reason::NoSuchService | Reason::NoMapper)
}

/// What a refusal means for the exit code.
pub fn exit_of(reason: Reason) -> Exit {
    match reason {
        Reason::NoSuchService | Reason::NoMapper | Reason::Unreachable => Exit::Unavailable,
        reason if reason.may_pass() => Exit::Refused,
        _ => Exit::Failed,
    }
}

/// What to do about a refusal.
fn remedy(reason: Reason, service: &names::Name) -> String {
    match reason {
        Reason::Full | Reason::NoCredit | Reason::Draining => {
            format!("retry later, or start more: svcmap worker --service {service} …")
        }
        Reason::TooLarge => "send less, or raise --payload-max here and at the workers".to_owned(),
        Reason::Expired => "retry later, or give it more time: --deadline".to_owned(),
        Reason::NotJson => {
            "its workers read JSON: one value for each job, and text in quotes, as --data '\"text\"'"
                .to_owned()
        }
        Reason::NoMapper => "svcmap mapper, or name the one that runs: --mapper".to_owned(),
        Reason::CannotStart => format!("svcmap status {service} shows why"),
        Reason::NotAllowed => {
            "svcmap key list has what this deployment file may; an operator adds another".to_owned()
        }
        Reason::TooManyServices => "wait for the outcomes of others first".to_owned(),
        Reason::NotHere | Reason::NoSuchService | Reason::Cancelled | Reason::Unreachable => {
            format!("svcmap status {service}")
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
