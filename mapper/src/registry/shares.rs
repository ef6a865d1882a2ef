//! Who takes how much of the registry, and who makes way when it is full.

use std::collections::{BTreeMap, BTreeSet};

use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use super::Connection;
use super::instance::Instance;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Shares {
    /// How many instances each connection has listed.
    by_connection: BTreeMap<Connection, usize>,
    /// And how many who is known by a key.
    by_user: BTreeMap<PublicKey, usize>,
    /// Those that came in JSON and were not heard again, the longest listed first: a process that
    /// lives reports several times within its lease.
    unproven: BTreeSet<(Timestamp, InstanceKey)>,
}

impl Shares {
    /// Whether that connection may list one more.
    pub(super) fn has_room(&self, connection: &Connection) -> bool {
        self.by_connection.get(connection).is_none_or(|n| *n < limits::INSTANCES_PER_CONNECTION_MAX)
    }

    /// How many instances who has that key has listed.
    pub(super) fn of_user(&self, user: &PublicKey) -> usize {
        self.by_user.get(user).copied().unwrap_or(0)
    }

    /// It is listed, or is said anew.
    pub(super) fn insert(&mut self, instance: &Instance) {
        let connection = instance.contact.connection();
        *self.by_connection.entry(connection.clone()).or_default() += 1;
        if let Some(user) = connection.user() {
            *self.by_user.entry(*user).or_default() += 1;
        }
        self.unproven.extend(unproven(instance));
    }

    /// It is not listed any more, or not as it was.
    pub(super) fn remove(&mut self, instance: &Instance) {
        let connection = instance.contact.connection();
        take_one(&mut self.by_connection, connection);
        if let Some(user) = connection.user() {
            take_one(&mut self.by_user, user);
        }
        if let Some(unproven) = unproven(instance) {
            self.unproven.remove(&unproven);
        }
    }

    /// Who makes way, the first one first.
    pub(super) fn to_go(&self) -> impl Iterator<Item = &InstanceKey> {
        self.unproven.iter().map(|(_, key)| key)
    }
}

fn take_one<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

fn unproven(instance: &Instance) -> Option<(Timestamp, InstanceKey)> {
    let since = instance.contact.listing()?.unproven_since?;
    Some((since, instance.registration.key.clone()))
}
