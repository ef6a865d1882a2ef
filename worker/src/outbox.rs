//! The jobs of a sender, from `submit` to the one outcome of each.

mod job;
mod offers;
mod waiting;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, Reason, Verdict};
use svcmap_proto::limits;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use crate::outcome::{Cause, Failure, Outcome, Refusal, Reply};
pub use job::{Assigned, JobId, JobSpec, Lane};
pub use waiting::Standing;

/// After the deadline the worker's own word gets this long: it knows whether the job was started.
const DEADLINE_TICK: Duration = Duration::from_millis(50);

/// Hand-overs of one job, at most: who meets full queues that often waits like everybody.
const MOVES_MAX: u8 = 3;

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// Here, until a worker has room for it.
    Waiting,
    /// With a worker, under the current attempt; the number names the link.
    At(u64),
}

#[derive(Debug)]
struct Job {
    spec: JobSpec,
    submitted_at: Timestamp,
    /// Attempts so far: the number of the current one.
    attempts: u32,
    /// Attempts that reached a worker and came to nothing.
    tries: u32,
    /// How often it was handed over.
    moves: u8,
    /// Whether its current attempt claims a slot that was passed on, and how often there was none.
    is_passed_on: bool,
    vain_offers: u8,
    rejected: Option<Reason>,
    /// Instances that could not start it.
    unable: Vec<Name>,
    /// Why nobody knows how far an earlier attempt got: from then on the job may have run.
    lost: Option<Cause>,
    place: Place,
    cancelled: bool,
    /// When somebody was last known to serve it, or it began to wait.
    served_at: Timestamp,
    /// When it is to be looked at; `None` while a worker has it and nothing is due.
    timer: Option<Timestamp>,
}

impl Job {
    fn deadline(&self) -> Option<Timestamp> {
        self.spec.deadline.map(|deadline| self.submitted_at + deadline)
    }

    fn lane(&self) -> Lane {
        Lane { service: self.spec.service.clone(), instance: self.spec.instance.clone() }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    tries_max: u32,
    patience: Duration,
    jobs: BTreeMap<JobId, Job>,
    waiting: BTreeMap<Lane, VecDeque<JobId>>,
    /// Lanes that have waiting jobs and may have found room.
    dirty: BTreeSet<Lane>,
    timers: BTreeSet<(Timestamp, JobId)>,
    /// How many jobs of each service are with workers.
    under_way: BTreeMap<Name, u32>,
    settled: VecDeque<(JobId, Outcome)>,
}

impl Outbox {
    /// Empty; a job is tried at so many workers at most, and waits so long while nobody is there.
    pub fn new(tries_max: u32, patience: Duration) -> Self {
        Self {
            tries_max,
            patience,
            jobs: BTreeMap::new(),
            waiting: BTreeMap::new(),
            dirty: BTreeSet::new(),
            timers: BTreeSet::new(),
            under_way: BTreeMap::new(),
            settled: VecDeque::new(),
        }
    }

    /// A new job. It waits until [`Outbox::assign`] gives it to a worker.
    pub fn submit(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        let mut job = Job {
            spec,
            submitted_at: now,
            attempts: 0,
            tries: 0,
            moves: 0,
            is_passed_on: false,
            vain_offers: 0,
            rejected: None,
            unable: Vec::new(),
            lost: None,
            place: Place::Waiting,
            cancelled: false,
            served_at: now,
            timer: None,
        };
        let timer = job.first_look_at(now);
        job.timer = Some(timer);
        let lane = job.lane();
        self.timers.insert((timer, id));
        self.jobs.insert(id, job);
        self.waiting.entry(lane.clone()).or_default().push_back(id);
        self.dirty.insert(lane);
    }

    /// The next lane whose first job may have found room; each is returned once. Of a service's,
    /// jobs come first that can go to one instance only: others take what they leave.
    pub fn next_dirty(&mut self) -> Option<Lane> {
        self.dirty.pop_last()
    }

    /// Something changed for that service: its waiting jobs may have found room.
    pub fn touch(&mut self, service: &Name) {
        if self.waiting.is_empty() {
            return;
        }
        self.dirty.extend(lanes_of(&self.waiting, service).map(|(lane, _)| lane.clone()));
    }

    /// Whether any job of a service waits.
    pub fn has_waiting(&self, service: &Name) -> bool {
        lanes_of(&self.waiting, service).next().is_some()
    }

    /// The job that has waited longest in a lane.
    pub fn first(&self, lane: &Lane) -> Option<JobId> {
        self.waiting.get(lane)?.front().copied()
    }

    /// How many jobs wait in a lane.
    pub fn depth(&self, lane: &Lane) -> usize {
        self.waiting.get(lane).map_or(0, VecDeque::len)
    }

    /// How many jobs of a service are with workers.
    pub fn under_way(&self, service: &Name) -> u32 {
        self.under_way.get(service).copied().unwrap_or(0)
    }

    /// Whether a job of a service has no outcome yet.
    pub fn needs(&self, service: &Name) -> bool {
        self.under_way(service) > 0 || lanes_of(&self.waiting, service).next().is_some()
    }

    /// Nothing is to be known of a service any more.
    pub fn forget(&mut self, service: &Name) {
        self.under_way.remove(service);
    }

    /// When a job that has no outcome yet was submitted.
    pub fn submitted_at(&self, id: JobId) -> Option<Timestamp> {
        self.jobs.get(&id).map(|job| job.submitted_at)
    }

    /// Whether a job is to be refused rather than held.
    pub fn is_urgent(&self, id: JobId) -> bool {
        self.jobs.get(&id).is_some_and(|job| job.spec.hold == Some(Duration::ZERO))
    }

    /// Instances that could not start a job; `None` if it met no such one.
    pub fn unable(&self, id: JobId) -> Option<&[Name]> {
        self.jobs.get(&id).map(|job| job.unable.as_slice()).filter(|unable| !unable.is_empty())
    }

    /// The payload of a job that has no outcome yet.
    pub fn payload(&self, id: JobId) -> Option<&Bytes> {
        self.jobs.get(&id).map(|job| &job.spec.payload)
    }

    /// The first job of a lane goes to a worker, over that link.
    pub fn assign(&mut self, lane: &Lane, link: u64) -> Option<Assigned> {
        let queue = self.waiting.get_mut(lane)?;
        let id = queue.pop_front()?;
        if queue.is_empty() {
            self.waiting.remove(lane);
        }
        let job = self.jobs.get_mut(&id)?;
        job.attempts += 1;
        job.is_passed_on = false;
        job.place = Place::At(link);
        match self.under_way.get_mut(&lane.service) {
            Some(under_way) => *under_way += 1,
            None => {
                self.under_way.insert(lane.service.clone(), 1);
            }
        }
        let is_pinned = job.spec.instance.is_some();
        let assigned = Assigned {
            attempt: AttemptId { job: id.0, attempt: job.attempts },
            deadline: job.deadline(),
            run_limit: job.spec.run_limit,
            submitted_at: job.submitted_at,
            moves_left: if is_pinned { 0 } else { MOVES_MAX - job.moves },
            payload: job.spec.payload.clone(),
            detached: job.spec.detached,
        };
        self.set_timer(id, assigned.deadline.map(|deadline| deadline + DEADLINE_TICK));
        Some(assigned)
    }

    /// An attempt ended at a worker.
    pub fn handle_ended(
        &mut self,
        now: Timestamp,
        attempt: AttemptId,
        verdict: &Verdict,
        by: &InstanceKey,
        payload: Bytes,
    ) {
        let tries_max = self.tries_max;
        let Some((id, job)) = self.current(attempt) else { return };
        let by = by.clone();
        match verdict {
            Verdict::Done => {
                let payload = alone(payload);
                self.settle(id, Outcome::Done(Reply { payload, by }));
            }
            Verdict::Failed => {
                let error = String::from_utf8_lossy(&payload).into_owned();
                self.settle(id, Outcome::Failed(Failure { error, by }));
            }
            Verdict::Abandoned => self.handle_lost(now, attempt, Cause::Drain),
            Verdict::Accepted => self.settle(id, Outcome::Accepted),
            Verdict::HandedOver(_) if job.cancelled => self.refuse(now, id, Reason::Cancelled),
            Verdict::HandedOver(_) => {
                job.moves = MOVES_MAX.min(job.moves + 1);
                self.wait_again(now, id);
            }
            // Whoever passed it on knew better, or lied: that is not the job's fault.
            Verdict::Rejected(Reason::Full) if job.is_passed_on && !job.cancelled => {
                job.vain_offers += 1;
                self.wait_again(now, id);
            }
            &Verdict::Rejected(reason) => {
                job.rejected = Some(reason);
                if reason == Reason::CannotStart {
                    job.unable.push(by.instance);
                }
                // Who drains says so once, and is not asked again: the job has not tried its luck.
                job.tries += u32::from(reason != Reason::Draining);
                let again = reason.is_of_one_instance() && job.tries < tries_max && !job.cancelled;
                if again {
                    self.wait_again(now, id);
                } else {
                    self.refuse(now, id, reason);
                }
            }
        }
    }

    /// An attempt never reached its worker, so it does not count.
    pub fn handle_never_seen(&mut self, now: Timestamp, attempt: AttemptId) {
        let Some((id, job)) = self.current(attempt) else { return };
        if job.cancelled {
            self.refuse(now, id, Reason::Cancelled);
        } else {
            self.wait_again(now, id);
        }
    }

    /// An attempt may have run, and nobody will tell.
    pub fn handle_lost(&mut self, now: Timestamp, attempt: AttemptId, cause: Cause) {
        let tries_max = self.tries_max;
        let Some((id, job)) = self.current(attempt) else { return };
        job.tries += 1;
        job.lost = Some(cause);
        let again = job.spec.idempotent && !job.cancelled && job.tries < tries_max;
        if again && !job.is_expired(now) {
            self.wait_again(now, id);
        } else {
            self.settle(id, Outcome::Unknown(cause));
        }
    }

    /// The user takes a job back. Returns the attempt to cancel, and its link, if a worker has it.
    pub fn cancel(&mut self, now: Timestamp, id: JobId) -> Option<(AttemptId, u64)> {
        let job = self.jobs.get_mut(&id)?;
        job.cancelled = true;
        match job.place {
            Place::At(link) => Some((AttemptId { job: id.0, attempt: job.attempts }, link)),
            Place::Waiting => {
                self.refuse(now, id, Reason::Cancelled);
                None
            }
        }
    }

    /// Refuses a job that waits; one that may have run is not told so, see [`truly`].
    pub fn refuse(&mut self, now: Timestamp, id: JobId, reason: Reason) {
        let Some(job) = self.jobs.get(&id) else { return };
        let waited = now.since(job.submitted_at);
        self.settle(id, Outcome::Refused(Refusal { reason, attempts: job.tries, waited }));
    }

    /// No more jobs are sent: what waits is refused, what is under way is unknown.
    pub fn stop(&mut self, now: Timestamp) {
        let ids: Vec<_> = self.jobs.keys().copied().collect();
        for id in ids {
            match self.jobs.get(&id).map(|job| &job.place) {
                Some(Place::Waiting) => self.refuse(now, id, Reason::Cancelled),
                _ => self.settle(id, Outcome::Unknown(Cause::Stopped)),
            }
        }
    }

    /// The next outcome, once for each job.
    pub fn poll_settled(&mut self) -> Option<(JobId, Outcome)> {
        self.settled.pop_front()
    }

    /// When [`Outbox::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Jobs that wait for a worker, in that lane.
    pub fn waiting(&self, lane: &Lane) -> impl Iterator<Item = JobId> {
        self.waiting.get(lane).into_iter().flatten().copied()
    }

    /// Jobs without an outcome.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether every job has its outcome.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    /// The job of an attempt, if that attempt is its current one.
    fn current(&mut self, attempt: AttemptId) -> Option<(JobId, &mut Job)> {
        let id = JobId(attempt.job);
        let job = self.jobs.get_mut(&id)?;
        let current = job.attempts == attempt.attempt && job.place != Place::Waiting;
        current.then_some((id, job))
    }

    /// Back to the head of its lane: it has waited longest.
    fn wait_again(&mut self, now: Timestamp, id: JobId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        (job.place, job.served_at) = (Place::Waiting, now);
        let lane = job.lane();
        self.handle_back(&lane.service);
        let Some(job) = self.jobs.get(&id) else { return };
        // A hold that has passed meanwhile still allows one more look for room.
        let timer = job.first_look_at(now);
        self.waiting.entry(lane.clone()).or_default().push_front(id);
        self.dirty.insert(lane);
        self.set_timer(id, Some(timer));
    }

    /// A job of that service is with a worker no more: others may go.
    fn handle_back(&mut self, service: &Name) {
        if let Some(under_way) = self.under_way.get_mut(service) {
            *under_way = under_way.saturating_sub(1);
        }
        self.touch(service);
    }

    fn set_timer(&mut self, id: JobId, timer: Option<Timestamp>) {
        if let Some(job) = self.jobs.get_mut(&id) {
            let before = std::mem::replace(&mut job.timer, timer);
            before.map(|at| self.timers.remove(&(at, id)));
            timer.map(|at| self.timers.insert((at, id)));
        }
    }

    fn settle(&mut self, id: JobId, outcome: Outcome) {
        let Some(job) = self.jobs.remove(&id) else { return };
        job.timer.map(|at| self.timers.remove(&(at, id)));
        if job.place == Place::Waiting {
            let lane = job.lane();
            if let Some(queue) = self.waiting.get_mut(&lane) {
                match queue.front() == Some(&id) {
                    true => drop(queue.pop_front()),
                    false => queue.retain(|waiting| *waiting != id),
                }
                if queue.is_empty() {
                    self.waiting.remove(&lane);
                }
            }
        } else {
            self.handle_back(&job.spec.service);
        }
        self.settled.push_back((id, truly(outcome, job.lost)));
    }
}

/// A payload that whoever keeps it keeps alone: small ones come with others in one frame.
fn alone(payload: Bytes) -> Bytes {
    if limits::is_large(payload.len()) { payload } else { Bytes::copy_from_slice(&payload) }
}

/// How a job ended, in view of an attempt that was lost. `Refused` says that no handler started it,
/// which nobody knows any more, whatever became of it afterwards.
fn truly(outcome: Outcome, lost: Option<Cause>) -> Outcome {
    match (outcome, lost) {
        (Outcome::Refused(_), Some(cause)) => Outcome::Unknown(cause),
        (outcome, _) => outcome,
    }
}

/// What is kept for the lanes of a service: first for that of jobs that can go to any instance.
pub(crate) fn lanes_of<'a, T>(
    lanes: &'a BTreeMap<Lane, T>,
    service: &'a Name,
) -> impl Iterator<Item = (&'a Lane, &'a T)> {
    lanes.range(Lane::any(service)..).take_while(move |(lane, _)| lane.service == *service)
}

#[cfg(test)]
mod tests;
