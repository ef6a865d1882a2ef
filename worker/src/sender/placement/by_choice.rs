//! Whom a [`Choice`] chooses, by what is known of each and whatever has been promised: that is how
//! other policies are measured, and how workers of the JSON dialect get their jobs.

use std::borrow::Cow;
use std::time::Duration;

use svcmap_proto::json;
use svcmap_proto::names::{HostId, InstanceKey};
use svcmap_proto::time::Timestamp;

use super::super::links::Links;
use super::{Placed, Placement, Situation, Unplaced};
use crate::choice::{Candidate, Candidates, Choice};
use crate::outbox::JobId;
use crate::peers::Peers;

/// See the module.
pub(in crate::sender) struct ByChoice(pub(in crate::sender) Box<dyn Choice>);

impl Placement for ByChoice {
    fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>> {
        let (key, age) = situation.choose(&mut *self.0, job.instances, job.next.id)?;
        Some(Placed::unpromised(Cow::Borrowed(key), None, age))
    }

    fn learns_from_answers(&self) -> bool {
        self.0.learns_from_answers()
    }
}

impl Situation<'_> {
    /// Whom a job goes to, and how old what is known of that one's load is.
    pub(super) fn choose<'a>(
        &mut self,
        choice: &mut dyn Choice,
        instances: &'a [InstanceKey],
        id: JobId,
    ) -> Option<(&'a InstanceKey, Option<Duration>)> {
        let payload = self.outbox.payload(id)?;
        let (peers, links) = (self.peers, &mut *self.links);
        let (now, expiry, host) = (self.now, self.expiry, self.host);
        let mut able = Able { now, expiry, host, instances, peers, links, payload, is_json: None };
        let index = choice.choose(now, &mut able, self.random)?;
        let chosen = able.candidate(index)?;
        Some((instances.get(index)?, chosen.load_age()))
    }
}

/// The instances, to a [`Choice`]: those that can make something of the payload.
struct Able<'a> {
    now: Timestamp,
    expiry: Duration,
    host: HostId,
    instances: &'a [InstanceKey],
    peers: &'a Peers,
    links: &'a mut Links,
    payload: &'a [u8],
    /// Whether the payload is JSON, once that has mattered.
    is_json: Option<bool>,
}

impl Candidates for Able<'_> {
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
