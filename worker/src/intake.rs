//! Where jobs arrive at a worker: admission, the queue, what runs, and the load that follows.
//!
//! `running + queued + promised <= slots`, always; what does not fit is rejected at once.

mod ahead;
mod deadlines;
mod given_up;
mod queue;
mod task;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use svcmap_proto::jobs::{AttemptId, Priority, Reason};
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::{Timestamp, earliest, wire_ms, wire_us};

use crate::config::IntakeConfig;
use crate::metrics::{Histogram, Served};
use crate::slots::{Capacity, Occupancy, Promised};
pub use deadlines::Expired;
use queue::Queue;
pub use task::{Arrival, Cancelled, Ending, Finished, Origin, RequestId, Task, TaskId, Terms};

/// After such a pause nobody knows how long the next jobs take: the work may be another.
const PAUSE: Duration = Duration::from_secs(10);

/// Weight of the newest service time in the moving average: an eighth, as in TCP's estimate of the
/// round trip (RFC 6298).
const MEAN_SHIFT: u32 = 3;

#[derive(Debug)]
struct Running {
    id: TaskId,
    origin: Origin,
    bytes: usize,
    /// When it has run for as long as it may.
    limit_at: Option<Timestamp>,
    arrived_at: Timestamp,
    /// When a handler got it, or it was handed to them.
    started_at: Timestamp,
    /// When its handler ended, as that says.
    ended_at: Option<Timestamp>,
    was_stopped: bool,
    terms: Terms,
}

impl Running {
    /// The next point in time at which it concerns somebody.
    fn ends_at(&self) -> Option<Timestamp> {
        earliest(self.terms.deadline, self.limit_at)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Intake {
    config: IntakeConfig,
    queue: Queue,
    /// What the handlers have, in the order in which they begin it.
    running: VecDeque<Running>,
    /// Deadlines of all jobs here that nobody has acted on yet.
    deadlines: BTreeSet<(Timestamp, TaskId)>,
    bytes: usize,
    next_task: u64,
    draining: bool,
    /// Counters, mean and sequence; what changes by itself is filled in by [`Intake::load`].
    load: Load,
    /// Rejected attempts by the reason, those that could not be read left out.
    rejected: BTreeMap<Reason, u64>,
    waits: Histogram,
    service_times: Histogram,
    finished_at: Option<Timestamp>,
    /// No job has finished since a pause.
    after_pause: bool,
    /// No job has finished since what waited at the handlers was taken back.
    is_stuck: bool,
    /// Nothing is to wait at the handlers.
    is_cautious: bool,
}

impl Intake {
    /// An empty intake.
    pub fn new(config: IntakeConfig) -> Self {
        let load =
            Load { slots: config.slots(), concurrency: config.concurrency, ..Load::default() };
        Self {
            config,
            queue: Queue::default(),
            running: VecDeque::new(),
            deadlines: BTreeSet::new(),
            bytes: 0,
            next_task: 0,
            draining: false,
            load,
            rejected: BTreeMap::new(),
            waits: Histogram::default(),
            service_times: Histogram::default(),
            finished_at: None,
            after_pause: false,
            is_stuck: false,
            is_cautious: false,
        }
    }

    /// Takes a job into the queue, beside what is promised to others, or says why not.
    ///
    /// # Errors
    /// The reason to reject the attempt with: draining, too large, full or expired.
    pub fn admit(
        &mut self,
        now: Timestamp,
        arrival: Arrival,
        promised: Promised,
    ) -> Result<TaskId, Reason> {
        let Arrival { origin, payload, mut terms } = arrival;
        if let Err(reason) = self.check(now, terms.deadline, payload.len(), promised) {
            self.count_rejected(reason, 1);
            return Err(reason);
        }
        if self.is_empty() {
            self.after_pause = self.forgets_at().is_none_or(|at| at <= now);
        }
        let id = TaskId(self.next_task);
        self.next_task += 1;
        self.bytes += payload.len();
        self.load.accepted += 1;
        terms.deadline.map(|deadline| self.deadlines.insert((deadline, id)));
        terms.run_limit = terms.run_limit.into_iter().chain(self.config.run_limit).min();
        if terms.detached {
            // Handed back to a sender that is gone it would be lost.
            terms.redirects_left = 0;
        }
        self.queue.push(Task { id, origin, payload, arrived_at: now, terms });
        Ok(id)
    }

    fn check(
        &self,
        now: Timestamp,
        deadline: Option<Timestamp>,
        bytes: usize,
        promised: Promised,
    ) -> Result<(), Reason> {
        if self.draining {
            Err(Reason::Draining)
        } else if bytes > self.config.payload_bytes_max {
            Err(Reason::TooLarge)
        } else if deadline.is_some_and(|deadline| deadline <= now) {
            Err(Reason::Expired)
        } else if !self.has_room(promised, bytes) {
            Err(Reason::Full)
        } else {
            Ok(())
        }
    }

    /// The next job for the handlers, if one waits that they are to have now. A job whose time to run is
    /// limited has to wait for a free one: its time begins here.
    pub fn start_next(&mut self, now: Timestamp) -> Option<Task> {
        let next = self.queue.first()?;
        let handed = self.running.len();
        let is_free = handed < self.config.concurrency as usize;
        if !is_free && (next.terms.run_limit.is_some() || handed >= self.handed_max(now)) {
            return None;
        }
        let task = self.queue.take_first()?;
        let running = Running {
            id: task.id,
            origin: task.origin,
            bytes: task.payload.len(),
            limit_at: task.terms.run_limit.map(|limit| now + limit),
            arrived_at: task.arrived_at,
            started_at: now,
            ended_at: None,
            was_stopped: false,
            terms: task.terms.clone(),
        };
        self.forget_deadline(task.terms.deadline, task.id);
        running.ends_at().map(|at| self.deadlines.insert((at, task.id)));
        self.running.push_back(running);
        Some(task)
    }

    /// A handler ended. `None` if the job was abandoned.
    pub fn handle_finished(
        &mut self,
        now: Timestamp,
        id: TaskId,
        ending: Ending,
    ) -> Option<Finished> {
        let running = self.take_running(id)?;
        self.bytes -= running.bytes;
        let was_stopped = running.was_stopped || running.ends_at().is_some_and(|at| at <= now);
        let ran = running.ended_at.unwrap_or(now).since(running.started_at);
        match ending {
            Ending::Done => {
                match running.origin {
                    Origin::Overdue => self.load.failed += 1,
                    _ => self.load.done += 1,
                }
                // How soon a job fails does not tell how long the next one takes, and one that was
                // stopped would have taken longer.
                let is_longer = || self.last_mean().is_none_or(|mean| ran > mean);
                if !was_stopped || is_longer() {
                    self.learn(ran);
                    self.after_pause = false;
                }
            }
            Ending::Failed { .. } => self.load.failed += 1,
            // Where somebody waits it is tried elsewhere.
            Ending::NotStarted if running.origin.is_awaited() => {
                self.count_rejected(Reason::CannotStart, 1);
            }
            Ending::NotStarted => self.load.failed += 1,
        }
        if ending != Ending::NotStarted {
            self.waits.count(wire_us(running.started_at.since(running.arrived_at)));
            self.service_times.count(wire_us(ran));
        }
        self.finished_at = Some(now);
        self.is_stuck = false;
        let Running { origin, limit_at, arrived_at, started_at, terms, .. } = running;
        let over_limit = terms.run_limit.filter(|_| limit_at.is_some_and(|at| at <= now));
        let (deadline, here) = (terms.deadline, now.since(arrived_at));
        Some(Finished { origin, deadline, here, started_at, ran, was_stopped, over_limit })
    }

    /// Takes the first job that waits, from that place in the queue on, and can go to another
    /// instance with a slot for so many bytes. A job for which a handler is free does not wait.
    pub fn take_movable(&mut self, from: impl Fn(usize) -> usize, bytes: u32) -> Option<Task> {
        let free = (self.config.concurrency as usize).saturating_sub(self.running.len());
        let is_movable = |(place, task): &(usize, &Task)| {
            let size = task.payload.len();
            task.terms.redirects_left > 0 && size <= bytes as usize && *place >= free + from(size)
        };
        let (place, _) = self.queue.iter().enumerate().find(is_movable)?;
        let task = self.queue.remove(place)?;
        self.bytes -= task.payload.len();
        self.forget_deadline(task.terms.deadline, task.id);
        Some(task)
    }

    /// So many jobs are not done here, for that reason.
    pub fn count_rejected(&mut self, reason: Reason, jobs: u64) {
        self.load.rejected += jobs;
        *self.rejected.entry(reason).or_default() += jobs;
    }

    /// A job cannot even be looked at.
    pub fn count_unreadable(&mut self) {
        self.load.rejected += 1;
    }

    /// Jobs that run at once.
    pub fn concurrency(&self) -> u32 {
        self.config.concurrency
    }

    fn has_room(&self, promised: Promised, bytes: usize) -> bool {
        let capacity = Capacity { slots: self.config.slots(), bytes: self.config.jobs_bytes_max };
        // How long jobs take makes no room.
        let here = Occupancy { jobs: count(self.len()), bytes: self.bytes, mean_service: None };
        capacity.has_room(here, promised, bytes)
    }

    /// What is here.
    pub fn occupancy(&self, now: Timestamp) -> Occupancy {
        let mean_service = self.mean_service(now);
        Occupancy { jobs: count(self.len()), bytes: self.bytes, mean_service }
    }

    /// Mean service time, if that is known now. Where every handler has been at work for longer, jobs
    /// are longer than they were.
    fn mean_service(&self, now: Timestamp) -> Option<Duration> {
        let forgotten = match self.is_empty() {
            true => self.forgets_at().is_none_or(|at| at <= now),
            false => self.after_pause,
        };
        let all_busy = self.running.len() >= self.config.concurrency as usize;
        let newest = self.running.get((self.config.concurrency as usize).saturating_sub(1));
        let newest = newest.filter(|_| all_busy).map(|running| running.started_at);
        // With others behind it, it may have begun later than it was handed out.
        let since = match self.handed() {
            (_, 0) => newest,
            _ => newest.map(|at| at.max(self.finished_at.unwrap_or_default())),
        };
        let at_work = since.map_or(Duration::ZERO, |at| now.since(at));
        self.load.mean_service().filter(|_| !forgotten).map(|mean| mean.max(at_work))
    }

    /// Mean service time as it was last known.
    pub fn last_mean(&self) -> Option<Duration> {
        self.load.mean_service()
    }

    /// When the mean service time is no longer known, if no job comes before.
    pub fn forgets_at(&self) -> Option<Timestamp> {
        self.finished_at.map(|at| at + PAUSE)
    }

    /// Attempts of that sender that wait or run here.
    pub fn attempts_of(&self, sender: SenderId) -> impl Iterator<Item = AttemptId> {
        let queued = self.queue.iter().map(|task| task.origin);
        let origins = queued.chain(self.running.iter().map(|running| running.origin));
        origins.filter_map(move |origin| match origin {
            Origin::Sender { sender: whose, attempt } if whose == sender => Some(attempt),
            _ => None,
        })
    }

    /// Takes a job back, if its sender still can.
    pub fn cancel(&mut self, origin: Origin) -> Cancelled {
        if self.take_back(origin) {
            return Cancelled::Removed;
        }
        match self.running.iter_mut().find(|running| running.origin == origin) {
            Some(running) => {
                running.was_stopped = true;
                Cancelled::Running(running.id)
            }
            None => Cancelled::NotFound,
        }
    }

    /// Takes a job back that waits. Whether it did.
    pub fn take_back(&mut self, origin: Origin) -> bool {
        let index = self.queue.position(|task| task.origin == origin);
        index.and_then(|index| self.remove_queued(index, Reason::Cancelled)).is_some()
    }

    /// From now on nothing is admitted. Jobs that nobody would send again come first.
    pub fn drain(&mut self) {
        self.draining = true;
        self.queue.sort_for_drain();
    }

    /// Gives up what is still here: jobs that waited, and jobs that run.
    pub fn abandon(&mut self) -> (Vec<Origin>, Vec<(TaskId, Origin)>) {
        self.deadlines.clear();
        self.bytes = 0;
        let queued: Vec<_> = self.queue.iter().map(|task| task.origin).collect();
        self.queue = Queue::default();
        self.count_rejected(Reason::Draining, queued.len() as u64);
        let running = std::mem::take(&mut self.running);
        (queued, running.into_iter().map(|running| (running.id, running.origin)).collect())
    }

    /// Jobs here, waiting and running.
    pub fn len(&self) -> usize {
        self.queue.len() + self.running.len()
    }

    /// Whether nothing waits and nothing runs.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What this instance says of itself now, with that promised. Each call is newer than
    /// the one before.
    pub fn load(&mut self, now: Timestamp, promised: Promised) -> Load {
        self.load.sequence += 1;
        self.load.promised = promised.slots;
        self.load.state = if self.draining { State::Draining } else { State::Ready };
        let (running, ahead) = self.handed();
        self.load.queued = count(self.queue.len() + ahead);
        self.load.running = count(running);
        let (mut high, mut low, mut oldest) = (0, 0, self.queue.oldest());
        for ahead in self.running.iter().skip(running) {
            high += u32::from(ahead.terms.priority == Priority::High);
            low += u32::from(ahead.terms.priority == Priority::Low);
            oldest = earliest(oldest, Some(ahead.arrived_at));
        }
        self.load.queued_high = self.queue.of_class(Priority::High) + high;
        self.load.queued_low = self.queue.of_class(Priority::Low) + low;
        self.load.oldest_queued_ms = oldest.map_or(0, |at| wire_ms(now.since(at)));
        self.load.since_finish_ms = self.finished_at.map(|at| wire_ms(now.since(at)));
        self.load
    }

    /// What it has counted, without its load.
    pub fn served(&self) -> Served {
        let (running, _) = self.handed();
        let ahead = self.running.iter().skip(running).map(|ahead| ahead.bytes);
        let queued = self.queue.iter().map(|task| task.payload.len());
        Served {
            load: Load::default(),
            rejected: self.rejected.clone(),
            waits: self.waits.clone(),
            service_times: self.service_times.clone(),
            queued_bytes: ahead.chain(queued).sum(),
        }
    }

    /// A job that waits is not to be done here, for that reason. Returns whose it was.
    fn remove_queued(&mut self, place: usize, reason: Reason) -> Option<Origin> {
        let task = self.queue.remove(place)?;
        self.bytes -= task.payload.len();
        self.forget_deadline(task.terms.deadline, task.id);
        self.count_rejected(reason, 1);
        Some(task.origin)
    }

    fn learn(&mut self, service_time: Duration) {
        // At least one: zero means that nothing is known.
        let sample = u64::try_from(service_time.as_micros()).unwrap_or(u64::MAX).max(1);
        let mean = &mut self.load.mean_service_us;
        *mean = match *mean {
            0 => sample,
            mean => (mean - (mean >> MEAN_SHIFT) + (sample >> MEAN_SHIFT)).max(1),
        };
    }
}

/// Jobs fit in 32 bits: there are at most [`crate::config::SLOTS_MAX`].
fn count(jobs: usize) -> u32 {
    u32::try_from(jobs).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
