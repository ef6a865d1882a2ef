//! The senders: each submits a mixture of jobs in an open loop and writes down what it is told.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::future::Future;
use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use clap::Args;
use fastrand::Rng;
use svcmap::distribution::exponential;
use svcmap::io::StopSignals;
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;
use svcmap_worker::{Client, Observation, Outcome, Ticket};

use super::history::{Event, Spec, Told};
use super::journal::Journal;
use super::serve::Request;
use super::{Life, SERVICE};

/// Jobs without an outcome at once: whoever has so many submits no more for a while.
const JOBS_MAX: usize = 2048;

/// A sender that is this much behind leaves out what it should have submitted.
const BEHIND: Duration = Duration::from_millis(100);

/// How seldom a burst is submitted in place of a job.
const BURSTS_ONE_IN: u32 = 1000;

/// Jobs of a burst.
const BURST: usize = 30;

/// How long the longest jobs take.
const LONG_US: u64 = 300_000;

/// How long after the end of a client the last outcome may come.
const AT_ONCE: Duration = Duration::from_secs(1);

/// A sender, a life of it.
#[derive(Debug, Args)]
pub struct SendArgs {
    #[command(flatten)]
    own: Life,
    /// How many workers there are
    #[arg(long)]
    workers: usize,
    /// Jobs in a second
    #[arg(long)]
    rate: f64,
    /// Until when, in microseconds of the clock
    #[arg(long)]
    until: u64,
    #[arg(long)]
    seed: u64,
}

/// What a sender waits for.
enum Message {
    /// A ticket has its outcome.
    Settled(u64),
    /// It shall end.
    Stop,
}

/// Tells of a ticket.
struct Bell {
    job: u64,
    to: Sender<Message>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Nobody listens any more once the sender ends.
        let _ = self.to.send(Message::Settled(self.job));
    }
}

struct Submitter<'a> {
    args: &'a SendArgs,
    journal: Arc<Journal>,
    client: Client,
    random: Rng,
    tickets: BTreeMap<u64, (String, Ticket)>,
    cancels: BTreeSet<(Timestamp, u64)>,
    /// The number that the next job will have.
    next: u64,
    to: Sender<Message>,
}

/// Sends until the time is over and each job has its outcome, or until it is asked to end.
///
/// # Errors
/// If it cannot start.
pub fn send(args: &SendArgs) -> Result<ExitCode, Box<dyn Error>> {
    let signals = StopSignals::catch()?;
    let journal = args.own.begin()?;
    let (to, inbox) = channel();
    let stop = to.clone();
    signals.on_first(move |_| _ = stop.send(Message::Stop))?;
    let observed = Arc::clone(&journal);
    let (who, life) = (args.own.who.clone(), args.own.life);
    let name = move |number: u64| format!("{who}.{life}.{number}");
    let observe = move |observation| match observation {
        Observation::Chosen { attempt, key, .. } => {
            observed.write(Event::Sent { job: name(attempt.job), to: key.instance.to_string() });
        }
        Observation::Settled(job) => observed.write(Event::Settled { job: name(job.0) }),
        Observation::Rejected { .. } => {}
    };
    let client = Client::builder().mapper(&args.own.mapper).observe(observe).start()?;
    client.follow(SERVICE)?;
    let random = Rng::with_seed(args.seed);
    let (tickets, cancels) = (BTreeMap::new(), BTreeSet::new());
    Submitter { args, journal, client, random, tickets, cancels, next: 1, to }.run(&inbox)
}

impl Submitter<'_> {
    fn run(mut self, inbox: &Receiver<Message>) -> Result<ExitCode, Box<dyn Error>> {
        let until = Timestamp::from_micros(self.args.until);
        let mut due = Clock.now();
        loop {
            let now = Clock.now();
            if now >= until && self.tickets.is_empty() {
                return Ok(ExitCode::SUCCESS);
            }
            if now >= due && due < until {
                if now.since(due) < BEHIND && self.tickets.len() < JOBS_MAX {
                    self.submit_some()?;
                }
                let gap = exponential(&mut self.random) / self.args.rate;
                due = due.max(now.before(BEHIND)) + Duration::from_secs_f64(gap);
            }
            self.cancel_due(now);
            let next = if now < until { due.min(until) } else { now + AT_ONCE };
            let next = self.cancels.first().map_or(next, |(at, _)| next.min(*at));
            match inbox.recv_timeout(next.since(Clock.now())) {
                Ok(Message::Settled(number)) => self.look(number),
                Ok(Message::Stop) => return Ok(self.stop()),
                Err(_) => {}
            }
        }
    }

    /// One, or now and then so many for one worker that they wait there for longer than an expiry.
    fn submit_some(&mut self) -> Result<(), Box<dyn Error>> {
        let spec = mixed(&mut self.random, self.args.workers);
        if self.random.u32(0..BURSTS_ONE_IN) > 0 {
            return self.submit(spec);
        }
        let instance = Some(super::worker_name(self.random.usize(0..self.args.workers)));
        let burst = Spec { time_us: LONG_US, instance, deadline_us: None, hold_us: None, ..spec };
        (0..BURST).try_for_each(|_| self.submit(burst.clone()))
    }

    fn submit(&mut self, spec: Spec) -> Result<(), Box<dyn Error>> {
        let instance = spec.instance.clone();
        let number = self.next;
        let job = format!("{}.{}.{number}", self.args.own.who, self.args.own.life);
        let time = Duration::from_micros(spec.time_us);
        let payload = Request { job: job.clone(), time, heeds: self.random.bool() }.to_string();
        let mut builder = self.client.job(SERVICE, payload.into_bytes());
        if let Some(instance) = &instance {
            builder = builder.instance(instance);
        }
        if let Some(us) = spec.deadline_us {
            builder = builder.deadline(Duration::from_micros(us));
        }
        if let Some(us) = spec.hold_us {
            builder = builder.hold(Duration::from_micros(us));
        }
        if let Some(us) = spec.run_limit_us {
            builder = builder.run_limit(Duration::from_micros(us));
        }
        builder = if spec.idempotent { builder.idempotent() } else { builder };
        builder = if spec.detached { builder.detached() } else { builder };
        // Before it can run.
        self.journal.write(Event::Submit { job: job.clone(), spec });
        let ticket = builder.try_submit().map_err(svcmap_worker::SubmitError::from)?;
        assert_eq!(ticket.job().0, number, "jobs are numbered in their order");
        self.next += 1;
        self.tickets.insert(number, (job, ticket));
        if self.random.u8(0..20) == 0 {
            let after = Duration::from_micros(self.random.u64(0..200_000));
            self.cancels.insert((Clock.now() + after, number));
        }
        self.look(number);
        Ok(())
    }

    fn cancel_due(&mut self, now: Timestamp) {
        while let Some((at, number)) = self.cancels.pop_first() {
            if at > now {
                self.cancels.insert((at, number));
                return;
            }
            if let Some((job, ticket)) = self.tickets.get(&number) {
                self.journal.write(Event::Cancel { job: job.clone() });
                ticket.cancel();
            }
        }
    }

    /// Writes down its outcome, or is told when it has one.
    fn look(&mut self, number: u64) {
        let Some((job, ticket)) = self.tickets.get_mut(&number) else { return };
        let waker = Waker::from(Arc::new(Bell { job: number, to: self.to.clone() }));
        if let Poll::Ready(outcome) = Pin::new(ticket).poll(&mut Context::from_waker(&waker)) {
            let told = told(outcome, job);
            self.journal.write(Event::Outcome { job: job.clone(), told });
            self.tickets.remove(&number);
        }
    }

    /// Ends in order, with an outcome for each job.
    fn stop(self) -> ExitCode {
        drop(self.client);
        for (job, ticket) in self.tickets.into_values() {
            if let Ok(outcome) = ticket.wait_timeout(AT_ONCE) {
                self.journal.write(Event::Outcome { told: told(outcome, &job), job });
            }
        }
        ExitCode::SUCCESS
    }
}

/// Short and long ones, with limits of every kind and without.
fn mixed(random: &mut Rng, workers: usize) -> Spec {
    let mut one_in = |often: u8| random.u8(0..often) == 0;
    let (is_long, is_longer) = (one_in(6), one_in(10));
    let (idempotent, detached) = (one_in(2), one_in(12));
    let (is_pinned, has_run_limit) = (one_in(10), one_in(12));
    let (has_deadline, has_hold, has_no_hold) = (!one_in(3), one_in(10), one_in(8));
    let time_us = if is_longer {
        LONG_US
    } else if is_long {
        20_000
    } else {
        1000
    };
    let deadline_s = 0.05 * 200.0_f64.powf(random.f64());
    let hold_us = random.u64(0..2_000_000);
    Spec {
        time_us,
        instance: is_pinned.then(|| super::worker_name(random.usize(0..workers))),
        deadline_us: has_deadline.then_some((deadline_s * 1e6) as u64),
        hold_us: if has_no_hold { Some(0) } else { has_hold.then_some(hold_us) },
        run_limit_us: has_run_limit.then_some(100_000),
        idempotent,
        detached,
    }
}

fn told(outcome: Outcome, job: &str) -> Told {
    match outcome {
        Outcome::Done(reply) => {
            let by = reply.by.instance.to_string();
            if *reply == *job.as_bytes() { Told::Done { by } } else { Told::Mistaken { by } }
        }
        Outcome::Failed(failure) => Told::Failed { error: failure.error },
        Outcome::Refused(refusal) => Told::Refused { reason: format!("{:?}", refusal.reason) },
        Outcome::Unknown(cause) => Told::Unknown { cause: format!("{cause:?}") },
        Outcome::Accepted => Told::Accepted,
    }
}
