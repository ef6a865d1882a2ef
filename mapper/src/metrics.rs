//! What a mapper counts, and the sums over those who are listed.

use std::collections::BTreeMap;

use svcmap_proto::control::{RegistrationError, ToMapper};
use svcmap_proto::load::Load;
use svcmap_proto::names::Name;
use svcmap_proto::refusals::BadMessage;
use svcmap_proto::status::Shown;

pub use crate::demand::Waiting;

/// Services whose expirations are counted one by one; beyond it the first ones stay.
const SERVICES_MAX: usize = 200;

/// How a mapper is now, and what it has counted since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// The services that have instances, at most 4,096.
    pub services: BTreeMap<Name, ServiceSums>,
    /// The jobs that wait at their senders, by service.
    pub waiting: BTreeMap<Name, Waiting>,
    /// Whether it has started lately and may not know everybody yet.
    pub warming: bool,
    /// Messages that came, by what they say.
    pub messages: Messages,
    /// Messages that were none, by what was wrong with them.
    pub messages_refused: BTreeMap<BadMessage, u64>,
    /// Registrations, by what came of them.
    pub registrations: Registrations,
    /// Registrations that were refused, by the reason.
    pub registrations_refused: BTreeMap<RegistrationError, u64>,
    /// Instances that were silent for too long.
    pub expirations: Expirations,
    /// Reports of instances that are not listed, and that were asked to register for that.
    pub reregistrations: u64,
    /// States of a service that were published, as it was time.
    pub snapshots_published: u64,
    /// States of a service that were sent to who asked.
    pub snapshots_sent: u64,
    /// Messages that were published, whoever listens.
    pub published: u64,
    /// Their bytes, without what the transport adds.
    pub published_bytes: u64,
    /// How often this process stood still for longer than a beat.
    pub suspensions: u64,
}

/// The sums over the instances of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceSums {
    /// So many instances are in each state.
    pub instances: BTreeMap<Shown, u64>,
    /// Room for jobs.
    pub slots: u64,
    /// Jobs running.
    pub running: u64,
    /// Jobs waiting.
    pub queued: u64,
}

impl ServiceSums {
    /// One more instance, which says this.
    pub(crate) fn add(&mut self, load: &Load) {
        *self.instances.entry(Shown::of(load)).or_default() += 1;
        self.slots += u64::from(load.slots);
        self.running += u64::from(load.running);
        self.queued += u64::from(load.queued);
    }
}

/// Messages that a mapper got, by what they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    /// The start of a conversation.
    pub hello: u64,
    /// List this instance.
    pub register: u64,
    /// I am alive, and this is my load.
    pub report: u64,
    /// This instance is no more.
    pub leave: u64,
    /// Send the state of a service.
    pub sync: u64,
    /// Which services are there?
    pub list: u64,
    /// Who may take part?
    pub keys: u64,
    /// That instance is to end.
    pub drain: u64,
    /// So many jobs wait here.
    pub waiting: u64,
    /// Requests in JSON, whatever they say.
    pub json: u64,
}

impl Messages {
    pub(crate) fn count(&mut self, message: &ToMapper) {
        *match message {
            ToMapper::Hello(_) => &mut self.hello,
            ToMapper::Register(_) => &mut self.register,
            ToMapper::Report { .. } => &mut self.report,
            ToMapper::Leave { .. } => &mut self.leave,
            ToMapper::Sync { .. } => &mut self.sync,
            ToMapper::List { .. } => &mut self.list,
            ToMapper::Keys(_) => &mut self.keys,
            ToMapper::Drain { .. } => &mut self.drain,
            ToMapper::Waiting { .. } => &mut self.waiting,
        } += 1;
    }
}

/// Registrations that were not refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registrations {
    /// A life that was not listed.
    pub listed: u64,
    /// A life that is listed, and said so again.
    pub renewed: u64,
    /// A life that made way for another, or had left.
    pub superseded: u64,
}

/// Instances that were silent for too long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expirations {
    /// By service; the first 200 that had one.
    pub by_service: BTreeMap<Name, u64>,
    /// Those of other services.
    pub others: u64,
}

impl Expirations {
    pub(crate) fn count(&mut self, service: &Name) {
        if let Some(count) = self.by_service.get_mut(service) {
            *count += 1;
        } else if self.by_service.len() < SERVICES_MAX {
            self.by_service.insert(service.clone(), 1);
        } else {
            self.others += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_services_there_are_expirations_take_little_room_and_none_is_lost() {
        let mut expirations = Expirations::default();
        for number in (0..300).chain(0..300) {
            expirations.count(&format!("s{number}").parse().unwrap());
        }
        assert_eq!(expirations.by_service.len(), SERVICES_MAX);
        assert!(expirations.by_service.values().all(|count| *count == 2));
        assert_eq!(expirations.others, 200);
    }
}
