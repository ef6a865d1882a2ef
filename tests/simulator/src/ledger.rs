//! The jobs under way, and what is measured of them. It alone knows both what senders believed and
//! what was true.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use svcmap::measurement::{Ending, Full, Measurement, Report, Setting};
use svcmap_proto::jobs::{AttemptId, Reason};
use svcmap_proto::time::Timestamp;
use svcmap_worker::{Cause, JobId, Observation, Outcome};

use super::nodes::worker_number;
use super::policies::Truth;
use super::scenario::{Scenario, is_high};

/// A job under way.
#[derive(Clone, Copy, Debug)]
struct Job {
    /// Which stream it belongs to.
    stream: usize,
    due_at: Timestamp,
    service_time: Duration,
    was_started: bool,
    /// When its current worker was chosen, and whether that was full.
    chosen_at: Timestamp,
    was_full: bool,
    /// When its user took it back.
    cancelled_at: Option<Timestamp>,
    /// Whether it came within the time that is measured, and is one of those that are.
    counts: bool,
    /// Whether it came within that time and is of high priority.
    is_high: bool,
}

/// A job that nobody waits for any more.
#[derive(Clone, Copy, Debug)]
struct Orphan {
    service_time: Duration,
    /// Until when it may be started: its sender's process has ended, and workers notice that.
    until: Option<Timestamp>,
}

/// What went wrong, and what that did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Connections that broke.
    pub connections_lost: u64,
    /// Processes of senders that ended.
    pub senders_ended: u64,
    /// Jobs within the time that is measured that had no outcome when their sender's process ended.
    /// All others have one.
    pub jobs_ended: u64,
    /// Jobs that were started an expiry after their sender's process had ended, or a beat after they
    /// had been cancelled, or later: there must be none.
    pub jobs_for_nobody: u64,
    /// Jobs that were cancelled.
    pub jobs_cancelled: u64,
    /// Most jobs that were at a worker while that stood still, or on their way there.
    pub jobs_trapped: u64,
    /// Jobs of which nobody heard until their deadline, which is an hour: there must be none.
    pub jobs_hung: u64,
    /// Outcomes that belie another one or the handlers: there must be none. A job had two, or a
    /// handler started it twice, or though it was refused.
    pub contradictions: u64,
}

/// What a simulation found.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The figures.
    pub report: Report,
    /// Mean wait, in mean service times.
    pub mean_wait: f64,
    /// Mean time from submission to result, in mean service times.
    pub mean_response: f64,
    /// Mean wait of jobs of high priority, in mean service times, where there are any.
    pub mean_wait_high: f64,
    /// Those of them that were done.
    pub done_high: u64,
    /// Share of jobs that were lost: rejected for good, or refused.
    pub loss: f64,
    /// Events that were simulated.
    pub events: u64,
    /// What went wrong.
    pub damage: Damage,
    /// Share of the first sender's jobs that were done.
    pub done_first: f64,
    /// The same of all others.
    pub done_others: f64,
}

/// See the module.
#[derive(Debug)]
pub struct Ledger {
    /// Jobs under way, by number from `first_job` on.
    jobs: VecDeque<Option<Job>>,
    first_job: u64,
    open: usize,
    /// Jobs that nobody waits for any more, and that may still be started.
    orphans: BTreeMap<u64, Orphan>,
    /// What went wrong so far.
    pub damage: Damage,
    /// A cancel has come by then, whatever the connection did.
    beat: Duration,
    /// How long a job takes to its worker, at least.
    delay: Duration,
    truth: Arc<Truth>,
    measurement: Measurement,
    /// Jobs of the first sender, and those of them that were done.
    first: (u64, u64),
    high_every: Option<u64>,
    /// Jobs of high priority that were started, and how long they waited together.
    high: (u64, Duration),
    done_high: u64,
    messages: u64,
}

impl Ledger {
    /// No jobs yet; the time that is measured begins then.
    pub fn new(scenario: &Scenario, measured_at: Timestamp, truth: &Arc<Truth>) -> Self {
        let (length, interval) = (scenario.duration, scenario.publish_interval);
        Self {
            jobs: VecDeque::new(),
            first_job: 0,
            open: 0,
            orphans: BTreeMap::new(),
            damage: Damage::default(),
            beat: scenario.beat,
            delay: scenario.delay,
            high_every: scenario.high_every,
            truth: Arc::clone(truth),
            measurement: Measurement::new(measured_at, length, scenario.workers, interval),
            first: (0, 0),
            high: (0, Duration::ZERO),
            done_high: 0,
            messages: 0,
        }
    }

    /// Whether every job has its outcome.
    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    /// A message went between a sender and a worker.
    pub fn count_message(&mut self) {
        self.messages += 1;
    }

    /// A job comes, and will take so long at a worker of speed 1. Returns its number.
    pub fn submit(&mut self, now: Timestamp, stream: usize, service_time: Duration) -> u64 {
        let number = self.first_job + self.jobs.len() as u64;
        let is_within = self.measurement.counts(now);
        let is_high = is_within && is_high(self.high_every, number);
        let counts = is_within && !is_high;
        if counts {
            self.measurement.submit();
            self.first.0 += u64::from(stream == 0);
        }
        self.open += 1;
        let (due_at, chosen_at) = (now, now);
        let (was_started, was_full) = (false, false);
        let job = Job {
            stream,
            due_at,
            service_time,
            was_started,
            chosen_at,
            was_full,
            cancelled_at: None,
            counts,
            is_high,
        };
        self.jobs.push_back(Some(job));
        number
    }

    /// A handler starts a job. Returns how long it takes.
    pub fn start(&mut self, now: Timestamp, attempt: AttemptId) -> Duration {
        let Some(job) = self.job(attempt) else {
            let orphan = self.orphans.remove(&attempt.job);
            self.damage.contradictions += u64::from(orphan.is_none());
            let late = orphan.and_then(|orphan| orphan.until).is_some_and(|until| until <= now);
            self.damage.jobs_for_nobody += u64::from(late);
            return orphan.map_or(Duration::ZERO, |orphan| orphan.service_time);
        };
        let again = std::mem::replace(&mut job.was_started, true);
        let job = *job;
        self.damage.contradictions += u64::from(again);
        let late = job.cancelled_at.is_some_and(|at| now.since(at) > self.beat);
        self.damage.jobs_for_nobody += u64::from(late);
        if job.counts {
            self.measurement.start(now.since(job.due_at).saturating_sub(self.delay));
        }
        if job.is_high {
            self.high.0 += 1;
            self.high.1 += now.since(job.due_at);
        }
        job.service_time
    }

    /// Its user takes a job back. `false` if it has its outcome, or ended with its sender.
    pub fn cancel(&mut self, now: Timestamp, number: u64) -> bool {
        let Some(job) = self.job(AttemptId { job: number, attempt: 1 }) else { return false };
        job.cancelled_at = Some(now);
        self.damage.jobs_cancelled += 1;
        true
    }

    /// A sender decided something, or met a full worker.
    pub fn observe(&mut self, now: Timestamp, observation: &Observation) {
        match observation {
            Observation::Chosen { attempt, key, age } => {
                let worker = worker_number(&key.instance);
                let was_full = self.truth.is_full(worker);
                let Some(job) = self.job(*attempt) else { return };
                (job.chosen_at, job.was_full) = (now, was_full);
                if job.counts {
                    self.measurement.choose(now, worker, attempt.attempt == 1, *age);
                }
            }
            Observation::Rejected { attempt, reason: Reason::Full, .. } => {
                let Some(&mut job) = self.job(*attempt) else { return };
                if job.counts {
                    let full = if job.was_full { Full::Stale } else { Full::Race };
                    self.measurement.reject(job.chosen_at, attempt.attempt == 1, full);
                }
            }
            Observation::Rejected { .. } | Observation::Settled(_) => {}
        }
    }

    /// A job has its outcome.
    pub fn settle(&mut self, now: Timestamp, id: JobId, outcome: &Outcome) {
        let index = id.0.checked_sub(self.first_job);
        let Some(job) = index.and_then(|index| self.jobs.get_mut(index as usize)?.take()) else {
            self.damage.contradictions += 1;
            return;
        };
        match outcome {
            Outcome::Unknown(cause) => {
                self.damage.jobs_hung += u64::from(*cause == Cause::Deadline);
                self.leave(id.0, &job, None);
            }
            Outcome::Refused(_) => self.damage.contradictions += u64::from(job.was_started),
            _ => {}
        }
        self.forget(1);
        self.done_high += u64::from(job.is_high && matches!(outcome, Outcome::Done(_)));
        if !job.counts {
            return;
        }
        let ending = match outcome {
            Outcome::Done(_) => Ending::Done,
            Outcome::Failed(_) => Ending::Failed,
            Outcome::Refused(_) => Ending::Refused { with_room: !self.truth.all_full() },
            Outcome::Unknown(_) => Ending::Unknown,
            Outcome::Accepted => Ending::Accepted,
        };
        self.first.1 += u64::from(job.stream == 0 && ending == Ending::Done);
        self.measurement.end(ending, now.since(job.due_at));
    }

    /// The process ends that has the open jobs of a stream. Workers may start them until then.
    pub fn end_sender(&mut self, stream: usize, until: Timestamp) {
        let mut ended = Vec::new();
        for (number, place) in (self.first_job..).zip(&mut self.jobs) {
            ended.extend(place.take_if(|job| job.stream == stream).map(|job| (number, job)));
        }
        for (number, job) in &ended {
            self.leave(*number, job, Some(until));
            self.damage.jobs_ended += u64::from(job.counts);
        }
        self.damage.senders_ended += 1;
        self.forget(ended.len());
    }

    /// Nobody waits for a job any more, but a worker may have it.
    fn leave(&mut self, number: u64, job: &Job, until: Option<Timestamp>) {
        if !job.was_started {
            self.orphans.insert(number, Orphan { service_time: job.service_time, until });
        }
    }

    /// So many jobs less are open.
    fn forget(&mut self, jobs: usize) {
        self.open -= jobs;
        while self.jobs.front().is_some_and(Option::is_none) {
            self.jobs.pop_front();
            self.first_job += 1;
        }
    }

    fn job(&mut self, attempt: AttemptId) -> Option<&mut Job> {
        let index = attempt.job.checked_sub(self.first_job)?;
        self.jobs.get_mut(index as usize)?.as_mut()
    }

    /// What came of it all, in so many events.
    pub fn findings(&mut self, scenario: &Scenario, events: u64) -> Findings {
        let total = scenario.warm_up + scenario.duration;
        let share = scenario.duration.as_secs_f64() / total.as_secs_f64();
        // Those of the warm-up, and of jobs of high priority, are as many for each job.
        let share = share * scenario.high_every.map_or(1.0, |every| 1.0 - 1.0 / every as f64);
        let messages = (self.messages + self.truth.messages()) as f64 * share;
        self.measurement.transfer(messages as u64, 0);
        self.measurement.set_overheads(scenario.way(), scenario.handling);
        let report = self.measurement.report(setting(scenario));
        let (wait, response) = self.measurement.means();
        let mean = scenario.service_time.as_secs_f64();
        let share = |done: u64, submitted: u64| done as f64 / submitted.max(1) as f64;
        let (submitted, done) = self.first;
        Findings {
            mean_wait: wait / mean,
            mean_response: response / mean,
            mean_wait_high: self.high.1.as_secs_f64() / self.high.0.max(1) as f64 / mean,
            done_high: self.done_high,
            loss: 1.0 - share(report.outcomes.done, report.submitted),
            done_first: share(done, submitted),
            done_others: share(report.outcomes.done - done, report.submitted - submitted),
            events,
            damage: self.damage,
            report,
        }
    }
}

fn setting(scenario: &Scenario) -> Setting {
    let slots: u32 = (0..scenario.workers).map(|worker| scenario.slots(worker)).sum();
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    Setting {
        policy: scenario.rule.as_str().to_owned(),
        utilisation: scenario.utilisation,
        senders: scenario.senders,
        workers: scenario.workers,
        slots: slots / scenario.workers as u32,
        concurrency: scenario.concurrency,
        service_time_ms: ms(scenario.service_time),
        distribution: scenario.distribution.as_str().to_owned(),
        publish_interval_ms: Some(ms(scenario.publish_interval)),
        seconds: scenario.duration.as_secs_f64(),
    }
}
