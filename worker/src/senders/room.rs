//! Room for one more sender: who is forgotten for it, and what has to be known for that.

use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::{Connection, Senders};

impl Senders {
    /// A connection speaks for one sender at a time. Who had it before and has nothing here is
    /// forgotten.
    pub(super) fn claim(&mut self, now: Timestamp, connection: Connection, id: SenderId) {
        let Some(former) = self.connections.claim(now, connection, id) else { return };
        if let Some(sender) = self.senders.get_mut(&former) {
            sender.connection = None;
            match self.index(former) {
                true => self.forget(former),
                false => self.parted.push_back(former),
            }
        }
    }

    /// Keeps what is known of who can be forgotten. Returns whether that one can.
    pub(super) fn index(&mut self, id: SenderId) -> bool {
        let Some(sender) = self.senders.get_mut(&id) else { return false };
        let is_idle = sender.here == 0 && sender.retained.is_empty();
        if !std::mem::replace(&mut sender.is_idle, is_idle) && !is_idle {
            return false;
        }
        let place = (sender.connection.is_some(), sender.heard_at);
        self.idle.set(id, is_idle.then_some(place))
    }

    /// A job of a sender is gone that waits for no outcome.
    pub fn handle_dropped(&mut self, id: SenderId) {
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.here = sender.here.saturating_sub(1);
            self.index(id);
        }
    }

    /// Whether a sender has jobs here without an outcome.
    pub fn has_jobs(&self, id: SenderId) -> bool {
        self.senders.get(&id).is_some_and(|sender| sender.here > 0)
    }

    pub(super) fn forget(&mut self, id: SenderId) {
        self.idle.set(id, None);
        self.idle.settle(id);
        self.blocked.remove(&id);
        self.waiting.remove(&id);
        if let Some(connection) = self.senders.remove(&id).and_then(|sender| sender.connection) {
            self.connections.remove(&connection);
        }
        self.parted.push_back(id);
    }

    /// The next sender that has lost its connection to another one, or was forgotten: nothing can be
    /// promised to it.
    pub fn poll_parted(&mut self) -> Option<SenderId> {
        self.parted.pop_front()
    }

    /// How many HELLOs were answered that there is no room.
    pub fn turned_away(&self) -> u64 {
        self.turned_away
    }

    /// For want of room an outcome goes that its sender may still ask for.
    pub(super) fn drop_oldest_of(&mut self, id: SenderId) {
        let oldest = self.senders.get(&id).and_then(|sender| sender.retained.front());
        if let Some(until) = oldest.map(|oldest| oldest.until) {
            self.idle.owe(id, until);
        }
        self.forget_oldest_of(id);
    }

    /// Makes room for one more sender, if necessary at the cost of one that has nothing here: first of
    /// those without a connection, then of those that are silent, who says HELLO again when it has
    /// something to say.
    pub(super) fn make_room(&mut self, now: Timestamp) -> bool {
        if self.senders.len() < self.senders_max {
            return true;
        }
        while let Some(settled) = self.idle.poll_settled(now) {
            self.index(settled);
        }
        while let Some((id, heard_at)) = self.idle.first() {
            // What was heard since is looked at only here.
            if self.senders.get(&id).is_some_and(|sender| sender.heard_at > heard_at) {
                self.index(id);
                continue;
            }
            self.forget(id);
            return true;
        }
        false
    }
}
