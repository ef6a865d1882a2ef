//! What a sender knows of services: of a limited number, of which those that are not used make room for
//! others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::Sender;
use super::concurrency_limit::ConcurrencyLimit;
use super::estimates::ServiceEstimates;
use super::subset::Subset;
use crate::outbox::Lane;

/// What a sender has learnt of a service, and goes by.
#[derive(Debug, Default)]
pub(super) struct ServiceState {
    pub(super) estimates: ServiceEstimates,
    /// How many jobs may be under way, once it has guessed.
    pub(super) concurrency_limit: Option<ConcurrencyLimit>,
    /// The instances that its jobs go to.
    pub(super) subset: Subset,
    /// The peers that a worker offers its slots to.
    pub(super) offer_peers: Subset,
}

/// The state of each service.
#[derive(Debug, Default)]
pub(super) struct Services(pub(super) BTreeMap<Name, ServiceState>);

impl Services {
    /// The state of a service; nothing is known of one that is new.
    pub(super) fn get_mut(&mut self, service: &Name) -> &mut ServiceState {
        self.0.entry(service.clone()).or_default()
    }

    pub(super) fn estimates(&self, service: &Name) -> ServiceEstimates {
        self.0.get(service).map(|state| state.estimates).unwrap_or_default()
    }

    /// Whether jobs of a lane go without asking first. Those that can go to one worker only have
    /// nobody else to turn to, so they ask.
    pub(super) fn guesses(&self, lane: &Lane) -> bool {
        lane.instance.is_none() && self.estimates(&lane.service).is_short()
    }

    /// The instances of a service that its jobs go to and that speak the JSON dialect.
    pub(super) fn json(&self, service: &Name) -> Arc<[InstanceKey]> {
        self.0.get(service).map(|state| state.subset.json()).unwrap_or_default()
    }
}

impl Sender {
    /// Keeps the cache of a service warm before the first job. `false` if so many others have jobs
    /// without an outcome that there is no room.
    pub fn follow(&mut self, now: Timestamp, service: &Name) -> bool {
        let outbox = &self.outbox;
        if let Some(idle) = self.peers.first_to_go(service, |service| outbox.needs(service)) {
            self.forget(now, &idle);
        }
        self.peers.follow(now, service)
    }

    /// Nobody has a job for that service: nothing is to be known of it any more.
    pub(super) fn forget(&mut self, now: Timestamp, service: &Name) {
        let asked = self.asks.forget_service(service);
        let credited = self.links.credited(service).map(|(number, _)| number);
        let of_use: BTreeSet<u64> = credited.chain(asked).collect();
        for number in of_use {
            // What is promised there is of use to others.
            if let Some(state) = self.links.get_mut(number) {
                state.link.return_promises(now);
            }
        }
        self.peers.unfollow(service);
        self.outbox.forget(service);
        self.services.0.remove(service);
    }
}
