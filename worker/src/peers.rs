//! The cache: which instances of a service there are, and how loaded, as far as this process knows.
//!
//! Several mappers are several opinions. Who is listed by any of them is a member; who left, by its
//! own word, is none, whatever a mapper says. Load comes from mappers and from the instances' own
//! answers; what has the higher (incarnation, sequence) wins. Losing a mapper empties nothing.

mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use svcmap_proto::control::{Change, Entry, Publication, SnapshotPart};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use crate::config::SERVICES_FOLLOWED_MAX;
use view::{Update, View};

/// How long who was removed is remembered, so that a late message does not bring it back.
const REMOVED_KEEP: Duration = Duration::from_secs(600);

/// Most removed instances remembered for one service; the oldest go first.
const REMOVED_MAX: usize = 4096;

/// What the cache wants, or has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeersOutput {
    /// Subscribe to this service at every mapper.
    Subscribe(Name),
    /// Ask that mapper for a snapshot of the service.
    Sync {
        /// Which mapper.
        mapper: usize,
        /// Of what.
        service: Name,
    },
    /// That life of that instance is over: it left, or another took its name.
    Ended {
        /// Whose life.
        key: InstanceKey,
        /// Which one.
        incarnation: Incarnation,
    },
    /// Nothing comes on PUB from that mapper, so it is asked each beat: a firewall, perhaps.
    Silent {
        /// Which mapper.
        mapper: usize,
    },
}

/// An instance that the cache knows.
#[derive(Clone, Debug)]
pub struct Member {
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where it is reached, best first.
    pub endpoints: Vec<Endpoint>,
    /// On which machine it runs.
    pub host: HostId,
    /// Its newest load.
    pub load: Load,
    /// When that was true.
    pub load_at: Timestamp,
    /// When it last answered itself.
    answered_at: Option<Timestamp>,
    /// Which mappers list it: one bit for each.
    listed_by: u8,
}

/// What is known of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// No mapper has told yet, or none that has seen enough: conclude nothing.
    None,
    /// The members are all there are.
    Complete,
}

#[derive(Debug)]
struct Service {
    views: Vec<View>,
    members: BTreeMap<Name, Member>,
    /// The newest (incarnation, sequence) of who was removed, and when.
    removed: BTreeMap<Name, (Incarnation, u64, Timestamp)>,
    /// Counts changes of membership.
    membership: u64,
    /// When the next member that no mapper lists may have been silent for too long.
    doubt_at: Option<Timestamp>,
}

/// See the module.
#[derive(Debug)]
pub struct Peers {
    services: BTreeMap<Name, Service>,
    epochs: Vec<Option<Epoch>>,
    /// Mappers of which something came on PUB.
    heard: BTreeSet<usize>,
    /// Mappers of which nothing did, and it was said.
    silent: BTreeSet<usize>,
    beat: Duration,
    expiry: Duration,
    outputs: VecDeque<PeersOutput>,
}

impl Peers {
    /// An empty cache that is fed by so many mappers.
    pub fn new(mappers: usize) -> Self {
        Self {
            services: BTreeMap::new(),
            epochs: vec![None; mappers],
            heard: BTreeSet::new(),
            silent: BTreeSet::new(),
            beat: Duration::from_secs(1),
            expiry: Duration::from_secs(3),
            outputs: VecDeque::new(),
        }
    }

    /// Keeps track of this service from now on. `false` if that would be too many.
    pub fn follow(&mut self, now: Timestamp, service: &Name) -> bool {
        if self.services.contains_key(service) {
            return true;
        }
        if self.services.len() >= SERVICES_FOLLOWED_MAX {
            return false;
        }
        self.outputs.push_back(PeersOutput::Subscribe(service.clone()));
        let views = self.epochs.iter().map(|epoch| View::new(now, *epoch)).collect();
        for (mapper, _) in self.epochs.iter().enumerate().filter(|(_, epoch)| epoch.is_some()) {
            self.outputs.push_back(PeersOutput::Sync { mapper, service: service.clone() });
        }
        let (members, removed) = (BTreeMap::new(), BTreeMap::new());
        let service_state = Service { views, members, removed, membership: 0, doubt_at: None };
        self.services.insert(service.clone(), service_state);
        true
    }

    /// A mapper said WELCOME: only its messages of that epoch are believed.
    pub fn handle_welcome(
        &mut self,
        now: Timestamp,
        mapper: usize,
        epoch: Epoch,
        (beat, expiry): (Duration, Duration),
    ) {
        (self.beat, self.expiry) = (beat, expiry);
        let Some(known) = self.epochs.get_mut(mapper) else { return };
        let same = known.replace(epoch) == Some(epoch);
        for (name, service) in &mut self.services {
            if !same && let Some(view) = service.views.get_mut(mapper) {
                *view = View::new(now, Some(epoch));
            }
            self.outputs.push_back(PeersOutput::Sync { mapper, service: name.clone() });
        }
    }

    /// A pulse came on PUB: what that mapper publishes arrives here.
    pub fn handle_pulse(&mut self, mapper: usize) {
        self.heard.insert(mapper);
        self.silent.remove(&mapper);
    }

    /// Something came on PUB for that service.
    pub fn handle_publication(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: &Name,
        publication: Publication,
    ) {
        self.handle_pulse(mapper);
        let update = self.view(mapper, service).and_then(|view| match publication {
            Publication::Pulse { .. } => None,
            Publication::Snapshot(part) => view.handle_published_snapshot(now, part),
            Publication::Changes(part) => view.handle_changes(now, part),
        });
        self.apply(now, mapper, service, update);
    }

    /// A snapshot came that was asked for.
    pub fn handle_snapshot(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: &Name,
        part: SnapshotPart,
    ) {
        let update =
            self.view(mapper, service).and_then(|view| view.handle_asked_snapshot(now, part));
        self.apply(now, mapper, service, update);
    }

    /// An instance said so itself. Returns whether that was news.
    pub fn handle_load(
        &mut self,
        now: Timestamp,
        key: &InstanceKey,
        incarnation: Incarnation,
        load: &Load,
    ) -> bool {
        let member = self
            .services
            .get_mut(&key.service)
            .and_then(|service| service.members.get_mut(&key.instance))
            .filter(|member| member.incarnation == incarnation);
        let Some(member) = member else { return false };
        member.answered_at = Some(now);
        member.take_load(load, now)
    }

    /// What is known of a service.
    pub fn knowledge(&self, service: &Name) -> Knowledge {
        match self.services.get(service) {
            Some(service) if service.views.iter().any(View::is_conclusive) => Knowledge::Complete,
            _ => Knowledge::None,
        }
    }

    /// The members of a service, by name.
    pub fn members(&self, service: &Name) -> impl Iterator<Item = (&Name, &Member)> {
        self.services.get(service).into_iter().flat_map(|service| &service.members)
    }

    /// One member.
    pub fn member(&self, key: &InstanceKey) -> Option<&Member> {
        self.services.get(&key.service)?.members.get(&key.instance)
    }

    /// A number that changes whenever a member comes, goes, or starts another life.
    pub fn membership(&self, service: &Name) -> u64 {
        self.services.get(service).map_or(0, |service| service.membership)
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self) -> Option<PeersOutput> {
        self.outputs.pop_front()
    }

    /// When [`Peers::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let views = self.services.values().flat_map(|service| &service.views);
        let poll = views.filter_map(|view| view.poll_timeout(self.beat)).min();
        let doubt = self.services.values().filter_map(|service| service.doubt_at).min();
        svcmap_proto::time::earliest(poll, doubt)
    }

    /// Asks mappers whose publications do not come, and drops who is unlisted and silent.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for (name, service) in &mut self.services {
            for (mapper, view) in service.views.iter_mut().enumerate() {
                if view.handle_timeout(now, self.beat) {
                    if !self.heard.contains(&mapper) && self.silent.insert(mapper) {
                        self.outputs.push_back(PeersOutput::Silent { mapper });
                    }
                    self.outputs.push_back(PeersOutput::Sync { mapper, service: name.clone() });
                }
            }
            service.drop_doubtful(now, self.expiry);
            service.forget_removed(now);
        }
    }

    fn view(&mut self, mapper: usize, service: &Name) -> Option<&mut View> {
        self.services.get_mut(service)?.views.get_mut(mapper)
    }

    fn apply(&mut self, now: Timestamp, mapper: usize, name: &Name, update: Option<Update>) {
        let Some(service) = self.services.get_mut(name) else { return };
        let ended = match update {
            Some(Update::Snapshot { entries, warming }) => {
                service.apply_snapshot(now, mapper, entries, warming, self.expiry)
            }
            Some(Update::Changes(changes)) => {
                service.apply_changes(now, mapper, changes, self.expiry)
            }
            None => return,
        };
        for (instance, incarnation) in ended {
            let key = InstanceKey { service: name.clone(), instance };
            self.outputs.push_back(PeersOutput::Ended { key, incarnation });
        }
    }
}

impl Member {
    fn new(now: Timestamp, entry: Entry) -> Self {
        Self {
            incarnation: entry.incarnation,
            endpoints: entry.endpoints,
            host: entry.host,
            load: entry.load,
            load_at: heard_at(now, entry.age_ms),
            answered_at: None,
            listed_by: 0,
        }
    }

    fn take_load(&mut self, load: &Load, at: Timestamp) -> bool {
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
    fn apply_snapshot(
        &mut self,
        now: Timestamp,
        mapper: usize,
        entries: Vec<Entry>,
        warming: bool,
        expiry: Duration,
    ) -> Vec<(Name, Incarnation)> {
        let listed: BTreeSet<Name> = entries.iter().map(|entry| entry.instance.clone()).collect();
        let mut ended = Vec::new();
        for entry in entries {
            ended.extend(self.put(now, mapper, entry));
        }
        if !warming {
            for (_, member) in self.members.iter_mut().filter(|(name, _)| !listed.contains(*name)) {
                member.listed_by &= !bit(mapper);
            }
            self.drop_doubtful(now, expiry);
        }
        ended
    }

    fn apply_changes(
        &mut self,
        now: Timestamp,
        mapper: usize,
        changes: Vec<Change>,
        expiry: Duration,
    ) -> Vec<(Name, Incarnation)> {
        let mut ended = Vec::new();
        for change in changes {
            match change {
                Change::Put(entry) => ended.extend(self.put(now, mapper, entry)),
                Change::Load { instance, incarnation, load, age_ms } => {
                    let member = self.members.get_mut(&instance);
                    if let Some(member) = member.filter(|m| m.incarnation == incarnation) {
                        member.take_load(&load, heard_at(now, age_ms));
                    }
                }
                Change::Left { instance, incarnation } => {
                    ended.extend(self.end(now, instance, incarnation));
                }
                Change::Expired { instance, incarnation } => {
                    let member = self.members.get_mut(&instance);
                    if let Some(member) = member.filter(|m| m.incarnation == incarnation) {
                        member.listed_by &= !bit(mapper);
                    }
                }
            }
        }
        self.drop_doubtful(now, expiry);
        ended
    }

    /// A mapper lists an instance. Returns the life that this one replaces, if it does.
    fn put(&mut self, now: Timestamp, mapper: usize, entry: Entry) -> Option<(Name, Incarnation)> {
        let newness = (entry.incarnation, entry.load.sequence);
        let removed = self.removed.get(&entry.instance);
        if removed.is_some_and(|&(incarnation, sequence, _)| newness <= (incarnation, sequence)) {
            return None;
        }
        let name = entry.instance.clone();
        let known = self.members.get_mut(&name);
        match known {
            Some(member) if member.incarnation > entry.incarnation => None,
            Some(member) if member.incarnation == entry.incarnation => {
                member.listed_by |= bit(mapper);
                member.take_load(&entry.load, heard_at(now, entry.age_ms));
                member.endpoints = entry.endpoints;
                None
            }
            earlier => {
                let ended = earlier.map(|member| (name.clone(), member.incarnation));
                let mut member = Member::new(now, entry);
                member.listed_by = bit(mapper);
                self.members.insert(name, member);
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
    fn drop_doubtful(&mut self, now: Timestamp, expiry: Duration) {
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

    fn forget_removed(&mut self, now: Timestamp) {
        self.removed.retain(|_, (_, _, at)| now.since(*at) < REMOVED_KEEP);
    }
}

fn bit(mapper: usize) -> u8 {
    1 << (mapper % crate::config::MAPPERS_MAX)
}

fn heard_at(now: Timestamp, age_ms: u32) -> Timestamp {
    now.before(Duration::from_millis(u64::from(age_ms)))
}
