//! From what is due to what is published: entries and changes, each encoded once, and their parts.

use std::sync::Arc;

use svcmap_proto::codec::Parts;
use svcmap_proto::control::{
    ChangeRef, ChangesPart, FromMapper, Publication, ServiceStanding, SnapshotPart, topic,
};
use svcmap_proto::names::Name;
use svcmap_proto::principals::Role;
use svcmap_proto::time::Timestamp;

use super::memory::Kept;
use super::services::{Service, Snapshot};
use super::{Connection, Output, Registry};
use crate::revisions::{Due, Happened};

impl Registry {
    /// Answers who asks for the state of a service, from what was encoded if that is as good.
    pub(super) fn send_snapshot(&mut self, now: Timestamp, to: &Connection, service: &Name) {
        if !self.may(to.user(), Role::Client, service.as_str()) {
            return self.send_nothing(to, service);
        }
        let revision = self.revisions.revision(service);
        let warming = self.is_warming(now);
        let listed = self.services.service(service.as_str());
        let kept = listed.and_then(|listed| {
            let snapshot = listed.snapshot.as_ref()?.fresh(now, listed.len())?;
            // What changed since is told with the next revision, and not before.
            let is_same = (snapshot.revision, snapshot.warming) == (revision, warming);
            is_same.then(|| snapshot.frames.clone())
        });
        let frames = kept.unwrap_or_else(|| {
            let message = |part| FromMapper::Snapshot { service: service.clone(), part };
            let frames = self.snapshot(now, service, revision, message);
            let frames: Vec<Arc<[u8]>> = frames.into_iter().map(Arc::from).collect();
            if let Some(listed) = self.services.service_mut(service.as_str()) {
                let snapshot = Snapshot { revision, warming, frames: frames.clone() };
                listed.snapshot = Some(Kept::new(now, snapshot));
            }
            frames
        });
        self.counted.snapshots_sent += 1;
        let send = |frame| Output::Send { to: to.clone(), frame };
        self.outputs.extend(frames.into_iter().map(send));
    }

    /// Answers who asks for the state of a service that it has nothing to do with.
    fn send_nothing(&mut self, to: &Connection, service: &Name) {
        let part = SnapshotPart {
            epoch: self.identity.epoch,
            revision: 0,
            warming: false,
            standing: ServiceStanding::NotAllowed,
            part: 0,
            parts: 1,
            entries: Vec::new(),
        };
        self.reply(to, FromMapper::Snapshot { service: service.clone(), part });
    }

    /// The state of a service as of now, in parts, each made into a message.
    fn snapshot<T: serde::Serialize>(
        &self,
        now: Timestamp,
        service: &Name,
        revision: u64,
        message: impl Fn(SnapshotPart) -> T,
    ) -> Vec<Vec<u8>> {
        let mut entries = Parts::default();
        let listed = self.services.service(service.as_str()).into_iter().flat_map(Service::iter);
        listed.for_each(|instance| entries.push(&instance.entry(now)));
        let (epoch, warming) = (self.identity.epoch, self.is_warming(now));
        let standing = match self.revisions.contains(service) {
            true => ServiceStanding::Heard,
            false => ServiceStanding::Unheard,
        };
        entries.into_frames(|part, parts| {
            let entries = Vec::new();
            message(SnapshotPart { epoch, revision, warming, standing, part, parts, entries })
        })
    }

    /// Publishes what is due.
    pub(super) fn publish_due(&mut self, now: Timestamp) {
        while let Some(due) = self
            .revisions
            .poll_due(now, |service| self.services.service(service.as_str())?.mean_service_time())
        {
            self.publish_one(now, due);
        }
    }

    pub(super) fn publish_one(&mut self, now: Timestamp, due: Due) {
        match due {
            Due::Snapshot { service, revision } => {
                self.counted.snapshots_published += 1;
                let frames = self.snapshot(now, &service, revision, Publication::Snapshot);
                if let Some(listed) = self.services.service_mut(service.as_str()) {
                    // Nobody may ask for it again, and it is not to take memory for ever.
                    listed.snapshot = None;
                }
                self.publish(&service, frames);
            }
            Due::Changes { service, previous, revision, changes } => {
                let mut parts = Parts::default();
                let mut listed = self.services.service_mut(service.as_str());
                for (instance, happened) in &changes {
                    if let Some(change) = change(now, listed.as_deref_mut(), instance, *happened) {
                        parts.push(&change);
                    }
                }
                let epoch = self.identity.epoch;
                let frames = parts.into_frames(|part, parts| {
                    let changes = Vec::new();
                    let part = ChangesPart { epoch, previous, revision, part, parts, changes };
                    Publication::Changes(part)
                });
                self.publish(&service, frames);
            }
        }
    }

    fn publish(&mut self, service: &Name, frames: Vec<Vec<u8>>) {
        frames.into_iter().for_each(|frame| self.publish_frame(topic(service), frame));
    }

    pub(super) fn publish_frame(&mut self, topic: Vec<u8>, frame: Vec<u8>) {
        self.counted.published += 1;
        self.counted.published_bytes += (topic.len() + frame.len()) as u64;
        self.outputs.push_back(Output::Publish { topic, frame });
    }
}

fn change<'a>(
    now: Timestamp,
    service: Option<&'a mut Service>,
    instance: &'a Name,
    happened: Happened,
) -> Option<ChangeRef<'a>> {
    let listed = service.and_then(|service| service.told(instance));
    Some(match happened {
        Happened::Put => ChangeRef::Put(listed?.entry(now)),
        Happened::Load => {
            let listed = listed?;
            let (incarnation, load) = (listed.registration.incarnation, &listed.registration.load);
            ChangeRef::Load { instance, incarnation, load, age_ms: listed.age_ms(now) }
        }
        Happened::Left(incarnation) => ChangeRef::Left { instance, incarnation },
        Happened::Expired(incarnation) => ChangeRef::Expired { instance, incarnation },
    })
}
