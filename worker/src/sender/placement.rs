//! Where a sender's jobs go: the ways to decide that, of which a sender has one, and what they may
//! look at.

mod by_choice;
mod by_guess;
mod by_promise;

use std::borrow::Cow;
use std::time::Duration;

use svcmap_proto::jobs::Claim;
use svcmap_proto::names::{HostId, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

pub(super) use self::by_choice::ByChoice;
pub(super) use self::by_promise::ByPromise;
use super::Sender;
use super::asks::Asks;
use super::links::Links;
use super::services::Services;
use crate::choice::Candidate;
use crate::outbox::{Lane, Next, Outbox};
use crate::peers::Peers;

/// Workers that are looked at where all could be: of so many random ones the best is nearly the best
/// of all.
const LOOKS: usize = 8;

/// A way to decide where jobs go.
pub(super) trait Placement: Send {
    /// Jobs of a lane are to be placed, one after the other, at these instances.
    fn begin(&mut self, _situation: &Situation<'_>, _lane: &Lane, _instances: &[InstanceKey]) {}

    /// Where the lane's first job goes; `None`: nowhere now.
    fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>>;

    /// It goes to that worker.
    fn handle_sent(&mut self, _key: &InstanceKey) {}

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
    /// The instances that it may go to.
    pub(super) instances: &'a [InstanceKey],
    /// Whether these are not all of the lane's: some could not start it.
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
    pub(super) now: Timestamp,
    host: HostId,
    /// A load older than this is none.
    expiry: Duration,
    outbox: &'a Outbox,
    peers: &'a Peers,
    links: &'a mut Links,
    asks: &'a Asks,
    services: &'a mut Services,
    random: &'a mut fastrand::Rng,
}

impl Sender {
    /// Who places jobs, and what there is to look at.
    pub(super) fn placing(&mut self, now: Timestamp) -> (&mut dyn Placement, Situation<'_>) {
        let situation = Situation {
            now,
            host: self.host,
            expiry: self.timing.expiry,
            outbox: &self.outbox,
            peers: &self.peers,
            links: &mut self.links,
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
    /// A few random instances.
    pub(super) fn sample<'a>(
        &mut self,
        instances: &'a [InstanceKey],
    ) -> impl Iterator<Item = &'a InstanceKey> + use<'a> {
        let all = instances.len();
        let first = self.random.usize(..all.max(1));
        (0..LOOKS.min(all)).map(move |further| &instances[(first + further) % all])
    }

    /// What is known of an instance.
    pub(super) fn candidate(&mut self, key: &InstanceKey) -> Option<Candidate> {
        self.numbered_candidate(key).map(|(_, candidate)| candidate)
    }

    /// The same, with the number of the link to it, if there is one.
    fn numbered_candidate(&mut self, key: &InstanceKey) -> Option<(Option<u64>, Candidate)> {
        let member = self.peers.member(key)?;
        let number = self.links.number(key, member.life);
        let candidate = self.links.candidate(self.now, number, member, self.expiry, self.host)?;
        Some((number, candidate))
    }

    /// What is known of an instance, and the time until one more job would be done there, in
    /// seconds.
    pub(super) fn look(&mut self, key: &InstanceKey) -> Option<(Candidate, f64)> {
        let candidate = self.candidate(key)?;
        Some((candidate, self.services.estimates(&key.service).expected_finish(&candidate)))
    }

    fn speaks_json(&self, key: &InstanceKey) -> bool {
        self.peers.member(key).is_some_and(|member| member.load.share.is_some())
    }

    /// How many jobs of a service are with workers, but for those of the JSON dialect.
    pub(super) fn native_under_way(&self, service: &Name) -> u32 {
        let json = self.services.json(service);
        let busy = json.iter().filter_map(|key| Some((key, self.peers.member(key)?.life)));
        let busy = busy.filter_map(|(key, life)| self.links.get(self.links.number(key, life)?));
        let with_them: u32 = busy.map(|state| state.link.open()).sum();
        self.outbox.under_way(service).saturating_sub(with_them)
    }
}
