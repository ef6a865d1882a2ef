//! What a sender has counted: outcomes, and what became of the attempts at each instance.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::jobs::{Reason, Verdict};
use svcmap_proto::names::{InstanceKey, Name};

use crate::outcome::Outcome;

/// Most instances that are counted one by one; beyond it the first ones stay.
const INSTANCES_MAX: usize = 4096;

/// Counts since the sender started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Jobs submitted.
    pub submitted: u64,
    /// Jobs with a result.
    pub done: u64,
    /// Jobs whose handler returned an error.
    pub failed: u64,
    /// Jobs that no handler started.
    pub refused: u64,
    /// Jobs of which nobody knows.
    pub unknown: u64,
    /// Jobs taken by a worker that reports no more.
    pub accepted: u64,
    /// Messages to and from workers.
    pub messages: u64,
    /// Bytes of those messages, without what the transport adds.
    pub bytes: u64,
    /// How long ago a mapper last told anything of each service that is kept track of: so old is what
    /// is known. Those of which none has told yet are missing.
    pub told_ago: BTreeMap<Name, Duration>,
    /// What became of the attempts, by instance.
    pub instances: BTreeMap<InstanceKey, Tally>,
    /// The same for instances beyond the number that is counted one by one.
    pub others: Tally,
}

/// What became of the attempts at one instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Attempts that were sent.
    pub sent: u64,
    /// Of those: with a result.
    pub done: u64,
    /// With an error.
    pub failed: u64,
    /// Taken by a worker that reports no more.
    pub accepted: u64,
    /// Rejected, for whatever reason; their jobs were tried elsewhere or refused.
    pub rejected: u64,
    /// Of the rejected, those rejected as full: stale-cache errors.
    pub stale: u64,
    /// Handed over to another instance, before they were started.
    pub handed_over: u64,
    /// Nobody knows.
    pub lost: u64,
    /// Chosen for this instance, but never seen by it; tried elsewhere.
    pub never_seen: u64,
}

impl Tally {
    /// An attempt ended there.
    pub(crate) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Done => self.done += 1,
            Verdict::Failed { .. } => self.failed += 1,
            Verdict::Abandoned => self.lost += 1,
            Verdict::Accepted => self.accepted += 1,
            Verdict::Rejected(Reason::Full) => {
                self.rejected += 1;
                self.stale += 1;
            }
            Verdict::Rejected(_) => self.rejected += 1,
            Verdict::HandedOver(_) => self.handed_over += 1,
        }
    }
}

impl Statistics {
    /// Jobs that have an outcome.
    pub fn settled(&self) -> u64 {
        self.done + self.failed + self.refused + self.unknown + self.accepted
    }

    /// Stale-cache errors at all instances.
    pub fn stale(&self) -> u64 {
        self.instances.values().map(|tally| tally.stale).sum::<u64>() + self.others.stale
    }

    pub(crate) fn peer(&mut self, key: &InstanceKey) -> &mut Tally {
        if self.instances.len() >= INSTANCES_MAX && !self.instances.contains_key(key) {
            return &mut self.others;
        }
        self.instances.entry(key.clone()).or_default()
    }

    pub(crate) fn count(&mut self, outcome: &Outcome) {
        *match outcome {
            Outcome::Done(_) => &mut self.done,
            Outcome::Failed(_) => &mut self.failed,
            Outcome::Refused(_) => &mut self.refused,
            Outcome::Unknown(_) => &mut self.unknown,
            Outcome::Accepted => &mut self.accepted,
        } += 1;
    }
}
