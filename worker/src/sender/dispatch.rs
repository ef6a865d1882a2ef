//! From a lane's waiting jobs to links: whom a job may go to, and why it finds nobody.

use svcmap_proto::jobs::Reason;
use svcmap_proto::json;
use svcmap_proto::load::State;
use svcmap_proto::names::{Incarnation, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::{Sender, SenderOutput};
use crate::choice::Candidate;
use crate::observation::Observation;
use crate::outbox::{JobId, Lane};
use crate::peers::{Knowledge, Member, Peers};

/// Whom a lane's jobs may go to, native workers first.
#[derive(Default)]
struct Crowd {
    peers: Vec<(InstanceKey, Incarnation)>,
    /// What is known of each.
    candidates: Vec<Candidate>,
    /// How many of them take any payload. The others want JSON.
    natives: usize,
}

impl Sender {
    /// Gives the jobs of a lane to workers, as long as one has room.
    pub(super) fn dispatch(&mut self, now: Timestamp, lane: &Lane) {
        if self.outbox.first(lane).is_none() {
            return;
        }
        let mut crowd = self.crowd(now, lane);
        while let Some(id) = self.outbox.first(lane) {
            let Some(index) = self.choose(now, &crowd, id) else {
                if self.is_misdirected(lane, id) {
                    self.outbox.refuse(now, id, Reason::NotJson);
                    continue;
                }
                return;
            };
            let Some(number) = self.link(now, &crowd.peers[index]) else { return };
            let payload_bytes = self.outbox.payload(id).map_or(0, |payload| payload.len());
            let Some((attempt, deadline)) = self.outbox.assign(lane, number) else { return };
            if let Some(state) = self.links.get_mut(number) {
                state.link.assign(now, attempt, deadline, payload_bytes);
            }
            if self.observe {
                let candidate = &crowd.candidates[index];
                let (key, age) =
                    (crowd.peers[index].0.clone(), candidate.load.map(|_| candidate.age));
                let chosen = Observation::Chosen { attempt, key, age };
                self.outputs.push_back(SenderOutput::Observed(chosen));
            }
            crowd.give(index);
        }
    }

    fn choose(&mut self, now: Timestamp, crowd: &Crowd, id: JobId) -> Option<usize> {
        let Crowd { candidates, natives, .. } = crowd;
        let chosen = self.choice.choose(now, candidates, &mut self.random)?;
        if chosen < *natives || self.is_json(id) {
            return Some(chosen);
        }
        self.choice.choose(now, &candidates[..*natives], &mut self.random)
    }

    fn is_json(&self, id: JobId) -> bool {
        self.outbox.payload(id).is_some_and(|payload| json::value(payload).is_ok())
    }

    /// Whether only workers serve a lane that can make nothing of that job.
    fn is_misdirected(&self, lane: &Lane, id: JobId) -> bool {
        let mut wanted = wanted(&self.peers, lane).peekable();
        wanted.peek().is_some()
            && wanted.all(|(_, member)| member.load.share.is_some())
            && !self.is_json(id)
    }

    fn crowd(&mut self, now: Timestamp, lane: &Lane) -> Crowd {
        let instances = match &lane.instance {
            Some(instance) => vec![instance.clone()],
            None => self.rosters.instances(&self.peers, &lane.service).to_vec(),
        };
        let (expiry, host) = (self.timing.expiry, self.host);
        let mut crowd = Crowd::default();
        let mut others = Vec::new();
        for instance in instances {
            let key = InstanceKey { service: lane.service.clone(), instance };
            let Some(member) = self.peers.member(&key) else { continue };
            let peer = (key, member.life);
            let candidate = self.links.candidate(now, &peer, member, expiry, host);
            match candidate {
                Some(candidate) if member.load.share.is_some() => others.push((peer, candidate)),
                Some(candidate) => crowd.push(peer, candidate),
                None => {}
            }
        }
        crowd.natives = crowd.peers.len();
        others.into_iter().for_each(|(peer, candidate)| crowd.push(peer, candidate));
        crowd
    }

    /// The link to that life of that instance; opened if it is not.
    fn link(&mut self, now: Timestamp, peer: &(InstanceKey, Incarnation)) -> Option<u64> {
        let member = self.peers.member(&peer.0)?;
        let (number, connect) = self.links.open(now, peer, member.load, self.identity, self.timing);
        if connect {
            let endpoint = self.links.get_mut(number)?.endpoint(member, self.host)?;
            self.outputs.push_back(SenderOutput::Connect { link: number, endpoint });
        }
        Some(number)
    }
}

impl Crowd {
    fn push(&mut self, peer: (InstanceKey, Incarnation), candidate: Candidate) {
        self.peers.push(peer);
        self.candidates.push(candidate);
    }

    /// One of them was given a job. A REP socket takes no other before it has replied, whatever a
    /// policy thinks.
    fn give(&mut self, index: usize) {
        if index < self.natives {
            self.candidates[index].add();
        } else {
            self.peers.remove(index);
            self.candidates.remove(index);
        }
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
