//! The workers: handlers, and programs, that write down when they start a job and when they end it.

use std::error::Error;
use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use svcmap::errors::print_out;
use svcmap::io::{StopSignals, pause_until};
use svcmap_proto::io::Clock;
use svcmap_worker::{HandlerError, Job, Worker};

use super::history::Event;
use super::journal::Journal;
use super::{LINGER, Life, SERVICE};

/// How long a worker that is asked to end may finish what it has.
pub const GRACE: Duration = Duration::from_secs(1);

/// Jobs that wait at a worker: longer than an expiry, if all of them are long.
pub const QUEUE: u32 = 40;

/// Time between two looks at whether a job was cancelled.
const STEP: Duration = Duration::from_millis(10);

/// How long what a program leaves behind would live.
const LINGERS: Duration = Duration::from_secs(600);

/// A worker, a life of it.
#[derive(Debug, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    own: Life,
}

/// What a payload asks for.
pub struct Request {
    /// The job's name.
    pub job: String,
    /// How long it takes.
    pub time: Duration,
    /// Whether it ends when it is cancelled.
    pub heeds: bool,
}

impl std::fmt::Display for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} {}", self.job, self.time.as_micros(), self.heeds)
    }
}

impl FromStr for Request {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let mut word = || words.next().ok_or("a word is missing");
        let (job, time_us, heeds) = (word()?.to_owned(), word()?.parse()?, word()?.parse()?);
        Ok(Self { job, time: Duration::from_micros(time_us), heeds })
    }
}

/// Serves until it is asked to end.
///
/// # Errors
/// If it cannot start.
pub fn serve(args: &ServeArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut signals = StopSignals::catch()?;
    let journal = args.own.begin()?;
    let mut builder = Worker::builder(SERVICE).instance(&args.own.who).mapper(&args.own.mapper);
    if let Some(incarnation) = args.own.supervised.incarnation {
        builder = builder.incarnation(incarnation);
    }
    let worker =
        builder.concurrency(2).queue(QUEUE).serve(move |job: &Job| handle(&journal, job))?;
    signals.wait();
    worker.drain(GRACE)?;
    Ok(ExitCode::SUCCESS)
}

fn handle(journal: &Journal, job: &Job) -> Result<Vec<u8>, HandlerError> {
    let request: Request =
        std::str::from_utf8(job.payload())?.parse().map_err(HandlerError::new)?;
    journal.write(Event::Start { job: request.job.clone() });
    let end = Clock.now() + request.time;
    let is_over = || request.heeds && job.is_cancelled();
    while Clock.now() < end && !is_over() {
        pause_until(end.min(Clock.now() + STEP));
    }
    let is_done = Clock.now() >= end;
    journal.write(Event::End { job: request.job.clone(), is_done });
    if is_done { Ok(request.job.into_bytes()) } else { Err(HandlerError::new("cancelled")) }
}

/// A program for one job, of a worker with `--exec`.
#[derive(Debug, Args)]
pub struct ProgramArgs {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    who: String,
}

/// Runs one job, and leaves something behind at times.
///
/// # Errors
/// If the job is none.
pub fn program(args: &ProgramArgs) -> Result<ExitCode, Box<dyn Error>> {
    let mut payload = String::new();
    std::io::stdin().read_to_string(&mut payload)?;
    let request: Request = payload.parse().map_err(|error| format!("{payload}: {error}"))?;
    let journal = Journal::open(&args.folder, &args.who, 0)?;
    journal.write(Event::Start { job: request.job.clone() });
    if request.heeds {
        // Nobody waits for it.
        Command::new(std::env::current_exe()?).arg(LINGER).spawn()?;
    }
    pause_until(Clock.now() + request.time);
    journal.write(Event::End { job: request.job.clone(), is_done: true });
    print_out(&request.job).map_err(|_| "nobody reads the result")?;
    Ok(ExitCode::SUCCESS)
}

/// What a program leaves behind.
pub fn linger() -> ExitCode {
    pause_until(Clock.now() + LINGERS);
    ExitCode::SUCCESS
}
