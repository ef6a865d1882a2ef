//! `svcmap submit`: sends jobs and prints what came back, in the order in which they were given.

mod complaints;
mod input;
mod report;

use std::collections::VecDeque;
use std::process::ExitCode;
use std::time::Duration;

use slog::{Logger, warn};
use svcmap_proto::io::Clock;
use svcmap_proto::names::Endpoint;
use svcmap_proto::time::Timestamp;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::{Client, JobBuilder, Outcome, SubmitError, Ticket};

use super::status;
use crate::cli::SubmitArgs;
use crate::control::{ControlError, PATIENCE};
use crate::errors::{self, Error, Failure, print_out_bytes};
use crate::io::{raise_open_files_limit, stdout_columns};
use crate::progress::{self, Progress};
use complaints::Complaints;
use input::{Input, InputError, Source};
use report::{Form, Record, Report};

/// Jobs that are under way at once: more than most deployments have slots, and few enough that
/// results of the largest size fit into memory.
const UNDER_WAY_MAX: usize = 512;

/// How long a mapper may take to say who serves the service, before the log says that none does.
const MAPPER_LIMIT: Duration = Duration::from_secs(2);

/// Sends the jobs and prints their results.
///
/// # Errors
/// If nobody serves the service, or stdout cannot be written.
pub fn run(args: &SubmitArgs, log: &Logger) -> Result<ExitCode, Error> {
    let began_at = Clock.now();
    let mappers = args.mapper.endpoints()?;
    if args.files.iter().filter(|file| file.as_os_str() == "-").count() > 1 {
        let failure = Failure::usage("stdin, `-`, is named twice, and can be read once");
        return Err(failure.fix("--count sends the same several times").into());
    }
    expect_service(args, &mappers, log)?;
    raise_open_files_limit();
    let client = Client::builder()
        .mappers(mappers.iter().map(Endpoint::as_str))
        .outbox(OutboxConfig::default().with_payload_bytes_max(args.payload_max))
        .logger(log.clone())
        .start()
        .map_err(Failure::failed)?;
    let jobs = args.files.len().max(1).saturating_mul(args.count.get() as usize);
    let mut submission = Submission {
        args,
        client: &client,
        mappers: &mappers,
        under_way: VecDeque::new(),
        report: Report::default(),
        complaints: Complaints::default(),
        progress: Progress::new(jobs, "jobs"),
        on_terminal: stdout_columns().is_some(),
        began_at,
    };
    match submission.run() {
        // Whoever read the results has seen enough; what went wrong until now counts all the same.
        Err(Error::OutputClosed) => Ok(submission.exit_now()),
        result => result,
    }
}

/// Whether anybody serves it is worth a question of its own: the answer names what was meant. Who was
/// there until lately may come back, and so may a mapper: that is worth some patience, which the jobs
/// have.
fn expect_service(args: &SubmitArgs, mappers: &[Endpoint], log: &Logger) -> Result<(), Failure> {
    let limit = args.deadline.map_or(MAPPER_LIMIT, |deadline| deadline.min(MAPPER_LIMIT));
    let report = match status::find(mappers, &args.service, args.instance.as_ref(), limit) {
        Ok(report) => report,
        Err(error @ (ControlError::NoMapper { .. } | ControlError::NotAccepting { .. })) => {
            warn!(log, "{error}, so jobs wait: is one running?");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let has_told = report.mappers.iter().any(|mapper| mapper.is_complete() && !mapper.warming);
    let mut rows = report.instances.iter().filter(|row| row.service == args.service).peekable();
    if !has_told || (rows.peek().is_none() && report.known.contains(&args.service)) {
        Ok(())
    } else if rows.peek().is_none() {
        Err(status::unknown_service(&args.service, &report))
    } else if let Some(instance) = &args.instance
        && !rows.any(|row| row.instance == *instance)
    {
        let service = &args.service;
        let message = format!("`{service}` has no instance `{instance}`");
        Err(Failure::unavailable(message).fix(format!("svcmap status {service}")))
    } else {
        Ok(())
    }
}

/// A job under way, or one that never got so far.
enum Pending {
    Ticket(String, Ticket),
    Failure(String, String),
}

struct Submission<'a> {
    args: &'a SubmitArgs,
    client: &'a Client,
    mappers: &'a [Endpoint],
    under_way: VecDeque<Pending>,
    report: Report,
    complaints: Complaints,
    progress: Progress,
    on_terminal: bool,
    began_at: Timestamp,
}

impl Submission<'_> {
    fn run(&mut self) -> Result<ExitCode, Error> {
        for source in Source::all(self.args) {
            // Once for all its jobs: what stdin holds comes but once.
            let input = source.read(self.args.payload_max);
            for _ in 0..self.args.count.get() {
                self.submit(source.label(), &input)?;
            }
        }
        self.finish()
    }

    fn submit(&mut self, label: String, input: &Result<Input, InputError>) -> Result<(), Error> {
        let pending = match input {
            Ok(Input(payload)) => match self.job(payload.clone()).submit() {
                Ok(ticket) => Pending::Ticket(label, ticket),
                Err(error) => Pending::Failure(label, explain(&error)),
            },
            Err(error) => Pending::Failure(label, error.to_string()),
        };
        self.under_way.push_back(pending);
        let wait =
            if self.under_way.len() >= UNDER_WAY_MAX { Duration::MAX } else { Duration::ZERO };
        self.print_ready(wait)
    }

    fn job(&self, payload: Vec<u8>) -> JobBuilder<'_> {
        let args = self.args;
        let mut job = self.client.job(args.service.as_str(), payload);
        if let Some(hold) = args.hold {
            job = job.hold(hold);
        }
        if let Some(run_limit) = args.run_limit {
            job = job.run_limit(run_limit);
        }
        if let Some(deadline) = args.deadline {
            // For all of it: who has to wait for others to end has less left.
            job = job.deadline(deadline.saturating_sub(Clock.now().since(self.began_at)));
        }
        if args.idempotent {
            job = job.idempotent();
        }
        if let Some(instance) = &args.instance {
            job = job.instance(instance.as_str());
        }
        job
    }

    /// Prints the outcomes at the head of the line; for the first it waits so long.
    fn print_ready(&mut self, mut wait: Duration) -> Result<(), Error> {
        while let Some(pending) = self.under_way.pop_front() {
            let record = match pending {
                Pending::Failure(label, error) => Record::not_sent(label, error),
                Pending::Ticket(label, ticket) => match self.outcome(ticket, wait) {
                    Ok(outcome) => Record::new(label, outcome),
                    Err(ticket) => {
                        self.under_way.push_front(Pending::Ticket(label, ticket));
                        return Ok(());
                    }
                },
            };
            wait = Duration::ZERO;
            self.print(record)?;
        }
        Ok(())
    }

    /// Waits for an outcome, and meanwhile shows how far it is.
    fn outcome(&self, ticket: Ticket, wait: Duration) -> Result<Outcome, Ticket> {
        let mut ticket = ticket;
        let mut left = wait;
        loop {
            let step = left.min(progress::INTERVAL);
            ticket = match ticket.wait_timeout(step) {
                Ok(outcome) => return Ok(outcome),
                Err(ticket) => ticket,
            };
            self.progress.show(self.report.len());
            if left <= step {
                return Err(ticket);
            }
            left -= step;
        }
    }

    fn print(&mut self, record: Record) -> Result<(), Error> {
        self.complain(&record);
        let line = if self.args.json { None } else { record.line(self.form()) };
        self.report.add(record, self.args.json);
        if let Some(line) = line {
            self.progress.suspend(|| print_out_bytes(&line))?;
        }
        self.progress.show(self.report.len());
        Ok(())
    }

    /// Tells people what went wrong, if that is anything new.
    fn complain(&mut self, record: &Record) {
        if self.args.json {
            return;
        }
        let failure = record.failure(&self.args.service, self.report.found_anybody());
        let complaint = failure.and_then(|failure| self.complaints.add(record.kind(), failure));
        if let Some(failure) = complaint {
            self.progress.suspend(|| errors::print(&failure, false));
        }
    }

    fn form(&self) -> Form {
        Form {
            with_label: !(self.args.files.is_empty() || self.args.is_stdin()),
            one_of_many: self.args.count.get() > 1,
            on_terminal: self.on_terminal,
        }
    }

    /// The exit code by what is known now; no result is printed any more.
    fn exit_now(&mut self) -> ExitCode {
        for pending in std::mem::take(&mut self.under_way) {
            let record = match pending {
                Pending::Failure(label, error) => Record::not_sent(label, error),
                Pending::Ticket(label, ticket) => match ticket.wait_timeout(Duration::ZERO) {
                    Ok(outcome) => Record::new(label, outcome),
                    Err(_) => continue,
                },
            };
            self.complain(&record);
            self.report.add(record, false);
        }
        self.report.exit()
    }

    fn finish(&mut self) -> Result<ExitCode, Error> {
        while !self.under_way.is_empty() {
            self.print_ready(Duration::MAX)?;
        }
        self.progress.finish();
        self.complaints.repeated().for_each(|note| errors::print_note(&note));
        if self.args.json {
            print_out_bytes(self.report.to_json().as_bytes())?;
        } else if let Some(note) = self.report.note() {
            errors::print_note(&note);
        }
        if self.report.found_nobody() {
            // The mapper was too young to tell before; now it may know what was meant.
            let known = status::ask(self.mappers, Some(&self.args.service), PATIENCE);
            let known = known.map_err(Failure::from)?;
            let service = &self.args.service;
            if known.service(service).is_some_and(|row| row.instances > 0) {
                let message = format!("nobody served `{service}` until a moment ago");
                return Err(Failure::unavailable(message).fix("the same again").into());
            }
            return Err(status::unknown_service(service, &known).into());
        }
        Ok(self.report.exit())
    }
}

/// A job that was not taken, in words that say what to do.
fn explain(error: &SubmitError) -> String {
    match error {
        SubmitError::TooLarge { limit, .. } => {
            format!("{error}; nothing was sent ({limit} bytes: see --payload-max)")
        }
        error => error.to_string(),
    }
}
