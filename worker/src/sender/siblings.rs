//! What a worker asks its own sending half about the other instances of its service.

use svcmap_proto::jobs::OfferedSlot;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use super::Sender;
use super::subset::usable_endpoints;
use crate::health;
use crate::peers::{Knowledge, Member};

impl Sender {
    /// What the cache says of the failures of this process's own worker, which has that load: see
    /// [`judge`](health::judge).
    pub fn judge(&mut self, now: Timestamp, own: &InstanceKey, load: &Load) -> health::Verdict {
        self.follow(now, &own.service);
        let members = self.peers.members(&own.service);
        let mut peers = members.filter(|(name, _)| **name != own.instance).peekable();
        // It has only begun to listen.
        if peers.peek().is_none() && self.peers.knowledge(&own.service) == Knowledge::None {
            return health::Verdict::Unknown;
        }
        let peers = peers.map(|(name, member)| (name, &member.load));
        health::judge((&own.instance, load), peers)
    }

    /// Whether a peer that offers a slot can be believed, as far as its name goes: the cache lists that
    /// life of an instance of this process's own service, with the key of who is there (`user`). If it
    /// knows nothing yet, it does next time.
    pub fn believes(
        &mut self,
        now: Timestamp,
        own: &InstanceKey,
        user: Option<&PublicKey>,
        slot: &OfferedSlot,
    ) -> bool {
        self.follow(now, &own.service);
        let key = InstanceKey { service: own.service.clone(), instance: slot.instance.clone() };
        let is_it =
            |member: &Member| member.life == slot.incarnation && member.key.as_ref() == user;
        self.peers.member(&key).is_some_and(is_it)
    }

    /// Whether, as far as is known, another instance of that one's service takes jobs. Those of the
    /// JSON dialect take few kinds, so they do not count.
    pub fn has_ready_peer(&self, now: Timestamp, own: &InstanceKey) -> bool {
        let mut peers = self.peers.members(&own.service).filter(|(name, _)| **name != own.instance);
        peers.any(|(_, member)| {
            member.load.state == State::Ready
                && member.load.share.is_none()
                && now.since(member.load_at) <= self.timing.expiry
                && !usable_endpoints(member, self.host).is_empty()
        })
    }
}
