//! Who is silent, and who has said goodbye.

use std::time::Duration;

use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::{Connection, Senders};

impl Senders {
    /// When a sender was last heard; `None` if it is not known here.
    pub fn heard_at(&self, id: SenderId) -> Option<Timestamp> {
        self.senders.get(&id).map(|sender| sender.heard_at)
    }

    /// The connection of a sender that reads, as far as can be seen: it takes what it gets, and was heard
    /// since then.
    pub fn reader(&self, id: SenderId, since: Timestamp) -> Option<&Connection> {
        let sender = self.senders.get(&id)?;
        let reads = sender.heard_at >= since && !self.blocked.contains_key(&id);
        sender.connection.as_ref().filter(|_| reads)
    }

    /// A sender has said that nothing follows: nothing of it need be kept.
    pub fn remove(&mut self, id: SenderId) {
        self.acknowledge(id, u64::MAX);
        self.forget(id);
    }

    /// This process was suspended for so long: silence in that time means nothing.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        for sender in self.senders.values_mut() {
            sender.heard_at = now.min(sender.heard_at + gap);
        }
    }
}
