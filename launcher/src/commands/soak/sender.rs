//! One sender of a soak, in a process of its own.

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::{
    Client, JobId, NotTaken, Observation, Outcome, Policy, Reason, SubmitError, Ticket,
};

use crate::cli::{LoadOptions, SoakSenderArgs};
use crate::distribution::exponential;
use crate::errors::{Error, Failure};
use crate::io::{end_with_parent, pause_until, raise_open_files_limit};
use crate::soak::records::{self, Attempt, Records};

/// By when each job has its outcome.
const DEADLINE: Duration = Duration::from_secs(10);

/// Decisions, and when they were made.
type Observations = Arc<Mutex<Vec<(Timestamp, Observation)>>>;

/// A job that was submitted.
struct Submitted {
    job: Option<JobId>,
    due_at: Timestamp,
    time: Duration,
    /// When it was found to be refused by the client itself, if it was.
    ended_at: Timestamp,
    outcome: Option<Outcome>,
}

/// Sends, writes down what happened, and ends.
///
/// # Errors
/// If there is no mapper, or the file cannot be written.
pub fn run(args: &SoakSenderArgs) -> Result<ExitCode, Error> {
    if let Some(parent) = args.supervised.supervised {
        end_with_parent(parent).map_err(Failure::failed)?;
    }
    raise_open_files_limit();
    let observations = Observations::default();
    let observed = Arc::clone(&observations);
    let client = args
        .keys
        .access_to(vec![args.mapper.clone()])?
        .client()
        .outbox(outbox(&args.load))
        .observe(move |observation| {
            let at = Clock.now();
            observed.lock().unwrap_or_else(PoisonError::into_inner).push((at, observation));
        })
        .start()
        .map_err(Failure::failed)?;
    client.follow(args.service.as_str()).map_err(Failure::failed)?;
    let jobs = send(args, &client)?;
    let statistics = client.statistics();
    drop(client);
    let observations =
        std::mem::take(&mut *observations.lock().unwrap_or_else(PoisonError::into_inner));
    let records = Records {
        jobs: write_down(jobs, observations),
        messages: statistics.messages,
        bytes: statistics.bytes,
    };
    let bytes = codec::encode_value(&records).map_err(Failure::failed)?;
    std::fs::write(&args.records, bytes).map_err(Failure::failed)?;
    Ok(ExitCode::SUCCESS)
}

/// svcmap as it ships; what it is measured against has no second try unless that is asked for.
fn outbox(load: &LoadOptions) -> OutboxConfig {
    let shipped = OutboxConfig::default();
    let tries = match load.policy {
        Policy::Svcmap | Policy::NoCredits => shipped.attempts_max,
        _ => 1,
    };
    OutboxConfig {
        policy: load.policy,
        deadline: Some(DEADLINE),
        hold: load.hold,
        attempts_max: load.tries.map_or(tries, |tries| tries.get()),
        ..shipped
    }
}

/// Submits each job when it is due, whatever became of those before (an open loop), and returns
/// them when all have their outcome.
fn send(args: &SoakSenderArgs, client: &Client) -> Result<Vec<Submitted>, Failure> {
    let load = &args.load;
    let mut random = fastrand::Rng::with_seed(load.seed);
    let start = Timestamp::from_micros(args.start_us);
    let end = start + args.warm_up + Duration::from_secs(load.seconds.into());
    let (mut jobs, mut tickets) = (Vec::new(), VecDeque::new());
    let mut due_s = 0.0;
    loop {
        due_s += exponential(&mut random) / args.rate;
        let due_at = start + Duration::from_secs_f64(due_s);
        if due_at >= end {
            break;
        }
        let time = load.distribution.time(load.service_time, &mut random);
        pause_until(due_at);
        let mut payload = format!("{}us", time.as_micros()).into_bytes();
        payload.resize(payload.len().max(load.payload), b' ');
        let submitted = client.job(args.service.as_str(), payload).try_submit();
        let (job, outcome) = match submitted {
            Ok(ticket) => {
                let job = ticket.job();
                tickets.push_back((jobs.len(), ticket));
                (Some(job), None)
            }
            // It was never taken, so nobody started it.
            Err(NotTaken { error: SubmitError::OutboxFull, .. }) => (None, Some(refused())),
            Err(NotTaken { error, .. }) => return Err(Failure::failed(error)),
        };
        jobs.push(Submitted { job, due_at, time, ended_at: Clock.now(), outcome });
        take_settled(&mut tickets, &mut jobs, Duration::ZERO);
    }
    while !tickets.is_empty() {
        take_settled(&mut tickets, &mut jobs, 2 * DEADLINE);
    }
    Ok(jobs)
}

fn refused() -> Outcome {
    let waited = Duration::ZERO;
    Outcome::Refused(svcmap_worker::Refusal { reason: Reason::Full, attempts: 0, waited })
}

/// Takes the outcomes of those in front that have one within `limit`.
fn take_settled(tickets: &mut VecDeque<(usize, Ticket)>, jobs: &mut [Submitted], limit: Duration) {
    while let Some((index, ticket)) = tickets.pop_front() {
        match ticket.wait_timeout(limit) {
            Ok(outcome) => jobs[index].outcome = Some(outcome),
            Err(ticket) => return tickets.push_front((index, ticket)),
        }
    }
}

/// Puts jobs and decisions together.
fn write_down(
    jobs: Vec<Submitted>,
    observations: Vec<(Timestamp, Observation)>,
) -> Vec<records::Job> {
    let mut attempts: BTreeMap<JobId, Vec<Attempt>> = BTreeMap::new();
    let mut ended_at = BTreeMap::new();
    for (at, observation) in observations {
        match observation {
            Observation::Chosen { attempt, key, age } => {
                attempts.entry(JobId(attempt.job)).or_default().push(Attempt {
                    worker: super::number(key.instance.as_str()),
                    chosen_us: at.as_micros(),
                    age_us: age.map(|age| age.as_micros() as u64),
                    rejected_full: false,
                });
            }
            Observation::Rejected { attempt, reason, .. } => {
                let tries = attempts.entry(JobId(attempt.job)).or_default();
                if let Some(last) = tries.last_mut() {
                    last.rejected_full = reason == Reason::Full;
                }
            }
            Observation::Settled(job) => {
                ended_at.insert(job, at);
            }
        }
    }
    let record = |job: Submitted| {
        let id = job.job.unwrap_or(JobId(u64::MAX));
        let (outcome, served) = told(job.outcome);
        records::Job {
            due_us: job.due_at.as_micros(),
            time_us: job.time.as_micros() as u64,
            ended_us: ended_at.get(&id).unwrap_or(&job.ended_at).as_micros(),
            outcome,
            served,
            attempts: attempts.remove(&id).unwrap_or_default(),
        }
    };
    jobs.into_iter().map(record).collect()
}

/// An outcome as it is written down, and what the worker said.
fn told(outcome: Option<Outcome>) -> (records::Outcome, Option<records::Served>) {
    match outcome {
        Some(Outcome::Done(reply)) => (records::Outcome::Done, codec::decode_value(&reply).ok()),
        Some(Outcome::Failed(_)) => (records::Outcome::Failed, None),
        Some(Outcome::Refused(_)) => (records::Outcome::Refused, None),
        Some(Outcome::Accepted) => (records::Outcome::Accepted, None),
        Some(Outcome::Unknown(_)) | None => (records::Outcome::Unknown, None),
    }
}
