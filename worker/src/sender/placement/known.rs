//! What a sender knows of workers, and which of them could be given a job.

use std::time::Duration;

use svcmap_proto::json;
use svcmap_proto::load::State;
use svcmap_proto::names::{HostId, InstanceKey};
use svcmap_proto::time::Timestamp;

use crate::choice::Candidate;
use crate::outbox::{Next, Outbox};
use crate::peers::{Member, Peers};
use crate::sender::links::Links;

/// See the module.
pub(in crate::sender) struct Known<'a> {
    pub(super) now: Timestamp,
    pub(super) host: HostId,
    /// The load of a native worker that is older than this is none.
    pub(super) expiry: Duration,
    pub(super) outbox: &'a Outbox,
    pub(super) peers: &'a Peers,
    pub(super) links: &'a mut Links,
}

impl Known<'_> {
    /// What is known of an instance; `None` if it cannot be used now, or takes no payload of so many
    /// bytes.
    pub(in crate::sender) fn candidate(
        &mut self,
        key: &InstanceKey,
        bytes: usize,
    ) -> Option<Candidate> {
        self.numbered_candidate(key, bytes).map(|(_, candidate)| candidate)
    }

    /// The same, with the number of the link to it, if there is one.
    pub(super) fn numbered_candidate(
        &mut self,
        key: &InstanceKey,
        bytes: usize,
    ) -> Option<(Option<u64>, Candidate)> {
        let member = self.peers.member(key)?;
        let number = self.links.number(key, member.life);
        Some((number, self.candidate_of(number, member, bytes)?))
    }

    /// The same of the instance that the link of that number leads to.
    pub(super) fn candidate_at(&mut self, number: u64, bytes: usize) -> Option<Candidate> {
        let link = &self.links.get(number)?.link;
        let member = self.peers.member(link.key()).filter(|m| m.life == link.incarnation())?;
        self.candidate_of(Some(number), member, bytes)
    }

    /// The same of an instance that can make something of a job: one of the JSON dialect reads nothing
    /// else.
    pub(in crate::sender) fn taker(&mut self, key: &InstanceKey, next: &Next) -> Option<Candidate> {
        let candidate = self.candidate(key, next.payload_bytes)?;
        let can_read = !self.speaks_json(key) || self.outbox.is_json(next.id);
        can_read.then_some(candidate)
    }

    /// The same of an instance that may promise a slot for so many bytes.
    pub(in crate::sender) fn promiser(
        &mut self,
        key: &InstanceKey,
        bytes: usize,
    ) -> Option<(Option<u64>, Candidate)> {
        let load = self.peers.member(key)?.load;
        // Whoever leaves does so whatever the age of that word.
        if load.share.is_some() || load.state == State::Draining {
            return None;
        }
        let found = self.numbered_candidate(key, bytes)?;
        found.1.load.is_none_or(|load| load.state == State::Ready).then_some(found)
    }

    pub(super) fn speaks_json(&self, key: &InstanceKey) -> bool {
        self.peers.member(key).is_some_and(|member| member.load.share.is_some())
    }

    /// How many jobs of this sender are with an instance.
    pub(super) fn open(&self, key: &InstanceKey) -> u32 {
        let number = self.peers.member(key).and_then(|m| self.links.number(key, m.life));
        number.and_then(|number| self.links.get(number)).map_or(0, |state| state.link.open())
    }

    /// A load older than the expiry is none, but a worker of the JSON dialect reports seldom: its load
    /// counts while a mapper speaks of it, and for as long as an original worker may be silent.
    fn candidate_of(
        &mut self,
        number: Option<u64>,
        member: &Member,
        bytes: usize,
    ) -> Option<Candidate> {
        let age = self.now.since(member.load_at);
        let is_told = || self.now.since(member.told_at) <= json::LEASE;
        let counts = age <= self.expiry || (member.load.share.is_some() && is_told());
        let (unreflected, own) = self.links.jobs(number, member, bytes, self.host)?;
        let load = match number.and_then(|number| self.links.get(number)?.rep.as_ref()) {
            Some(rep) => *rep.load(),
            None => member.load,
        };
        Some(Candidate { load: counts.then_some(load), age, unreflected, own })
    }
}
