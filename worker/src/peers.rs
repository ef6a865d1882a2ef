//! The cache: which instances of a service there are, and how loaded, as far as this process knows.
//!
//! Several mappers are several opinions. Who is listed by any of them is a member; who left, by its
//! own word, is none, whatever a mapper says. Load comes from mappers and from the instances' own
//! answers; what has the higher (incarnation, sequence) wins. Losing a mapper empties nothing.

mod service;
mod view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use svcmap_proto::control::{Publication, SnapshotPart};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey, Name};
use svcmap_proto::time::{Timestamp, earliest};

use crate::config::{MAPPERS_MAX, SERVICES_FOLLOWED_MAX};
pub use service::Member;
use service::Service;
use view::{Update, View};

/// What the cache wants, or has found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeersOutput {
    /// Subscribe to this service at every mapper.
    Subscribe(Name),
    /// It is not followed any more.
    Unsubscribe(Name),
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

/// What is known of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// No mapper has told yet: conclude nothing.
    None,
    /// None of those that have told has seen enough: conclude nothing from absence.
    Warming,
    /// The members are all there are.
    Complete,
}

/// What is known of a mapper.
#[derive(Clone, Copy, Debug, Default)]
struct Mapper {
    epoch: Option<Epoch>,
    hearing: Hearing,
}

/// Whether anything comes from a mapper on PUB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Hearing {
    /// Nothing has come yet.
    #[default]
    Awaited,
    /// Something has.
    Heard,
    /// It does not come, and the mapper is asked since then.
    Missed(Timestamp),
    /// It does not come, and that was said.
    Silent,
}

impl Hearing {
    /// A mapper is asked, as nothing came. Returns whether that is to be said now: where all start at
    /// once, a subscription may take longer than a beat.
    fn handle_asked(&mut self, now: Timestamp, beat: Duration) -> bool {
        match *self {
            Self::Awaited => *self = Self::Missed(now),
            Self::Missed(since) if now.since(since) >= SAID_AFTER_BEATS * beat => {
                *self = Self::Silent;
                return true;
            }
            Self::Missed(_) | Self::Heard | Self::Silent => {}
        }
        false
    }
}

/// A mapper is asked for so long in place of publications before that is said.
const SAID_AFTER_BEATS: u32 = 2;

/// See the module.
#[derive(Debug)]
pub struct Peers {
    services: BTreeMap<Name, Service>,
    mappers: Vec<Mapper>,
    beat: Duration,
    expiry: Duration,
    /// The next deadline, as of the last change.
    due_at: Option<Timestamp>,
    random: fastrand::Rng,
    outputs: VecDeque<PeersOutput>,
}

impl Peers {
    /// An empty cache that is fed by so many mappers. `seed` is a random number.
    pub fn new(mappers: usize, seed: u64) -> Self {
        Self {
            services: BTreeMap::new(),
            mappers: vec![Mapper::default(); mappers],
            beat: Duration::from_secs(1),
            expiry: Duration::from_secs(3),
            due_at: None,
            random: fastrand::Rng::with_seed(seed),
            outputs: VecDeque::new(),
        }
    }

    /// Keeps track of this service from now on. `false` if that would be too many.
    pub fn follow(&mut self, now: Timestamp, service: &Name) -> bool {
        if let Some(known) = self.services.get_mut(service) {
            known.wanted_at = now;
            return true;
        }
        if self.services.len() >= SERVICES_FOLLOWED_MAX {
            return false;
        }
        self.outputs.push_back(PeersOutput::Subscribe(service.clone()));
        let views = self.mappers.iter().map(|mapper| View::new(now, mapper.epoch)).collect();
        let known = self.mappers.iter().enumerate().filter(|(_, mapper)| mapper.epoch.is_some());
        for (mapper, _) in known {
            self.outputs.push_back(PeersOutput::Sync { mapper, service: service.clone() });
        }
        self.services.insert(service.clone(), Service::new(now, views));
        self.plan();
        true
    }

    /// Whether it keeps track of a service.
    pub fn follows(&self, service: &Name) -> bool {
        self.services.contains_key(service)
    }

    /// Which service is to make room for one more that is wanted, if none is left: of those that are
    /// not `needed`, one that nobody serves, else any; the one that was not wanted for longest.
    pub fn first_to_go(&self, wanted: &Name, needed: impl Fn(&Name) -> bool) -> Option<Name> {
        if self.services.len() < SERVICES_FOLLOWED_MAX || self.follows(wanted) {
            return None;
        }
        let idle = self.services.iter().filter(|(name, _)| !needed(name));
        let first =
            idle.min_by_key(|(_, service)| (!service.members.is_empty(), service.wanted_at));
        first.map(|(name, _)| name.clone())
    }

    /// Keeps track of a service no more.
    pub fn unfollow(&mut self, service: &Name) {
        if self.services.remove(service).is_some() {
            self.outputs.push_back(PeersOutput::Unsubscribe(service.clone()));
            self.plan();
        }
    }

    /// A mapper said WELCOME, which may be one more: only its messages of that epoch are believed.
    pub fn handle_welcome(
        &mut self,
        now: Timestamp,
        mapper: usize,
        epoch: Epoch,
        (beat, expiry): (Duration, Duration),
    ) {
        (self.beat, self.expiry) = (beat, expiry);
        if (self.mappers.len()..MAPPERS_MAX).contains(&mapper) {
            self.mappers.resize_with(mapper + 1, Mapper::default);
            for service in self.services.values_mut() {
                service.views.resize_with(mapper + 1, || View::new(now, None));
            }
        }
        let Some(known) = self.mappers.get_mut(mapper) else { return };
        let same = known.epoch.replace(epoch) == Some(epoch);
        for (name, service) in &mut self.services {
            if !same && let Some(view) = service.views.get_mut(mapper) {
                *view = View::new(now, Some(epoch));
            }
            service.gone.remove(&mapper);
            self.outputs.push_back(PeersOutput::Sync { mapper, service: name.clone() });
        }
        self.plan();
    }

    /// A mapper is away for good: what it has listed counts until another one knows who is there.
    pub fn handle_gone(&mut self, now: Timestamp, mapper: usize) {
        let Some(known) = self.mappers.get_mut(mapper) else { return };
        *known = Mapper::default();
        for service in self.services.values_mut() {
            if let Some(view) = service.views.get_mut(mapper) {
                *view = View::new(now, None);
            }
            service.gone.insert(mapper, now);
        }
        self.plan();
    }

    /// A pulse came on PUB: what that mapper publishes arrives here.
    pub fn handle_pulse(&mut self, mapper: usize) {
        if let Some(mapper) = self.mappers.get_mut(mapper) {
            mapper.hearing = Hearing::Heard;
        }
    }

    /// Pulses of that mapper, which is there, have ceased to come: it is asked each beat until
    /// something comes on PUB again.
    pub fn handle_silence(&mut self, mapper: usize) {
        if let Some(mapper) = self.mappers.get_mut(mapper)
            && mapper.hearing == Hearing::Heard
        {
            mapper.hearing = Hearing::Awaited;
        }
        let views = self.services.values_mut().filter_map(|service| service.views.get_mut(mapper));
        views.for_each(View::handle_silence);
        self.plan();
    }

    /// Something came on PUB for that service. Returns whether that changed who serves it, or whether
    /// that is known.
    pub fn handle_publication(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: &Name,
        publication: &Publication,
    ) -> bool {
        self.handle_pulse(mapper);
        self.learn(now, mapper, service, |view, members, random| match publication {
            Publication::Pulse { .. } => None,
            Publication::Snapshot(part) => view.handle_published_snapshot(now, part),
            Publication::Changes(part) => view.handle_changes(now, part, members, random),
        })
    }

    /// A snapshot came that was asked for. Returns the same.
    pub fn handle_snapshot(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: &Name,
        part: &SnapshotPart,
    ) -> bool {
        self.learn(now, mapper, service, |view, _, _| view.handle_asked_snapshot(part))
    }

    /// An instance said so itself. Returns whether that was news.
    pub fn handle_load(
        &mut self,
        now: Timestamp,
        key: &InstanceKey,
        incarnation: Incarnation,
        load: &Load,
    ) -> bool {
        let Some(member) = self.life(key, incarnation) else { return false };
        member.handle_answer(now);
        member.take_load(load, now)
    }

    /// An instance answered, but did not tell its load.
    pub fn handle_answer(&mut self, now: Timestamp, key: &InstanceKey, incarnation: Incarnation) {
        if let Some(member) = self.life(key, incarnation) {
            member.handle_answer(now);
        }
    }

    /// What is known of a service.
    pub fn knowledge(&self, service: &Name) -> Knowledge {
        self.services.get(service).map_or(Knowledge::None, Service::knowledge)
    }

    /// When a mapper last told anything of a service; `None` if none has yet.
    pub fn told_at(&self, service: &Name) -> Option<Timestamp> {
        self.services.get(service)?.told_at
    }

    /// The services that it keeps track of.
    pub fn services(&self) -> impl Iterator<Item = &Name> {
        self.services.keys()
    }

    /// Whether somebody served it before, or that instance did.
    pub fn was_served(&self, service: &Name, instance: Option<&Name>) -> bool {
        self.services.get(service).is_some_and(|service| service.was_served(instance))
    }

    /// Whether a mapper says that this process has nothing to do with that service.
    pub fn is_denied(&self, service: &Name) -> bool {
        self.services.get(service).is_some_and(Service::is_denied)
    }

    /// The members of a service, by name.
    pub fn members(&self, service: &Name) -> impl Iterator<Item = (&Name, &Member)> {
        self.services.get(service).into_iter().flat_map(|service| &service.members)
    }

    /// One member.
    pub fn member(&self, key: &InstanceKey) -> Option<&Member> {
        self.services.get(&key.service)?.members.get(&key.instance)
    }

    /// Whether that life of an instance is a member.
    pub fn is_member(&self, key: &InstanceKey, incarnation: Incarnation) -> bool {
        self.member(key).is_some_and(|member| member.life == incarnation)
    }

    /// A number that changes whenever a member comes, goes, starts another life, or moves to other
    /// addresses.
    pub fn membership(&self, service: &Name) -> u64 {
        self.services.get(service).map_or(0, |service| service.membership)
    }

    /// Whether there is something to do.
    pub fn has_output(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self) -> Option<PeersOutput> {
        self.outputs.pop_front()
    }

    /// When [`Peers::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        debug_assert_eq!(self.due_at, self.deadline(), "whatever changes it plans anew");
        self.due_at
    }

    /// Something has changed, and with it perhaps the next deadline.
    fn plan(&mut self) {
        self.due_at = self.deadline();
    }

    fn deadline(&self) -> Option<Timestamp> {
        let views = self.services.values().flat_map(|service| &service.views);
        let poll = views.filter_map(|view| view.poll_timeout(self.beat)).min();
        let doubt = self.services.values().filter_map(|service| service.doubt_at).min();
        earliest(poll, doubt)
    }

    /// Asks mappers whose publications do not come, and drops who is unlisted and silent.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.due_at.is_none_or(|at| at > now) {
            return;
        }
        for (name, service) in &mut self.services {
            let views = service.views.iter_mut().zip(&mut self.mappers).enumerate();
            for (mapper, (view, known)) in views {
                if view.handle_timeout(now, self.beat) {
                    if known.hearing.handle_asked(now, self.beat) {
                        self.outputs.push_back(PeersOutput::Silent { mapper });
                    }
                    self.outputs.push_back(PeersOutput::Sync { mapper, service: name.clone() });
                }
            }
            if service.doubt_at.is_some_and(|at| at <= now) {
                service.drop_doubtful(now, self.expiry);
            }
        }
        self.plan();
    }

    /// A member, if it is that life of it.
    fn life(&mut self, key: &InstanceKey, incarnation: Incarnation) -> Option<&mut Member> {
        let member = self.services.get_mut(&key.service)?.members.get_mut(&key.instance)?;
        (member.life == incarnation).then_some(member)
    }

    /// A mapper has told something of a service: what, it is for its view to say.
    fn learn<'a>(
        &mut self,
        now: Timestamp,
        mapper: usize,
        name: &Name,
        take: impl FnOnce(&mut View, usize, &mut fastrand::Rng) -> Option<Update<'a>>,
    ) -> bool {
        let Some(service) = self.services.get_mut(name) else { return false };
        let before = (service.knowledge(), service.membership);
        service.told_at = Some(now);
        let members = service.members.len();
        let view = service.views.get_mut(mapper);
        if let Some(update) = view.and_then(|view| take(view, members, &mut self.random)) {
            for (instance, incarnation) in service.apply(now, mapper, update, self.expiry) {
                let key = InstanceKey { service: name.clone(), instance };
                self.outputs.push_back(PeersOutput::Ended { key, incarnation });
            }
        }
        let has_changed = (service.knowledge(), service.membership) != before;
        self.plan();
        has_changed
    }
}

#[cfg(test)]
mod tests;
