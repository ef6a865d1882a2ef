//! Which services a sender keeps track of: a limited number, of which those that are not used make room
//! for others.

use std::collections::BTreeSet;

use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

use super::Sender;

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
        self.rosters.forget(service);
        self.friends.forget(service);
        self.paces.remove(service);
        self.flights.remove(service);
    }
}
