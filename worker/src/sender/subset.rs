//! Which instances of a service a sender uses, and where it reaches them.

use std::sync::Arc;

use svcmap_proto::names::{self, Endpoint, HostId, InstanceKey, Name, SenderId};

use crate::peers::{Member, Peers};

/// The instances of a service that a sender uses: all, or a random subset that stays the same for this
/// sender (highest random weight, Thaler and Ravishankar, IEEE/ACM ToN 6(1)).
#[derive(Debug, Default)]
pub(super) struct Subset {
    /// The cache's count of changes that this was made at.
    membership: u64,
    instances: Arc<[InstanceKey]>,
    /// Those of them that speak the JSON dialect.
    json: Arc<[InstanceKey]>,
}

impl Subset {
    /// These instances, at most so many.
    pub(super) fn instances(
        &mut self,
        peers: &Peers,
        service: &Name,
        sender: SenderId,
        instances_max: usize,
    ) -> Arc<[InstanceKey]> {
        let membership = peers.membership(service);
        if self.membership != membership {
            let mut instances: Vec<Name> =
                peers.members(service).map(|(name, _)| name.clone()).collect();
            if instances.len() > instances_max {
                instances.sort_by_cached_key(|name| weight(sender, name));
                instances.truncate(instances_max);
            }
            let key = |instance| InstanceKey { service: service.clone(), instance };
            let instances: Arc<[_]> = instances.into_iter().map(key).collect();
            let is_json = |key: &&InstanceKey| {
                peers.member(key).is_some_and(|member| member.load.share.is_some())
            };
            let json = instances.iter().filter(is_json).cloned().collect();
            *self = Subset { membership, instances, json };
        }
        Arc::clone(&self.instances)
    }

    /// Those that speak the JSON dialect.
    pub(super) fn json(&self) -> Arc<[InstanceKey]> {
        Arc::clone(&self.json)
    }
}

/// Where a member can be reached from this host, best first.
pub(super) fn usable_endpoints(member: &Member, host: HostId) -> Vec<&Endpoint> {
    names::usable_endpoints(&member.endpoints, member.host == host)
}

/// A number for each pair of sender and instance that is as good as random (FNV-1a, 64 bits).
fn weight(sender: SenderId, instance: &Name) -> u64 {
    let bytes = sender.0.to_le_bytes().into_iter().chain(instance.as_str().bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
