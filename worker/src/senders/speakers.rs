//! Which connection speaks for which sender: for one at a time, and for few in a while.
//!
//! A process has a connection for each of its senders, so one that speaks for many is none of ours.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::Connection;

/// Senders for which one connection may speak within [`INTERVAL`].
const CLAIMS_MAX: u32 = 8;

/// See [`CLAIMS_MAX`].
const INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
struct Speaker {
    sender: SenderId,
    /// Senders that it has spoken for since then.
    claims: u32,
    since: Timestamp,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Speakers {
    by_connection: BTreeMap<Connection, Speaker>,
}

impl Speakers {
    /// Whether a connection may speak for a sender.
    pub(super) fn may_claim(&self, now: Timestamp, from: &Connection, sender: SenderId) -> bool {
        self.by_connection.get(from).is_none_or(|speaker| {
            let is_over = now.since(speaker.since) >= INTERVAL;
            speaker.sender == sender || speaker.claims < CLAIMS_MAX || is_over
        })
    }

    /// It speaks for that sender from now on. Returns for whom it spoke before, if that is another.
    pub(super) fn claim(
        &mut self,
        now: Timestamp,
        from: Connection,
        sender: SenderId,
    ) -> Option<SenderId> {
        let first = Speaker { sender, claims: 0, since: now };
        let speaker = self.by_connection.entry(from).or_insert(first);
        if now.since(speaker.since) >= INTERVAL {
            (speaker.claims, speaker.since) = (0, now);
        }
        let former = std::mem::replace(&mut speaker.sender, sender);
        if former == sender && speaker.claims > 0 {
            return None;
        }
        speaker.claims += 1;
        (former != sender).then_some(former)
    }

    /// For whom a connection speaks.
    pub(super) fn sender(&self, from: &Connection) -> Option<SenderId> {
        self.by_connection.get(from).map(|speaker| speaker.sender)
    }

    /// It speaks for nobody any more.
    pub(super) fn remove(&mut self, from: &Connection) -> Option<SenderId> {
        self.by_connection.remove(from).map(|speaker| speaker.sender)
    }

    /// All connections.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Connection, SenderId)> {
        self.by_connection.iter().map(|(connection, speaker)| (connection, speaker.sender))
    }
}
