//! How a worker sets itself aside, as its jobs fail while those of its peers do not, and comes back.

use svcmap_proto::jobs::{FromWorker, Reason};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::{Server, ServerOutput};
use crate::health::Verdict;
use crate::intake::{Arrival, Ending, TaskId};

impl Server {
    /// Whether what the peers' loads say of this instance matters now: then
    /// [`Server::handle_verdict`] is due before anything else.
    pub fn wants_verdict(&self, now: Timestamp) -> bool {
        !self.is_draining() && self.health.wants_verdict(now, self.intake.is_empty())
    }

    /// What the peers' loads say: see [`judge`](crate::health::judge).
    pub fn handle_verdict(&mut self, now: Timestamp, verdict: Verdict) {
        if self.health.handle_verdict(now, verdict) {
            self.stand_aside(now);
        } else if let Some(error) = self.health.poll_alike() {
            let error = error.to_owned();
            self.answers.push_back(ServerOutput::FailsAlike { error });
        }
        self.credits.set_slots_max(self.health.slots_max());
        self.promise(now);
    }

    /// What the last job failed of, while this instance does not take all jobs because of that.
    pub fn error(&self) -> Option<&str> {
        self.health.error()
    }

    /// A handler ended by itself.
    pub(super) fn handle_health(&mut self, started_at: Timestamp, ending: Ending, error: &[u8]) {
        if self.health.handle_ended(started_at, ending, error) {
            self.answers.push_back(ServerOutput::Trusted);
        }
        self.credits.set_slots_max(self.health.slots_max());
    }

    /// Lets one job through, if it is time.
    pub(super) fn let_one_through(&mut self, now: Timestamp) {
        let here = u32::try_from(self.intake.len()).unwrap_or(u32::MAX);
        if self.health.handle_timeout(now, here) {
            self.credits.set_slots_max(self.health.slots_max());
        }
    }

    /// Takes a job, if there is room. One that comes while this instance is set aside was on its way:
    /// it goes elsewhere, if it can.
    pub(super) fn admit(&mut self, now: Timestamp, arrival: Arrival) -> Result<TaskId, Reason> {
        if self.health.is_aside() && arrival.terms.redirects_left > 0 && !self.is_draining() {
            self.intake.count_rejected(Reason::NoCredit, 1);
            return Err(Reason::NoCredit);
        }
        self.intake.admit(now, arrival, self.credits.promised())
    }

    /// Says to a sender how this instance is, unless it is away.
    pub(super) fn tell_load(&mut self, now: Timestamp, sender: SenderId) {
        if let Some(to) = self.senders.connection(sender).cloned() {
            let (received_jobs, load) = (self.senders.received_jobs(sender), self.load(now));
            self.answer(to, FromWorker::Pong { received_jobs, load });
        }
    }

    /// Gives back what waits and can go elsewhere.
    pub(super) fn hand_back_movable(&mut self, now: Timestamp) {
        let others =
            self.intake.take_queued(Reason::NoCredit, |task| task.terms.redirects_left > 0);
        self.hand_back(now, Reason::NoCredit, others);
    }

    /// Gives back what waits and can go elsewhere, and tells those who counted on promises. What runs
    /// here goes on.
    fn stand_aside(&mut self, now: Timestamp) {
        self.hand_back_movable(now);
        self.offers.clear();
        for sender in self.credits.void_all() {
            self.tell_load(now, sender);
        }
        let (error, pause) =
            (self.health.error().unwrap_or_default().to_owned(), self.health.pause());
        self.answers.push_back(ServerOutput::SetAside { error, pause });
    }
}
