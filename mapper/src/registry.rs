//! The registry: who is alive, and how loaded they are. All decisions of a mapper are made here.
//!
//! It knows no socket and no clock: messages and `now` go in, what to send comes out of
//! [`Registry::poll_output`]. Drain that after every call of a `handle_*` method. Native messages
//! and requests in JSON are two ways to say the same to it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use svcmap_proto::codec::{VERSION, VERSION_OLDEST, encode};
use svcmap_proto::control::{
    DrainAnswer, FromMapper, Hello, PULSE_TOPIC, Publication, Refused, RegistrationError,
    ReportRef, ToMapper, Welcome,
};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, Name};
use svcmap_proto::principals::Role;
use svcmap_proto::time::{Timestamp, earliest, wire_ms};

use crate::config::Config;
use crate::demand::Demand;
use crate::leases::Leases;
use crate::metrics::Metrics;
use crate::revisions::{Happened, Revisions};
use crate::rights::Rights;
use instance::{Contact, Instance};
use json::Lists;
use memory::{Answers, Departed, Question, Throttle};
use services::Services;
use shares::Shares;

pub use output::{Connection, Event, Output};

mod activity;
mod instance;
mod json;
mod keys;
mod memory;
mod output;
mod publish;
mod rate;
mod register;
mod room;
mod services;
mod shares;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

/// See the module.
#[derive(Debug)]
pub struct Registry {
    config: Config,
    identity: Identity,
    /// Who may do what, unless everybody may do everything.
    rights: Option<Rights>,
    /// Whom workers let in, encoded, for some services.
    admissions: BTreeMap<Name, Arc<[u8]>>,
    warming_until: Timestamp,
    pulse_at: Timestamp,
    /// Those who are listed.
    services: Services,
    /// The names of listed workers of the JSON dialect: one name, one process.
    names: BTreeMap<Name, InstanceKey>,
    /// The highest incarnation that was given to one of them.
    given: Incarnation,
    random: fastrand::Rng,
    leases: Leases,
    /// What came so long ago may not have been read.
    lag: Duration,
    shares: Shares,
    /// Since the start.
    refused: Refused,
    /// Since the start, too: counts, and no sums.
    counted: Metrics,
    /// Jobs that wait at their senders.
    demand: Demand,
    revisions: Revisions,
    departed: Departed,
    corrections: Throttle,
    lists: Lists,
    answers: Answers,
    outputs: VecDeque<Output>,
}

/// Which mapper this is, as others are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Drawn at random for each life of a mapper.
    pub epoch: Epoch,
    /// The machine that it runs on.
    pub host: HostId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Where it publishes.
    pub publish: Endpoint,
}

/// Why an instance is not listed.
enum Denied {
    /// This life of it is, or was.
    Superior(Incarnation),
    Refused(RegistrationError),
}

impl Registry {
    /// An empty registry. `config` must be valid.
    pub fn new(config: Config, identity: Identity, now: Timestamp) -> Self {
        Self {
            warming_until: now + config.warming(),
            pulse_at: now,
            services: Services::default(),
            names: BTreeMap::new(),
            given: Incarnation(0),
            random: fastrand::Rng::with_seed(identity.epoch.0),
            identity,
            rights: None,
            admissions: BTreeMap::new(),
            leases: Leases::default(),
            lag: Duration::ZERO,
            shares: Shares::default(),
            refused: Refused::default(),
            counted: Metrics::default(),
            demand: Demand::default(),
            revisions: Revisions::new(config.beat, config.publish_interval),
            departed: Departed::default(),
            corrections: Throttle::corrections(),
            lists: Lists::default(),
            answers: Answers::default(),
            outputs: VecDeque::new(),
            config,
        }
    }

    /// A message came `from` a connection whose address is `observed` (empty if unknown), while the
    /// wall clock showed `unix_us` microseconds.
    pub fn handle_message(
        &mut self,
        now: Timestamp,
        unix_us: u64,
        from: &Connection,
        observed: &str,
        message: ToMapper,
    ) {
        let newest = newest_incarnation(unix_us);
        self.counted.messages.count(&message);
        match message {
            ToMapper::Hello(hello) => self.handle_hello(now, from, observed, hello),
            ToMapper::Register(registration) => {
                self.handle_register(now, newest, from, registration);
            }
            ToMapper::Report { key, incarnation, load } => {
                let (service, instance) = (key.service.as_str(), key.instance.as_str());
                let report = ReportRef { service, instance, incarnation, load };
                if !self.report(now, &report, from.user(), Some(from)) {
                    self.correct(now, from, key, incarnation);
                }
            }
            // Remembering a leave from the far future would lock the name.
            ToMapper::Leave { incarnation, .. } if incarnation > newest => {}
            ToMapper::Leave { key, incarnation } => {
                if self.may_end(from.user(), &key) {
                    self.leave(now, key, incarnation);
                }
            }
            ToMapper::Sync { service } => {
                if self.answers.admit(now, from, Question::Sync(service.clone())) {
                    self.send_snapshot(now, from, &service);
                }
            }
            ToMapper::List { after } => {
                if self.answers.admit(now, from, Question::List(after.clone())) {
                    self.reply(from, self.services_page(from, after.as_ref()));
                }
            }
            ToMapper::Keys(request) => self.handle_keys(from, request),
            ToMapper::Drain { key } => {
                let answer = self.ask_to_drain(from, key);
                self.reply(from, FromMapper::DrainAsked(answer));
            }
            ToMapper::Waiting { mut jobs } => {
                jobs.retain(|(service, _)| self.may(from.user(), Role::Client, service.as_str()));
                self.demand.handle(now, from, jobs);
            }
        }
    }

    /// The same for a report, the most frequent message. `false`, and nothing has happened, if that
    /// life is not listed: then say it once more as a message, for an answer.
    pub fn handle_report(
        &mut self,
        now: Timestamp,
        from: &Connection,
        report: &ReportRef<'_>,
    ) -> bool {
        let is_listed = self.report(now, report, from.user(), Some(from));
        self.counted.messages.report += u64::from(is_listed);
        is_listed
    }

    /// A message came of a protocol version that this build does not speak.
    pub fn refuse_version(&mut self, from: &Connection) {
        self.reply(from, FromMapper::WrongVersion { oldest: VERSION_OLDEST, newest: VERSION });
    }

    /// This process did not run during the last `gap`. Call it after what came meanwhile was
    /// handled, and before [`Registry::handle_timeout`].
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.services.iter_mut().for_each(|listed| listed.lease.handle_suspension(now, gap));
    }

    /// What was heard in the last `lag` may still wait to be read: no lease ends that it may renew, but
    /// for one expiry at most. Call it before [`Registry::handle_timeout`].
    pub fn handle_unread(&mut self, lag: Duration) {
        self.lag = lag.min(self.config.expiry());
    }

    /// Time has come for what is due: expiry, the pulse, publications.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        let read_until = now.before(self.lag);
        while let Some(key) = self.leases.poll_look(read_until) {
            let leases = &mut self.leases;
            let looked =
                self.services.edit(key.service.as_str(), key.instance.as_str(), |listed| {
                    let has_ended = listed.lease.has_ended(read_until);
                    if !has_ended {
                        leases.look_at_end(&listed.registration.key, &mut listed.lease);
                    }
                    has_ended
                });
            if looked == Some(true) {
                self.expire(now, key);
            }
        }
        self.demand.handle_timeout(now);
        if self.pulse_at <= now {
            let next = self.pulse_at + self.config.beat;
            self.services.handle_beat(now.since(self.pulse_at.before(self.config.beat)));
            self.pulse_at = if next > now { next } else { now + self.config.beat };
            let instances = u32::try_from(self.services.len()).unwrap_or(u32::MAX);
            let frame = encode(&Publication::Pulse { epoch: self.identity.epoch, instances });
            self.publish_frame(PULSE_TOPIC.to_vec(), frame);
            self.lists.forget();
        }
        self.publish_due(now);
    }

    /// What to do next, until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// How it is, and what it has counted. Whoever drives it knows what was refused as no message, and of
    /// suspensions.
    pub fn metrics(&self, now: Timestamp) -> Metrics {
        let services = self.services.sums();
        let waiting = self.demand.services().clone();
        Metrics { services, waiting, warming: self.is_warming(now), ..self.counted.clone() }
    }

    /// When to call [`Registry::handle_timeout`] next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let look_at = self.leases.poll_timeout().map(|at| at + self.lag);
        let due_at = earliest(look_at, self.revisions.poll_timeout());
        earliest(due_at, earliest(self.demand.poll_timeout(), Some(self.pulse_at)))
    }

    fn handle_hello(&mut self, now: Timestamp, from: &Connection, observed: &str, hello: Hello) {
        if hello.newest < VERSION_OLDEST || hello.oldest > VERSION {
            return self.refuse_version(from);
        }
        let key = hello.key.filter(|key| self.may(from.user(), Role::Worker, key.service.as_str()));
        let highest = key.as_ref().and_then(|key| self.highest(now, key));
        let welcome = Welcome {
            epoch: self.identity.epoch,
            warming: self.is_warming(now),
            beat_ms: wire_ms(self.config.beat),
            expiry_ms: wire_ms(self.config.expiry()),
            publish_ms: wire_ms(self.config.publish_shortest()),
            publish: self.identity.publish.clone(),
            observed: observed.to_owned(),
            highest,
        };
        self.reply(from, FromMapper::Welcome(welcome));
        // Before anybody hears of it.
        if let Some(key) = key
            && self.rights.is_some()
            && self.answers.admit(now, from, Question::Admission(key.service.clone()))
        {
            self.admit_for(from, &key.service);
        }
    }

    /// An instance that is listed is alive, as who is there says of his own. `false` if there is no such
    /// life of it.
    fn report(
        &mut self,
        now: Timestamp,
        report: &ReportRef<'_>,
        user: Option<&PublicKey>,
        from: Option<&Connection>,
    ) -> bool {
        let Self { services, leases, shares, config, rights, .. } = self;
        let reported = services.edit(report.service, report.instance, |listed| {
            if listed.registration.incarnation != report.incarnation
                || !keys::is_of(rights.as_ref(), user, listed)
            {
                return None;
            }
            if listed.contact.hears_anew(from) {
                shares.remove(listed);
                listed.contact.hear(from);
                shares.insert(listed);
            }
            let crossed = listed.report(now, report.load);
            let expiry = listed.contact.expiry(config);
            leases.renew(now, &listed.registration.key, &mut listed.lease, expiry);
            // What waits to be told is told with its newest load.
            let urgent = crossed.filter(|urgent| *urgent || !listed.is_waiting);
            listed.is_waiting |= urgent.is_some();
            Some(urgent.map(|urgent| (urgent, listed.registration.key.clone())))
        });
        let Some(Some(news)) = reported else { return false };
        if let Some((urgent, key)) = news {
            self.changed(now, &key, Happened::Load, urgent);
        }
        true
    }

    /// Tells who reports unlisted why that is.
    fn correct(
        &mut self,
        now: Timestamp,
        from: &Connection,
        key: InstanceKey,
        incarnation: Incarnation,
    ) {
        let is_its = self.may(from.user(), Role::Worker, key.service.as_str());
        if !is_its || !self.corrections.admit(now, from) {
            return;
        }
        let message = match self.superior(now, &key, incarnation) {
            Some(by) => FromMapper::Replaced { key, incarnation, by },
            None => {
                self.counted.reregistrations += 1;
                FromMapper::Reregister
            }
        };
        self.reply(from, message);
    }

    /// An operator wants an instance to end.
    fn ask_to_drain(&mut self, from: &Connection, key: InstanceKey) -> DrainAnswer {
        if !self.may(from.user(), Role::Operator, key.service.as_str()) {
            return DrainAnswer::NotAllowed;
        }
        let Some(listed) = self.listed(&key) else { return DrainAnswer::Unknown };
        let incarnation = listed.registration.incarnation;
        let Some(at) = listed.contact.reachable_at().cloned() else {
            return DrainAnswer::CannotBeTold;
        };
        self.reply(&at, FromMapper::Drain { incarnation });
        self.event(Event::AskedToDrain { key, incarnation });
        DrainAnswer::Told
    }

    /// That life of an instance is over, by its own or its supervisor's word.
    fn leave(&mut self, now: Timestamp, key: InstanceKey, incarnation: Incarnation) {
        let listed = self.listed(&key).map(|listed| listed.registration.incarnation);
        let news = match listed {
            Some(listed) => listed == incarnation,
            // It may have expired here, but elsewhere it is still believed to be alive.
            None => self.departed.incarnation(now, &key) < Some(incarnation),
        };
        if !news {
            return;
        }
        self.remove(&key);
        self.departed.insert(now, key.clone(), incarnation);
        if self.revisions.contains(&key.service) {
            self.changed(now, &key, Happened::Left(incarnation), true);
        }
        self.event(Event::Left { key, incarnation });
    }

    /// The incarnation for which this one must make way: a higher one that is listed, or this one
    /// or a higher one that left. What left stays away, whatever of it arrives late; and a process
    /// whose supervisor took it for dead must not go on unlisted for ever.
    fn superior(
        &self,
        now: Timestamp,
        key: &InstanceKey,
        incarnation: Incarnation,
    ) -> Option<Incarnation> {
        let listed = self.listed(key).map(|listed| listed.registration.incarnation);
        let listed = listed.filter(|listed| *listed > incarnation);
        listed.max(self.departed.incarnation(now, key).filter(|left| *left >= incarnation))
    }

    /// The highest incarnation that is listed for that name or left lately: a successor has to be
    /// higher to be listed.
    fn highest(&self, now: Timestamp, key: &InstanceKey) -> Option<Incarnation> {
        let listed = self.listed(key).map(|listed| listed.registration.incarnation);
        listed.max(self.departed.incarnation(now, key))
    }

    fn listed(&self, key: &InstanceKey) -> Option<&Instance> {
        self.services.get(key)
    }

    fn remove(&mut self, key: &InstanceKey) -> Option<Box<Instance>> {
        let removed = self.services.remove(key)?;
        self.leases.remove(key, &removed.lease);
        self.forget_name(&removed);
        self.shares.remove(&removed);
        Some(removed)
    }

    /// The name of a worker of the JSON dialect is free again, if it still stands for this one.
    fn forget_name(&mut self, removed: &Instance) {
        if let Contact::Json(listing) = &removed.contact
            && self.names.get(&listing.name) == Some(&removed.registration.key)
        {
            self.names.remove(&listing.name);
        }
    }

    fn changed(&mut self, now: Timestamp, key: &InstanceKey, happened: Happened, urgent: bool) {
        let InstanceKey { service, instance } = key;
        let instances = self.services.len_of(service.as_str());
        self.revisions.handle_change(now, service, instance, happened, instances, urgent);
    }

    /// Whether somebody may be there and not listed yet.
    fn is_warming(&self, now: Timestamp) -> bool {
        now < self.warming_until
    }

    fn reply(&mut self, to: &Connection, message: FromMapper) {
        self.outputs.push_back(Output::Reply { to: to.clone(), message });
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }
}

/// The furthest that an incarnation may lie ahead of the mapper's clock.
fn newest_incarnation(unix_us: u64) -> Incarnation {
    Incarnation(unix_us.saturating_add(limits::INCARNATION_AHEAD_US_MAX))
}
