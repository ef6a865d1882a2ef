//! Requests of the JSON dialect: the same steps as those of native messages, in other words.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use svcmap_proto::control::{Entry, Registration, RegistrationError, ReportRef};
use svcmap_proto::json::{Envelope, JsonError, LEASE, error};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::{Load, Share, State, better_of_two};
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey, usable_endpoints};
use svcmap_proto::principals::Role;
use svcmap_proto::status::MapperRow;
use svcmap_proto::time::Timestamp;

use super::instance::{Contact, Instance, Listing};
use super::memory::{Kept, Throttle};
use super::{Connection, Denied, Output, Registry, newest_incarnation};
use crate::json::{self, Peer, Request, Worker};
use crate::listed::Listed;

/// A list of so many instances, or services, is short: some 40 KiB, if few have long tags.
const SHORT_LIST: usize = 100;

/// What is said to who asks for one long list after the other.
const TOO_OFTEN: &str = "a long list was just sent: try again in a moment";

/// What is said to who asks for a service that it has nothing to do with.
const NOT_ALLOWED: &str = "this key has nothing to do with that service";

/// What is said to who has to do with some services only, and asks for all.
const ONE_BY_ONE: &str = "this key has to do with some services only: ask for one by its name";

/// The long lists: who gets one, and what they hold. Of the peers there are several, as clients elsewhere are
/// not told of what is reached on the mapper's host only, nor those without a key of those that have one; the
/// last is the status.
#[derive(Debug)]
pub(super) struct Lists {
    admitted: Throttle,
    kept: [Option<Kept<Arc<[u8]>>>; STATUS + 1],
}

/// Which of the lists is the status.
const STATUS: usize = 4;

/// Which of the lists are those for clients without a key.
const PLAIN: usize = 2;

impl Default for Lists {
    fn default() -> Self {
        Self { admitted: Throttle::lists(), kept: Default::default() }
    }
}

impl Lists {
    /// Nobody may ask again, and they are not to take memory for ever.
    pub(super) fn forget(&mut self) {
        self.kept = Default::default();
    }
}

/// When and for whom a request is answered.
#[derive(Clone, Copy)]
struct Asked {
    now: Timestamp,
    unix_us: u64,
    /// Whether who asks is on the mapper's own host.
    is_local: bool,
    /// Whether who asks has no key, where others have one.
    is_plain: bool,
}

impl Registry {
    /// A REQ socket said something, from an address that is `observed` (empty if unknown), while
    /// the wall clock showed `unix_us` microseconds. It gets exactly one reply to that.
    ///
    /// # Errors
    /// What was wrong with it, which the client is told as well.
    pub fn handle_request(
        &mut self,
        now: Timestamp,
        unix_us: u64,
        from: Envelope,
        observed: &str,
        body: Result<&[u8], JsonError>,
    ) -> Result<(), JsonError> {
        let address = observed.parse::<IpAddr>();
        let is_local = address.is_ok_and(|address| address.to_canonical().is_loopback());
        let is_plain = self.rights().is_some() && from.user().is_none();
        let asked = Asked { now, unix_us, is_local, is_plain };
        let has_all = self.has_all(from.user());
        self.counted.messages.json += 1;
        let answered = body.and_then(json::read).map(|request| match request {
            Request::ListPeers { service: None } | Request::Status if !has_all => {
                error(ONE_BY_ONE).into()
            }
            Request::ListPeers { service: None } => {
                let which = usize::from(asked.is_local) + usize::from(asked.is_plain) * PLAIN;
                self.list_for(asked, &from, which)
            }
            Request::ListPeers { service: Some(service) } => {
                self.list_service(asked, &from, &service).into()
            }
            Request::Status if asked.is_plain => {
                json::status(&self.listing(asked.now, true).report()).into()
            }
            Request::Status => self.list_for(asked, &from, STATUS),
            request => self.answer(asked, &from, request).into(),
        });
        let (body, result) = match answered {
            Ok(body) => (body, Ok(())),
            Err(wrong) => (error(&wrong).into(), Err(wrong)),
        };
        self.outputs.push_back(Output::JsonReply { to: from, body });
        result
    }

    fn answer(&mut self, asked: Asked, from: &Envelope, request: Request) -> Vec<u8> {
        match request {
            Request::Register(worker) => match self.register_worker(asked, from, &worker) {
                Ok(()) => json::registered(&worker),
                Err(Denied::Refused(refused)) => error(refused),
                Err(Denied::Superior(by)) => {
                    error(format_args!("{} is listed as {by}", worker.key))
                }
            },
            Request::UpdateHealth { name, share } => {
                match self.update_health(asked, from.user(), &name, share) {
                    true => json::ok(),
                    false => error("not found"),
                }
            }
            Request::GetPeer { name } if !self.may_find(from.user(), &name) => error(NOT_ALLOWED),
            Request::GetPeer { name } => {
                let (host, warming) = (self.identity.host, self.is_warming_in_json(asked.now));
                match self.find(&name, asked) {
                    Some(instance) => match peer(instance, asked, host) {
                        Some(peer) => json::peer(Some(peer)),
                        None => {
                            error("peer not reachable: its address is one for its own host only")
                        }
                    },
                    None if warming => {
                        error("peer not found: this mapper has just started, try again in a moment")
                    }
                    None => json::peer(None),
                }
            }
            Request::ListKeys { service } => self.list_keys(from, &service),
            Request::Deregister { name, pid } => {
                self.deregister(asked.now, from.user(), &name, pid);
                json::ok()
            }
            Request::ListPeers { .. } | Request::Status | Request::Unknown => {
                error("unknown command")
            }
        }
    }

    /// Whether a worker of this dialect may be there and not be listed yet: it reports seldom.
    fn is_warming_in_json(&self, now: Timestamp) -> bool {
        now < self.warming_until + LEASE.saturating_sub(self.config.warming())
    }

    /// One of the [`Lists`], from what was encoded if that is as good.
    fn list_for(&mut self, asked: Asked, from: &Envelope, which: usize) -> Arc<[u8]> {
        let instances = self.services.len();
        let is_short = instances.max(self.revisions.len()) <= SHORT_LIST;
        let connection = connection(from);
        if !is_short && !self.lists.admitted.admit(asked.now, &connection) {
            return error(TOO_OFTEN).into();
        }
        let kept = self.lists.kept.get(which).and_then(Option::as_ref);
        if let Some(list) = kept.and_then(|kept| kept.fresh(asked.now, instances)) {
            return Arc::clone(list);
        }
        let list: Arc<[u8]> = match which {
            STATUS => json::status(&self.listing(asked.now, asked.is_plain).report()),
            _ => json::peers(&self.peers(asked)),
        }
        .into();
        if let Some(kept) = self.lists.kept.get_mut(which).filter(|_| !is_short) {
            *kept = Some(Kept::new(asked.now, Arc::clone(&list)));
        }
        list
    }

    /// The instances of a service, with the room that each has.
    fn list_service(&mut self, asked: Asked, from: &Envelope, service: &str) -> Vec<u8> {
        if !self.may(from.user(), Role::Client, service) {
            return error(NOT_ALLOWED);
        }
        let (host, warming) = (self.identity.host, self.is_warming_in_json(asked.now));
        let listed = self.services.service(service);
        let connection = connection(from);
        if listed.is_some_and(|listed| listed.len() > SHORT_LIST)
            && !self.lists.admitted.admit(asked.now, &connection)
        {
            return error(TOO_OFTEN);
        }
        let all = listed.into_iter().flat_map(|listed| listed.iter());
        let peers = all.filter_map(|instance| {
            let slots = Some(instance.registration.load.slots);
            Some((named(instance), Peer { slots, ..peer(instance, asked, host)? }))
        });
        json::service(&peers.collect(), warming)
    }

    /// Whose connections a worker of that service is to take.
    fn list_keys(&self, from: &Envelope, service: &str) -> Vec<u8> {
        match self.rights() {
            None => error("this mapper does not encrypt: there are no keys"),
            Some(_) if !self.may(from.user(), Role::Worker, service) => error(NOT_ALLOWED),
            Some(rights) => json::keys(&rights.admission(service)),
        }
    }

    fn register_worker(
        &mut self,
        asked: Asked,
        from: &Envelope,
        worker: &Worker,
    ) -> Result<(), Denied> {
        let Asked { now, unix_us, .. } = asked;
        let (incarnation, sequence) = self.life(asked, worker);
        let is_here = asked.is_local && worker.address.is_loopback();
        let load = Load {
            sequence,
            slots: worker.slots,
            concurrency: worker.concurrency,
            share: Some(Share::default().giving_results(worker.gives_results)),
            ..Load::default()
        };
        let registration = Registration {
            key: worker.key.clone(),
            incarnation,
            endpoints: vec![worker.address.clone()],
            host: if is_here { self.identity.host } else { HostId::default() },
            pid: worker.pid,
            load,
            error: None,
        };
        let contact = Contact::Json(Box::new(Listing {
            connection: connection(from),
            unproven_since: Some(now),
            name: worker.name.clone(),
            expiry: worker.expiry,
            tags: worker.tags.clone(),
        }));
        if self
            .named(worker.name.as_str())
            .is_some_and(|(_, earlier)| !self.owns(from.user(), earlier))
        {
            return Err(self.refused(RegistrationError::NameTaken));
        }
        self.register(now, newest_incarnation(unix_us), contact, registration)?;
        // One name, one process, whatever it served before.
        let earlier = self.names.insert(worker.name.clone(), worker.key.clone());
        if let Some(earlier) = earlier.filter(|earlier| *earlier != worker.key)
            && let Some(listed) = self.listed(&earlier)
        {
            self.leave(now, earlier, listed.registration.incarnation);
        }
        Ok(())
    }

    /// Which life of a worker registers, and the next sequence of its load: the same process again,
    /// or a new one that replaces whoever had the name.
    fn life(&mut self, asked: Asked, worker: &Worker) -> (Incarnation, u64) {
        if let Some(listed) = self.listed(&worker.key)
            && let Some(listing) = listed.contact.listing()
            && listing.name == worker.name
            && listed.registration.pid == worker.pid
            && listed.registration.endpoints.first() == Some(&worker.address)
        {
            let Registration { incarnation, load, .. } = &listed.registration;
            return (*incarnation, load.sequence.saturating_add(1));
        }
        let above = |life: Incarnation| Incarnation(life.0.saturating_add(1));
        // A wall clock that once was far ahead must not keep everybody away.
        let next = above(self.given).min(newest_incarnation(asked.unix_us));
        let own = self.highest(asked.now, &worker.key).map(above).unwrap_or_default();
        self.given = Incarnation(asked.unix_us).max(next).max(own);
        (self.given, 1)
    }

    fn update_health(
        &mut self,
        asked: Asked,
        user: Option<&PublicKey>,
        name: &str,
        share: Share,
    ) -> bool {
        let Some((key, listed)) = self.named(name) else { return false };
        let Registration { incarnation, load, .. } = listed.registration;
        let sequence = load.sequence.saturating_add(1);
        let gives_results = load.share.is_some_and(Share::gives_results);
        let share = Some(share.giving_results(gives_results));
        let (key, load) = (key.clone(), Load { sequence, share, ..load });
        let (service, instance) = (key.service.as_str(), key.instance.as_str());
        self.report(asked.now, &ReportRef { service, instance, incarnation, load }, user, None)
    }

    fn deregister(&mut self, now: Timestamp, user: Option<&PublicKey>, name: &str, pid: u32) {
        if let Some((key, listed)) = self.named(name)
            && listed.registration.pid == pid
            && self.owns(user, listed)
        {
            let (key, incarnation) = (key.clone(), listed.registration.incarnation);
            self.leave(now, key, incarnation);
        }
    }

    /// Whether who is there may ask for what has that name: see [`Registry::find`].
    fn may_find(&self, user: Option<&PublicKey>, name: &str) -> bool {
        let service = match name.split_once('/') {
            Some((service, _)) => service,
            None if self.services.service(name).is_some() => name,
            None => self.named(name).map_or(name, |(key, _)| key.service.as_str()),
        };
        self.may(user, Role::Client, service)
    }

    /// The worker that registered under that name.
    fn named(&self, name: &str) -> Option<(&InstanceKey, &Instance)> {
        let key = self.names.get(name)?;
        Some((key, self.listed(key)?))
    }

    /// The instance for a client that asks for `service/instance`, a service, or the name of a
    /// worker: of several the better of two, as every other sender chooses.
    fn find(&mut self, name: &str, asked: Asked) -> Option<&Instance> {
        if let Some((service, instance)) = name.split_once('/') {
            return self.services.service(service)?.get(instance);
        }
        let Some(service) = self.services.service(name) else {
            return self.named(name).map(|(_, instance)| instance);
        };
        let (host, random) = (self.identity.host, &mut self.random);
        // A full one says so, and may have room by then; one that drains takes nothing any more.
        let wishes: [fn(&Load) -> bool; 3] =
            [Load::is_eligible, |load| load.state == State::Ready, |_| true];
        for is_reachable in [true, false] {
            for is_wanted in wishes {
                let wait = |place| {
                    let instance = service.at(place);
                    let load = &instance.registration.load;
                    let is_candidate =
                        is_wanted(load) && address(instance, asked, host).is_some() == is_reachable;
                    is_candidate.then(|| load.expected_wait(load.jobs()))
                };
                if let Some(place) = better_of_two(service.len(), random, wait) {
                    return Some(service.at(place));
                }
            }
        }
        None
    }

    fn peers(&self, asked: Asked) -> BTreeMap<String, Peer<'_>> {
        let host = self.identity.host;
        self.services.iter().filter_map(|i| Some((named(i), peer(i, asked, host)?))).collect()
    }

    /// Who is listed; for who has no key where others have one, only those that have none either.
    pub fn listing(&self, now: Timestamp, is_plain: bool) -> Listed {
        let endpoint = self.identity.endpoint.clone();
        let mapper = MapperRow {
            endpoint,
            name: None,
            answer: "complete",
            warming: self.is_warming(now),
            refused: self.refused,
        };
        let entry = |instance: &Instance| {
            let Registration { key, incarnation, endpoints, host, pid, load, error } =
                instance.registration.clone();
            let user = instance.contact.connection().user().copied();
            let (instance, age_ms) = (key.instance.clone(), instance.age_ms(now));
            let entry = Entry {
                instance,
                incarnation,
                endpoints,
                host,
                pid,
                load,
                age_ms,
                error,
                key: user,
            };
            (key, entry)
        };
        let is_told =
            |instance: &&Instance| !is_plain || instance.contact.connection().user().is_none();
        let entries = self.services.iter().filter(is_told).map(entry).collect();
        let services = self.revisions.services(None).filter(|_| !is_plain).cloned().collect();
        let activity = self.activity(|_| !is_plain);
        Listed { mapper, services, entries, activity }
    }
}

/// Where a request came from.
fn connection(from: &Envelope) -> Connection {
    Connection::new(from.connection()).of(from.user().copied())
}

/// The name by which an instance is listed.
fn named(instance: &Instance) -> String {
    match instance.contact.listing() {
        Some(listing) => listing.name.to_string(),
        None => instance.registration.key.to_string(),
    }
}

/// Where the client that asks can reach an instance. A loopback address means something on its own
/// host only.
fn address(instance: &Instance, asked: Asked, host: HostId) -> Option<&Endpoint> {
    let Registration { endpoints, host: its_host, .. } = &instance.registration;
    // Who cannot encrypt does not reach who does.
    if asked.is_plain && instance.contact.connection().user().is_some() {
        return None;
    }
    usable_endpoints(endpoints, asked.is_local && *its_host == host).first().copied()
}

/// An instance, as the client that asks is told of it, if it can reach that.
fn peer(instance: &Instance, asked: Asked, host: HostId) -> Option<Peer<'_>> {
    let Registration { pid, load, .. } = &instance.registration;
    let age_us = asked.now.since(instance.load_at).as_micros() as u64;
    Some(Peer {
        address: address(instance, asked, host)?,
        pid: *pid,
        load: load.ratio(),
        last_seen: asked.unix_us.saturating_sub(age_us) as f64 / 1e6,
        tags: instance.contact.listing().map_or(&[], |listing| &listing.tags),
        slots: None,
        key: instance.contact.connection().user().copied(),
    })
}

#[cfg(test)]
mod tests;
