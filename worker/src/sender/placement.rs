//! Where a sender's jobs go: the ways to decide that, of which a sender has one, and what they may
//! look at.

mod by_choice;
mod by_guess;
mod by_promise;
mod known;

use std::borrow::Cow;
use std::time::Duration;

use svcmap_proto::jobs::Claim;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

pub(super) use self::by_choice::ByChoice;
pub(super) use self::by_promise::ByPromise;
pub(super) use self::known::Known;
use super::Sender;
use super::asks::Asks;
use super::services::Services;
use crate::outbox::{Lane, Next};

/// Workers that are weighed where all could be: of so many random ones the best is nearly the best
/// of all.
const LOOKS: usize = 8;

/// A way to decide where jobs go.
pub(super) trait Placement: Send {
    /// Jobs of a lane are to be placed, one after the other, at these instances.
    fn begin(&mut self, _situation: &Situation<'_>, _lane: &Lane, _instances: &[InstanceKey]) {}

    /// Where one of them goes, which is taken to have gone there; `None`: nowhere now.
    fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>>;

    /// Whether native workers are asked to promise slots.
    fn takes_credits(&self) -> bool {
        false
    }

    /// Whether the load on answers is to enter the cache, beside what mappers publish.
    fn learns_from_answers(&self) -> bool {
        true
    }
}

/// A job that looks for its worker.
pub(super) struct Unplaced<'a> {
    pub(super) lane: &'a Lane,
    pub(super) next: &'a Next,
    /// The instances that it is to go to.
    pub(super) instances: &'a [InstanceKey],
    /// Whether these are not all of the lane's: some could not start it, and others can take it.
    pub(super) is_narrowed: bool,
}

/// Where a job goes, and what was known when that was decided.
pub(super) struct Placed<'a> {
    pub(super) key: Cow<'a, InstanceKey>,
    /// The number of the link to it, if that was looked up.
    pub(super) number: Option<u64>,
    /// How old what is known of its load is; `None` if nothing is.
    pub(super) age: Option<Duration>,
    /// On what the job claims a slot there, and until when that can be claimed.
    pub(super) claim: Claim,
    pub(super) claimed_until: Option<Timestamp>,
}

impl<'a> Placed<'a> {
    /// At a worker that has promised nothing.
    fn unpromised(key: Cow<'a, InstanceKey>, number: Option<u64>, age: Option<Duration>) -> Self {
        Self { key, number, age, claim: Claim::Nothing, claimed_until: None }
    }
}

/// What a sender knows, for a placement to look at.
pub(super) struct Situation<'a> {
    pub(super) known: Known<'a>,
    asks: &'a Asks,
    services: &'a mut Services,
    random: &'a mut fastrand::Rng,
}

impl Sender {
    /// Who places jobs, and what there is to look at.
    pub(super) fn placing(&mut self, now: Timestamp) -> (&mut dyn Placement, Situation<'_>) {
        let situation = Situation {
            known: Known {
                now,
                host: self.host,
                expiry: self.timing.expiry,
                outbox: &self.outbox,
                peers: &self.peers,
                links: &mut self.links,
            },
            asks: &self.asks,
            services: &mut self.services,
            random: &mut self.random,
        };
        (&mut *self.placement, situation)
    }

    /// What there is to look at.
    pub(super) fn situation(&mut self, now: Timestamp) -> Situation<'_> {
        self.placing(now).1
    }
}

impl Situation<'_> {
    /// All instances, the first being a random one.
    fn rotated<'a>(
        &mut self,
        instances: &'a [InstanceKey],
    ) -> impl Iterator<Item = &'a InstanceKey> + use<'a> {
        let (before, after) = instances.split_at(self.random.usize(..=instances.len()));
        after.iter().chain(before)
    }

    /// How many jobs of a service are with workers, but for those of the JSON dialect.
    pub(super) fn native_under_way(&self, service: &Name) -> u32 {
        let json = self.services.json(service);
        let with_them: u32 = json.iter().map(|key| self.known.open(key)).sum();
        self.known.outbox.under_way(service).saturating_sub(with_them)
    }
}
