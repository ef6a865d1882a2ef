//! Those who are listed, by service.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use svcmap_proto::load::Load;
use svcmap_proto::names::{InstanceKey, Name};

use super::instance::Instance;
use super::memory::Kept;
use super::rate::Rate;
use crate::config::PUBLISH_MAX;
use crate::metrics::ServiceSums;

/// See the module. No service in it is empty.
#[derive(Debug, Default)]
pub(super) struct Services {
    by_name: BTreeMap<Name, Service>,
    instances: usize,
}

/// The instances of one service.
#[derive(Debug, Default)]
pub(super) struct Service {
    /// One after the other, for going through them all; their order means nothing.
    #[expect(clippy::vec_box, reason = "it would be copied to grow, and be empty by half then")]
    members: Vec<Box<Instance>>,
    /// Where each name stands among them.
    places: HashMap<Name, usize>,
    service_times: ServiceTimes,
    /// Jobs that ended.
    pub(super) ended: Rate,
    /// Its state as it was last asked for, encoded.
    pub(super) snapshot: Option<Kept<Snapshot>>,
}

/// A state of a service as it is sent.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) revision: u64,
    pub(super) warming: bool,
    pub(super) frames: Vec<Arc<[u8]>>,
}

impl Services {
    /// How many instances there are.
    pub(super) fn len(&self) -> usize {
        self.instances
    }

    /// How many of them that service has.
    pub(super) fn len_of(&self, service: &str) -> usize {
        self.service(service).map_or(0, |service| service.members.len())
    }

    /// A service that has instances.
    pub(super) fn service(&self, service: &str) -> Option<&Service> {
        self.by_name.get(service)
    }

    /// The same, to be changed.
    pub(super) fn service_mut(&mut self, service: &str) -> Option<&mut Service> {
        self.by_name.get_mut(service)
    }

    /// All instances, service by service.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.by_name.values().flat_map(Service::iter)
    }

    /// The same, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Instance> {
        self.by_name.values_mut().flat_map(|service| service.members.iter_mut().map(|i| &mut **i))
    }

    /// The services that have instances, by name.
    pub(super) fn by_name(&self) -> impl Iterator<Item = (&Name, &Service)> {
        self.by_name.iter()
    }

    /// A beat is over, which lasted so long.
    pub(super) fn handle_beat(&mut self, lasted: Duration) {
        self.by_name.values_mut().for_each(|service| service.ended.handle_beat(lasted));
    }

    /// What the instances of each service say, summed up.
    pub(super) fn sums(&self) -> BTreeMap<Name, ServiceSums> {
        let sums = self.by_name.iter().map(|(name, service)| {
            let mut sums = ServiceSums::default();
            service.iter().for_each(|instance| sums.add(&instance.registration.load));
            (name.clone(), sums)
        });
        sums.collect()
    }

    /// One instance.
    pub(super) fn get(&self, key: &InstanceKey) -> Option<&Instance> {
        self.service(key.service.as_str())?.get(key.instance.as_str())
    }

    /// Changes one instance, if it is listed.
    pub(super) fn edit<R>(
        &mut self,
        service: &str,
        instance: &str,
        edit: impl FnOnce(&mut Instance) -> R,
    ) -> Option<R> {
        let service = self.by_name.get_mut(service)?;
        let member = service.members.get_mut(*service.places.get(instance)?)?;
        let before = member.registration.load;
        let result = edit(member);
        let load = &member.registration.load;
        service.service_times.replace(before.mean_service_us, load.mean_service_us);
        service.ended.count(ended(load).saturating_sub(ended(&before)));
        Some(result)
    }

    /// Lists an instance, and returns the one that had its name.
    pub(super) fn insert(&mut self, mut instance: Instance) -> Option<Box<Instance>> {
        let key = &mut instance.registration.key;
        // One copy of the name for all of them.
        if let Some((name, _)) = self.by_name.get_key_value(&key.service) {
            key.service = name.clone();
        }
        let service = self.by_name.entry(key.service.clone()).or_default();
        service.service_times.replace(0, instance.registration.load.mean_service_us);
        let place = service.places.entry(instance.registration.key.instance.clone());
        let place = *place.or_insert(service.members.len());
        match service.members.get_mut(place) {
            Some(member) => {
                let earlier = std::mem::replace(member, Box::new(instance));
                service.service_times.replace(earlier.registration.load.mean_service_us, 0);
                Some(earlier)
            }
            None => {
                service.members.push(Box::new(instance));
                self.instances += 1;
                None
            }
        }
    }

    /// Takes an instance out.
    pub(super) fn remove(&mut self, key: &InstanceKey) -> Option<Box<Instance>> {
        let service = self.by_name.get_mut(&key.service)?;
        let place = service.places.remove(&key.instance)?;
        let removed = service.members.swap_remove(place);
        if let Some(moved) = service.members.get(place)
            && let Some(its_place) = service.places.get_mut(&moved.registration.key.instance)
        {
            *its_place = place;
        }
        service.service_times.replace(removed.registration.load.mean_service_us, 0);
        if service.members.is_empty() {
            self.by_name.remove(&key.service);
        }
        self.instances -= 1;
        Some(removed)
    }
}

impl Service {
    /// How many instances there are.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// The instances.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Instance> {
        self.members.iter().map(|instance| &**instance)
    }

    /// One of them, from 0.
    pub(super) fn at(&self, place: usize) -> &Instance {
        &self.members[place]
    }

    /// One of them, by its name.
    pub(super) fn get(&self, instance: &str) -> Option<&Instance> {
        self.members.get(*self.places.get(instance)?).map(|instance| &**instance)
    }

    /// What was to be told of that instance is told. Returns it.
    pub(super) fn told(&mut self, instance: &Name) -> Option<&Instance> {
        let member = self.members.get_mut(*self.places.get(instance)?)?;
        member.is_waiting = false;
        Some(member)
    }

    /// The mean over those instances that know theirs.
    pub(super) fn mean_service_time(&self) -> Option<Duration> {
        self.service_times.mean()
    }
}

/// Jobs that an instance is through with.
fn ended(load: &Load) -> u64 {
    load.done.saturating_add(load.failed)
}

/// The sum of mean service times, and of how many instances.
#[derive(Debug, Default)]
struct ServiceTimes {
    sum_us: u64,
    count: u64,
}

impl ServiceTimes {
    /// An instance that said the one says the other now; 0 means that it knows none.
    fn replace(&mut self, before_us: u64, after_us: u64) {
        // One that claims an hour counts as if it had said the longest time that matters, so that it
        // cannot decide for all.
        let [before_us, after_us] =
            [before_us, after_us].map(|us| us.min(PUBLISH_MAX.as_micros() as u64));
        self.sum_us = self.sum_us + after_us - before_us;
        self.count = self.count + u64::from(after_us > 0) - u64::from(before_us > 0);
    }

    fn mean(&self) -> Option<Duration> {
        Some(Duration::from_micros(self.sum_us.checked_div(self.count)?))
    }
}
