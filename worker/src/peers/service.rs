//! What all mappers together say of one service: its members, and who was removed.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use svcmap_proto::control::{Change, Entry};
use svcmap_proto::json;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, HostId, Incarnation, Name};
use svcmap_proto::time::Timestamp;

use super::Knowledge;
use super::view::{Update, View};

/// How long who was removed is remembered, so that a late message does not bring it back.
const REMOVED_KEEP: Duration = Duration::from_secs(600);

/// Most removed instances remembered for one service; the oldest go first.
const REMOVED_MAX: usize = 4096;

/// A walk along the members beats a search for each change unless they are fewer by this factor.
const WALK: usize = 8;

/// An instance that the cache knows.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which life of it, as mappers say now.
    pub incarnation: Incarnation,
    /// The same life, as it was first known. They differ if a mapper gave a worker of the JSON
    /// dialect another incarnation, as one does that was started again.
    pub life: Incarnation,
    /// Its process.
    pid: u32,
    /// Where it is reached, best first.
    pub endpoints: Vec<Endpoint>,
    /// Who answers there, if it is known by a key.
    pub key: Option<PublicKey>,
    /// On which machine it runs.
    pub host: HostId,
    /// Its newest load.
    pub load: Load,
    /// When that was true.
    pub load_at: Timestamp,
    /// When a mapper last spoke of it.
    pub told_at: Timestamp,
    /// When it last answered itself.
    answered_at: Option<Timestamp>,
    /// Which mappers list it: one bit for each.
    listed_by: u16,
}

/// A service, as all mappers together describe it.
#[derive(Debug)]
pub(super) struct Service {
    /// What each mapper publishes.
    pub(super) views: Vec<View>,
    /// The mappers that are away for good, since when, as long as something of what they listed may count.
    pub(super) gone: BTreeMap<usize, Timestamp>,
    /// When any mapper last told anything.
    pub(super) told_at: Option<Timestamp>,
    /// Who is there.
    pub(super) members: BTreeMap<Name, Member>,
    /// When it was last wanted.
    pub(super) wanted_at: Timestamp,
    /// The newest (incarnation, sequence) of who was removed, and when.
    removed: BTreeMap<Name, (Incarnation, u64, Timestamp)>,
    /// Counts changes of membership and of addresses.
    pub(super) membership: u64,
    /// A mapper has lately stopped listing a member.
    has_unlisted: bool,
    /// When the next member that no mapper lists may have been silent for too long.
    pub(super) doubt_at: Option<Timestamp>,
}

impl Member {
    fn new(now: Timestamp, entry: &Entry) -> Self {
        Self {
            incarnation: entry.incarnation,
            life: entry.incarnation,
            pid: entry.pid,
            endpoints: entry.endpoints.clone(),
            key: entry.key,
            host: entry.host,
            load: entry.load,
            load_at: heard_at(now, entry.age_ms),
            told_at: now,
            answered_at: None,
            listed_by: 0,
        }
    }

    /// Whether this is the same process of the JSON dialect: it does not choose its incarnation.
    fn is_process_of(&self, entry: &Entry) -> bool {
        let both_json = self.load.share.is_some() && entry.load.share.is_some();
        both_json && self.pid == entry.pid && self.endpoints == entry.endpoints
    }

    /// Whether any other mapper lists it than this one, which lists another life.
    fn is_listed_but_for(&self, mapper: usize) -> bool {
        self.listed_by & !bit(mapper) != 0
    }

    /// Whether this is where it is reached, and who answers there.
    fn is_reached_as(&self, entry: &Entry) -> bool {
        self.endpoints == entry.endpoints && self.key == entry.key
    }

    /// It said something itself.
    pub(super) fn handle_answer(&mut self, now: Timestamp) {
        self.answered_at = Some(now);
    }

    /// Takes a change that only tells its load. `false` if it is another one.
    fn handle_change(&mut self, now: Timestamp, change: &Change) -> bool {
        let Change::Load { incarnation, load, age_ms, .. } = change else { return false };
        if *incarnation == self.incarnation {
            self.handle_told(now, load, *age_ms);
        }
        true
    }

    /// A mapper told its load.
    fn handle_told(&mut self, now: Timestamp, load: &Load, age_ms: u32) {
        self.told_at = now;
        self.take_load(load, heard_at(now, age_ms));
    }

    /// Takes a load that was true at `at`. Returns whether that was news.
    pub(super) fn take_load(&mut self, load: &Load, at: Timestamp) -> bool {
        if load.sequence < self.load.sequence {
            return false;
        }
        self.load_at = self.load_at.max(at);
        let news = load.sequence > self.load.sequence;
        self.load = *load;
        news
    }

    /// No mapper lists it, but it answered: until when it gets the benefit of the doubt.
    fn doubtful_until(&self, expiry: Duration) -> Option<Timestamp> {
        (self.listed_by == 0).then(|| self.answered_at.unwrap_or_default() + expiry)
    }
}

impl Service {
    /// Nobody yet.
    pub(super) fn new(now: Timestamp, views: Vec<View>) -> Self {
        Self {
            views,
            gone: BTreeMap::new(),
            told_at: None,
            members: BTreeMap::new(),
            wanted_at: now,
            removed: BTreeMap::new(),
            membership: 0,
            has_unlisted: false,
            doubt_at: None,
        }
    }

    /// What is known of it.
    pub(super) fn knowledge(&self) -> Knowledge {
        if self.views.iter().any(View::is_conclusive) {
            Knowledge::Complete
        } else if self.views.iter().any(View::has_told) {
            Knowledge::Warming
        } else {
            Knowledge::None
        }
    }

    /// A mapper told something. Returns the lives that are over by that.
    pub(super) fn apply(
        &mut self,
        now: Timestamp,
        mapper: usize,
        update: Update<'_>,
        expiry: Duration,
    ) -> Vec<(Name, Incarnation)> {
        let ended = match update {
            Update::Snapshot { entries, warming } => {
                self.forget_removed(now);
                self.apply_snapshot(now, mapper, &entries, warming)
            }
            Update::Changes(changes) => self.apply_changes(now, mapper, &changes),
        };
        self.forget_gone(now);
        if std::mem::take(&mut self.has_unlisted) {
            self.drop_doubtful(now, expiry);
        }
        ended
    }

    fn apply_snapshot(
        &mut self,
        now: Timestamp,
        mapper: usize,
        entries: &[Entry],
        warming: bool,
    ) -> Vec<(Name, Incarnation)> {
        let listed: BTreeSet<&Name> = entries.iter().map(|entry| &entry.instance).collect();
        let mut ended = Vec::new();
        for entry in entries {
            ended.extend(self.put(now, mapper, entry));
        }
        if !warming {
            let has_all_json = self.views.get(mapper).is_some_and(|view| view.has_all_json(now));
            let unlisted = self.members.iter_mut().filter(|(name, member)| {
                !listed.contains(name) && (has_all_json || member.load.share.is_none())
            });
            for (_, member) in unlisted {
                member.listed_by &= !bit(mapper);
                self.has_unlisted = true;
            }
        }
        ended
    }

    fn apply_changes(
        &mut self,
        now: Timestamp,
        mapper: usize,
        changes: &[Change],
    ) -> Vec<(Name, Incarnation)> {
        let mut ended = Vec::new();
        for change in self.walk(now, changes) {
            match change {
                Change::Put(entry) => ended.extend(self.put(now, mapper, entry)),
                Change::Load { instance, .. } => {
                    if let Some(member) = self.members.get_mut(instance) {
                        member.handle_change(now, change);
                    }
                }
                Change::Left { instance, incarnation } => {
                    ended.extend(self.end(now, instance.clone(), *incarnation));
                }
                Change::Expired { instance, incarnation } => {
                    let member = self.members.get_mut(instance);
                    // A former life is not listed there either.
                    if let Some(member) = member.filter(|m| m.incarnation <= *incarnation) {
                        member.listed_by &= !bit(mapper);
                        self.has_unlisted = true;
                    }
                }
            }
        }
        ended
    }

    /// Changes come in the order of names, as the members stand, and nearly all only tell loads: one
    /// walk along the members takes those. Returns the others.
    fn walk<'a>(&mut self, now: Timestamp, changes: &'a [Change]) -> Vec<&'a Change> {
        if changes.len() * WALK < self.members.len() {
            return changes.iter().collect();
        }
        let mut members = self.members.iter_mut();
        let mut next = members.next();
        let mut is_taken = |change: &Change| {
            while let Some((name, member)) = &mut next {
                match (*name).cmp(change.instance()) {
                    Ordering::Less => next = members.next(),
                    Ordering::Equal => return member.handle_change(now, change),
                    Ordering::Greater => return false,
                }
            }
            false
        };
        changes.iter().filter(|change| !is_taken(change)).collect()
    }

    /// A mapper lists an instance. Returns the life that this one replaces, if it does.
    fn put(&mut self, now: Timestamp, mapper: usize, entry: &Entry) -> Option<(Name, Incarnation)> {
        let newness = (entry.incarnation, entry.load.sequence);
        let removed = self.removed.get(&entry.instance);
        if removed.is_some_and(|&(incarnation, sequence, _)| newness <= (incarnation, sequence)) {
            return None;
        }
        let name = &entry.instance;
        let known = self.members.get_mut(name);
        match known {
            // Another key takes its place only once nobody lists it any more.
            Some(member) if member.key != entry.key && member.is_listed_but_for(mapper) => {
                member.listed_by &= !bit(mapper);
                None
            }
            Some(member) if member.key != entry.key && member.incarnation == entry.incarnation => {
                None
            }
            Some(member) if member.incarnation > entry.incarnation => None,
            Some(member) if member.incarnation == entry.incarnation => {
                member.listed_by |= bit(mapper);
                member.handle_told(now, &entry.load, entry.age_ms);
                if !member.is_reached_as(entry) {
                    member.endpoints.clone_from(&entry.endpoints);
                    member.key = entry.key;
                    self.membership += 1;
                }
                None
            }
            Some(member) if member.is_process_of(entry) => {
                let Member { life, answered_at, .. } = *member;
                let listed_by = bit(mapper);
                self.membership += u64::from(!member.is_reached_as(entry));
                *member = Member { life, answered_at, listed_by, ..Member::new(now, entry) };
                None
            }
            earlier => {
                let ended = earlier.map(|member| (name.clone(), member.incarnation));
                let mut member = Member::new(now, entry);
                member.listed_by = bit(mapper);
                self.members.insert(name.clone(), member);
                self.membership += 1;
                ended
            }
        }
    }

    /// An instance left: a fact, whoever still lists it.
    fn end(
        &mut self,
        now: Timestamp,
        name: Name,
        incarnation: Incarnation,
    ) -> Option<(Name, Incarnation)> {
        if self.members.get(&name).is_some_and(|member| member.incarnation > incarnation) {
            return None;
        }
        self.members.remove(&name);
        self.membership += 1;
        self.remember(now, name.clone(), incarnation, u64::MAX);
        Some((name, incarnation))
    }

    /// Drops members that no mapper lists and that have not answered for one expiry either.
    pub(super) fn drop_doubtful(&mut self, now: Timestamp, expiry: Duration) {
        let gone: Vec<_> = self
            .members
            .iter()
            .filter(|(_, member)| member.doubtful_until(expiry).is_some_and(|until| until <= now))
            .map(|(name, member)| (name.clone(), member.incarnation, member.load.sequence))
            .collect();
        for (name, incarnation, sequence) in gone {
            self.members.remove(&name);
            self.membership += 1;
            self.remember(now, name, incarnation, sequence);
        }
        let doubtful = self.members.values().filter_map(|member| member.doubtful_until(expiry));
        self.doubt_at = doubtful.min();
    }

    fn remember(&mut self, now: Timestamp, name: Name, incarnation: Incarnation, sequence: u64) {
        if self.removed.len() >= REMOVED_MAX && !self.removed.contains_key(&name) {
            let oldest = self.removed.iter().min_by_key(|(_, (_, _, at))| *at);
            if let Some(oldest) = oldest.map(|(name, _)| name.clone()) {
                self.removed.remove(&oldest);
            }
        }
        let entry = self.removed.entry(name).or_insert((incarnation, sequence, now));
        if (incarnation, sequence) >= (entry.0, entry.1) {
            *entry = (incarnation, sequence, now);
        }
    }

    /// Whether somebody served it, or that instance was there, as far as this cache or a mapper has
    /// heard.
    pub(super) fn was_served(&self, instance: Option<&Name>) -> bool {
        match instance {
            Some(instance) if !self.members.is_empty() => self.removed.contains_key(instance),
            _ => self.membership > 0 || self.views.iter().any(View::has_heard),
        }
    }

    /// Whether a mapper says that this process has nothing to do with it.
    pub(super) fn is_denied(&self) -> bool {
        self.views.iter().any(View::is_denied)
    }

    /// What mappers have listed that are away for good counts no more, once another one knows who is
    /// there. Who speaks JSON has the time to register with that.
    fn forget_gone(&mut self, now: Timestamp) {
        if self.gone.is_empty() || !self.views.iter().any(View::is_conclusive) {
            return;
        }
        for (&mapper, &since) in &self.gone {
            let has_all_json = now.since(since) >= json::LEASE;
            let is_doubtful = |member: &&mut Member| has_all_json || member.load.share.is_none();
            for member in self.members.values_mut().filter(is_doubtful) {
                member.listed_by &= !bit(mapper);
            }
        }
        self.gone.retain(|_, since| now.since(*since) < json::LEASE);
        self.has_unlisted = true;
    }

    /// Forgets who was removed long ago.
    fn forget_removed(&mut self, now: Timestamp) {
        self.removed.retain(|_, (_, _, at)| now.since(*at) < REMOVED_KEEP);
    }
}

fn bit(mapper: usize) -> u16 {
    1 << (mapper % crate::config::MAPPERS_MAX)
}

fn heard_at(now: Timestamp, age_ms: u32) -> Timestamp {
    now.before(Duration::from_millis(u64::from(age_ms)))
}
