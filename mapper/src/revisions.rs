//! Revisions: what is published of each topic, and when.
//!
//! Each service has a topic. What changes in it is gathered and told at most once per publish
//! interval, or within milliseconds if it matters; the full state follows every beat. The interval
//! is the service's mean service time, within limits, unless it is set. Each
//! publication of changes draws the next revision from one counter per mapper, so that
//!
//! - changes lead from the topic's previous revision to its new one, without a hole;
//! - a snapshot of revision r is exactly what the changes up to r add up to, because changes that
//!   wait are told right before it.
//!
//! A copy that is handed out between two publications (an answer to SYNC) bears the revision that
//! was published last, although it holds what changed since. That is safe: changes state what *is*
//! and not what is added, and they cover everything that differs, so whoever applies the next ones
//! on top is where everybody else is.
//!
//! This module knows which instances changed, not what they are: see [`crate::registry`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use svcmap_proto::limits;
use svcmap_proto::names::{Incarnation, Name};
use svcmap_proto::time::{Timestamp, earliest};

use crate::config::{PUBLISH_MAX, PUBLISH_MIN, PUBLISH_UNKNOWN};

#[cfg(test)]
mod tests;

/// How long changes that matter wait for company: a burst becomes one message, and nobody notices.
const COALESCE: Duration = Duration::from_millis(5);

/// Publications of a topic within one interval, if what changes matters. An instance with one slot
/// crosses a level twice with each job, so in a busy topic something that matters changes all the
/// time. Unlimited, that would be told every 5 ms however long the jobs take, and wake up every
/// subscriber each time. So many still get out at once in a burst; beyond that, news waits for this
/// share of a job, which costs it little of its truth. Services with jobs of 160 ms or less notice
/// nothing.
const URGENT: u32 = 32;

/// Time between publications for each change in them. A change of load takes some 64 bytes, and a
/// topic is not to take more than some 256 KiB a second of each subscriber: a fiftieth of what a
/// slow network carries, as there may be many of both.
const CHANGE_TIME: Duration = Duration::from_micros(64 * 1_000_000 / (256 * 1024));

/// Topics with more instances than this send their snapshots less often.
const LARGE: usize = 256;

/// Beats between two snapshots of a large topic.
const LARGE_BEATS: u32 = 5;

/// How long a topic goes on after its last instance went, so that everybody sees it empty.
const EMPTY: Duration = Duration::from_secs(60);

/// Changes that wait in one topic before they are told at once: well below what a cache takes at a
/// time.
const WAITING_MAX: usize = limits::INSTANCES_MAX / 2;

/// What happened to an instance since the topic's last publication.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// It is new, or anything about it may have changed.
    Put,
    /// Only its load changed.
    Load,
    /// It left.
    Left(Incarnation),
    /// It fell silent.
    Expired(Incarnation),
}

/// What is to be published now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// The full state of a service.
    Snapshot {
        /// Of which service.
        service: Name,
        /// The topic's revision.
        revision: u64,
    },
    /// What changed in a service.
    Changes {
        /// In which service.
        service: Name,
        /// The topic's revision before.
        previous: u64,
        /// The topic's revision from now on.
        revision: u64,
        /// What happened, by instance.
        changes: BTreeMap<Name, Happened>,
    },
}

/// The revisions of all topics.
#[derive(Debug)]
pub struct Revisions {
    beat: Duration,
    /// See [`Config::publish_interval`](crate::Config::publish_interval).
    publish_interval: Option<Duration>,
    /// The newest revision of all. Starts at 1, so that no state ever bears revision 0.
    revision: u64,
    topics: BTreeMap<Name, Topic>,
    /// The same topics by the time when something is due there.
    by_due: BTreeSet<(Timestamp, Name)>,
}

#[derive(Debug)]
struct Topic {
    /// What was published last led to this revision.
    revision: u64,
    changes: BTreeMap<Name, Happened>,
    /// When `changes` are due; `None` while there are none.
    changes_at: Option<Timestamp>,
    /// Ordinary changes are not published before this.
    regular_at: Timestamp,
    /// Urgent ones are not before this.
    urgent_at: Timestamp,
    snapshot_at: Timestamp,
    instances: usize,
    empty_since: Timestamp,
}

impl Topic {
    fn new(now: Timestamp, revision: u64) -> Self {
        Self {
            revision,
            changes: BTreeMap::new(),
            changes_at: None,
            regular_at: Timestamp::default(),
            urgent_at: Timestamp::default(),
            // Whoever knew the topic before it was forgotten sees a gap: mend that at once.
            snapshot_at: now + COALESCE,
            instances: 0,
            empty_since: now,
        }
    }

    fn due_at(&self) -> Timestamp {
        earliest(self.changes_at, Some(self.snapshot_at)).unwrap_or(self.snapshot_at)
    }

    /// So many changes were published. That spends of a budget for urgent news, which fills up
    /// within an interval. Urgent news never waits longer than ordinary news.
    fn handle_published(&mut self, now: Timestamp, interval: Duration, changes: usize) {
        let cost = publish_time(changes).clamp(interval / URGENT, interval);
        self.regular_at = now + interval;
        self.urgent_at = (self.urgent_at.max(now.before(interval)) + cost).min(self.regular_at);
    }

    fn snapshot_interval(&self, beat: Duration) -> Duration {
        if self.instances > LARGE { beat.saturating_mul(LARGE_BEATS) } else { beat }
    }
}

impl Revisions {
    /// No topics yet. See [`Config`](crate::Config) for what the arguments mean.
    pub fn new(beat: Duration, publish_interval: Option<Duration>) -> Self {
        Self {
            beat,
            publish_interval,
            revision: 1,
            topics: BTreeMap::new(),
            by_due: BTreeSet::new(),
        }
    }

    /// Something happened to an instance; its service has `instances` of them now. With `urgent`,
    /// senders are told at once and not at the next regular time, within limits. A load that is not
    /// urgent, of an instance of which something waits to be told, is told with that and need not be
    /// mentioned.
    pub fn handle_change(
        &mut self,
        now: Timestamp,
        service: &Name,
        instance: &Name,
        happened: Happened,
        instances: usize,
        urgent: bool,
    ) {
        if !self.topics.contains_key(service) {
            // Nobody is listed there at the newest revision, which is what this states.
            let topic = Topic::new(now, self.revision);
            self.by_due.insert((topic.due_at(), service.clone()));
            self.topics.insert(service.clone(), topic);
        }
        let Some(topic) = self.topics.get_mut(service) else { return };
        let was_due_at = topic.due_at();
        if instances == 0 && topic.instances > 0 {
            topic.empty_since = now;
        }
        topic.instances = instances;
        // A load on top of news about everything else is part of that news.
        let known = topic.changes.get(instance);
        if !(happened == Happened::Load && known == Some(&Happened::Put)) {
            topic.changes.insert(instance.clone(), happened);
        }
        let due_at = match topic.changes.len() {
            WAITING_MAX.. => now,
            _ if urgent => topic.urgent_at.max(now + COALESCE),
            _ => topic.regular_at.max(now + COALESCE),
        };
        topic.changes_at = earliest(topic.changes_at, Some(due_at));

        if topic.due_at() != was_due_at {
            self.by_due.remove(&(was_due_at, service.clone()));
            self.by_due.insert((topic.due_at(), service.clone()));
        }
    }

    /// What is to be published next. Call it until it returns `None`, before anything else happens:
    /// each item describes the state of this moment. It may ask for the mean service time of a
    /// service, which is `None` if nobody knows.
    pub fn poll_due(
        &mut self,
        now: Timestamp,
        mean_service_time: impl FnOnce(&Name) -> Option<Duration>,
    ) -> Option<Due> {
        if self.poll_timeout()? > now {
            return None;
        }
        let (_, service) = self.by_due.pop_first()?;
        let topic = self.topics.get_mut(&service)?;
        let due = if !topic.changes.is_empty() {
            // Due themselves, or ahead of the snapshot that is.
            self.revision += 1;
            let previous = std::mem::replace(&mut topic.revision, self.revision);
            let changes = std::mem::take(&mut topic.changes);
            topic.changes_at = None;
            let interval = self.publish_interval.unwrap_or_else(|| {
                let mean = mean_service_time(&service).unwrap_or(PUBLISH_UNKNOWN);
                let interval = mean.clamp(PUBLISH_MIN, PUBLISH_MAX.min(self.beat));
                interval.max(publish_time(topic.instances))
            });
            topic.handle_published(now, interval, changes.len());
            Due::Changes { service: service.clone(), previous, revision: topic.revision, changes }
        } else if topic.instances == 0 && now.since(topic.empty_since) >= EMPTY {
            // The last word is a snapshot: whoever missed something before sees it empty.
            let revision = topic.revision;
            self.topics.remove(&service);
            return Some(Due::Snapshot { service, revision });
        } else {
            let interval = topic.snapshot_interval(self.beat);
            // In step with the last, unless that would be a burst after a pause.
            let next = topic.snapshot_at + interval;
            topic.snapshot_at = if next > now { next } else { now + interval };
            Due::Snapshot { service: service.clone(), revision: topic.revision }
        };
        self.by_due.insert((topic.due_at(), service));
        Some(due)
    }

    /// When [`Revisions::poll_due`] has something next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.by_due.first().map(|(due_at, _)| *due_at)
    }

    /// The revision that a copy of this service's state bears. That of a service without a topic
    /// is the newest of all, at which it has no instances.
    pub fn revision(&self, service: &Name) -> u64 {
        self.topics.get(service).map_or(self.revision, |topic| topic.revision)
    }

    /// The services that have a topic, in the order of their names, from behind `after`.
    pub fn services(&self, after: Option<&Name>) -> impl Iterator<Item = &Name> {
        use std::ops::Bound::{Excluded, Unbounded};
        let from = after.map_or(Unbounded, Excluded);
        self.topics.range::<Name, _>((from, Unbounded)).map(|(service, _)| service)
    }

    /// Whether the service has a topic.
    pub fn contains(&self, service: &Name) -> bool {
        self.topics.contains_key(service)
    }

    /// Forgets the service that has been empty for longest, if there is one: this is its last word.
    pub fn forget_empty(&mut self) -> Option<Due> {
        let empty = self.topics.iter().filter(|(_, topic)| topic.instances == 0);
        let (service, _) = empty.min_by_key(|(_, topic)| topic.empty_since)?;
        let service = service.clone();
        let topic = self.topics.remove(&service)?;
        self.by_due.remove(&(topic.due_at(), service.clone()));
        Some(Due::Snapshot { service, revision: topic.revision })
    }

    /// How many topics there are.
    pub fn len(&self) -> usize {
        self.topics.len()
    }
}

/// How long so many changes keep a topic busy.
fn publish_time(changes: usize) -> Duration {
    CHANGE_TIME.saturating_mul(u32::try_from(changes).unwrap_or(u32::MAX))
}
