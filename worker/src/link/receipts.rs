//! Which outcomes came over a link, and when to tell the worker, which keeps them until then.

use std::time::Duration;

use svcmap_proto::time::Timestamp;

/// Outcomes that may come before they are acknowledged at once, as no job is there to say so.
const UNACKNOWLEDGED_MAX: u64 = 256;

/// Bytes of results that may come before they are acknowledged at once.
const UNACKNOWLEDGED_BYTES_MAX: usize = 1024 * 1024;

/// Whether an outcome is the one that was expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    Next,
    /// It came before.
    Again,
    /// Others before it did not come: they got lost on the way, or had to be dropped.
    Gap,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Receipts {
    received: u64,
    acknowledged: u64,
    unacknowledged_bytes: usize,
    due_at: Option<Timestamp>,
    /// A WELCOME has settled what was before, so the next new outcome follows whatever its number.
    settled: bool,
}

impl Receipts {
    /// An outcome of that number and size came. It is to be acknowledged within `delay`.
    pub(super) fn receive(
        &mut self,
        now: Timestamp,
        number: u64,
        bytes: usize,
        delay: Duration,
    ) -> Arrival {
        if number <= self.received {
            return Arrival::Again;
        }
        if number > self.received + 1 && !self.settled {
            return Arrival::Gap;
        }
        self.settled = false;
        self.received = number;
        self.unacknowledged_bytes += bytes;
        self.due_at.get_or_insert(now + delay);
        if self.received - self.acknowledged >= UNACKNOWLEDGED_MAX
            || self.unacknowledged_bytes >= UNACKNOWLEDGED_BYTES_MAX
        {
            self.due_at = Some(now);
        }
        Arrival::Next
    }

    /// A WELCOME told of all that were dropped at the worker.
    pub(super) fn handle_welcome(&mut self) {
        self.settled = true;
    }

    /// They are to be acknowledged now, be there any or not.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        self.due_at = Some(now);
    }

    /// When they are to be acknowledged, unless something else says so before.
    pub(super) fn due_at(&self) -> Option<Timestamp> {
        self.due_at
    }

    /// The highest number of an outcome that came: what is about to be sent acknowledges it.
    pub(super) fn acknowledge(&mut self) -> u64 {
        self.acknowledged = self.received;
        self.unacknowledged_bytes = 0;
        self.due_at = None;
        self.acknowledged
    }
}
