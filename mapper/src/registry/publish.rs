//! From what is due to what is published: entries, changes and their parts.

use std::time::Duration;

use svcmap_proto::codec::into_parts;
use svcmap_proto::control::{Change, ChangesPart, Entry, Publication, SnapshotPart, topic};
use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

use super::instance::Instance;
use super::{Output, Registry};
use crate::config::PUBLISH_MAX;
use crate::revisions::{Due, Happened};

impl Registry {
    /// The state of a service as of now, in parts.
    pub(super) fn snapshot(
        &self,
        now: Timestamp,
        service: &Name,
        revision: u64,
    ) -> Vec<SnapshotPart> {
        let instances = self.services.get(service).into_iter().flat_map(|s| s.values());
        let parts = into_parts(instances.map(|instance| instance.entry(now)).collect());
        let count = part_count(&parts);
        let (epoch, warming) = (self.identity.epoch, self.is_warming(now));
        let heard = self.revisions.contains(service);
        let numbered = (0..count).zip(parts);
        numbered
            .map(|(part, entries)| SnapshotPart {
                epoch,
                revision,
                warming,
                heard,
                part,
                parts: count,
                entries,
            })
            .collect()
    }

    /// Publishes what is due.
    pub(super) fn publish_due(&mut self, now: Timestamp) {
        while let Some(due) = self
            .revisions
            .poll_due(now, |service| mean_service_time(self.services.get(service)?.values()))
        {
            self.publish_one(now, due);
        }
    }

    pub(super) fn publish_one(&mut self, now: Timestamp, due: Due) {
        match due {
            Due::Snapshot { service, revision } => {
                for part in self.snapshot(now, &service, revision) {
                    self.publish(&service, Publication::Snapshot(part));
                }
            }
            Due::Changes { service, previous, revision, changes } => {
                let changes = changes.into_iter().filter_map(|(instance, happened)| {
                    self.change(now, &service, instance, happened)
                });
                let parts = into_parts(changes.collect());
                let (epoch, count) = (self.identity.epoch, part_count(&parts));
                for (part, changes) in (0..count).zip(parts) {
                    let part =
                        ChangesPart { epoch, previous, revision, part, parts: count, changes };
                    self.publish(&service, Publication::Changes(part));
                }
            }
        }
    }

    fn change(
        &self,
        now: Timestamp,
        service: &Name,
        instance: Name,
        happened: Happened,
    ) -> Option<Change> {
        let listed = || self.services.get(service)?.get(&instance);
        Some(match happened {
            Happened::Put => Change::Put(listed()?.entry(now)),
            Happened::Load => {
                let Entry { incarnation, load, age_ms, .. } = listed()?.entry(now);
                Change::Load { instance, incarnation, load, age_ms }
            }
            Happened::Left(incarnation) => Change::Left { instance, incarnation },
            Happened::Expired(incarnation) => Change::Expired { instance, incarnation },
        })
    }

    fn publish(&mut self, service: &Name, message: Publication) {
        self.outputs.push_back(Output::Publish { topic: topic(service), message });
    }
}

/// How many parts there are. The limit of instances keeps it far below the largest number.
fn part_count<T>(parts: &[T]) -> u16 {
    u16::try_from(parts.len()).unwrap_or(u16::MAX)
}

/// The mean over those instances that know theirs. One that claims an hour counts as if it had said
/// the longest time that matters, so that it cannot decide for all.
fn mean_service_time<'a>(instances: impl Iterator<Item = &'a Instance>) -> Option<Duration> {
    let longest = PUBLISH_MAX.as_micros() as u64;
    let means = instances.map(|instance| instance.registration.load.mean_service_us.min(longest));
    let (sum, count) =
        means.filter(|mean| *mean > 0).fold((0, 0), |(sum, count), mean| (sum + mean, count + 1));
    (count > 0).then(|| Duration::from_micros(sum / count))
}
