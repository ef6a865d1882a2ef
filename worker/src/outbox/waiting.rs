//! How long jobs wait: for room as long as somebody serves their service, with patience for whoever is
//! gone, and no longer than their user says.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::jobs::{AttemptId, Reason};
use svcmap_proto::names::Name;
use svcmap_proto::time::{Timestamp, earliest};

use super::{Job, JobId, Lane, LaneId, Next, Outbox, Place};
use crate::outcome::{Cause, Outcome};

/// How often a waiting job is looked at for whether anybody serves it at all.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Jobs that have waited for less are only on their way.
const WORTH_TELLING: Duration = Duration::from_millis(100);

/// A mapper that is there has told by then who serves a service.
pub(super) const NEWS_LIMIT: Duration = Duration::from_secs(2);

/// What is known of those that a lane's jobs may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Somebody serves it, and this is why a job has to wait all the same.
    Served(Reason),
    /// Nobody does now, but somebody did, or may: worth some patience. Why it has to wait.
    Missed(Reason),
    /// Nobody does, and no mapper has ever heard that anybody did.
    Unserved(Reason),
    /// The mappers have started lately and do not know everybody yet.
    Warming,
    /// No mapper has told anything.
    Unheard,
}

impl Job {
    pub(super) fn is_expired(&self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }

    /// Until when it waits for a worker with room.
    fn held_until(&self) -> Option<Timestamp> {
        let held = self.spec.hold.map(|hold| self.submitted_at + hold);
        earliest(held, self.deadline())
    }

    /// When a job that begins to wait is to be looked at: if its hold is over, at once.
    pub(super) fn first_look_at(&self, now: Timestamp) -> Timestamp {
        let look_at = now + LOOK_INTERVAL;
        self.held_until().map_or(look_at, |held| held.clamp(now, look_at))
    }

    /// When a job that waits on is to be looked at again.
    fn look_at(&self, now: Timestamp, patience: Duration) -> Timestamp {
        let hold = self.spec.hold.map(|hold| self.submitted_at + hold);
        let ends = [hold, self.deadline(), Some(self.served_at + patience)];
        let ends = ends.into_iter().flatten().filter(|end| *end > now);
        ends.fold(now + LOOK_INTERVAL, Timestamp::min)
    }
}

impl Outbox {
    /// More is known of who serves a service: jobs that wait in a lane that `is_served` by nobody are
    /// looked at now, and those whose hold is over.
    pub fn look(&mut self, now: Timestamp, service: &Name, is_served: impl Fn(&Lane) -> bool) {
        let is_due = |job: &Job| job.held_until().is_some_and(|held| held <= now);
        let mut due = Vec::new();
        for (lane, id) in self.lanes.of_service(service) {
            let is_served = is_served(lane);
            let waiting = self.lanes.waiting(id);
            due.extend(
                waiting.filter(|slot| !is_served || self.jobs.get(*slot).is_some_and(is_due)),
            );
        }
        for slot in due {
            self.set_timer(slot, Some(now));
        }
    }

    /// Lanes whose jobs have waited for longer than any news of their services should take.
    pub fn slow_lanes(&self, now: Timestamp) -> impl Iterator<Item = &Lane> {
        self.waiting_for(now, NEWS_LIMIT).map(|(lane, _)| lane)
    }

    /// Services whose jobs have waited for a while, and how many do.
    pub fn waiting(&self, now: Timestamp) -> BTreeMap<Name, u32> {
        let mut services = BTreeMap::new();
        for (lane, id) in self.waiting_for(now, WORTH_TELLING) {
            let jobs = u32::try_from(self.lanes.len(id)).unwrap_or(u32::MAX);
            let sum: &mut u32 = services.entry(lane.service.clone()).or_default();
            *sum = sum.saturating_add(jobs);
        }
        services
    }

    /// Lanes whose next job was submitted so long ago.
    fn waiting_for(&self, now: Timestamp, time: Duration) -> impl Iterator<Item = (&Lane, LaneId)> {
        let is_old = move |lane| {
            let first = self.lanes.waiting(lane).next().and_then(|slot| self.jobs.get(slot));
            first.is_some_and(|job| job.submitted_at + time <= now)
        };
        self.lanes.with_waiting().filter(move |(_, id)| is_old(*id))
    }

    /// Nobody is known that a new job could go to: it is looked at now.
    pub fn look_at(&mut self, now: Timestamp, id: JobId) {
        if let Some(slot) = self.slots.get(&id) {
            self.set_timer(*slot, Some(now));
        }
    }

    /// This process was suspended for so long: in that time nobody could be heard of.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        for (_, job) in &mut self.jobs {
            job.served_at = now.min(job.served_at + gap);
        }
    }

    /// The jobs whose hold is over and that will be refused now if they find no room, and their lanes.
    pub fn held_no_longer(&self, now: Timestamp) -> Vec<(LaneId, Next)> {
        let due = self.timers.range(..=(now, JobId(u64::MAX)));
        let jobs = due.filter_map(|(_, id)| self.job(*id));
        let is_over = |job: &&Job| {
            let hold = job.spec.hold.map(|hold| job.submitted_at + hold);
            hold.is_some_and(|hold| hold <= now) && !job.is_expired(now)
        };
        let waiting = jobs.filter(is_over).filter_map(|job| match job.place {
            Place::Waiting(lane) => Some((lane, job.next())),
            Place::At(_) => None,
        });
        waiting.collect()
    }

    /// Acts on every deadline, hold and patience that has passed. `standing` says what is known of
    /// those that a lane's jobs may go to. `withdraw` takes back an attempt from its link, if it was
    /// not sent.
    pub fn handle_timeout(
        &mut self,
        now: Timestamp,
        standing: impl Fn(&Lane) -> Standing,
        mut withdraw: impl FnMut(AttemptId, u64) -> bool,
    ) {
        self.plan();
        while let Some(&(at, id)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let job = self.slots.get(&id).and_then(|slot| self.jobs.get_mut(*slot));
            let Some(job) = job else { continue };
            job.timer = None;
            let attempt = AttemptId { job: id.0, attempt: job.attempts };
            match job.place {
                Place::At(link) if withdraw(attempt, link) => {
                    self.refuse(now, id, Reason::Expired);
                }
                Place::At(_) => self.settle(id, Outcome::Unknown(Cause::Deadline)),
                Place::Waiting(lane) => {
                    let Some(standing) = self.lanes.get(lane).map(&standing) else { continue };
                    self.handle_wait(now, id, standing);
                }
            }
        }
    }

    /// A job waits on, or has waited for long enough.
    fn handle_wait(&mut self, now: Timestamp, id: JobId, standing: Standing) {
        let Some(&slot) = self.slots.get(&id) else { return };
        let Some(job) = self.jobs.get_mut(slot) else { return };
        if let Standing::Served(_) = standing {
            job.served_at = now;
        }
        let is_patient = job.served_at + self.patience > now;
        let is_held = job.held_until().is_none_or(|held| held > now);
        let is_new = job.submitted_at + NEWS_LIMIT > now;
        let refused = match standing {
            // A worker has seen it: what that said tells more.
            Standing::Served(Reason::NoCredit) if !is_held => {
                job.rejected.or(Some(Reason::NoCredit))
            }
            Standing::Served(reason) if !is_held => Some(reason),
            Standing::Missed(reason) if !is_held || !is_patient => Some(reason),
            Standing::Unserved(reason) => Some(reason),
            Standing::Warming if !is_patient => Some(Reason::NoSuchService),
            Standing::Unheard if !(is_held || is_new) || !is_patient => Some(Reason::NoMapper),
            _ if job.is_expired(now) => Some(Reason::Expired),
            _ => None,
        };
        let look_at = job.look_at(now, self.patience);
        match refused {
            Some(reason) => self.refuse(now, id, reason),
            None => self.set_timer(slot, Some(look_at)),
        }
    }
}
