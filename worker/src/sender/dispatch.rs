//! From a lane's waiting jobs to links: whom a job may go to, and why it finds nobody.

use std::sync::Arc;
use std::time::Duration;

use svcmap_proto::jobs::Reason;
use svcmap_proto::json;
use svcmap_proto::load::State;
use svcmap_proto::names::{HostId, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::links::Links;
use super::{Sender, SenderOutput};
use crate::choice::{Candidate, Crowd};
use crate::observation::Observation;
use crate::outbox::{JobId, Lane};
use crate::peers::{Knowledge, Member, Peers};

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

impl Crowd for Wanted<'_> {
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
        takes.then(|| self.links.candidate(self.now, key, member, self.expiry, self.host))?
    }
}

impl Sender {
    /// Gives the jobs of a lane to workers, as long as one has room.
    pub(super) fn dispatch(&mut self, now: Timestamp, lane: &Lane) {
        if self.outbox.first(lane).is_none() {
            return;
        }
        let instances = match &lane.instance {
            Some(instance) => {
                let (service, instance) = (lane.service.clone(), instance.clone());
                Arc::new([InstanceKey { service, instance }])
            }
            None => self.rosters.instances(&self.peers, &lane.service),
        };
        while let Some(id) = self.outbox.first(lane) {
            let Some((key, age)) = self.choose(now, &instances, id) else {
                if self.is_misdirected(lane, id) {
                    self.outbox.refuse(now, id, Reason::NotJson);
                    continue;
                }
                return;
            };
            let Some(number) = self.link(now, key) else { return };
            let payload_bytes = self.outbox.payload(id).map_or(0, |payload| payload.len());
            let Some((attempt, deadline)) = self.outbox.assign(lane, number) else { return };
            if let Some(state) = self.links.get_mut(number) {
                state.link.assign(now, attempt, deadline, payload_bytes);
            }
            if self.observe {
                let chosen = Observation::Chosen { attempt, key: key.clone(), age };
                self.outputs.push_back(SenderOutput::Observed(chosen));
            }
        }
    }

    /// Whom a job goes to, and how old what is known of that one's load is.
    fn choose<'a>(
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
    fn is_misdirected(&self, lane: &Lane, id: JobId) -> bool {
        let mut wanted = wanted(&self.peers, lane).peekable();
        wanted.peek().is_some()
            && wanted.all(|(_, member)| member.load.share.is_some())
            && self.outbox.payload(id).is_some_and(|payload| json::value(payload).is_err())
    }

    /// The link to an instance; opened if it is not.
    fn link(&mut self, now: Timestamp, key: &InstanceKey) -> Option<u64> {
        let member = self.peers.member(key)?;
        let (number, connect) = self.links.open(now, key, member, self.identity, self.timing);
        if connect {
            let endpoint = self.links.get_mut(number)?.endpoint(member, self.host)?;
            self.outputs.push_back(SenderOutput::Connect { link: number, endpoint });
        }
        Some(number)
    }
}

/// Why no worker has room for a lane; `None` if too little is known to say.
pub(super) fn why_no_worker(peers: &Peers, lane: &Lane) -> Option<Reason> {
    let is_complete = || peers.knowledge(&lane.service) == Knowledge::Complete;
    if peers.members(&lane.service).next().is_none() {
        return is_complete().then_some(Reason::NoSuchService);
    }
    let mut wanted = wanted(peers, lane).peekable();
    if wanted.peek().is_none() {
        return is_complete().then_some(Reason::NotHere);
    }
    let all_draining = wanted.all(|(_, member)| member.load.state == State::Draining);
    Some(if all_draining { Reason::Draining } else { Reason::Full })
}

/// The members that a lane's jobs are meant for.
fn wanted<'a>(peers: &'a Peers, lane: &'a Lane) -> impl Iterator<Item = (&'a Name, &'a Member)> {
    let members = peers.members(&lane.service);
    members.filter(|(name, _)| lane.instance.as_ref().is_none_or(|instance| instance == *name))
}
