//! `svcmap worker`: one instance of a service, whose handler is a program or built in.

mod http;
mod programs;
mod systemd;

use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use slog::{Logger, error, info, warn};
use svcmap_proto::control::RegistrationError;
use svcmap_proto::io::Clock;
use svcmap_proto::names::{Endpoint, InstanceKey};
use svcmap_worker::config::IntakeConfig;
use svcmap_worker::{
    HandlerError, Job, Notice, StartError, Worker, WorkerBuilder, default_instance,
};

use self::programs::Programs;
use super::soak;
use crate::access::{self, Access};
use crate::cli::{Builtin, WorkerArgs};
use crate::control::log_silence;
use crate::errors::{Error, Failure, print_first_line};
use crate::fleet::wire::REGISTERED;
use crate::http::{Listener, suffix};
use crate::io::{LOOK_INTERVAL, StopSignals, end_with_parent, pause_until, raise_open_files_limit};
use crate::parse;
use crate::processes::io::collect_orphans;
use crate::systemd::io::Told;

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
    let key = InstanceKey {
        service: args.service.clone(),
        instance: args.instance.clone().unwrap_or_else(default_instance),
    };
    let http = args.http.http.map(Listener::bind).transpose()?;
    let (suffix, monitor) = (suffix(http.as_ref()), Arc::new(OnceLock::new()));
    let routes = || http::routes(&key.service, &monitor);
    let _http = http.map(|http| http.serve(routes(), log)).transpose()?;
    let told = Told::of_environment(log)?;
    // Before anybody hears of it: a program that does not work is said at once, and no job waits for
    // one that starts slowly.
    let open_files = args.supervised.open_files.or(raise_open_files_limit());
    let programs = Programs::start(args, &key, open_files, log)?.map(Arc::new);
    if let Some(programs) = &programs
        && !programs.wait_ready(|| signals.has_come())?
    {
        told.tell(&[systemd::stopping(args)]);
        programs.finish(Clock.now() + args.grace);
        return Ok(ExitCode::SUCCESS);
    }
    let watched = told.look_after(http::asked(&monitor), systemd::status)?;
    let unwanted = Arc::new(OnceLock::new());
    let access = args.mapper.access()?;
    let builder = builder(args, &key, &access)?.logger(log.clone()).notify({
        // It goes with the worker's thread, however that ends: nothing is served then.
        let (unwanted, stop) = (Arc::clone(&unwanted), WhenDropped(signals.stopper()));
        let log = log.clone();
        let is_supervised = args.supervised.supervised.is_some();
        let watched = watched.clone();
        // What one of several says, another may not have heard of.
        let has_one_mapper = matches!(&access.mappers[..], [only] if !only.is_name());
        let end = move |why| {
            // The first one counts.
            let _ = unwanted.set(why);
            stop.call();
        };
        move |notice| match notice {
            Notice::Replaced(_) => end(Unwanted::Replaced),
            Notice::DrainWanted => end(Unwanted::Drained),
            Notice::RegistrationRefused(_, RegistrationError::NotAllowed) if has_one_mapper => {
                end(Unwanted::NotAllowed);
            }
            // Its supervisor reads it from a pipe, and takes such lines as they come.
            Notice::Registered(mapper) => {
                watched.is_ready();
                if is_supervised {
                    print_first_line(format!("{REGISTERED}{mapper}"));
                }
            }
            Notice::NoMapper(silence) => log_silence(access.clone(), silence, log.clone()),
            _ => {}
        }
    });
    let worker = start(args, builder, programs.clone())?;
    let _ = monitor.set(worker.monitor());
    info!(log, "worker started"; "instance" => %key, "endpoint" => %worker.endpoint());
    print_first_line(serving_line(&key, worker.endpoint()) + &suffix);
    let grace_ms = args.grace.as_millis();
    match signals.wait() {
        Some(signal) => info!(log, "worker drains"; "signal" => signal, "grace_ms" => grace_ms),
        None => match unwanted.get() {
            Some(Unwanted::Replaced) => {
                info!(log, "worker drains: its name is taken"; "grace_ms" => grace_ms);
            }
            Some(Unwanted::Drained) => info!(log, "worker drains"; "grace_ms" => grace_ms),
            Some(Unwanted::NotAllowed) => {}
            None => error!(log, "the worker's thread has ended: see above"),
        },
    }
    told.tell(&[systemd::stopping(args)]);
    let grace_ends_at = Clock.now() + args.grace;
    let report = worker.drain(args.grace).map_err(Failure::failed)?;
    // What still runs was cancelled: programs have a little time for that.
    programs.iter().for_each(|programs| programs.finish(grace_ends_at));
    info!(log, "worker drained"; "finished" => report.finished,
        "handed_back" => report.handed_back, "abandoned" => report.abandoned,
        "dropped" => report.dropped);
    if let Some(failure) = unwanted.get().and_then(|unwanted| unwanted.failure(&key)) {
        return Err(failure.into());
    }
    if report.abandoned > 0 {
        warn!(log, "jobs were still running at the end of the grace"; "jobs" => report.abandoned);
    }
    Ok(ExitCode::SUCCESS)
}

/// Why a worker ends that no signal stopped.
#[derive(Clone, Copy)]
enum Unwanted {
    /// Another process has its name.
    Replaced,
    /// Its key is not for that.
    NotAllowed,
    /// An operator wants it.
    Drained,
}

impl Unwanted {
    fn failure(self, key: &InstanceKey) -> Option<Failure> {
        Some(match self {
            Self::Drained => return None,
            Self::Replaced => Failure::usage(format!("another process took the name {key}"))
                .fix("give each instance a name of its own: --instance NAME"),
            Self::NotAllowed => {
                let service = &key.service;
                Failure::usage(format!("this deployment file may not serve `{service}`")).fix(
                    "svcmap key list shows what it may; an operator adds one that may: svcmap key add",
                )
            }
        })
    }
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

fn builder(
    args: &WorkerArgs,
    key: &InstanceKey,
    access: &Access,
) -> Result<WorkerBuilder, Failure> {
    let intake = IntakeConfig {
        concurrency: args.concurrency.get(),
        queue: args.queue,
        run_limit: args.run_limit,
        ..IntakeConfig::default().with_payload_bytes_max(args.payload_max)
    };
    let Access { mappers, deployment } = access;
    let is_beyond = args.bind.as_ref().filter(|bind| !bind.is_loopback());
    if let (Some(bind), None, false) = (is_beyond, deployment, args.mapper.keys.insecure) {
        return Err(access::without_keys(bind, access::default_file().as_deref()));
    }
    let mut builder = Worker::builder(key.service.as_str())
        .instance(key.instance.as_str())
        .mapper(mappers)
        .intake(intake);
    if let Some(deployment) = deployment {
        builder = builder.deployment(deployment.clone());
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

fn start(
    args: &WorkerArgs,
    builder: WorkerBuilder,
    programs: Option<Arc<Programs>>,
) -> Result<Worker, Failure> {
    let started = match (programs, args.builtin) {
        (Some(programs), _) => builder.serve(move |job: &Job| programs.run(job)),
        (None, Some(Builtin::Echo)) => builder.serve(Job::payload_bytes),
        (None, Some(Builtin::Sleep)) => builder.serve(|job: &Job| take_time(job, pause_until)),
        (None, Some(Builtin::Spin)) => builder.serve(|job: &Job| take_time(job, spin_until)),
        (None, Some(Builtin::Timed)) => builder.serve(soak::serve),
        (None, None) => return Err(Failure::usage("give --exec, --exec-loop or --builtin")),
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
        let worker = worker.serve(|_: &Job| ()).unwrap();
        stopped.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(worker.drain(Duration::ZERO).is_err());
    }
}
