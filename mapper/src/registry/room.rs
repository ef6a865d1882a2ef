//! Room in a full registry: the empty and the unproven make way for newcomers.

use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::{Event, Registry};
use crate::revisions::Happened;

impl Registry {
    /// A message came that was none: it is counted, for whoever asks for the status.
    pub fn count_bad_message(&mut self) {
        self.refused.messages += 1;
    }

    /// Whether one more instance of that service fits, once those have gone who go first: services
    /// that nobody serves, and instances that registered in JSON and were never heard again.
    pub(super) fn make_room(&mut self, now: Timestamp, service: &Name) -> bool {
        while self.services.len() >= self.config.instances_max {
            if !self.drop_first(now, |_| true) {
                return false;
            }
        }
        while self.revisions.len() >= self.config.services_max && !self.revisions.contains(service)
        {
            if let Some(empty) = self.revisions.forget_empty() {
                self.publish_one(now, empty);
            } else if !self.drop_first(now, |instances| instances == 1) {
                // Nobody goes in vain: a service that others serve as well stays.
                return false;
            }
        }
        true
    }

    /// Drops who makes way first, of those whose service has as many instances as is wanted. `false`
    /// if there is nobody.
    fn drop_first(&mut self, now: Timestamp, wanted: impl Fn(usize) -> bool) -> bool {
        let instances = |key: &InstanceKey| self.services.len_of(key.service.as_str());
        let first = self.shares.to_go().find(|key| wanted(instances(key))).cloned();
        first.map(|key| self.expire(now, key)).is_some()
    }

    /// That instance is silent, or is taken for it.
    pub(super) fn expire(&mut self, now: Timestamp, key: InstanceKey) {
        if let Some(instance) = self.remove(&key) {
            let incarnation = instance.registration.incarnation;
            self.changed(now, &key, Happened::Expired(incarnation), true);
            self.counted.expirations.count(&key.service);
            self.event(Event::Expired { key, incarnation });
        }
    }
}
