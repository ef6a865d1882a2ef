//! What goes through the stdin and stdout of a program that stays: for each job a line of JSON, then
//! as many bytes as it says; and the same back.
//!
//! ```text
//! to the program    {"job":17,"attempt":1,"service":"shout","instance":"a","bytes":5,
//!                    "seconds_left":null,"metadata":{}}\n hello
//! from it, first    {"ready":true}\n
//! for each job      {"bytes":5}\n HELLO, or {"error":"no model","code":3}\n
//! before that       {"progress":"40 %"}\n as often as it likes
//! ```
//!
//! Keys that are not known here do not matter. An answer that has a `job` is held to it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use svcmap_proto::metadata::Metadata;

use crate::text::printable_line;

/// Longest line of a program, in bytes: an error text of which all is kept fits, however it is escaped.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// How much of a line that makes no sense is shown, in characters.
const SHOWN_CHARS: usize = 100;

/// How much of the bytes behind an error is kept, or little more: what a sender is told of it.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// The line before a job's payload.
#[derive(Debug, Serialize)]
pub struct Header<'a> {
    /// The job's number at its sender.
    pub job: u64,
    /// Which try of the job this is, from 1.
    pub attempt: u32,
    /// What is served.
    pub service: &'a str,
    /// By whom.
    pub instance: &'a str,
    /// How long the payload is that follows.
    pub bytes: usize,
    /// Time until it has to be over, if it has to be.
    pub seconds_left: Option<f64>,
    /// What the sender says of the job.
    #[serde(serialize_with = "as_object")]
    pub metadata: &'a Metadata,
}

impl Header<'_> {
    /// As a line.
    ///
    /// # Errors
    /// Never: all of it can be written as JSON.
    pub fn to_line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        Ok(line)
    }
}

/// Metadata as one JSON object.
pub fn as_object<S>(metadata: &Metadata, serializer: S) -> Result<S::Ok, S::Error>
where
    S: serde::Serializer,
{
    serializer.collect_map(metadata.iter())
}

/// Why a program is not understood. It is ended then, as nobody knows what comes next.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Most likely something prints to stdout.
    #[error("it wrote `{0}` to stdout where an answer was due; print to stderr instead")]
    NoAnswer(String),
    /// Before it was asked.
    #[error("its first line must be {{\"ready\":true}}, and it was `{0}`; print to stderr instead")]
    NotReady(String),
    /// A line without an end.
    #[error("it wrote {LINE_BYTES_MAX} bytes without a line end where an answer was due")]
    LineTooLong,
    /// The answer to another job.
    #[error("it answered job {answered} when it was asked job {asked}")]
    OutOfStep {
        /// What it was asked.
        asked: u64,
        /// What it answered.
        answered: u64,
    },
    /// Behind an answer, or before a job.
    #[error(
        "it wrote `{0}` to stdout and was not asked; an answer has exactly the bytes that it says"
    )]
    NotAsked(String),
    /// Its stdin or stdout, and went on: it can do no more jobs.
    #[error("it closed its {0}")]
    Closed(&'static str),
    /// It cannot know yet what it was asked.
    #[error("it answered before it had read all of the job")]
    TooEarly,
}

/// What a program made of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A result.
    Done(Vec<u8>),
    /// It failed, and how a shell would number that.
    Failed {
        /// In its words.
        error: String,
        /// If it says so.
        code: Option<i32>,
    },
    /// A result that is too large; none of it is kept.
    TooLarge,
}

/// A line of a program.
#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    ready: bool,
    job: Option<u64>,
    bytes: Option<u64>,
    error: Option<String>,
    code: Option<i32>,
    /// Text, or whatever else says it.
    progress: Option<Value>,
}

impl Line {
    fn is_answer(&self) -> bool {
        self.bytes.is_some() || self.error.is_some()
    }
}

/// A value as people read it.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// What a program wrote, as far as it was read.
#[derive(Debug)]
pub struct Incoming {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Default for Incoming {
    fn default() -> Self {
        Self { buffer: vec![0; LINE_BYTES_MAX].into(), start: 0, end: 0 }
    }
}

impl Incoming {
    /// Where more is to be read to; never empty after a line asked for more.
    pub fn room(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        &mut self.buffer[self.end..]
    }

    /// So much was read.
    pub fn add(&mut self, bytes: usize) {
        self.end = (self.end + bytes).min(self.buffer.len());
    }

    /// What was read and not taken.
    fn rest(&self) -> &[u8] {
        &self.buffer[self.start..self.end]
    }

    /// A whole line, without its end.
    fn line(&mut self) -> Result<Option<&[u8]>, FrameError> {
        let rest = self.start..self.end;
        match self.buffer[rest.clone()].iter().position(|byte| *byte == b'\n') {
            Some(length) => {
                self.start += length + 1;
                Ok(Some(&self.buffer[rest.start..rest.start + length]))
            }
            None if rest.len() == self.buffer.len() => Err(FrameError::LineTooLong),
            None => Ok(None),
        }
    }

    /// At most so many bytes.
    fn take(&mut self, bytes: usize) -> &[u8] {
        let start = self.start;
        self.start = self.end.min(start.saturating_add(bytes));
        &self.buffer[start..self.start]
    }

    /// Whether the program has said that it is ready, as the first it says.
    ///
    /// # Errors
    /// If it says something else.
    pub fn is_ready(&mut self) -> Result<bool, FrameError> {
        let Some(line) = self.line()? else { return Ok(false) };
        match serde_json::from_slice(line) {
            Ok(Line { ready: true, .. }) => Ok(true),
            _ => Err(FrameError::NotReady(shown(line))),
        }
    }

    /// That nothing is left over.
    ///
    /// # Errors
    /// If the program said more than it should.
    pub fn expect_nothing(&self) -> Result<(), FrameError> {
        let rest = self.rest();
        if rest.is_empty() { Ok(()) } else { Err(FrameError::NotAsked(shown(rest))) }
    }
}

/// The first line of what makes no sense, or the beginning of that.
fn shown(bytes: &[u8]) -> String {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let text = printable_line(&String::from_utf8_lossy(line));
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// An answer on its way.
#[derive(Debug)]
pub struct Answering {
    job: u64,
    result_bytes_max: usize,
    line: Option<Line>,
    /// How far the job is, the newest that was not taken.
    progress: Option<String>,
    /// How many of its bytes have not come yet.
    missing: u64,
    /// Those that have, as far as they are kept.
    body: Vec<u8>,
}

impl Answering {
    /// The answer to that job, whose result may have so many bytes.
    pub fn new(job: u64, result_bytes_max: usize) -> Self {
        let (line, progress) = (None, None);
        Self { job, result_bytes_max, line, progress, missing: 0, body: Vec::new() }
    }

    /// The newest that the program said of how far the job is, once.
    pub fn take_progress(&mut self) -> Option<String> {
        self.progress.take()
    }

    /// Takes what has come of it. The answer, once it is whole.
    ///
    /// # Errors
    /// If it is none.
    pub fn advance(&mut self, incoming: &mut Incoming) -> Result<Option<Answer>, FrameError> {
        while self.line.is_none() {
            let Some(line) = incoming.line()? else { return Ok(None) };
            let mut line = self.checked(line)?;
            if line.is_answer() {
                self.missing = line.bytes.unwrap_or(0);
                self.line = Some(line);
            } else {
                self.progress = line.progress.take().map(text);
            }
        }
        let is_kept = self.is_kept();
        let come = incoming.take(usize::try_from(self.missing).unwrap_or(usize::MAX));
        self.missing -= come.len() as u64;
        if is_kept {
            self.body.extend_from_slice(come);
        }
        if self.missing > 0 {
            return Ok(None);
        }
        Ok(self.line.take().map(|line| self.answer(line)))
    }

    /// A line on that job: an answer, or how far it is.
    fn checked(&self, text: &[u8]) -> Result<Line, FrameError> {
        match serde_json::from_slice(text) {
            Ok(Line { job: Some(answered), .. }) if answered != self.job => {
                Err(FrameError::OutOfStep { asked: self.job, answered })
            }
            Ok(line) if line.is_answer() || line.progress.is_some() => Ok(line),
            _ => Err(FrameError::NoAnswer(shown(text))),
        }
    }

    /// Whether its bytes are of use: the first of an error's, and all of a result unless it is too
    /// large.
    fn is_kept(&self) -> bool {
        match &self.line {
            Some(Line { error: Some(_), .. }) => self.body.len() < ERROR_BYTES_MAX,
            Some(Line { bytes: Some(bytes), .. }) => *bytes <= self.result_bytes_max as u64,
            _ => false,
        }
    }

    fn answer(&mut self, line: Line) -> Answer {
        let body = std::mem::take(&mut self.body);
        match line.error {
            Some(error) if body.is_empty() => Answer::Failed { error, code: line.code },
            Some(error) => {
                let error = format!("{error}\n{}", String::from_utf8_lossy(&body));
                Answer::Failed { error, code: line.code }
            }
            None if line.bytes.unwrap_or(0) > self.result_bytes_max as u64 => Answer::TooLarge,
            None => Answer::Done(body),
        }
    }
}

#[cfg(test)]
#[path = "frames_tests.rs"]
mod tests;
