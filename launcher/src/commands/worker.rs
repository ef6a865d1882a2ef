//! `svcmap worker`: one instance of a service, whose handler is a program or built in.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slog::{Logger, error, info, warn};
use svcmap_proto::io::Clock;
use svcmap_proto::names::{Endpoint, InstanceKey};
use svcmap_worker::config::IntakeConfig;
use svcmap_worker::{HandlerError, Job, Notice, StartError, Worker, WorkerBuilder};

use super::soak;
use crate::cli::{Builtin, WorkerArgs};
use crate::errors::{Error, Failure, print_first_line};
use crate::exec::{ExecError, Program, Runner};
use crate::io::{LOOK_INTERVAL, StopSignals, end_with_parent, pause_until, raise_open_files_limit};
use crate::parse;
use crate::processes::io::collect_orphans;

/// Serves until a signal ends it, or another process takes its name.
///
/// # Errors
/// If the settings make no sense, or it cannot listen.
pub fn run(args: &WorkerArgs, log: &Logger) -> Result<ExitCode, Error> {
    if let Some(parent) = args.supervised.supervised {
        end_with_parent(parent).map_err(Failure::failed)?;
    }
    let mut signals = StopSignals::catch().map_err(Failure::failed)?;
    collect_orphans().map_err(Failure::failed)?;
    let runner = runner(args, raise_open_files_limit())?.map(Arc::new);
    let replaced = Arc::new(AtomicBool::new(false));
    let builder = builder(args)?.logger(log.clone()).notify({
        // It goes with the worker's thread, however that ends: nothing is served then.
        let (replaced, stop) = (Arc::clone(&replaced), WhenDropped(signals.stopper()));
        move |notice| {
            if matches!(notice, Notice::Replaced(_)) {
                replaced.store(true, Ordering::Relaxed);
                stop.call();
            }
        }
    });
    let worker = start(args, builder, runner.clone())?;
    let key = worker.key().clone();
    info!(log, "worker started"; "instance" => %key, "endpoint" => %worker.endpoint());
    print_first_line(serving_line(&key, worker.endpoint()));
    let grace_ms = args.grace.as_millis();
    match signals.wait() {
        Some(signal) => info!(log, "worker drains"; "signal" => signal, "grace_ms" => grace_ms),
        None if replaced.load(Ordering::Relaxed) => {
            info!(log, "worker drains: its name is taken"; "grace_ms" => grace_ms);
        }
        None => error!(log, "the worker's thread has ended: see above"),
    }
    let report = worker.drain(args.grace).map_err(Failure::failed)?;
    // What still runs was cancelled: programs have a little time for that.
    runner.iter().for_each(|runner| runner.finish());
    info!(log, "worker drained"; "finished" => report.finished,
        "handed_back" => report.handed_back, "abandoned" => report.abandoned,
        "dropped" => report.dropped);
    if replaced.load(Ordering::Relaxed) {
        return Err(Failure::usage(format!("another process took the name {key}"))
            .fix("give each instance a name of its own: --instance NAME")
            .into());
    }
    if report.abandoned > 0 {
        warn!(log, "jobs were still running at the end of the grace"; "jobs" => report.abandoned);
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something when it is dropped, if not before.
struct WhenDropped<F: Fn()>(F);

impl<F: Fn()> WhenDropped<F> {
    fn call(&self) {
        (self.0)();
    }
}

impl<F: Fn()> Drop for WhenDropped<F> {
    fn drop(&mut self) {
        self.call();
    }
}

/// What a worker prints first.
pub fn serving_line(key: &InstanceKey, endpoint: &Endpoint) -> String {
    format!("serving {key} on {endpoint}")
}

fn builder(args: &WorkerArgs) -> Result<WorkerBuilder, Failure> {
    let intake = IntakeConfig {
        concurrency: args.concurrency.get(),
        queue: args.queue,
        ..IntakeConfig::default().with_payload_bytes_max(args.payload_max)
    };
    let mut builder = Worker::builder(args.service.as_str())
        .mappers(args.mapper.endpoints()?.iter().map(Endpoint::as_str))
        .intake(intake);
    if let Some(instance) = &args.instance {
        builder = builder.instance(instance.as_str());
    }
    if let Some(bind) = &args.bind {
        builder = builder.bind(bind.as_str());
    }
    for address in &args.advertise {
        builder = builder.advertise(address.as_str());
    }
    if let Some(incarnation) = args.supervised.incarnation {
        builder = builder.incarnation(incarnation);
    }
    Ok(builder)
}

/// What runs the program of `--exec`, with the limit of open files that this process was given.
fn runner(args: &WorkerArgs, open_files: Option<u64>) -> Result<Option<Runner>, Failure> {
    let Some(command) = &args.exec else { return Ok(None) };
    let program = Program::parse(command)?;
    program.find(std::env::var_os("PATH").as_deref())?;
    Ok(Some(Runner::new(program.killed_after(args.kill_after).with_open_files(open_files))))
}

fn start(
    args: &WorkerArgs,
    builder: WorkerBuilder,
    runner: Option<Arc<Runner>>,
) -> Result<Worker, Failure> {
    let started = match (runner, args.builtin) {
        (Some(runner), _) => {
            let result_bytes_max = args.payload_max;
            builder.start(move |job: &Job| run_program(&runner, job, result_bytes_max))
        }
        (None, Some(Builtin::Echo)) => builder.start(|job: &Job| Ok(job.payload().to_vec())),
        (None, Some(Builtin::Sleep)) => builder.start(|job: &Job| take_time(job, pause_until)),
        (None, Some(Builtin::Spin)) => builder.start(|job: &Job| take_time(job, spin_until)),
        (None, Some(Builtin::Timed)) => builder.start(soak::serve),
        (None, None) => return Err(Failure::usage("give --exec or --builtin")),
    };
    started.map_err(cannot_start)
}

fn cannot_start(error: StartError) -> Failure {
    match &error {
        StartError::Bind(_) => {
            Failure::usage(&error).fix("choose another --bind, or leave it to the system")
        }
        StartError::Threads { .. } => Failure::failed(&error)
            .fix("lower --concurrency, or allow more threads (ulimit -u, the group's pids.max) or memory"),
        StartError::System(_) => Failure::failed(&error).fix("ulimit -n 65536"),
        _ => Failure::usage(&error).fix("svcmap worker --help"),
    }
}

fn run_program(
    runner: &Runner,
    job: &Job,
    result_bytes_max: usize,
) -> Result<Vec<u8>, HandlerError> {
    let deadline = Clock.now() + job.time_left().unwrap_or(Duration::MAX);
    let is_cancelled = || job.is_cancelled();
    let result = runner.run(job.payload(), result_bytes_max, deadline, &is_cancelled);
    result.map_err(|error| match error {
        ExecError::Start(_) => HandlerError::cannot_start(error),
        // The worker cancels what runs at its deadline, and may be the first to notice.
        ExecError::Cancelled if is_over(job) => ExecError::Deadline.into(),
        error => error.into(),
    })
}

/// Whether a job has reached its deadline or its run limit.
fn is_over(job: &Job) -> bool {
    job.time_left().is_some_and(|left| left.is_zero())
}

/// Spends the time that the payload says, in steps short enough to notice a cancellation.
fn take_time(
    job: &Job,
    step: impl Fn(svcmap_proto::time::Timestamp),
) -> Result<Vec<u8>, HandlerError> {
    let text = std::str::from_utf8(job.payload())?;
    let time: Duration = parse::duration(text.trim()).map_err(HandlerError::new)?;
    let end = Clock.now() + time;
    while Clock.now() < end {
        if job.is_cancelled() {
            let why = if is_over(job) { "its time was over" } else { "cancelled" };
            return Err(HandlerError::new(why));
        }
        step(end.min(Clock.now() + LOOK_INTERVAL));
    }
    Ok(job.payload().to_vec())
}

fn spin_until(deadline: svcmap_proto::time::Timestamp) {
    while Clock.now() < deadline {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn what_a_worker_is_told_by_ends_with_its_thread() {
        let (stop, stopped) = mpsc::channel();
        let guard = WhenDropped(move || {
            let _ = stop.send(());
        });
        let worker = Worker::builder("echo").mapper("tcp://127.0.0.1:1").notify(move |_| {
            let _guard = &guard;
            panic!("the thread ends here, for a test");
        });
        let worker = worker.start(|_: &Job| Ok(Vec::new())).unwrap();
        stopped.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(worker.drain(Duration::ZERO).is_err());
    }
}
