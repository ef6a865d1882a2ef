//! `svcmap soak`: how often senders choose by knowledge that is wrong, measured on real processes.
//!
//! It starts a mapper, workers and senders from this very executable. The senders submit jobs at
//! times that do not depend on how the system fares (an open loop), so nothing is hidden by senders
//! that wait; each writes down what became of every job, and the figures follow from all of that.

pub mod sender;
mod usage;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use svcmap_proto::codec;
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;
use svcmap_worker::{HandlerError, Job, Policy};
use tempfile::TempDir;

use super::status;
use crate::cli::SoakArgs;
use crate::control::PATIENCE;
use crate::deployment::Deployment;
use crate::errors::{Error, Failure, print_note, print_out};
use crate::io::{StopSignals, pause_until};
use crate::measurement::{Measurement, Report, Setting};
use crate::parse;
use crate::progress::Progress;
use crate::soak::records::{Records, Served};
use crate::soak::{chart, join, render};
use crate::supervisor::Supervisor;
use usage::Watch;

/// What the workers of this soak serve; others may use the same mapper.
fn service() -> String {
    format!("soak-{}", std::process::id())
}

/// Time for senders to start in, before the first job is due.
const START_MARGIN: Duration = Duration::from_secs(2);

/// Before anything is measured queues find their usual length: so many mean service times.
const WARM_UP_JOBS: u32 = 200;

/// The longest that this may take.
const WARM_UP_MAX: Duration = Duration::from_secs(30);

/// After the last job was due, senders wait for outcomes until its deadline, and then write.
const LAST_WORDS: Duration = Duration::from_secs(20);

/// Runs the soak.
///
/// # Errors
/// If a process does not start, or a job has no outcome.
pub fn run(args: &SoakArgs) -> Result<ExitCode, Error> {
    expect_writable(args)?;
    let folder = TempDir::with_prefix("svcmap-soak-").map_err(Failure::failed)?;
    remove_at_signal(&folder)?;
    let mut deployment = open(args)?;
    let slots = args.concurrency.get() + args.queue;
    for number in 0..args.workers {
        start_worker(args, number, &mut deployment)?;
    }
    deployment.wait_ready(&[(&service(), args.workers as usize)])?;

    let warm_up = (WARM_UP_JOBS * args.load.service_time).min(WARM_UP_MAX);
    let start = Clock.now() + START_MARGIN;
    for number in 0..args.senders {
        start_sender(args, number, start, warm_up, folder.path(), &mut deployment)?;
    }
    let measured_at = start + warm_up;
    let length = Duration::from_secs(args.load.seconds.into());
    let workers = args.workers as usize;
    let window = args.publish_interval.unwrap_or(args.load.service_time);
    let mut measurement = Measurement::new(measured_at, length, workers, window);
    print_note(&render::heading(&measurement.report(setting(args))));
    let mut watch = Watch::new(args, &deployment);
    wait(args, measured_at, &mut watch);
    let records = collect(args, folder.path(), &mut deployment)?;
    deployment.stop();

    join::join(&records, workers, slots, &mut measurement);
    let report = measurement.report(setting(args));
    // First to whoever waits: a file may not take it.
    let printed = print_out(&render::text(&report, &watch.usage()));
    write(args, &report, &measurement, &watch)?;
    if report.outcomes.all() != report.submitted {
        return Err(Failure::failed("a job has no outcome").into());
    }
    printed.map(|()| ExitCode::SUCCESS)
}

/// Whether the files that were asked for can be written: to be known before a minute has passed.
/// What they hold stays until there is something else to write.
fn expect_writable(args: &SoakArgs) -> Result<(), Failure> {
    for path in args.json.iter().chain(&args.plot) {
        let opened = std::fs::OpenOptions::new().create(true).append(true).open(path);
        opened.map_err(|error| {
            Failure::usage(format!("{}: {error}", path.display())).fix("name another file")
        })?;
    }
    Ok(())
}

/// What a worker of the soak does: it sleeps, and tells when.
///
/// # Errors
/// If the payload says no time.
pub fn serve(job: &Job) -> Result<Vec<u8>, HandlerError> {
    let (started_at, age) = (Clock.now(), job.age());
    let text = std::str::from_utf8(job.payload())?.trim_end();
    let time = parse::duration(text).map_err(HandlerError::new)?;
    pause_until(started_at + time);
    let served = Served {
        worker: number(job.instance().instance.as_str()),
        arrived_us: started_at.before(age).as_micros(),
        started_us: started_at.as_micros(),
        finished_us: Clock.now().as_micros(),
    };
    codec::encode_value(&served).map_err(HandlerError::new)
}

/// What a worker is called.
fn instance(number: u32) -> String {
    format!("w-{number}")
}

/// The number in a worker's name.
fn number(instance: &str) -> u32 {
    instance.strip_prefix("w-").and_then(|number| number.parse().ok()).unwrap_or(u32::MAX)
}

/// What a sender is called.
fn sender_name(number: u32) -> String {
    format!("s-{number}")
}

fn open(args: &SoakArgs) -> Result<Deployment, Failure> {
    let supervisor = Supervisor::new().map_err(Failure::failed)?;
    if let Some(mapper) = &args.mapper {
        let access = args.keys.access_to(vec![mapper.clone()])?;
        status::ask(&access, None, PATIENCE)?;
        let (keys, flags) = (access.deployment, args.keys.flags());
        return Ok(Deployment::join(supervisor, mapper.clone(), keys, flags));
    }
    let interval = args.publish_interval.map(|interval| ("--publish-interval", interval));
    let flags = [("--beat", args.beat)].into_iter().chain(interval);
    let flags = flags.flat_map(|(name, time)| [name.to_owned(), flag(time)]).collect();
    Deployment::open_encrypted(supervisor, flags)
}

/// A time as a flag's value.
fn flag(time: Duration) -> String {
    format!("{}us", time.as_micros())
}

fn start_worker(args: &SoakArgs, number: u32, deployment: &mut Deployment) -> Result<(), Failure> {
    let (concurrency, queue) = (args.concurrency.to_string(), args.queue.to_string());
    let flags = ["--builtin", "timed", "--concurrency", &concurrency, "--queue", &queue];
    deployment.start_worker(&service(), &instance(number), &flags)
}

fn start_sender(
    args: &SoakArgs,
    number: u32,
    start: Timestamp,
    warm_up: Duration,
    folder: &Path,
    deployment: &mut Deployment,
) -> Result<(), Failure> {
    let load = &args.load;
    let capacity = f64::from(args.workers * args.concurrency.get());
    let rate = args.utilisation * capacity / load.service_time.as_secs_f64();
    let flags = [
        ("--service", service()),
        ("--start-us", start.as_micros().to_string()),
        ("--warm-up", flag(warm_up)),
        ("--rate", (rate / f64::from(args.senders)).to_string()),
        ("--records", records_file(folder, number).display().to_string()),
        ("--policy", load.policy.to_string()),
        ("--service-time", flag(load.service_time)),
        ("--distribution", load.distribution.as_str().to_owned()),
        ("--payload", load.payload.to_string()),
        ("--seconds", load.seconds.to_string()),
        ("--seed", load.seed.wrapping_mul(1000).wrapping_add(number.into()).to_string()),
    ];
    let hold = [("--hold", flag(held_for(args)))];
    let tries = load.tries.map(|tries| ("--tries", tries.to_string()));
    let flags: Vec<_> = flags.into_iter().chain(hold).chain(tries).collect();
    let flags: Vec<&str> = flags.iter().flat_map(|(name, value)| [*name, value]).collect();
    deployment.start_command(&sender_name(number), "soak-sender", &flags)
}

/// Shortest hold unless one is given: far beyond what a sleepy process takes.
const HOLD_MIN: Duration = Duration::from_millis(250);

/// How long a job waits for a worker with room. Unless that is given, svcmap waits for what a full
/// queue takes, or four services; what it is measured against refuses at once.
fn held_for(args: &SoakArgs) -> Duration {
    let load = &args.load;
    let depth = 1.0 + f64::from(args.queue) / f64::from(args.concurrency.get());
    let queue = load.service_time.mul_f64(depth.max(4.0)).max(HOLD_MIN);
    load.hold.unwrap_or(match load.policy {
        Policy::Svcmap | Policy::NoCredits => queue,
        _ => Duration::ZERO,
    })
}

fn records_file(folder: &Path, sender: u32) -> PathBuf {
    folder.join(format!("{sender}.records"))
}

/// Waits until the time that is measured is over, and shows how far that is.
fn wait(args: &SoakArgs, measured_at: Timestamp, watch: &mut Watch) {
    pause_until(measured_at);
    watch.start();
    let progress = Progress::new(Some(args.load.seconds as usize), "seconds");
    for second in 1..=args.load.seconds {
        pause_until(measured_at + Duration::from_secs(second.into()));
        progress.show(second as usize);
    }
    progress.finish();
    watch.end();
}

/// Waits until all senders have written down what happened, and reads it.
fn collect(
    args: &SoakArgs,
    folder: &Path,
    deployment: &mut Deployment,
) -> Result<Vec<Records>, Failure> {
    let deadline = Clock.now() + LAST_WORDS;
    for _ in 0..args.senders {
        let exit = deployment.next_exit(deadline);
        let exit = exit.ok_or_else(|| Failure::failed("a sender did not end in time"))?;
        if !exit.status.success() {
            return Err(Failure::failed(exit).fix("svcmap soak --utilisation 0.5"));
        }
    }
    let read = |number| {
        let bytes = std::fs::read(records_file(folder, number)).map_err(Failure::failed)?;
        codec::decode_value(&bytes).map_err(Failure::failed)
    };
    (0..args.senders).map(read).collect()
}

fn setting(args: &SoakArgs) -> Setting {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Setting {
        policy: args.load.policy.to_string(),
        utilisation: args.utilisation,
        senders: args.senders as usize,
        workers: args.workers as usize,
        slots: args.concurrency.get() + args.queue,
        concurrency: args.concurrency.get(),
        service_time_ms: ms(args.load.service_time),
        distribution: args.load.distribution.as_str().to_owned(),
        publish_interval_ms: args.publish_interval.map(ms),
        seconds: args.load.seconds.into(),
    }
}

/// Writes the files that were asked for. Figures that a file does not take go to stdout.
fn write(
    args: &SoakArgs,
    report: &Report,
    measurement: &Measurement,
    watch: &Watch,
) -> Result<(), Failure> {
    let save = |path: &Path, text: &str| {
        let failed = |error| Failure::failed(format!("{}: {error}", path.display()));
        std::fs::write(path, text).map_err(failed)
    };
    if let Some(path) = &args.json {
        let mut object = json!(report);
        object["processes"] = json!(watch.usage());
        let text = format!("{object}\n");
        if let Err(failure) = save(path, &text) {
            // If stdout does not take them either, the failure says enough.
            let _ = print_out(&format!("\n{text}"));
            return Err(failure.fix("the figures are the last line of stdout"));
        }
    }
    if let Some(path) = &args.plot {
        let svg = chart::svg(&render::heading(report), measurement).map_err(Failure::failed)?;
        save(path, &svg)?;
    }
    Ok(())
}

/// Our children end with us, whatever ends us; files would stay.
fn remove_at_signal(folder: &TempDir) -> Result<(), Failure> {
    let signals = StopSignals::catch().map_err(Failure::failed)?;
    let path = folder.path().to_owned();
    let remove = move |signal| {
        // It may be half gone already.
        let _ = std::fs::remove_dir_all(path);
        std::process::exit(128 + signal);
    };
    signals.on_first(remove).map_err(Failure::failed)
}
