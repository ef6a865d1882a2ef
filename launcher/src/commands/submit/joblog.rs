//! The job log: one JSON line for each outcome, behind a line that says whose they are. What it says
//! is done is done: its result was written to its file before, or is printed right after.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{FlockOperation, fcntl_lock};
use rustix::process::{Flock, FlockType, fcntl_getlk};
use serde::{Deserialize, Serialize};
use svcmap_proto::io::Clock;
use svcmap_proto::names;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::input::Name;
use super::output::hash;
use super::record::{Record, Word};
use crate::errors::Failure;
use crate::text::printable_path;

/// The form of the lines, in the first of them.
const VERSION: u32 = 1;

/// How the first line begins.
const HEADER_START: &str = "{\"svcmap\":";

/// What a job log that is there already is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Again {
    /// Nothing: there may be none.
    Never,
    /// Its jobs are run again that did not run, or were interrupted.
    Interrupted {
        /// Jobs may run twice, so those that may have run are as well.
        idempotent: bool,
    },
    /// Its jobs are run again that are not done.
    Undone,
}

impl Again {
    /// Whether a job that ended so is run again.
    fn wants(self, word: Word, is_interrupted: bool) -> bool {
        match word {
            Word::Done | Word::Accepted => false,
            Word::Refused | Word::NotSent | Word::NotKept => true,
            _ if self == Again::Undone => true,
            Word::Failed => is_interrupted,
            Word::Unknown => self == Again::Interrupted { idempotent: true },
        }
    }
}

/// What became of jobs before, by their numbers.
#[derive(Debug)]
pub struct Past {
    again: Again,
    began_at: Option<SystemTime>,
    jobs: HashMap<u64, Ended>,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    word: Word,
    is_interrupted: bool,
    /// Its input, of which no more has to be known.
    hash: u64,
}

/// What is to be done with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Run it.
    Run,
    /// It has ended so.
    Ended(Word),
    /// The job of that number was another one.
    Another,
}

impl Past {
    /// Nothing was before.
    pub fn none() -> Self {
        Self { again: Again::Never, began_at: None, jobs: HashMap::new() }
    }

    /// When the batch began that is gone on with.
    pub fn began_at(&self) -> Option<SystemTime> {
        self.began_at
    }

    /// What is to be done with that job.
    pub fn verdict(&self, number: u64, name: &Name) -> Verdict {
        match self.jobs.get(&number) {
            None => Verdict::Run,
            Some(ended) if ended.hash != hash(name.bytes()) => Verdict::Another,
            Some(ended) if self.again.wants(ended.word, ended.is_interrupted) => Verdict::Run,
            Some(ended) => Verdict::Ended(ended.word),
        }
    }
}

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    svcmap: String,
    joblog: u32,
    service: String,
    when: String,
}

/// What is read of the others.
#[derive(Debug, Deserialize)]
struct Line {
    number: u64,
    input: Option<String>,
    input_base64: Option<String>,
    outcome: Word,
    #[serde(default)]
    interrupted: bool,
}

impl Line {
    /// The number of a job, and how it ended; `None` if that is no record.
    fn ended(self) -> Option<(u64, Ended)> {
        let input = match (self.input, self.input_base64) {
            (Some(text), None) => text.into_bytes(),
            (None, Some(base64)) => STANDARD.decode(base64).ok()?,
            _ => return None,
        };
        let (word, is_interrupted) = (self.outcome, self.interrupted);
        Some((self.number, Ended { word, is_interrupted, hash: hash(&input[..]) }))
    }
}

/// An open job log, which no other process writes.
#[derive(Debug)]
pub struct Joblog {
    file: File,
    shown: String,
}

impl Joblog {
    /// Opens a job log, and reads what it holds. What was not written to its end is cut off.
    ///
    /// # Errors
    /// If another process writes it, if it is no job log of that service, or if there is something
    /// in it and nobody wants it.
    pub fn open(path: &Path, service: &names::Name, again: Again) -> Result<(Self, Past), Failure> {
        let shown = printable_path(path);
        let unusable = |error: std::io::Error| Failure::usage(format!("joblog {shown}: {error}"));
        let file = OpenOptions::new().read(true).append(true).create(true).open(path);
        let file = file.map_err(unusable)?;
        if !file.metadata().map_err(unusable)?.is_file() {
            return Err(Failure::usage(format!(
                "joblog {shown}: it is no file that can be read again"
            )));
        }
        lock(&file, &shown)?;
        let mut log = Self { file, shown: shown.clone() };
        let (past, mut length) = log.read(service, again)?;
        if again == Again::Never && !past.jobs.is_empty() {
            let message = format!("{shown} holds what became of jobs before");
            return Err(Failure::usage(message)
                .fix("go on with --resume or --resume-failed, or begin another --joblog"));
        }
        if again == Again::Never {
            // There is no more than the first line.
            length = 0;
        }
        if log.file.metadata().map_err(unusable)?.len() > length {
            log.file.set_len(length).map_err(unusable)?;
        }
        if length == 0 {
            log.append(&Header {
                svcmap: env!("CARGO_PKG_VERSION").to_owned(),
                joblog: VERSION,
                service: service.to_string(),
                when: now(),
            })?;
        }
        Ok((log, past))
    }

    /// What it holds, and how long its whole lines are.
    fn read(&self, service: &names::Name, again: Again) -> Result<(Past, u64), Failure> {
        let mut reader = BufReader::new(&self.file);
        let mut past = Past { again, ..Past::none() };
        let (mut length, mut line) = (0, Vec::new());
        for number in 1_u64.. {
            line.clear();
            let read = reader.read_until(b'\n', &mut line);
            read.map_err(|error| Failure::usage(format!("joblog {}: {error}", self.shown)))?;
            if line.last() != Some(&b'\n') {
                // What a crash left of the first line; anything else is somebody's file.
                if number == 1 && !is_start_of_header(&line) {
                    return Err(self.is_none());
                }
                break;
            }
            length += line.len() as u64;
            if number == 1 {
                past.began_at = Some(self.check(&line, service)?);
                continue;
            }
            let known: Option<Line> = serde_json::from_slice(&line).ok();
            let ended = known.and_then(Line::ended);
            let Some((job, ended)) = ended else {
                return Err(Failure::usage(format!(
                    "line {number} of {} is no record of a job",
                    self.shown
                ))
                .fix("remove that line: its job is then run again"));
            };
            past.jobs.insert(job, ended);
        }
        Ok((past, length))
    }

    /// Whether it is one, of this service. Returns when it was begun.
    fn check(&self, line: &[u8], service: &names::Name) -> Result<SystemTime, Failure> {
        let shown = &self.shown;
        let header: Header = serde_json::from_slice(line).map_err(|_| self.is_none())?;
        if header.joblog != VERSION {
            let message = format!("{shown} was written by svcmap {}", header.svcmap);
            return Err(Failure::usage(message).fix("go on with that, or begin another --joblog"));
        }
        if header.service != service.as_str() {
            let message = format!("{shown} is of jobs for `{}`, not `{service}`", header.service);
            return Err(Failure::usage(message).fix("name the service or the joblog that is meant"));
        }
        let began_at = OffsetDateTime::parse(&header.when, &Rfc3339);
        began_at.map(SystemTime::from).map_err(|_| self.is_none())
    }

    fn is_none(&self) -> Failure {
        Failure::usage(format!("{} is there already, and no job log", self.shown))
            .fix("name another --joblog")
    }

    /// Adds what became of a job.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn add(&mut self, record: &Record) -> Result<(), Failure> {
        let mut fields = record.fields(false);
        fields.when = Some(now());
        self.append(&fields)
    }

    /// One write for each line: of a process that is killed there is the whole line or nothing.
    fn append(&mut self, line: &impl Serialize) -> Result<(), Failure> {
        let line = serde_json::to_vec(line).map_err(std::io::Error::from);
        let written = line.and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        written.map_err(|error| {
            Failure::failed(format!("joblog {} cannot be written: {error}", self.shown))
                .fix("make room, then go on with --resume")
        })
    }
}

/// Whether a line is how the first line of a job log begins, as far as it goes.
fn is_start_of_header(line: &[u8]) -> bool {
    let length = line.len().min(HEADER_START.len());
    line[..length] == HEADER_START.as_bytes()[..length]
}

/// Keeps others from writing to it, until this process ends.
fn lock(file: &File, shown: &str) -> Result<(), Failure> {
    let Err(error) = fcntl_lock(file, FlockOperation::NonBlockingLockExclusive) else {
        return Ok(());
    };
    let holder = fcntl_getlk(file, &Flock::from(FlockType::WriteLock)).ok().flatten();
    let holder = holder.and_then(|lock| lock.pid).map(|pid| pid.as_raw_pid().to_string());
    Err(match (error, holder) {
        (rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS, holder) => {
            let who = holder.map_or("another process".to_owned(), |pid| format!("process {pid}"));
            Failure::usage(format!("joblog {shown} is in use by {who}"))
                .fix("wait for its end, or name another --joblog")
        }
        (error, _) => Failure::usage(format!("joblog {shown} cannot be locked: {error}")),
    })
}

/// The time of day, as RFC 3339 has it.
fn now() -> String {
    let now = OffsetDateTime::from_unix_timestamp_nanos(i128::from(Clock.unix_us()) * 1000);
    now.ok().and_then(|now| now.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
#[path = "joblog_tests.rs"]
mod tests;
