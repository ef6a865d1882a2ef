//! One mapper's account of one service: snapshots and changes put together from their parts, in
//! the order of their revisions.

use std::borrow::Cow;
use std::time::Duration;

use svcmap_proto::control::{Change, ChangesPart, Entry, ServiceStanding, SnapshotPart};
use svcmap_proto::json;
use svcmap_proto::limits;
use svcmap_proto::names::Epoch;
use svcmap_proto::time::Timestamp;

/// After a gap the mapper is asked for a snapshot, once in this time at most. Whoever else missed
/// something asks as well, so each waits for a random part of half of it first.
const GAP_PAUSE: Duration = Duration::from_millis(100);

/// The same for each member, if that is longer: an entry has some 50 bytes, and snapshots that were
/// asked for should not take more of a network than what is published.
const GAP_PAUSE_PER_MEMBER: Duration = Duration::from_micros(200);

/// What a mapper's account says, once it is complete.
#[derive(Debug, PartialEq)]
pub enum Update<'a> {
    /// These are all that it lists.
    Snapshot {
        /// The instances.
        entries: Cow<'a, [Entry]>,
        /// It has started lately: who is missing may still be alive.
        warming: bool,
    },
    /// This changed.
    Changes(Cow<'a, [Change]>),
}

/// See the module.
#[derive(Debug)]
pub struct View {
    epoch: Option<Epoch>,
    /// Since when that epoch is known.
    since: Timestamp,
    /// The revision that the cache is at; `None` until a snapshot came, and after a gap.
    revision: Option<u64>,
    /// What the mapper knows of the service, if only from before.
    standing: ServiceStanding,
    warming: bool,
    /// When something last came on PUB, as far as that still means that more comes.
    published_at: Option<Timestamp>,
    /// When a snapshot was last asked for.
    asked_at: Timestamp,
    /// When one is asked for because of a gap.
    ask_at: Option<Timestamp>,
    published: Assembly<Entry>,
    asked: Assembly<Entry>,
    changes: Assembly<Change>,
}

impl View {
    /// Nothing is known yet; messages of that epoch will be believed.
    pub fn new(now: Timestamp, epoch: Option<Epoch>) -> Self {
        Self {
            epoch,
            since: now,
            revision: None,
            standing: ServiceStanding::Unheard,
            warming: true,
            published_at: None,
            asked_at: now,
            ask_at: None,
            published: Assembly::default(),
            asked: Assembly::default(),
            changes: Assembly::default(),
        }
    }

    /// Whether who is missing here is known not to be listed.
    pub fn is_conclusive(&self) -> bool {
        self.revision.is_some() && !self.warming
    }

    /// Nothing comes on PUB any more.
    pub fn handle_silence(&mut self) {
        self.published_at = None;
    }

    /// Whether the mapper has told anything of the service.
    pub fn has_told(&self) -> bool {
        self.revision.is_some()
    }

    /// Whether it knows the service, if only from before.
    pub fn has_heard(&self) -> bool {
        self.standing == ServiceStanding::Heard
    }

    /// Whether it says that this process has nothing to do with it.
    pub fn is_denied(&self) -> bool {
        self.standing == ServiceStanding::NotAllowed
    }

    /// Whether a worker of the JSON dialect has had the time to register again at a mapper that was
    /// started again: that hears of it with the next report only.
    pub fn has_all_json(&self, now: Timestamp) -> bool {
        now.since(self.since) >= json::LEASE
    }

    /// A part of a snapshot came on PUB.
    pub fn handle_published_snapshot<'a>(
        &mut self,
        now: Timestamp,
        part: &'a SnapshotPart,
    ) -> Option<Update<'a>> {
        self.published_at = Some(now);
        if self.epoch != Some(part.epoch) {
            return None;
        }
        let entries = self.published.add(snapshot_id(part), part.part, &part.entries)?;
        self.take_snapshot(part, entries)
    }

    /// A part of a snapshot came that was asked for.
    pub fn handle_asked_snapshot<'a>(&mut self, part: &'a SnapshotPart) -> Option<Update<'a>> {
        if self.epoch != Some(part.epoch) {
            return None;
        }
        let entries = self.asked.add(snapshot_id(part), part.part, &part.entries)?;
        self.take_snapshot(part, entries)
    }

    /// A part of changes came on PUB, of a service that has so many members.
    pub fn handle_changes<'a>(
        &mut self,
        now: Timestamp,
        part: &'a ChangesPart,
        members: usize,
        random: &mut fastrand::Rng,
    ) -> Option<Update<'a>> {
        self.published_at = Some(now);
        if self.epoch != Some(part.epoch) || self.revision? >= part.revision {
            return None;
        }
        if self.revision? < part.previous {
            self.revision = None;
            let members = u32::try_from(members).unwrap_or(u32::MAX);
            let pause = GAP_PAUSE.max(GAP_PAUSE_PER_MEMBER.saturating_mul(members));
            let spread = now + (pause / 2).mul_f64(random.f64());
            self.ask_at = Some(spread.max(self.asked_at + pause));
            return None;
        }
        let id = MessageId { previous: part.previous, revision: part.revision, parts: part.parts };
        let changes = self.changes.add(id, part.part, &part.changes)?;
        self.revision = Some(part.revision);
        Some(Update::Changes(changes))
    }

    /// When the mapper is to be asked for a snapshot, as none comes by itself.
    pub fn poll_timeout(&self, beat: Duration) -> Option<Timestamp> {
        self.epoch?;
        match (self.revision, self.published_at) {
            (Some(_), Some(_)) => None,
            _ => Some(self.ask_at.unwrap_or(self.asked_at + beat)),
        }
    }

    /// Whether the mapper is to be asked for a snapshot now.
    pub fn handle_timeout(&mut self, now: Timestamp, beat: Duration) -> bool {
        let due = self.poll_timeout(beat).is_some_and(|at| at <= now);
        if due {
            self.asked_at = now;
            self.ask_at = None;
        }
        due
    }

    fn take_snapshot<'a>(
        &mut self,
        part: &SnapshotPart,
        entries: Cow<'a, [Entry]>,
    ) -> Option<Update<'a>> {
        let SnapshotPart { revision, warming, standing, .. } = *part;
        if self.revision.is_some_and(|known| revision < known) {
            return None;
        }
        self.revision = Some(revision);
        (self.warming, self.standing) = (warming, standing);
        self.ask_at = None;
        Some(Update::Snapshot { entries, warming })
    }
}

/// Which message a part belongs to. The state at one revision is told again and again, and as its
/// ages grow, a mapper may deal it into more parts than before: those do not fit together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct MessageId {
    previous: u64,
    revision: u64,
    parts: u16,
}

fn snapshot_id(part: &SnapshotPart) -> MessageId {
    let SnapshotPart { revision, parts, .. } = *part;
    MessageId { previous: revision, revision, parts }
}

/// Parts of one message, which come in order or not at all.
#[derive(Debug)]
struct Assembly<T> {
    id: MessageId,
    next_part: u16,
    items: Vec<T>,
}

impl<T> Default for Assembly<T> {
    fn default() -> Self {
        Self { id: MessageId::default(), next_part: 0, items: Vec::new() }
    }
}

impl<T: Clone> Assembly<T> {
    /// Adds a part, and returns everything once it is complete. A part out of order drops what
    /// came before it: the next snapshot brings it all.
    fn add<'a>(&mut self, id: MessageId, part: u16, items: &'a [T]) -> Option<Cow<'a, [T]>> {
        if (part, id.parts) == (0, 1) && items.len() <= limits::INSTANCES_MAX {
            *self = Self::default();
            return Some(Cow::Borrowed(items));
        }
        if part == 0 {
            self.id = id;
            self.next_part = 0;
            self.items.clear();
        }
        let too_many = self.items.len() + items.len() > limits::INSTANCES_MAX;
        if self.id != id || part != self.next_part || id.parts > limits::PARTS_MAX || too_many {
            *self = Self::default();
            return None;
        }
        self.items.extend_from_slice(items);
        self.next_part += 1;
        if self.next_part < id.parts {
            return None;
        }
        self.next_part = 0;
        Some(Cow::Owned(std::mem::take(&mut self.items)))
    }
}
