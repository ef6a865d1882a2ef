//! From a lane's waiting jobs to links: whom a job may go to, and why it finds nobody.

use std::sync::Arc;
use std::time::Duration;

use svcmap_proto::jobs::{Claim, Reason};
use svcmap_proto::json;
use svcmap_proto::load::State;
use svcmap_proto::names::{HostId, InstanceKey};
use svcmap_proto::time::Timestamp;

use super::links::Links;
use super::standing::wanted;
use super::{Sender, SenderOutput};
use crate::choice::{Candidate, Candidates};
use crate::link::Attempt;
use crate::observation::Observation;
use crate::outbox::{Assigned, JobId, Lane, LaneId, Next};
use crate::peers::Peers;

/// Where the first job of a lane goes.
pub(super) struct Sending<'a> {
    pub(super) key: &'a InstanceKey,
    /// The number of the link to it, if that was looked up.
    pub(super) number: Option<u64>,
    /// How old what is known of its load is; `None` if nothing is.
    pub(super) age: Option<Duration>,
    /// On what the job claims a slot there, and until when that can be claimed.
    pub(super) claim: Claim,
    pub(super) claimed_until: Option<Timestamp>,
}

/// Whom a job may go to.
struct Wanted<'a> {
    now: Timestamp,
    instances: &'a [InstanceKey],
    peers: &'a Peers,
    links: &'a mut Links,
    expiry: Duration,
    host: HostId,
    payload: &'a [u8],
    /// Whether the payload is JSON, once that has mattered.
    is_json: Option<bool>,
}

impl Candidates for Wanted<'_> {
    fn len(&self) -> usize {
        self.instances.len()
    }

    fn candidate(&mut self, index: usize) -> Option<Candidate> {
        let key = self.instances.get(index)?;
        let member = self.peers.member(key)?;
        let payload = self.payload;
        // A worker of the JSON dialect can make nothing of anything else.
        let takes = member.load.share.is_none()
            || *self.is_json.get_or_insert_with(|| json::value(payload).is_ok());
        let number = self.links.number(key, member.life);
        takes.then(|| self.links.candidate(self.now, number, member, self.expiry, self.host))?
    }
}

impl Sender {
    /// Gives the jobs of a lane to workers, as long as one has room.
    pub(super) fn dispatch(&mut self, now: Timestamp, lane_id: LaneId) {
        let Some(lane) = self.outbox.lane(lane_id).cloned() else { return };
        if self.outbox.depth(lane_id) == 0 && self.asks.len(&lane) == 0 {
            return;
        }
        let instances = self.instances(&lane);
        if self.identity.takes_credits {
            self.dispatch_on_credits(now, (&lane, lane_id), &instances);
            self.tell_shares(now, &lane);
            self.ask(now, &lane, &instances);
        } else {
            self.follow_policy(now, (&lane, lane_id), &instances);
            self.given.clear();
        }
    }

    /// The same, to whom a policy without promises chooses.
    fn follow_policy(
        &mut self,
        now: Timestamp,
        (lane, lane_id): (&Lane, LaneId),
        instances: &[InstanceKey],
    ) {
        while let Some(next) = self.outbox.next(lane_id) {
            let able = self.able(now, &next, instances);
            let instances = able.as_deref().unwrap_or(instances);
            let Some((key, age)) = self.choose(now, instances, next.id) else {
                if self.is_misdirected(lane, next.id) {
                    self.outbox.refuse(now, next.id, Reason::NotJson);
                    continue;
                }
                return;
            };
            let (number, claim, claimed_until) = (None, Claim::Nothing, None);
            let sending = Sending { key, number, age, claim, claimed_until };
            if !self.send(now, lane_id, sending) {
                return;
            }
        }
    }

    /// The instances that a lane's jobs may go to.
    pub(super) fn instances(&mut self, lane: &Lane) -> Arc<[InstanceKey]> {
        let (peers, sender, most) = (&self.peers, self.identity.sender, self.active_peers_max);
        let state = self.services.entry(lane.service.clone()).or_default();
        let all = state.subset.instances(peers, &lane.service, sender, most);
        match &lane.instance {
            None => all,
            Some(instance) => {
                let (service, instance) = (lane.service.clone(), instance.clone());
                Arc::new([InstanceKey { service, instance }])
            }
        }
    }

    /// The instances that a job may go to, if these are not all: one that could not start it is not
    /// asked again as long as there is another one.
    pub(super) fn able(
        &mut self,
        now: Timestamp,
        next: &Next,
        instances: &[InstanceKey],
    ) -> Option<Vec<InstanceKey>> {
        if !next.met_unable {
            return None;
        }
        let unable = self.outbox.unable(next.id);
        let others = instances.iter().filter(|key| !unable.contains(&key.instance));
        let others: Vec<_> = others.cloned().collect();
        let takes_jobs = |key: &InstanceKey| {
            let candidate = self.candidate(now, key);
            candidate.is_some_and(|known| known.load.is_none_or(|l| l.state == State::Ready))
        };
        others.iter().any(takes_jobs).then_some(others)
    }

    /// The first job of a lane goes to a worker. `false` if that cannot be reached after all.
    pub(super) fn send(&mut self, now: Timestamp, lane: LaneId, sending: Sending<'_>) -> bool {
        let Sending { key, number, age, claim, claimed_until } = sending;
        let is_open = |number: &u64| self.links.get(*number).is_some_and(|s| !s.link.is_closed());
        let number = number.filter(is_open).or_else(|| self.link(now, key));
        let Some(number) = number else { return false };
        let Some(assigned) = self.outbox.assign(lane, number) else { return false };
        let Assigned { attempt, deadline, run_limit, submitted_at, redirects_left, .. } = assigned;
        let (payload_bytes, detached) = (assigned.payload_bytes, assigned.detached);
        let redirects_left = if self.identity.takes_credits { redirects_left } else { 0 };
        if matches!(claim, Claim::Offer(_)) {
            self.outbox.handle_passed_on(attempt);
        }
        self.given.push((number, payload_bytes));
        if let Some(state) = self.links.get_mut(number) {
            let attempt = Attempt {
                id: attempt,
                deadline,
                run_limit,
                payload_bytes,
                claim,
                claimed_until,
                redirects_left,
                submitted_at,
                detached,
            };
            state.link.assign(now, attempt);
        }
        if self.observe {
            let chosen = Observation::Chosen { attempt, key: key.clone(), age };
            self.outputs.push_back(SenderOutput::Observed(chosen));
        }
        true
    }

    /// Whom a job goes to, and how old what is known of that one's load is.
    pub(super) fn choose<'a>(
        &mut self,
        now: Timestamp,
        instances: &'a [InstanceKey],
        id: JobId,
    ) -> Option<(&'a InstanceKey, Option<Duration>)> {
        let payload = self.outbox.payload(id)?;
        let (peers, links) = (&self.peers, &mut self.links);
        let (expiry, host) = (self.timing.expiry, self.host);
        let mut wanted =
            Wanted { now, instances, peers, links, expiry, host, payload, is_json: None };
        let index = self.choice.choose(now, &mut wanted, &mut self.random)?;
        let chosen = wanted.candidate(index)?;
        Some((instances.get(index)?, chosen.load.map(|_| chosen.age)))
    }

    /// Whether only workers serve a lane that can make nothing of that job.
    pub(super) fn is_misdirected(&self, lane: &Lane, id: JobId) -> bool {
        let mut wanted = wanted(&self.peers, lane).peekable();
        wanted.peek().is_some()
            && wanted.all(|(_, member)| member.load.share.is_some())
            && self.outbox.payload(id).is_some_and(|payload| json::value(payload).is_err())
    }

    /// The link to an instance; opened if it is not.
    pub(super) fn link(&mut self, now: Timestamp, key: &InstanceKey) -> Option<u64> {
        let member = self.peers.member(key)?;
        let (number, connect) = self.links.open(now, key, member, self.identity, self.timing);
        if connect {
            let endpoint = self.links.get_mut(number)?.dial(member, self.host)?;
            self.outputs.push_back(SenderOutput::Connect { link: number, endpoint });
        }
        Some(number)
    }
}
