//! Where outcomes go: files, the job log, stdout, stderr, the report. In the order of the jobs if that
//! is what is printed, else as they come.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use serde_json::value::to_raw_value;

use super::complaints::Complaints;
use super::joblog::Joblog;
use super::output::{Output, write_whole};
use super::record::{Ending, Form, Record, Trouble, Word};
use super::report::Report;
use crate::cli::{SubmitArgs, is_stdin};
use crate::errors::{self, Error, Failure, print_out_bytes};
use crate::io::{is_stdout_closed, stdout_columns};
use crate::progress::Progress;

/// Results that wait for those before them, in bytes.
pub const WAITING_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A job that has its outcome.
pub struct Ended {
    /// What became of it.
    pub record: Record,
    /// The file that its result goes to.
    pub output: Option<Output>,
}

/// What is printed as it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Printed {
    Results(Form),
    Json,
    Nothing,
}

/// See the module.
pub struct Sink<'a> {
    args: &'a SubmitArgs,
    joblog: Option<Joblog>,
    /// What has become of all.
    pub report: Report,
    /// What went wrong.
    pub complaints: Complaints,
    /// How far it is.
    pub progress: Progress,
    printed: Printed,
    /// What has its outcome, and not its turn.
    waiting: BTreeMap<u64, Ended>,
    waiting_bytes: usize,
    not_done: u64,
    /// Nobody reads stdout any more.
    is_muted: bool,
}

impl<'a> Sink<'a> {
    /// Nothing has its outcome yet.
    pub fn new(args: &'a SubmitArgs, joblog: Option<Joblog>, count: Option<usize>) -> Self {
        Self {
            args,
            joblog,
            report: Report::default(),
            complaints: Complaints::default(),
            progress: Progress::new(count, "jobs"),
            printed: printed(args),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            not_done: 0,
            is_muted: false,
        }
    }

    /// How much waits for its turn, in jobs and bytes.
    pub fn waiting(&self) -> (usize, usize) {
        (self.waiting.len(), self.waiting_bytes)
    }

    /// Jobs that are not done, for another reason than that all of them were to end.
    pub fn not_done(&self) -> u64 {
        self.not_done
    }

    /// Whether stdout is written to, and nobody reads it.
    pub fn is_closed(&self) -> bool {
        self.printed != Printed::Nothing && !self.is_muted && is_stdout_closed()
    }

    /// A job has its outcome.
    pub fn add(&mut self, ended: Ended) {
        self.waiting_bytes += ended.record.result().map_or(0, <[u8]>::len);
        let is_done = matches!(ended.record.word(), Word::Done | Word::Accepted);
        self.not_done += u64::from(!is_done && !ended.record.is_interrupted);
        self.waiting.insert(ended.record.number, ended);
    }

    /// Deals with what has its turn, when the oldest job without an outcome is that one.
    ///
    /// # Errors
    /// If something cannot be written that everything depends on. To be called again then.
    pub fn flush(&mut self, oldest: Option<u64>) -> Result<(), Error> {
        let is_ordered = matches!(self.printed, Printed::Results(_)) && !self.args.unordered;
        while let Some(first) = self.waiting.first_entry() {
            if is_ordered && oldest.is_some_and(|oldest| oldest < *first.key()) {
                break;
            }
            let ended = first.remove();
            self.waiting_bytes -= ended.record.result().map_or(0, <[u8]>::len);
            self.conclude(ended)?;
        }
        Ok(())
    }

    /// Its file first, then the log, then stdout: what the log says is done is there, and nothing is
    /// acknowledged that the log does not know.
    fn conclude(&mut self, ended: Ended) -> Result<(), Error> {
        let Ended { mut record, output } = ended;
        let mut failed = self.keep(&mut record, output.as_ref()).err();
        if let Some(joblog) = &mut self.joblog
            && let Err(failure) = joblog.add(&record)
        {
            // Half a line may be there: nothing may follow it.
            self.joblog = None;
            failed = Some(failure.into());
        }
        self.complain(&record);
        if let Err(error) = self.print(&record) {
            self.is_muted = true;
            failed = Some(error);
        }
        let json = self.args.json.then(|| to_raw_value(&record.fields(output.is_none())));
        self.report.add(&record, json.and_then(Result::ok));
        self.show_progress();
        failed.map_or(Ok(()), Err)
    }

    /// How many jobs have ended, be it that their results wait for their turn.
    pub fn show_progress(&self) {
        self.progress.show(self.report.len() + self.waiting.len());
    }

    /// Puts a result where it is kept. One for which there is no place is not kept.
    fn keep(&mut self, record: &mut Record, output: Option<&Output>) -> Result<(), Error> {
        let Some(result) = record.result() else { return Ok(()) };
        let Some(output) = output else {
            let closes = self.is_closed();
            self.is_muted |= closes;
            // Who has seen enough wants no more of them, and may want them later.
            if self.is_muted {
                record.ending = Ending::NotKept(Trouble::new("stdout is closed"));
                record.is_interrupted = true;
            }
            return if closes { Err(Error::OutputClosed) } else { Ok(()) };
        };
        let Err(error) = write_whole(output, result) else { return Ok(()) };
        let trouble = Trouble::with(&output.path, format!("its result cannot be written: {error}"));
        record.ending = Ending::NotKept(trouble.clone());
        self.not_done += 1;
        match error.kind() {
            // The next one would fare no better.
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem => {
                Err(Failure::failed(trouble).fix("make room").into())
            }
            _ => Ok(()),
        }
    }

    fn print(&self, record: &Record) -> Result<(), Error> {
        let line = match self.printed {
            _ if self.is_muted => return Ok(()),
            Printed::Nothing => return Ok(()),
            Printed::Results(form) => record.line(form),
            Printed::Json => {
                let line = serde_json::to_vec(&record.fields(self.args.output.is_none()));
                let mut line = line.map_err(Failure::failed)?;
                line.push(b'\n');
                Some(line)
            }
        };
        line.map_or(Ok(()), |line| self.progress.suspend(|| print_out_bytes(&line)))
    }

    /// Tells people what went wrong, if that is anything new.
    fn complain(&mut self, record: &Record) {
        if record.is_interrupted {
            return;
        }
        let failure = record.failure(&self.args.service, self.report.found_anybody());
        let complaint = failure.and_then(|failure| self.complaints.add(record.kind(), failure));
        if let Some(failure) = complaint.filter(|_| !self.args.is_json()) {
            self.progress.suspend(|| errors::print(&failure, false));
        }
    }
}

fn printed(args: &SubmitArgs) -> Printed {
    if args.json_lines {
        return Printed::Json;
    }
    if args.json || args.output.is_some() {
        return Printed::Nothing;
    }
    let is_stdin = matches!(args.files.as_slice(), [file] if is_stdin(file));
    Printed::Results(Form {
        with_label: args.files_from.is_some() || !(args.files.is_empty() || is_stdin),
        one_of_many: args.lines.is_some() || args.count.get() > 1,
        on_terminal: stdout_columns().is_some(),
    })
}
