//! What is known of those that a lane's jobs may go to, and what is said while they wait in vain.

use std::time::Duration;

use svcmap_proto::jobs::Reason;
use svcmap_proto::load::State;
use svcmap_proto::names::{Endpoint, HostId, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::links::Links;
use super::subset::usable_endpoints;
use super::{Sender, SenderOutput};
use crate::outbox::{Lane, Standing};
use crate::peers::{Knowledge, Member, Peers};

/// Why a worker cannot be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers there. The system may know more.
    NoAnswer,
    /// It speaks other versions of the protocol.
    WrongVersion,
    /// It has no room for one more sender.
    TurnedAway,
    /// It has only addresses that mean something on another host.
    OtherHost,
}

/// Time between two looks for what jobs wait for in vain. It doubles while there is something to say.
pub(super) const TROUBLE_FIRST: Duration = Duration::from_secs(1);

/// Longest time between two such looks.
const TROUBLE_MAX: Duration = Duration::from_secs(64);

impl Sender {
    /// Says what jobs wait for in vain: once at first, then seldomer and seldomer.
    pub(super) fn look_for_trouble(&mut self, now: Timestamp) {
        let mut lanes = self.outbox.slow_lanes(now);
        let trouble = lanes.find_map(|lane| {
            if let Some((instance, endpoint)) = out_of_reach(&self.peers, self.host, lane) {
                let key = InstanceKey { service: lane.service.clone(), instance };
                let (failures, trouble) = (1, Trouble::OtherHost);
                return Some(SenderOutput::Unreachable { key, endpoint, failures, trouble });
            }
            let service = || lane.service.clone();
            if self.peers.members(&lane.service).next().is_some() {
                return None;
            }
            match self.peers.knowledge(&lane.service) {
                Knowledge::None => Some(SenderOutput::Unheard(service())),
                Knowledge::Complete => Some(SenderOutput::Unserved(service())),
                Knowledge::Warming => None,
            }
        });
        self.trouble_pause = match trouble {
            Some(_) => TROUBLE_MAX.min(2 * self.trouble_pause),
            None => TROUBLE_FIRST,
        };
        self.trouble_at = now + self.trouble_pause;
        self.outputs.extend(trouble);
    }
}

/// What is known of those that a lane's jobs may go to. `no_room` is what to say if they just have no
/// room.
pub(super) fn standing(
    peers: &Peers,
    links: &Links,
    host: HostId,
    lane: &Lane,
    no_room: Reason,
) -> Standing {
    if wanted(peers, lane).next().is_none() {
        let is_anybody_there = peers.members(&lane.service).next().is_some();
        let reason = if is_anybody_there { Reason::NotHere } else { Reason::NoSuchService };
        return match peers.knowledge(&lane.service) {
            Knowledge::None => Standing::Unheard,
            Knowledge::Warming => Standing::Warming,
            Knowledge::Complete if peers.is_denied(&lane.service) => {
                Standing::Unserved(Reason::NotAllowed)
            }
            Knowledge::Complete if peers.was_served(&lane.service, lane.instance.as_ref()) => {
                Standing::Missed(reason)
            }
            Knowledge::Complete => Standing::Unserved(reason),
        };
    }
    let is_draining = |member: &Member| member.load.state == State::Draining;
    let mut serving = wanted(peers, lane).filter(|(_, member)| !is_draining(member)).peekable();
    if serving.peek().is_none() {
        return Standing::Missed(Reason::Draining);
    }
    let (mut is_reachable, mut is_native) = (false, false);
    for (name, member) in serving {
        is_reachable = is_reachable || !links.is_unreachable(&lane.service, name, member, host);
        is_native = is_native || member.load.share.is_none();
        if is_reachable && is_native {
            break;
        }
    }
    Standing::Served(match () {
        () if !is_reachable => Reason::Unreachable,
        // A worker of the JSON dialect makes no promises.
        () if !is_native => Reason::Full,
        () => no_room,
    })
}

/// Whether there is anybody that jobs are meant for: that instance of the service, or any.
pub(super) fn is_served(peers: &Peers, service: &Name, instance: Option<&Name>) -> bool {
    of(peers, service, instance).next().is_some()
}

/// One of a lane's workers that has no address which can be used from here, if all are so.
fn out_of_reach(peers: &Peers, host: HostId, lane: &Lane) -> Option<(Name, Endpoint)> {
    let mut first = None;
    for (name, member) in wanted(peers, lane) {
        if !usable_endpoints(member, host).is_empty() {
            return None;
        }
        let endpoint = member.endpoints.first()?;
        first.get_or_insert_with(|| (name.clone(), endpoint.clone()));
    }
    first
}

/// The members that a lane's jobs are meant for.
pub(super) fn wanted<'a>(
    peers: &'a Peers,
    lane: &'a Lane,
) -> impl Iterator<Item = (&'a Name, &'a Member)> {
    of(peers, &lane.service, lane.instance.as_ref())
}

fn of<'a>(
    peers: &'a Peers,
    service: &'a Name,
    instance: Option<&'a Name>,
) -> impl Iterator<Item = (&'a Name, &'a Member)> {
    let members = peers.members(service);
    members.filter(move |(name, _)| instance.is_none_or(|instance| instance == *name))
}
