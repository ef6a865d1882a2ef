//! Requests of the JSON dialect: the same steps as those of native messages, in other words.

use std::collections::BTreeMap;

use svcmap_proto::control::Registration;
use svcmap_proto::json::{Envelope, JsonError, error};
use svcmap_proto::load::{Load, Share, State, better_of_two};
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey, usable_endpoints};
use svcmap_proto::status::{MapperRow, Report};
use svcmap_proto::time::Timestamp;

use super::instance::{Contact, Instance, Listing};
use super::{Connection, Denied, Output, Registry, newest_incarnation};
use crate::json::{self, Peer, Request, Worker};

/// A list of so many instances, or services, is short: some 40 KiB, if few have long tags.
const SHORT_LIST: usize = 100;

/// When and for whom a request is answered.
#[derive(Clone, Copy)]
struct Asked<'a> {
    now: Timestamp,
    unix_us: u64,
    /// The address of who asks; empty if unknown.
    observed: &'a str,
}

impl Asked<'_> {
    /// Whether a client speaks from the mapper's own host.
    fn is_local(&self) -> bool {
        Endpoint::tcp(self.observed, 1).is_ok_and(|endpoint| endpoint.is_loopback())
    }
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
        let asked = Asked { now, unix_us, observed };
        let answered = body.and_then(json::read).map(|request| self.answer(asked, &from, request));
        let (body, result) = match answered {
            Ok(body) => (body, Ok(())),
            Err(wrong) => (error(&wrong), Err(wrong)),
        };
        self.outputs.push_back(Output::JsonReply { to: from, body });
        result
    }

    fn answer(&mut self, asked: Asked<'_>, from: &Envelope, request: Request) -> Vec<u8> {
        match request {
            Request::ListPeers | Request::Status if !self.admits_list(asked.now, from) => {
                error("a long list was just sent: try again in a moment")
            }
            Request::Register(worker) => match self.register_worker(asked, from, &worker) {
                Ok(()) => json::registered(&worker),
                Err(Denied::Refused(refused)) => error(refused),
                Err(Denied::Superior(by)) => {
                    error(format_args!("{} is listed as {by}", worker.key))
                }
            },
            Request::UpdateHealth { name, share } => {
                match self.update_health(asked, &name, share) {
                    true => json::ok(),
                    false => error("not found"),
                }
            }
            Request::GetPeer { name } => {
                let host = self.identity.host;
                match self.find(&name, asked) {
                    Some(instance) => match peer(instance, asked, host) {
                        Some(peer) => json::peer(Some(peer)),
                        None => {
                            error("peer not reachable: its address is one for its own host only")
                        }
                    },
                    None => json::peer(None),
                }
            }
            Request::ListPeers => json::peers(&self.peers(asked)),
            Request::Deregister { name, pid } => {
                self.deregister(asked.now, &name, pid);
                json::ok()
            }
            Request::Status => json::status(&self.report_status(asked.now)),
            Request::Unknown => error("unknown command"),
        }
    }

    /// Whether that client can be sent a list now.
    fn admits_list(&mut self, now: Timestamp, from: &Envelope) -> bool {
        let is_short = self.leases.len().max(self.revisions.len()) <= SHORT_LIST;
        is_short || self.lists.admit(now, &Connection::new(from.connection()))
    }

    fn register_worker(
        &mut self,
        asked: Asked<'_>,
        from: &Envelope,
        worker: &Worker,
    ) -> Result<(), Denied> {
        let Asked { now, unix_us, .. } = asked;
        let (incarnation, sequence) = self.life(asked, worker);
        let is_here = asked.is_local() && worker.address.is_loopback();
        let load = Load {
            sequence,
            slots: worker.slots,
            concurrency: worker.concurrency,
            share: Some(Share::default()),
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
        let contact = Contact::Json(Listing {
            connection: Connection::new(from.connection()),
            unproven_since: Some(now),
            name: worker.name.clone(),
            expiry: worker.expiry,
            tags: worker.tags.clone(),
        });
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
    fn life(&mut self, asked: Asked<'_>, worker: &Worker) -> (Incarnation, u64) {
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

    fn update_health(&mut self, asked: Asked<'_>, name: &str, share: Share) -> bool {
        let Some((key, listed)) = self.named(name) else { return false };
        let Registration { incarnation, load, .. } = listed.registration;
        let sequence = load.sequence.saturating_add(1);
        let (key, load) = (key.clone(), Load { sequence, share: Some(share), ..load });
        self.report(asked.now, &key, incarnation, load, None)
    }

    fn deregister(&mut self, now: Timestamp, name: &str, pid: u32) {
        if let Some((key, listed)) = self.named(name)
            && listed.registration.pid == pid
        {
            let (key, incarnation) = (key.clone(), listed.registration.incarnation);
            self.leave(now, key, incarnation);
        }
    }

    /// The worker that registered under that name.
    fn named(&self, name: &str) -> Option<(&InstanceKey, &Instance)> {
        let key = self.names.get(name)?;
        Some((key, self.listed(key)?))
    }

    /// The instance for a client that asks for `service/instance`, a service, or the name of a
    /// worker: of several the better of two, as every other sender chooses.
    fn find(&mut self, name: &str, asked: Asked<'_>) -> Option<&Instance> {
        if let Some((service, instance)) = name.split_once('/') {
            return self.services.get(service)?.get(instance);
        }
        let Some(instances) = self.services.get(name) else {
            return self.named(name).map(|(_, instance)| instance);
        };
        let mut instances: Vec<&Instance> = instances.values().collect();
        let host = self.identity.host;
        if instances.iter().any(|instance| address(instance, asked, host).is_some()) {
            instances.retain(|instance| address(instance, asked, host).is_some());
        }
        let load = |instance: &&Instance| instance.registration.load;
        let wait = |i: usize| load(&instances[i]).expected_wait(load(&instances[i]).jobs());
        // A full one says so, and may have room by then; one that drains takes nothing any more.
        let wishes: [fn(&Load) -> bool; 3] =
            [Load::is_eligible, |load| load.state == State::Ready, |_| true];
        let random = &mut self.random;
        let mut chosen = wishes.iter().filter_map(|is_wanted| {
            let wait = |i: usize| is_wanted(&load(&instances[i])).then(|| wait(i));
            better_of_two(instances.len(), random, wait)
        });
        chosen.next().map(|index| instances[index])
    }

    fn peers(&self, asked: Asked<'_>) -> BTreeMap<String, Peer<'_>> {
        let instances = self.services.values().flat_map(BTreeMap::values);
        let named = |instance: &Instance| match instance.contact.listing() {
            Some(listing) => listing.name.to_string(),
            None => instance.registration.key.to_string(),
        };
        let host = self.identity.host;
        instances.filter_map(|i| Some((named(i), peer(i, asked, host)?))).collect()
    }

    fn report_status(&self, now: Timestamp) -> Report {
        let endpoint = self.identity.endpoint.clone();
        let mapper = MapperRow {
            endpoint,
            answer: "complete",
            warming: self.is_warming(now),
            refused: self.refused,
        };
        let instances = self.services.values().flat_map(BTreeMap::values);
        let entries: Vec<_> =
            instances.map(|i| (i.registration.key.clone(), i.entry(now))).collect();
        let services = self.revisions.services(None).cloned().collect();
        let entries = entries.iter().map(|(key, entry)| (key, entry));
        Report::new(vec![mapper], true, services, entries)
    }
}

/// Where the client that asks can reach an instance. A loopback address means something on its own
/// host only.
fn address<'a>(instance: &'a Instance, asked: Asked<'_>, host: HostId) -> Option<&'a Endpoint> {
    let Registration { endpoints, host: its_host, .. } = &instance.registration;
    usable_endpoints(endpoints, asked.is_local() && *its_host == host).first().copied()
}

/// An instance, as the client that asks is told of it, if it can reach that.
fn peer<'a>(instance: &'a Instance, asked: Asked<'_>, host: HostId) -> Option<Peer<'a>> {
    let Registration { pid, load, .. } = &instance.registration;
    let age_us = asked.now.since(instance.load_at).as_micros() as u64;
    Some(Peer {
        address: address(instance, asked, host)?,
        pid: *pid,
        load: load.ratio(),
        last_seen: asked.unix_us.saturating_sub(age_us) as f64 / 1e6,
        tags: instance.contact.listing().map_or(&[], |listing| &listing.tags),
    })
}

#[cfg(test)]
mod tests;
