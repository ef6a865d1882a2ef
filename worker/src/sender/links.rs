//! A sender's links, one for each life of an instance that it uses, and when an unreachable one is
//! tried again.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::json;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey};
use svcmap_proto::time::{Timestamp, earliest};

use super::roster::usable_endpoints;
use crate::choice::Candidate;
use crate::link::{Closing, Identity, Link, Timing};
use crate::peers::{Member, Peers};
use crate::rep::RepWorker;

/// A worker that could not be reached is left alone for this long, doubling with each failure.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// The longest that an unreachable worker is left alone.
const RETRY_MAX: Duration = Duration::from_secs(16);

/// A link, and what the sender knows about reaching its worker.
#[derive(Debug)]
pub(super) struct LinkState {
    pub(super) link: Link,
    /// Its worker, if that speaks the JSON dialect.
    pub(super) rep: Option<RepWorker>,
    /// Which of the worker's endpoints comes next.
    endpoint: usize,
    failures: u32,
    retry_at: Option<Timestamp>,
    /// The sequence of the load that the link's count of unreflected jobs refers to.
    load_sequence: u64,
}

impl LinkState {
    /// The worker answered.
    pub(super) fn handle_answer(&mut self) {
        self.failures = 0;
    }

    /// It told of its load, which counts the jobs up to that number.
    pub(super) fn handle_answered_load(&mut self, load_sequence: u64, received_jobs: u64) {
        self.load_sequence = load_sequence;
        self.link.reflect(received_jobs);
    }

    /// The link closed: an unreachable worker is tried at its next address, in a while.
    pub(super) fn handle_closed(&mut self, now: Timestamp, closing: Closing) {
        if closing == Closing::Unreachable {
            let wait = RETRY_FIRST * 2u32.saturating_pow(self.failures.min(10));
            self.failures += 1;
            self.endpoint += 1;
            self.retry_at = Some(now + wait.min(RETRY_MAX));
        }
    }

    /// Acts on the link's deadlines. Returns whether its worker may be tried again from now on.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) -> bool {
        self.link.handle_timeout(now);
        let has_room = self.rep.as_mut().is_some_and(|rep| rep.handle_timeout(now));
        self.retry_at.take_if(|at| *at <= now).is_some() || has_room
    }

    /// Where to connect to next.
    pub(super) fn endpoint(&self, member: &Member, host: HostId) -> Option<Endpoint> {
        let usable = usable_endpoints(member, host);
        usable.get(self.endpoint % usable.len().max(1)).map(|endpoint| (*endpoint).clone())
    }

    /// How many jobs its load does not count yet, and how many there are in all; `None` if it
    /// cannot be used now.
    fn jobs(&mut self, member: &Member) -> Option<(u32, u32)> {
        if self.retry_at.is_some() {
            return None;
        }
        if member.load.sequence > self.load_sequence {
            self.load_sequence = member.load.sequence;
            self.link.reflect_until(member.load_at);
        }
        let mut accepted = 0;
        if let Some(rep) = &mut self.rep {
            rep.handle_load(&member.load);
            if rep.full_until().is_some() || self.link.open() > 0 {
                return None;
            }
            accepted = rep.accepted();
        }
        let usable = self.link.is_closed() || self.link.is_usable();
        usable.then(|| (self.link.unreflected().saturating_add(accepted), self.link.open()))
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Links {
    by_number: BTreeMap<u64, LinkState>,
    by_peer: BTreeMap<(InstanceKey, Incarnation), u64>,
    next: u64,
}

impl Links {
    /// The link of that number.
    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut LinkState> {
        self.by_number.get_mut(&number)
    }

    /// Every link and its number.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut LinkState)> {
        self.by_number.iter_mut().map(|(number, state)| (*number, state))
    }

    /// The links to that life of that instance and to all earlier ones.
    pub(super) fn until(&mut self, key: &InstanceKey, incarnation: Incarnation) -> Vec<u64> {
        let lives = (key.clone(), Incarnation(0))..=(key.clone(), incarnation);
        self.by_peer.range(lives).map(|(_, number)| *number).collect()
    }

    /// The link to that life of that instance, which is listed with that load. The flag says
    /// whether it is to be connected: it is new, or was closed.
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        peer: &(InstanceKey, Incarnation),
        load: Load,
        identity: Identity,
        timing: Timing,
    ) -> (u64, bool) {
        if let Some(&number) = self.by_peer.get(peer)
            && let Some(state) = self.by_number.get_mut(&number)
        {
            let closed = state.link.is_closed();
            state.link.reopen(now);
            return (number, closed);
        }
        let number = self.next;
        self.next += 1;
        let link = Link::new(now, identity, peer.0.clone(), peer.1, timing);
        let (endpoint, failures, retry_at, load_sequence) = (0, 0, None, 0);
        let rep = RepWorker::new(load);
        let state = LinkState { link, rep, endpoint, failures, retry_at, load_sequence };
        self.by_number.insert(number, state);
        self.by_peer.insert(peer.clone(), number);
        (number, true)
    }

    /// A member as the policy sees it; `None` if it cannot be used now. A load older than `expiry`
    /// is none, but a worker of the JSON dialect reports seldom: its load counts while a mapper
    /// speaks of it, and for as long as an original worker may be silent.
    pub(super) fn candidate(
        &mut self,
        now: Timestamp,
        peer: &(InstanceKey, Incarnation),
        member: &Member,
        expiry: Duration,
        host: HostId,
    ) -> Option<Candidate> {
        let age = now.since(member.load_at);
        let is_told = || now.since(member.told_at) <= json::LEASE;
        let counts = age <= expiry || (member.load.share.is_some() && is_told());
        let load = counts.then_some(member.load);
        let number = self.by_peer.get(peer);
        let (unreflected, own) = match number.and_then(|number| self.by_number.get_mut(number)) {
            Some(state) => state.jobs(member)?,
            None if usable_endpoints(member, host).is_empty() => return None,
            None => (0, 0),
        };
        Some(Candidate { load, age, unreflected, own })
    }

    /// When a link has a deadline, or an unreachable worker may be tried again.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let links = self.by_number.values().filter_map(|state| {
            let retry_at = state.retry_at.filter(|_| state.link.is_closed());
            let full_until = state.rep.as_ref().and_then(RepWorker::full_until);
            earliest(state.link.poll_timeout(), earliest(retry_at, full_until))
        });
        links.min()
    }

    /// Forgets closed links to lives that are over.
    pub(super) fn forget_ended(&mut self, peers: &Peers) {
        let by_number = &mut self.by_number;
        self.by_peer.retain(|(key, incarnation), number| {
            let member = peers.is_member(key, *incarnation);
            let keep = member || by_number.get(number).is_some_and(|s| !s.link.is_closed());
            if !keep {
                by_number.remove(number);
            }
            keep
        });
    }
}
