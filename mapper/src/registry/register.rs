//! Who is listed: registrations, and those that are refused.

use svcmap_proto::control::{FromMapper, Registration, RegistrationError};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};
use svcmap_proto::principals::Role;
use svcmap_proto::time::Timestamp;

use super::instance::{Contact, Instance};
use super::{Connection, Denied, Event, Registry};
use crate::revisions::Happened;

impl Registry {
    pub(super) fn handle_register(
        &mut self,
        now: Timestamp,
        newest: Incarnation,
        from: &Connection,
        registration: Registration,
    ) {
        let (key, incarnation) = (registration.key.clone(), registration.incarnation);
        let contact = Contact::Native(from.clone());
        let is_new = self.listed(&key).is_none_or(|listed| listed.contact.connection() != from);
        let message = match self.register(now, newest, contact, registration) {
            Ok(()) => FromMapper::Registered { key: key.clone(), incarnation },
            Err(Denied::Superior(by)) => FromMapper::Replaced { key: key.clone(), incarnation, by },
            Err(Denied::Refused(error)) => FromMapper::RegistrationRefused(error),
        };
        // That may have changed while it was not listed.
        if is_new && self.listed(&key).is_some_and(|listed| listed.contact.connection() == from) {
            self.admit_for(from, &key.service);
        }
        self.reply(from, message);
    }

    /// Lists an instance or updates it, if it may be listed.
    pub(super) fn register(
        &mut self,
        now: Timestamp,
        newest: Incarnation,
        contact: Contact,
        registration: Registration,
    ) -> Result<(), Denied> {
        let (key, incarnation) = (&registration.key, registration.incarnation);
        if let Err(error) = self.allow(contact.connection().user(), key) {
            return Err(self.refused(error));
        }
        if let Some(by) = self.superior(now, key, incarnation) {
            self.counted.registrations.superseded += 1;
            return Err(Denied::Superior(by));
        }
        if let Err(error) = self.admit(now, &registration, newest, contact.connection()) {
            return Err(self.refused(error));
        }
        self.list(now, Instance::new(now, registration, contact));
        Ok(())
    }

    pub(super) fn refused(&mut self, error: RegistrationError) -> Denied {
        self.refused.registrations += 1;
        *self.counted.registrations_refused.entry(error).or_default() += 1;
        self.event(Event::Refused(error));
        Denied::Refused(error)
    }

    /// Whether who is there may serve under that name: nobody takes one from who has it.
    fn allow(&self, user: Option<&PublicKey>, key: &InstanceKey) -> Result<(), RegistrationError> {
        let is_anothers = |listed| !self.owns(user, listed);
        match () {
            () if !self.may(user, Role::Worker, key.service.as_str()) => {
                Err(RegistrationError::NotAllowed)
            }
            () if self.listed(key).is_some_and(is_anothers) => Err(RegistrationError::NameTaken),
            () => Ok(()),
        }
    }

    /// Whether the instance can be listed; others make way for it if they must.
    fn admit(
        &mut self,
        now: Timestamp,
        registration: &Registration,
        newest: Incarnation,
        from: &Connection,
    ) -> Result<(), RegistrationError> {
        let Registration { key, incarnation, endpoints, .. } = registration;
        // Port 0 is a wildcard as well.
        let reachable = |e: &Endpoint| !e.is_wildcard() && e.port().is_some_and(|port| port != 0);
        if !(1..=limits::ENDPOINTS_MAX).contains(&endpoints.len())
            || !endpoints.iter().all(reachable)
        {
            return Err(RegistrationError::Endpoints);
        }
        if *incarnation > newest {
            return Err(RegistrationError::IncarnationAhead);
        }
        let listed = self.listed(key);
        if listed.is_none_or(|l| l.contact.connection() != from) && !self.shares.has_room(from) {
            return Err(RegistrationError::ConnectionFull);
        }
        if listed.is_none() && from.user().is_some_and(|user| self.has_its_share(user)) {
            return Err(RegistrationError::ShareFull);
        }
        if listed.is_none() && !self.make_room(now, &key.service) {
            return Err(RegistrationError::RegistryFull);
        }
        Ok(())
    }

    /// Whether who has that key lists as many as one of several may: half of all.
    fn has_its_share(&self, user: &PublicKey) -> bool {
        let is_alone = self.rights().is_none_or(|rights| rights.principals().len() < 2);
        !is_alone && self.shares.of_user(user) >= self.config.instances_max.div_ceil(2)
    }

    /// Lists an instance that was admitted, or updates it.
    fn list(&mut self, now: Timestamp, said: Instance) {
        let Registration { key, incarnation, endpoints, .. } = &said.registration;
        let (key, incarnation) = (key.clone(), *incarnation);
        let endpoint = endpoints.first().cloned();
        let listed = self.listed(&key).map(|listed| listed.registration.incarnation);
        let registrations = &mut self.counted.registrations;
        *match listed == Some(incarnation) {
            true => &mut registrations.renewed,
            false => &mut registrations.listed,
        } += 1;
        if listed == Some(incarnation) {
            match self.update(now, &key, said) {
                None | Some(Happened::Load) => return,
                Some(_) => {}
            }
        } else if let Some(replaced) = self.insert(now, &key, said) {
            return self.replaced(&key, &replaced, incarnation);
        }
        if let Some(endpoint) = endpoint {
            self.event(Event::Registered { key, incarnation, endpoint });
        }
    }

    /// The same life registered again.
    fn update(&mut self, now: Timestamp, key: &InstanceKey, said: Instance) -> Option<Happened> {
        let Self { services, leases, shares, config, .. } = self;
        let happened = services.edit(key.service.as_str(), key.instance.as_str(), |listed| {
            shares.remove(listed);
            let happened = listed.update(said);
            shares.insert(listed);
            let expiry = listed.contact.expiry(config);
            leases.renew(now, &listed.registration.key, &mut listed.lease, expiry);
            listed.is_waiting |= happened.is_some();
            happened
        })??;
        self.changed(now, key, happened, true);
        Some(happened)
    }

    /// A life that was not listed takes the place of whoever had the name, which is returned.
    fn insert(
        &mut self,
        now: Timestamp,
        key: &InstanceKey,
        mut said: Instance,
    ) -> Option<Box<Instance>> {
        let expiry = said.contact.expiry(&self.config);
        if let Some(listed) = self.services.get(key) {
            said.lease = listed.lease;
        }
        self.leases.renew(now, key, &mut said.lease, expiry);
        said.is_waiting = true;
        self.shares.insert(&said);
        let earlier = self.services.insert(said);
        self.changed(now, key, Happened::Put, true);
        let earlier = earlier?;
        self.shares.remove(&earlier);
        self.forget_name(&earlier);
        Some(earlier)
    }

    /// Tells the earlier life of an instance, unless it is the same process that spoke.
    fn replaced(&mut self, new: &InstanceKey, earlier: &Instance, by: Incarnation) {
        let Registration { key, incarnation, .. } = &earlier.registration;
        let (key, incarnation) = (key.clone(), *incarnation);
        let from = self.listed(new).and_then(|listed| listed.contact.reachable_at());
        if let Some(connection) = earlier.contact.reachable_at()
            && Some(connection) != from
        {
            let message = FromMapper::Replaced { key: key.clone(), incarnation, by };
            self.reply(connection, message);
        }
        self.event(Event::Replaced { key, incarnation, by });
    }
}
