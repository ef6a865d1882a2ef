//! The jobs of a sender, from `submit` to the one outcome of each.

mod job;
mod lanes;
mod offers;
mod progress;
mod waiting;

use std::cell::OnceCell;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use rustc_hash::FxHashMap;
use slab::Slab;
use svcmap_proto::jobs::{AttemptId, Reason, Verdict};
use svcmap_proto::json;
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::{Timestamp, earliest};

use crate::link::Ended;
use crate::outcome::{Cause, Failure, Outcome, Refusal, Reply};
pub use job::{Assigned, JobId, JobSpec, Lane, Next};
pub use lanes::LaneId;
use lanes::{Lanes, ServiceId, Slot};
pub use waiting::Standing;

/// After the deadline the worker's own word gets this long: it knows whether the job was started.
const DEADLINE_TICK: Duration = Duration::from_millis(50);

/// Hand-overs of one job, at most: who meets full queues that often waits like everybody.
const MOVES_MAX: u8 = 3;

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Here, in that lane, until a worker has room for it.
    Waiting(LaneId),
    /// With a worker, under the current attempt; the number names the link.
    At(u64),
}

#[derive(Debug)]
struct Job {
    id: JobId,
    spec: JobSpec,
    service: ServiceId,
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
    /// Whether its payload is JSON, once that has mattered.
    is_json: OnceCell<bool>,
    /// Why nobody knows how far an earlier attempt got: from then on the job may have run.
    lost: Option<Cause>,
    place: Place,
    cancelled: bool,
    /// Whether its current attempt has said how far it is.
    has_progress: bool,
    /// When somebody was last known to serve it, or it began to wait.
    served_at: Timestamp,
    /// When it is to be looked at; `None` while a worker has it and nothing is due.
    timer: Option<Timestamp>,
}

impl Job {
    fn deadline(&self) -> Option<Timestamp> {
        self.spec.deadline.map(|deadline| self.submitted_at + deadline)
    }

    fn is_urgent(&self) -> bool {
        self.spec.hold == Some(Duration::ZERO)
    }

    fn next(&self) -> Next {
        Next {
            id: self.id,
            payload_bytes: self.spec.payload.len(),
            submitted_at: self.submitted_at,
            priority: self.spec.priority,
            hold: self.spec.hold,
            met_unable: !self.unable.is_empty(),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    tries_max: u32,
    patience: Duration,
    jobs: Slab<Job>,
    slots: FxHashMap<JobId, Slot>,
    lanes: Lanes,
    timers: BTreeSet<(Timestamp, JobId)>,
    /// Jobs that have begun to wait, and when each is to be looked at: most are with a worker by then.
    fresh: Vec<(Timestamp, JobId, Slot)>,
    settled: VecDeque<(JobId, Outcome)>,
    /// How far jobs are, as far as that was not told.
    progress: VecDeque<(JobId, Option<String>)>,
}

impl Outbox {
    /// Empty; a job is tried at so many workers at most, and waits so long while nobody is there.
    pub fn new(tries_max: u32, patience: Duration) -> Self {
        Self {
            tries_max,
            patience,
            jobs: Slab::new(),
            slots: FxHashMap::default(),
            lanes: Lanes::default(),
            timers: BTreeSet::new(),
            fresh: Vec::new(),
            settled: VecDeque::new(),
            progress: VecDeque::new(),
        }
    }

    /// A new job. It waits until [`Outbox::assign`] gives it to a worker.
    pub fn submit(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        let service = self.lanes.service(&spec.service);
        let Some(lane) = self.lanes.lane(service, spec.instance.as_ref()) else { return };
        let job = Job {
            id,
            spec,
            service,
            submitted_at: now,
            attempts: 0,
            tries: 0,
            moves: 0,
            is_passed_on: false,
            vain_offers: 0,
            rejected: None,
            unable: Vec::new(),
            is_json: OnceCell::new(),
            lost: None,
            place: Place::Waiting(lane),
            cancelled: false,
            has_progress: false,
            served_at: now,
            timer: None,
        };
        let (look_at, priority) = (job.first_look_at(now), job.spec.priority);
        let slot = self.jobs.insert(job);
        self.fresh.push((look_at, id, slot));
        self.slots.insert(id, slot);
        self.lanes.push(lane, slot, priority, false);
    }

    /// Whether something has happened since the last [`Outbox::plan`]: a lane is to be looked at, or a
    /// job came or was settled.
    pub fn has_news(&self) -> bool {
        self.lanes.are_dirty() || !self.fresh.is_empty() || !self.settled.is_empty()
    }

    /// The next lane whose first job may have found room; each is returned once. Jobs come first that
    /// can go to one instance only: others take what they leave.
    pub fn next_dirty(&mut self) -> Option<LaneId> {
        self.lanes.next_dirty()
    }

    /// Something changed for that service: its waiting jobs may have found room.
    pub fn touch(&mut self, service: &Name) {
        self.lanes.touch_named(service);
    }

    /// Which lane that is, if it has any job or its service is known.
    pub fn find(&self, lane: &Lane) -> Option<LaneId> {
        self.lanes.find(lane)
    }

    /// What jobs of that lane wait for.
    pub fn lane(&self, lane: LaneId) -> Option<&Lane> {
        self.lanes.get(lane)
    }

    /// Whether any job of a service waits.
    pub fn has_waiting(&self, service: &Name) -> bool {
        self.lanes.depth(service) > 0
    }

    /// The job of a lane that goes next: of the highest class that waits who has waited longest.
    pub fn next(&self, lane: LaneId) -> Option<Next> {
        self.next_after(lane, 0)
    }

    /// The one that goes next after so many others.
    pub fn next_after(&self, lane: LaneId, others: usize) -> Option<Next> {
        let mut waiting = self.lanes.waiting(lane);
        // It is the first that is asked for by far most often: `nth` costs more for that.
        for _ in 0..others {
            waiting.next()?;
        }
        self.jobs.get(waiting.next()?).map(Job::next)
    }

    /// How many jobs wait in a lane.
    pub fn depth(&self, lane: LaneId) -> usize {
        self.lanes.len(lane)
    }

    /// How many of them are to be held.
    pub fn patient(&self, lane: LaneId) -> usize {
        let is_urgent = |slot| self.jobs.get(slot).is_some_and(Job::is_urgent);
        self.lanes.waiting(lane).filter(|slot| !is_urgent(*slot)).count()
    }

    /// How many jobs of a service are with workers.
    pub fn under_way(&self, service: &Name) -> u32 {
        self.lanes.under_way(service)
    }

    /// Whether a job of a service has no outcome yet.
    pub fn needs(&self, service: &Name) -> bool {
        self.under_way(service) > 0 || self.has_waiting(service)
    }

    /// Nothing is to be known of a service any more.
    pub fn forget(&mut self, service: &Name) {
        if !self.needs(service) {
            self.lanes.forget(service);
        }
    }

    /// Instances that could not start a job.
    pub fn unable(&self, id: JobId) -> &[Name] {
        self.job(id).map_or(&[], |job| &job.unable)
    }

    /// The metadata and the payload of a job that has no outcome yet.
    pub fn contents(&self, id: JobId) -> Option<(&Metadata, &Bytes)> {
        self.job(id).map(|job| (&job.spec.metadata, &job.spec.payload))
    }

    /// Whether the payload of a job is JSON. It is read once, if anybody asks.
    pub fn is_json(&self, id: JobId) -> bool {
        let is_json =
            |job: &Job| *job.is_json.get_or_init(|| json::value(&job.spec.payload).is_ok());
        self.job(id).is_some_and(is_json)
    }

    /// A waiting job goes to a worker, over that link.
    pub fn assign(&mut self, id: JobId, link: u64) -> Option<Assigned> {
        let slot = *self.slots.get(&id)?;
        let job = self.jobs.get_mut(slot)?;
        let Place::Waiting(lane) = job.place else { return None };
        self.lanes.remove(lane, slot, job.spec.priority);
        job.attempts += 1;
        job.is_passed_on = false;
        job.place = Place::At(link);
        self.lanes.count_under_way(job.service, 1);
        let is_pinned = job.spec.instance.is_some();
        let assigned = Assigned {
            attempt: AttemptId { job: job.id.0, attempt: job.attempts },
            deadline: job.deadline(),
            run_limit: job.spec.run_limit,
            submitted_at: job.submitted_at,
            redirects_left: if is_pinned { 0 } else { MOVES_MAX - job.moves },
            payload_bytes: job.spec.payload.len(),
            metadata_bytes: job.spec.metadata.len(),
            detachment: job.spec.detachment,
            priority: job.spec.priority,
        };
        self.set_timer(slot, assigned.deadline.map(|deadline| deadline + DEADLINE_TICK));
        Some(assigned)
    }

    /// An attempt ended at a worker.
    pub fn handle_ended(&mut self, now: Timestamp, by: &InstanceKey, ended: Ended) {
        let Ended { attempt, verdict, payload, ran, .. } = ended;
        let tries_max = self.tries_max;
        let Some((id, job)) = self.current(attempt) else { return };
        let (by, attempts) = (by.clone(), job.attempts);
        let waited = now.since(job.submitted_at).saturating_sub(ran);
        match verdict {
            Verdict::Done => {
                self.settle(id, Outcome::Done(Reply { payload, by, attempts, waited, ran }));
            }
            Verdict::Failed { code } => {
                let error = String::from_utf8_lossy(&payload).into_owned();
                let failure = Failure { error, code, by, attempts, waited, ran };
                self.settle(id, Outcome::Failed(failure));
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
            Verdict::Rejected(reason) => {
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
        let job = self.jobs.get_mut(*self.slots.get(&id)?)?;
        job.cancelled = true;
        match job.place {
            Place::At(link) => Some((AttemptId { job: id.0, attempt: job.attempts }, link)),
            Place::Waiting(_) => {
                self.refuse(now, id, Reason::Cancelled);
                None
            }
        }
    }

    /// Refuses a job that waits; one that may have run is not told so, see [`truly`].
    pub fn refuse(&mut self, now: Timestamp, id: JobId, reason: Reason) {
        let Some(job) = self.job(id) else { return };
        let waited = now.since(job.submitted_at);
        self.settle(id, Outcome::Refused(Refusal { reason, attempts: job.tries, waited }));
    }

    /// No more jobs are sent: what waits is refused, what is under way is unknown.
    pub fn stop(&mut self, now: Timestamp) {
        let mut jobs: Vec<_> = self.jobs.iter().map(|(_, job)| (job.id, job.place)).collect();
        jobs.sort_unstable_by_key(|(id, _)| *id);
        for (id, place) in jobs {
            match place {
                Place::Waiting(_) => self.refuse(now, id, Reason::Cancelled),
                Place::At(_) => self.settle(id, Outcome::Unknown(Cause::Stopped)),
            }
        }
    }

    /// The next outcome, once for each job.
    pub fn poll_settled(&mut self) -> Option<(JobId, Outcome)> {
        self.settled.pop_front()
    }

    /// When [`Outbox::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let fresh = self.fresh.iter().map(|(at, ..)| *at).min();
        earliest(self.timers.first().map(|(at, _)| *at), fresh)
    }

    /// Plans when the jobs are looked at that have begun to wait and still do: whoever drives this does
    /// it once it has given to workers what it can.
    pub fn plan(&mut self) {
        if self.fresh.is_empty() {
            return;
        }
        let mut fresh = std::mem::take(&mut self.fresh);
        for (at, id, slot) in fresh.drain(..) {
            // Another one may lie there by now.
            let is_unplanned = self.jobs.get(slot).is_some_and(|job| {
                job.id == id && matches!(job.place, Place::Waiting(_)) && job.timer.is_none()
            });
            if is_unplanned {
                self.set_timer(slot, Some(at));
            }
        }
        self.fresh = fresh;
    }

    /// Jobs without an outcome.
    pub fn len(&self) -> usize {
        self.jobs.len()
    }

    /// Whether every job has its outcome.
    pub fn is_empty(&self) -> bool {
        self.jobs.is_empty()
    }

    fn job(&self, id: JobId) -> Option<&Job> {
        self.jobs.get(*self.slots.get(&id)?)
    }

    /// The job of an attempt, if that attempt is its current one.
    fn current(&mut self, attempt: AttemptId) -> Option<(JobId, &mut Job)> {
        let id = JobId(attempt.job);
        let job = self.jobs.get_mut(*self.slots.get(&id)?)?;
        let is_away = matches!(job.place, Place::At(_));
        (is_away && job.attempts == attempt.attempt).then_some((id, job))
    }

    /// Back to the head of its class: it has waited longest.
    fn wait_again(&mut self, now: Timestamp, id: JobId) {
        let Some(&slot) = self.slots.get(&id) else { return };
        let Some(job) = self.jobs.get_mut(slot) else { return };
        let Some(lane) = self.lanes.lane(job.service, job.spec.instance.as_ref()) else { return };
        (job.place, job.served_at) = (Place::Waiting(lane), now);
        if std::mem::take(&mut job.has_progress) {
            self.progress.push_back((id, None));
        }
        // A hold that has passed meanwhile still allows one more look for room.
        let (timer, priority) = (job.first_look_at(now), job.spec.priority);
        self.lanes.count_under_way(job.service, -1);
        self.lanes.push(lane, slot, priority, true);
        // Others may go as well.
        self.lanes.touch(job.service);
        self.set_timer(slot, Some(timer));
    }

    fn set_timer(&mut self, slot: Slot, timer: Option<Timestamp>) {
        if let Some(job) = self.jobs.get_mut(slot) {
            let before = std::mem::replace(&mut job.timer, timer);
            before.map(|at| self.timers.remove(&(at, job.id)));
            timer.map(|at| self.timers.insert((at, job.id)));
        }
    }

    fn settle(&mut self, id: JobId, outcome: Outcome) {
        let Some(slot) = self.slots.remove(&id) else { return };
        let Some(job) = self.jobs.try_remove(slot) else { return };
        job.timer.map(|at| self.timers.remove(&(at, id)));
        match job.place {
            Place::Waiting(lane) => self.lanes.remove(lane, slot, job.spec.priority),
            Place::At(_) => {
                self.lanes.count_under_way(job.service, -1);
                self.lanes.touch(job.service);
            }
        }
        self.settled.push_back((id, truly(outcome, job.lost)));
    }
}

/// How a job ended, in view of an attempt that was lost. `Refused` says that no handler started it,
/// which nobody knows any more, whatever became of it afterwards.
fn truly(outcome: Outcome, lost: Option<Cause>) -> Outcome {
    match (outcome, lost) {
        (Outcome::Refused(_), Some(cause)) => Outcome::Unknown(cause),
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests;
