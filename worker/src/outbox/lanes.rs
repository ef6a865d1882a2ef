//! The queues of jobs that wait, one for each lane, and which of them are to be looked at.

use std::collections::{BTreeMap, VecDeque};

use slab::Slab;
use svcmap_proto::jobs::Priority;
use svcmap_proto::names::Name;

use super::Lane;

/// Names a lane of an outbox while a job waits in it, and that of jobs that can go to any instance for
/// as long as its service is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LaneId(usize);

/// Names a service of an outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ServiceId(usize);

/// Where a job lies in the outbox.
pub(super) type Slot = usize;

#[derive(Debug)]
struct Queue {
    lane: Lane,
    service: ServiceId,
    waiting: Waiting,
    /// It is in one of the lists of those that are to be looked at.
    is_dirty: bool,
}

/// The jobs of a lane that wait, by class.
#[derive(Debug, Default)]
struct Waiting([VecDeque<Slot>; 3]);

impl Waiting {
    fn class(&mut self, priority: Priority) -> &mut VecDeque<Slot> {
        &mut self.0[priority as usize]
    }

    /// The higher classes first, and of each who has waited longest.
    fn iter(&self) -> impl Iterator<Item = Slot> {
        self.0.iter().rev().flatten().copied()
    }

    fn len(&self) -> usize {
        self.0.iter().map(VecDeque::len).sum()
    }

    /// Returns whether it was there.
    fn remove(&mut self, slot: Slot, priority: Priority) -> bool {
        let class = self.class(priority);
        let place = class.iter().position(|waiting| *waiting == slot);
        place.and_then(|place| class.remove(place)).is_some()
    }
}

#[derive(Debug)]
struct Service {
    name: Name,
    /// The lane of jobs that can go to any instance.
    any: LaneId,
    /// The lanes of jobs that can go to one instance only, while any waits.
    pinned: BTreeMap<Name, LaneId>,
    /// Jobs that are with workers.
    under_way: u32,
    /// Jobs that wait.
    waiting: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    queues: Slab<Queue>,
    services: Slab<Service>,
    by_name: BTreeMap<Name, ServiceId>,
    /// Lanes that may have found room: of jobs that can go to one instance only, and others.
    dirty_pinned: VecDeque<LaneId>,
    dirty: VecDeque<LaneId>,
}

impl Lanes {
    /// The service of that name; it is known from now on.
    pub(super) fn service(&mut self, name: &Name) -> ServiceId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = ServiceId(self.services.vacant_key());
        let any = self.add(Lane::any(name), id);
        let (name, pinned) = (name.clone(), BTreeMap::new());
        self.by_name.insert(name.clone(), id);
        self.services.insert(Service { name, any, pinned, under_way: 0, waiting: 0 });
        id
    }

    /// The lane of a service for jobs that can go to that instance only, or to any.
    pub(super) fn lane(&mut self, service: ServiceId, instance: Option<&Name>) -> Option<LaneId> {
        let known = self.services.get(service.0)?;
        let Some(instance) = instance else { return Some(known.any) };
        if let Some(lane) = known.pinned.get(instance) {
            return Some(*lane);
        }
        let lane = Lane { service: known.name.clone(), instance: Some(instance.clone()) };
        let lane = self.add(lane, service);
        self.services.get_mut(service.0)?.pinned.insert(instance.clone(), lane);
        Some(lane)
    }

    fn add(&mut self, lane: Lane, service: ServiceId) -> LaneId {
        let (waiting, is_dirty) = (Waiting::default(), false);
        LaneId(self.queues.insert(Queue { lane, service, waiting, is_dirty }))
    }

    /// The lane itself.
    pub(super) fn get(&self, lane: LaneId) -> Option<&Lane> {
        self.queue(lane).map(|queue| &queue.lane)
    }

    /// Which lane that is, if it has any job or its service is known.
    pub(super) fn find(&self, lane: &Lane) -> Option<LaneId> {
        let service = self.named(&lane.service)?;
        match &lane.instance {
            None => Some(service.any),
            Some(instance) => service.pinned.get(instance).copied(),
        }
    }

    /// The jobs that wait in a lane, in the order in which they go.
    pub(super) fn waiting(&self, lane: LaneId) -> impl Iterator<Item = Slot> {
        self.queue(lane).into_iter().flat_map(|queue| queue.waiting.iter())
    }

    /// How many these are.
    pub(super) fn len(&self, lane: LaneId) -> usize {
        self.queue(lane).map_or(0, |queue| queue.waiting.len())
    }

    /// A job waits in a lane, behind all others of its class or before them.
    pub(super) fn push(&mut self, lane: LaneId, slot: Slot, priority: Priority, is_first: bool) {
        let Some(queue) = self.queue_mut(lane) else { return };
        match is_first {
            true => queue.waiting.class(priority).push_front(slot),
            false => queue.waiting.class(priority).push_back(slot),
        }
        let service = queue.service;
        self.change(service, |service| service.waiting += 1);
        self.touch_lane(lane);
    }

    /// That job of a lane waits no longer. It costs as much as there are jobs of its class before it.
    pub(super) fn remove(&mut self, lane: LaneId, slot: Slot, priority: Priority) {
        let Some(queue) = self.queue_mut(lane) else { return };
        if queue.waiting.remove(slot, priority) {
            self.handle_taken(lane);
        }
    }

    fn handle_taken(&mut self, lane: LaneId) {
        let Some(queue) = self.queue(lane) else { return };
        let (service, is_over) = (queue.service, queue.waiting.len() == 0);
        let pinned = queue.lane.instance.clone().filter(|_| is_over);
        self.change(service, |service| {
            service.waiting -= 1;
            pinned.as_ref().map(|instance| service.pinned.remove(instance));
        });
        if pinned.is_some() {
            self.queues.try_remove(lane.0);
        }
    }

    /// A job of a service goes to a worker, or comes back from there.
    pub(super) fn count_under_way(&mut self, service: ServiceId, change: i32) {
        self.change(service, |service| {
            service.under_way = service.under_way.saturating_add_signed(change);
        });
    }

    /// How many jobs of a service are with workers.
    pub(super) fn under_way(&self, service: &Name) -> u32 {
        self.named(service).map_or(0, |service| service.under_way)
    }

    /// How many jobs of a service wait.
    pub(super) fn depth(&self, service: &Name) -> usize {
        self.named(service).map_or(0, |service| service.waiting)
    }

    /// Nothing is to be known of a service any more, which has no jobs.
    pub(super) fn forget(&mut self, service: &Name) {
        let Some(id) = self.by_name.remove(service) else { return };
        if let Some(service) = self.services.try_remove(id.0) {
            self.queues.try_remove(service.any.0);
        }
    }

    /// The waiting jobs of a service may have found room.
    pub(super) fn touch_named(&mut self, service: &Name) {
        if let Some(id) = self.by_name.get(service) {
            self.touch(*id);
        }
    }

    /// The same.
    pub(super) fn touch(&mut self, service: ServiceId) {
        let Some(known) = self.services.get(service.0) else { return };
        if known.waiting == 0 {
            return;
        }
        let any = known.any;
        let pinned: Vec<_> = known.pinned.values().copied().collect();
        pinned.into_iter().for_each(|lane| self.touch_lane(lane));
        if self.queue(any).is_some_and(|queue| queue.waiting.len() > 0) {
            self.touch_lane(any);
        }
    }

    fn touch_lane(&mut self, lane: LaneId) {
        let Some(queue) = self.queue_mut(lane) else { return };
        if std::mem::replace(&mut queue.is_dirty, true) {
            return;
        }
        match queue.lane.instance {
            Some(_) => self.dirty_pinned.push_back(lane),
            None => self.dirty.push_back(lane),
        }
    }

    /// Whether one is to be looked at.
    pub(super) fn are_dirty(&self) -> bool {
        !self.dirty_pinned.is_empty() || !self.dirty.is_empty()
    }

    /// The next lane that is to be looked at, each once: first those of jobs that can go to one instance
    /// only. Others take what they leave.
    pub(super) fn next_dirty(&mut self) -> Option<LaneId> {
        loop {
            let lane = self.dirty_pinned.pop_front().or_else(|| self.dirty.pop_front())?;
            // It may have gone meanwhile.
            if let Some(queue) = self.queue_mut(lane)
                && std::mem::take(&mut queue.is_dirty)
            {
                return Some(lane);
            }
        }
    }

    /// The lanes in which jobs wait.
    pub(super) fn with_waiting(&self) -> impl Iterator<Item = (&Lane, LaneId)> {
        let queues = self.queues.iter().filter(|(_, queue)| queue.waiting.len() > 0);
        queues.map(|(id, queue)| (&queue.lane, LaneId(id)))
    }

    /// The lanes of a service.
    pub(super) fn of_service(&self, service: &Name) -> impl Iterator<Item = (&Lane, LaneId)> {
        let service = self.named(service).into_iter();
        let lanes = service
            .flat_map(|service| std::iter::once(&service.any).chain(service.pinned.values()));
        lanes.filter_map(|lane| Some((self.get(*lane)?, *lane)))
    }

    fn named(&self, service: &Name) -> Option<&Service> {
        let id = self.by_name.get(service)?;
        self.services.get(id.0)
    }

    fn change(&mut self, service: ServiceId, change: impl FnOnce(&mut Service)) {
        if let Some(service) = self.services.get_mut(service.0) {
            change(service);
        }
    }

    fn queue(&self, lane: LaneId) -> Option<&Queue> {
        self.queues.get(lane.0)
    }

    fn queue_mut(&mut self, lane: LaneId) -> Option<&mut Queue> {
        self.queues.get_mut(lane.0)
    }
}
