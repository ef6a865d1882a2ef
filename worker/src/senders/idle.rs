//! Who can be forgotten without anybody being told a wrong thing, and in which order.
//!
//! Numbers begin anew for a sender that was forgotten: to its next HELLO the answer is that none of its
//! open attempts ever came, so that it tries them elsewhere. That is true only if no attempt is open at
//! it that did come. So nobody is forgotten of whom a job is here, an outcome is retained, or an
//! outcome had to be dropped that it may still ask for.

use std::collections::{BTreeMap, BTreeSet};

use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

/// Who has no connection goes first, then who was silent for longest.
type Place = (bool, Timestamp, SenderId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Idle {
    places: BTreeSet<Place>,
    by_sender: BTreeMap<SenderId, Place>,
    /// Until when those may still ask for outcomes that had to be dropped.
    owed: BTreeSet<(Timestamp, SenderId)>,
    owed_until: BTreeMap<SenderId, Timestamp>,
}

impl Idle {
    /// A sender has nothing here, and is connected or not and was heard then; `None`: it has something.
    /// Returns whether it can be forgotten.
    pub(super) fn set(&mut self, sender: SenderId, place: Option<(bool, Timestamp)>) -> bool {
        let owes_nothing = !self.owed_until.contains_key(&sender);
        let place = place.filter(|_| owes_nothing);
        let new = place.map(|(is_connected, heard_at)| (is_connected, heard_at, sender));
        let old = match new {
            Some(new) => self.by_sender.insert(sender, new),
            None => self.by_sender.remove(&sender),
        };
        if old != new {
            old.map(|old| self.places.remove(&old));
            new.map(|new| self.places.insert(new));
        }
        new.is_some()
    }

    /// A sender may ask until then for an outcome that had to be dropped.
    pub(super) fn owe(&mut self, sender: SenderId, until: Timestamp) {
        let until = self.settle(sender).map_or(until, |before| before.max(until));
        self.owed_until.insert(sender, until);
        self.owed.insert((until, sender));
        self.set(sender, None);
    }

    /// The next sender that can ask for nothing any more that was dropped.
    pub(super) fn poll_settled(&mut self, now: Timestamp) -> Option<SenderId> {
        let (_, sender) = self.owed.first().copied().filter(|(until, _)| *until <= now)?;
        self.settle(sender);
        Some(sender)
    }

    /// It can ask for nothing any more.
    pub(super) fn settle(&mut self, sender: SenderId) -> Option<Timestamp> {
        let until = self.owed_until.remove(&sender)?;
        self.owed.remove(&(until, sender));
        Some(until)
    }

    /// Who goes first, and when that was last heard, as far as this knows.
    pub(super) fn first(&self) -> Option<(SenderId, Timestamp)> {
        self.places.first().map(|(_, heard_at, sender)| (*sender, *heard_at))
    }
}
