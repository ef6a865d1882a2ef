//! One life of an instance that is listed.

use std::time::Duration;

use svcmap_proto::control::{EntryRef, Registration};
use svcmap_proto::load::Load;
use svcmap_proto::names::Name;
use svcmap_proto::time::{Timestamp, wire_ms};

use super::Connection;
use crate::config::Config;
use crate::leases::Lease;
use crate::revisions::Happened;

/// See the module.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) registration: Registration,
    pub(super) contact: Contact,
    /// When its load was last known to be true.
    pub(super) load_at: Timestamp,
    pub(super) lease: Lease,
    /// Something about it is to be told with the next changes of its service.
    pub(super) is_waiting: bool,
}

/// How an instance and the mapper talk.
#[derive(Debug, PartialEq)]
pub(super) enum Contact {
    /// Natively, lately on this connection.
    Native(Connection),
    /// In JSON: it asks, and is never told anything else.
    Json(Box<Listing>),
}

/// What is known only of a worker of the JSON dialect.
#[derive(Debug, PartialEq)]
pub(super) struct Listing {
    /// The connection that it registered on.
    pub(super) connection: Connection,
    /// Since when it is listed, while it has not been heard again.
    pub(super) unproven_since: Option<Timestamp>,
    /// The name by which it reports and leaves.
    pub(super) name: Name,
    /// How long it may be silent.
    pub(super) expiry: Duration,
    /// Words of its own.
    pub(super) tags: Vec<String>,
}

impl Contact {
    /// The connection that it last spoke, or registered, on.
    pub(super) fn connection(&self) -> &Connection {
        match self {
            Contact::Native(connection) => connection,
            Contact::Json(listing) => &listing.connection,
        }
    }

    /// Where it can be told something unasked.
    pub(super) fn reachable_at(&self) -> Option<&Connection> {
        match self {
            Contact::Native(connection) => Some(connection),
            Contact::Json(_) => None,
        }
    }

    /// What is known only of a worker of the JSON dialect.
    pub(super) fn listing(&self) -> Option<&Listing> {
        match self {
            Contact::Native(_) => None,
            Contact::Json(listing) => Some(listing),
        }
    }

    /// Whether it is news that it was heard `from` there, if natively.
    pub(super) fn hears_anew(&self, from: Option<&Connection>) -> bool {
        match self {
            Contact::Native(connection) => from.is_some_and(|from| from != connection),
            Contact::Json(listing) => listing.unproven_since.is_some(),
        }
    }

    /// It was heard again.
    pub(super) fn hear(&mut self, from: Option<&Connection>) {
        match (self, from) {
            (Contact::Native(connection), Some(from)) => connection.clone_from(from),
            (Contact::Native(_), None) => {}
            (Contact::Json(listing), _) => listing.unproven_since = None,
        }
    }

    /// How long it may be silent.
    pub(super) fn expiry(&self, config: &Config) -> Duration {
        self.listing().map_or(config.expiry(), |listing| listing.expiry)
    }
}

impl Instance {
    /// One that registered.
    pub(super) fn new(now: Timestamp, mut registration: Registration, contact: Contact) -> Self {
        registration.endpoints.shrink_to_fit();
        let lease = Lease::default();
        Self { registration, contact, load_at: now, lease, is_waiting: false }
    }

    /// The same life registered again: takes what it says, and returns what changed. A registration
    /// that was long on its way brings no old load back.
    pub(super) fn update(&mut self, mut said: Instance) -> Option<Happened> {
        said.contact.hear(None);
        (said.lease, said.is_waiting) = (self.lease, self.is_waiting);
        let (known, load) = (self.registration.load, said.registration.load);
        if load.sequence <= known.sequence {
            said.registration.load = known;
        }
        if load.sequence < known.sequence {
            said.load_at = self.load_at;
        }
        let mut earlier = std::mem::replace(self, said).registration;
        earlier.load = self.registration.load;
        if earlier != self.registration {
            Some(Happened::Put)
        } else {
            (load.sequence > known.sequence).then_some(Happened::Load)
        }
    }

    /// It reported: takes a load that is news. Returns whether that is worth telling, and if so,
    /// whether at once.
    pub(super) fn report(&mut self, now: Timestamp, load: Load) -> Option<bool> {
        let known = &mut self.registration.load;
        if load.sequence >= known.sequence {
            self.load_at = now;
        }
        if load.sequence <= known.sequence {
            return None;
        }
        let crossed = load.crossed(known);
        *known = load;
        Some(crossed)
    }

    /// As others are told of it.
    pub(super) fn entry(&self, now: Timestamp) -> EntryRef<'_> {
        let Registration { key, incarnation, endpoints, host, pid, load, error } =
            &self.registration;
        EntryRef {
            instance: &key.instance,
            incarnation: *incarnation,
            endpoints,
            host: *host,
            pid: *pid,
            load,
            age_ms: self.age_ms(now),
            error: error.as_deref(),
            key: self.contact.connection().user().copied(),
        }
    }

    /// How long ago its load was known to be true.
    pub(super) fn age_ms(&self, now: Timestamp) -> u32 {
        wire_ms(now.since(self.load_at))
    }
}
