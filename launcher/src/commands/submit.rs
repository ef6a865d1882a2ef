//! `svcmap submit`: sends jobs, and prints or keeps what came back.
//!
//! `reader` turns `input`s into jobs, `batch` sends them and awaits their outcomes, and `sink` puts each
//! `record` where it belongs: `output` files, the `joblog`, stdout, the `report`.

mod batch;
mod complaints;
mod follow;
mod input;
mod joblog;
mod output;
mod reader;
mod record;
mod report;
mod sink;
mod stop;

pub use output::Template;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use slog::Logger;
use svcmap_proto::io::Clock;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;
use svcmap_worker::Notice;
use svcmap_worker::config::OutboxConfig;

use super::status;
use crate::access::Access;
use crate::cli::SubmitArgs;
use crate::control::{self, PATIENCE, log_silence};
use crate::errors::{Error, Exit, Failure, print_note, print_out_bytes, signal_status};
use crate::fleet::command::Target;
use crate::fleet::io::client::with_what_is_kept;
use crate::io::{on_stop_signals, raise_open_files_limit};
use batch::Batch;
use input::Inputs;
use joblog::{Again, Joblog, Past};
use output::Outputs;
use reader::Reader;
use sink::Sink;
use stop::Why;

/// How long a mapper may take to say who serves the service, before jobs are sent all the same.
const MAPPER_LIMIT: Duration = Duration::from_secs(2);

/// How long all may take to end after a second signal.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Errors that a summary tells, the commonest first.
const KINDS_SHOWN: usize = 3;

/// Sends the jobs and prints their results.
///
/// # Errors
/// If nobody serves the service, or something cannot be read or written that all depends on.
pub fn run(args: &SubmitArgs, log: &Logger) -> Result<ExitCode, Error> {
    let began_at = Clock.now();
    let access = args.mapper.access()?;
    check(args)?;
    let inputs = Inputs::open(args)?;
    let (joblog, past) = open_joblog(args)?;
    raise_open_files_limit();
    let client = access
        .client()
        .notify({
            let (access, log) = (access.clone(), log.clone());
            move |notice| {
                if let Notice::NoMapper(silence) = notice {
                    log_silence(access.clone(), silence, log.clone());
                }
            }
        })
        .outbox(OutboxConfig::default().with_payload_bytes_max(args.payload_max))
        .logger(log.clone())
        .start()
        .map_err(Failure::failed)?;
    client.follow(args.service.as_str()).map_err(Failure::failed)?;
    expect_service(args, &access, began_at)?;
    let signals = signals()?;
    let count = inputs.known_count().map(|count| count.saturating_mul(args.count.get() as usize));
    let sink = Sink::new(args, joblog, count);
    let outputs =
        args.output.clone().map(|template| Outputs::new(template, args.overwrite, past.began_at()));
    let (count, payload_bytes_max) = (args.count.get(), args.payload_max);
    let reader = Reader { inputs, count, payload_bytes_max, past, outputs };
    let inputs = reader.start().map_err(Failure::failed)?;
    let mut batch = Batch::new(args, client, inputs, signals, sink, began_at);
    batch.run();
    finish(args, batch, &access, began_at)
}

/// What clap cannot say.
fn check(args: &SubmitArgs) -> Result<(), Failure> {
    if args.reads_stdin_twice() {
        return Err(Failure::usage("stdin, `-`, is named twice, and can be read once")
            .fix("--count sends the same several times"));
    }
    let names_files = !args.files.is_empty() || args.files_from.is_some();
    if let Some(template) = &args.output
        && !names_files
        && !template.is_for_all()
    {
        return Err(Failure::usage("--output: of jobs that are no files only {number} is known")
            .fix("--output 'out/{number}'"));
    }
    let has_many = args.files.len() > 1 || args.count.get() > 1;
    if let Some(template) = &args.output
        && !template.has_fields()
        && (has_many || args.lines.is_some() || args.files_from.is_some())
    {
        return Err(Failure::usage("--output: all results would go to the same file")
            .fix("tell them apart: --output 'out/{name}', or {path}, {stem}, {number}"));
    }
    Ok(())
}

fn open_joblog(args: &SubmitArgs) -> Result<(Option<Joblog>, Past), Failure> {
    let again = match (args.resume, args.resume_failed) {
        (true, _) => Again::Interrupted { idempotent: args.idempotent },
        (_, true) => Again::Undone,
        _ => Again::Never,
    };
    match &args.joblog {
        Some(path) => {
            let (joblog, past) = Joblog::open(path, &args.service, again)?;
            Ok((Some(joblog), past))
        }
        None => Ok((None, Past::none())),
    }
}

fn signals() -> Result<Receiver<i32>, Failure> {
    let (tell, signals) = unbounded();
    let told = on_stop_signals(LAST_WORDS, move |signal| {
        // Nobody listens at the very end.
        let _ = tell.send(signal);
    });
    told.map_err(Failure::failed)?;
    Ok(signals)
}

/// Whether anybody serves it is worth a question of its own: the answer names what was meant. Who was
/// there until lately may come back, and so may a mapper: that is worth some patience, if the jobs have
/// it.
fn expect_service(args: &SubmitArgs, access: &Access, began_at: Timestamp) -> Result<(), Failure> {
    // What would be left of a short deadline is of no use to a job.
    let short = args.deadline.filter(|deadline| *deadline <= 2 * MAPPER_LIMIT);
    let limit = short.unwrap_or(MAPPER_LIMIT);
    let report = match status::find(access, &args.service, args.instance.as_ref(), limit) {
        Ok(report) => report,
        Err(error) if error.may_pass() => {
            let waited = Clock.now().since(began_at);
            let is_over = |limit: Option<Duration>| limit.is_some_and(|limit| limit <= waited);
            let has_time = !is_over(args.hold) && !is_over(args.deadline);
            return if has_time { Ok(()) } else { Err(error.into()) };
        }
        Err(error) => return Err(error.into()),
    };
    let has_told = report.mappers.iter().any(|mapper| mapper.is_complete() && !mapper.warming);
    let is_served = report.instances.iter().any(|row| row.service == args.service);
    if !has_told || (!is_served && report.known.contains(&args.service)) {
        return Ok(());
    }
    let of = target(args);
    status::expect(&of, &report).map_err(|failure| with_what_is_kept(failure, &of, access))
}

/// Who is to do the jobs.
fn target(args: &SubmitArgs) -> Target {
    let service = args.service.clone();
    match args.instance.clone() {
        Some(instance) => Target::One(InstanceKey { service, instance }),
        None => Target::All(service),
    }
}

/// What is said at the end, and the exit code.
fn finish(
    args: &SubmitArgs,
    batch: Batch<'_>,
    access: &Access,
    began_at: Timestamp,
) -> Result<ExitCode, Error> {
    let Batch { mut sink, stop, .. } = batch;
    sink.progress.finish();
    let took = Clock.now().since(began_at);
    let printed = match args.json {
        true => print_out_bytes(sink.report.take_json().as_bytes()),
        false => Ok(()),
    };
    let why = stop.map(|stop| stop.why);
    if !args.is_json() {
        say_what_became(args, &sink, why.as_ref(), took);
    }
    let exit = match why {
        Some(Why::Signal(signal)) => Ok(ExitCode::from(signal_status(signal) as u8)),
        Some(Why::Failure(failure)) => Err(failure.into()),
        Some(Why::Enough) => Ok(Exit::Failed.into()),
        Some(Why::OutputClosed) => Ok(sink.report.exit()),
        None if sink.report.found_nobody() => Err(nobody(args, &sink, access, took).into()),
        None => Ok(sink.report.exit()),
    };
    match printed {
        // Whoever would read the results has seen enough; what went wrong counts all the same.
        Ok(()) | Err(Error::OutputClosed) => exit,
        Err(error) => Err(error),
    }
}

/// What people want to know of many jobs at their end, and of those that did not go well.
fn say_what_became(args: &SubmitArgs, sink: &Sink<'_>, why: Option<&Why>, took: Duration) {
    let report = &sink.report;
    report.note(args.detach).iter().for_each(|note| print_note(note));
    // Who closes stdout has seen enough.
    let is_wrong = match why {
        None | Some(Why::OutputClosed) => !report.is_content(),
        Some(Why::Signal(_) | Why::Enough | Why::Failure(_)) => true,
    };
    let is_watched = why.is_none() && std::io::stderr().is_terminal();
    if report.len() > 1 && (is_wrong || is_watched) {
        let commonest = sink.complaints.commonest(KINDS_SHOWN);
        print_note(&report.summary(took, &commonest, sink.complaints.hidden()));
    }
    if is_wrong && args.joblog.is_some() && matches!(why, Some(Why::Signal(_) | Why::Enough)) {
        print_note(match report.has_unknown() && !args.idempotent {
            true => {
                "to go on: the same with --resume; what may have run (unknown) only with --resume-failed"
            }
            false => "to go on: the same with --resume",
        });
    }
}

/// Why no job met anybody.
fn nobody(args: &SubmitArgs, sink: &Sink<'_>, access: &Access, took: Duration) -> Failure {
    if sink.report.found_no_mapper() {
        return control::no_mapper(svcmap_proto::io::look_up_all(&access.mappers), took).into();
    }
    // The mapper was too young to tell before; now it may know what was meant.
    let known = match status::ask(access, Some(&args.service), PATIENCE) {
        Ok(known) => known,
        Err(error) => return error.into(),
    };
    let service = &args.service;
    if known.service(service).is_some_and(|row| row.instances > 0) {
        let message = format!("nobody served `{service}` until a moment ago");
        return Failure::unavailable(message).fix("the same again");
    }
    with_what_is_kept(status::unknown_service(service, &known), &target(args), access)
}
