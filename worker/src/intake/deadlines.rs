//! Jobs whose time is over, be it the deadline or the time to run.

use std::time::Duration;

use svcmap_proto::jobs::Reason;
use svcmap_proto::time::{Timestamp, earliest};

use super::{Intake, Origin, TaskId};

/// A job whose time is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// Its deadline passed while it waited, and it is gone.
    Waiting(Origin),
    /// Its deadline passed while the handlers have it: tell the one that does. Whether one is taken to
    /// have begun it.
    Running(Origin, TaskId, bool),
    /// It has run for as long as it may: tell the handler, and its sender. It counts as running until
    /// its handler ends.
    RunLimit {
        /// Whose it is.
        origin: Origin,
        /// Which job.
        task: TaskId,
        /// For how long it was to run at most.
        limit: Duration,
        /// When its sender stops waiting, if it does.
        deadline: Option<Timestamp>,
        /// How long it has been here.
        here: Duration,
    },
}

impl Intake {
    /// Jobs whose deadline or time to run is over. Each is returned once.
    pub fn expire(&mut self, now: Timestamp) -> Vec<Expired> {
        let mut expired = Vec::new();
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            self.deadlines.pop_first();
            let place = self.place(id);
            if let Some(running) = place.and_then(|place| self.running.get_mut(place)) {
                running.was_stopped = true;
                let is_late = running.terms.deadline.is_some_and(|deadline| deadline <= now);
                // Once its sender has stopped waiting, nobody is to be told of the other.
                running.limit_at.take_if(|_| is_late);
                let (origin, deadline) = (running.origin, running.terms.deadline);
                expired.push(if is_late {
                    Expired::Running(origin, id, place < Some(self.config.concurrency as usize))
                } else {
                    running.limit_at = None;
                    (running.origin, running.terms.deadline) = (Origin::Overdue, None);
                    let limit = running.terms.run_limit.unwrap_or_default();
                    let here = now.since(running.arrived_at);
                    Expired::RunLimit { origin, task: id, limit, deadline, here }
                });
            } else if let Some(place) = self.queue.position(|task| task.id == id) {
                expired.extend(self.remove_queued(place, Reason::Expired).map(Expired::Waiting));
            }
        }
        expired
    }

    /// The next deadline of a job here, or when those that wait at the handlers may be taken back.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        earliest(self.deadlines.first().map(|(deadline, _)| *deadline), self.stuck_at())
    }

    pub(super) fn forget_deadline(&mut self, deadline: Option<Timestamp>, id: TaskId) {
        deadline.map(|at| self.deadlines.remove(&(at, id)));
    }
}
