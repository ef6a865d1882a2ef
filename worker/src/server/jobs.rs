//! Jobs on their way through a worker: from their sender to the handlers, and what these make of them.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{Claim, Demand, Detachment, JobBatch, JobHeader, Reason, Verdict};
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::{Server, ServerOutput};
use crate::intake::{Arrival, Cancelled, Ending, Finished, Origin, TaskId, Terms};
use crate::senders::{Ended, wanted_until};

impl Server {
    pub(super) fn handle_jobs(&mut self, now: Timestamp, sender: SenderId, batch: JobBatch) {
        let before = self.senders.handle_jobs(sender, &batch);
        let JobBatch { share, share_priority: priority, jobs, mut payloads, .. } = batch;
        let (mut demand, mut taken) = (None, 0);
        for (number, job) in jobs.into_iter().enumerate() {
            let metadata = payloads.take(job.metadata_bytes.into());
            let payload = payloads.take(job.payload_bytes);
            if number < before {
                continue;
            }
            // The next ones will be as large as the last of these, and have waited for as long.
            let JobHeader { waited_us, payload_bytes, .. } = job;
            let pinned = job.redirects_left == 0;
            demand = Some(Demand { share, waited_us, payload_bytes, pinned, priority });
            taken += u32::from(self.handle_job(now, sender, share, job, (metadata, payload)));
        }
        let Some(demand) = demand else { return };
        self.credits.handle_taken(sender, taken);
        self.absence.handle_job(now);
        self.credits.handle_share(now, sender, demand);
        self.serve_offers(now);
    }

    /// Returns whether it was taken.
    fn handle_job(
        &mut self,
        now: Timestamp,
        sender: SenderId,
        share: u32,
        job: JobHeader,
        (metadata, payload): (Bytes, Bytes),
    ) -> bool {
        let JobHeader { attempt, claim, redirects_left, detachment, priority, .. } = job;
        let origin = Origin::Sender { sender, attempt };
        let metadata = Metadata::decode(metadata);
        let from_ms = |ms: u32| Duration::from_millis(ms.into());
        let deadline = job.deadline_ms.map(|ms| now + from_ms(ms));
        let run_limit = job.run_limit_ms.map(from_ms);
        let waited = Duration::from_micros(job.waited_us);
        self.credits.claim(now, sender, claim, payload.len(), waited);
        let Ok(metadata) = metadata else {
            self.intake.count_unreadable();
            self.end(now, origin, Ended::unreadable(wanted_until(now, deadline)));
            return false;
        };
        let detached = detachment.is_detached();
        let terms = Terms { deadline, run_limit, redirects_left, detached, priority, metadata };
        // Who deals in promises lets jobs be moved, but for those that can go nowhere else.
        let is_movable = redirects_left > 0 || claim != Claim::Nothing || share > 0;
        self.has_movable = Some(self.has_movable == Some(true) || is_movable);
        let is_released = detachment == Detachment::Released;
        let whose = if is_released { Origin::Released { sender, attempt } } else { origin };
        let wanted_until = wanted_until(now, deadline);
        let admitted = self.admit(now, Arrival { origin: whose, payload, terms });
        match admitted {
            Ok(_) if is_released => self.end(now, origin, Ended::accepted(wanted_until)),
            Ok(_) => {}
            Err(reason) => self.end(now, origin, Ended::rejected(reason, wanted_until)),
        }
        admitted.is_ok()
    }

    pub(super) fn handle_cancel(&mut self, now: Timestamp, origin: Origin) {
        match self.intake.cancel(origin) {
            Cancelled::Removed => self.end_queued(now, origin, Reason::Cancelled),
            Cancelled::Running(task) => self.answers.push_back(ServerOutput::Cancel(task)),
            Cancelled::NotFound => {}
        }
    }

    /// A job that waits is not to be begun any more.
    pub(super) fn handle_take_back(&mut self, now: Timestamp, origin: Origin) {
        if self.intake.take_back(origin) {
            self.end_queued(now, origin, Reason::Cancelled);
        }
    }

    /// A handler began and ended a job at these times, which is of interest before
    /// [`Server::handle_finished`].
    pub fn handle_ran(&mut self, task: TaskId, began_at: Timestamp, ended_at: Timestamp) {
        self.intake.handle_ran(task, began_at, ended_at);
    }

    /// These jobs, in their order, had been started, but no handler had begun them.
    pub fn handle_taken_back(
        &mut self,
        now: Timestamp,
        jobs: impl DoubleEndedIterator<Item = (TaskId, Bytes)>,
    ) {
        for (origin, reason) in self.intake.handle_taken_back(now, jobs) {
            self.end_queued(now, origin, reason);
        }
        // They wait, so they are of interest to who looks for absent senders.
        self.absence.handle_job(now);
        if self.health.is_aside() {
            self.hand_back_movable(now);
        }
        self.has_ended = true;
    }

    /// A job that nobody waits for was taken from the handlers before one began it.
    pub fn handle_withdrawn(&mut self, now: Timestamp, task: TaskId) {
        if let Some((origin, reason)) = self.intake.handle_withdrawn(now, task) {
            self.end_queued(now, origin, reason);
            self.has_ended = true;
        }
    }

    /// A handler ended, with a result or an error as `payload`.
    pub fn handle_finished(
        &mut self,
        now: Timestamp,
        task: TaskId,
        ending: Ending,
        payload: impl Into<Bytes>,
    ) {
        let payload: Bytes = payload.into();
        let Some(finished) = self.intake.handle_finished(now, task, ending) else { return };
        if !finished.was_stopped {
            self.handle_health(finished.started_at, ending, &payload);
        }
        let (verdict, payload) = match ending {
            Ending::Done => (Verdict::Done, payload),
            Ending::Failed { code } => (Verdict::Failed { code }, payload),
            // Nobody tries it elsewhere.
            Ending::NotStarted if !finished.origin.is_awaited() => {
                (Verdict::Failed { code: None }, payload)
            }
            Ending::NotStarted => (Verdict::Rejected(Reason::CannotStart), Bytes::new()),
        };
        // A handler that looks at its time itself may be a moment earlier than the intake.
        let payload = match (ending, finished.over_limit) {
            (Ending::Failed { .. }, Some(limit)) => reached(limit),
            _ => payload,
        };
        if self.is_draining() && ending != Ending::NotStarted {
            self.drained.finished += 1;
        }
        let wanted_until = wanted_until(now, finished.deadline);
        let Finished { here, ran, .. } = finished;
        let ended = Ended { verdict, payload, wanted_until, here, ran };
        self.leave(finished.origin);
        if let Origin::Sender { sender, .. } = finished.origin
            && self.ended.last() != Some(&sender)
        {
            self.ended.push(sender);
        }
        self.has_ended = true;
        self.end(now, finished.origin, ended);
    }
}

/// The error of a job that ran for as long as it may.
pub(super) fn reached(limit: Duration) -> Bytes {
    format!("reached its run limit of {limit:?}").into()
}
