//! Slots that others pass on for a job: whoever does so may err, or lie.

use svcmap_proto::jobs::AttemptId;
use svcmap_proto::names::Name;

use super::{JobId, Outbox};

/// Slots passed on for one job that turn out not to be there, until it takes no more of them.
const VAIN_OFFERS_MAX: u8 = 3;

impl Outbox {
    /// An attempt claims a slot that was passed on.
    pub fn handle_passed_on(&mut self, attempt: AttemptId) {
        if let Some((_, job)) = self.current(attempt) {
            job.is_passed_on = true;
        }
    }

    /// Whether a job is to take a slot of that instance that was passed on: not if that was in vain too
    /// often, nor if it could not be started there.
    pub fn takes_offer(&self, id: JobId, instance: &Name) -> bool {
        self.job(id)
            .is_some_and(|job| job.vain_offers < VAIN_OFFERS_MAX && !job.unable.contains(instance))
    }
}
