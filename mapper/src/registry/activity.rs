//! Which services there are, and what happens in them.

use std::collections::BTreeMap;

use svcmap_proto::control::{Activity, FromMapper};
use svcmap_proto::limits::{ACTIVITIES_MAX, NAME_BYTES_MAX, PART_BYTES_MAX};
use svcmap_proto::names::Name;
use svcmap_proto::principals::Role;

use super::{Connection, Registry};

/// Bytes of the longest [`Activity`]: its name and that name's length, and three numbers.
const ACTIVITY_BYTES_MAX: usize = NAME_BYTES_MAX + 1 + 10 + 5 + 4;

/// Service names in one answer to LIST: as many of the longest as fit into a part, beside what happens.
pub(super) const NAMES_MAX: usize =
    (PART_BYTES_MAX - ACTIVITIES_MAX * ACTIVITY_BYTES_MAX) / (NAME_BYTES_MAX + 2);

impl Registry {
    /// The services from behind `after`, those that lately lost their last instance included.
    pub(super) fn services_page(&self, from: &Connection, after: Option<&Name>) -> FromMapper {
        let is_its = |name: &Name| self.may(from.user(), Role::Client, name.as_str());
        let mut left = self.revisions.services(after).filter(|name| is_its(name));
        let names = left.by_ref().take(NAMES_MAX).cloned().collect();
        let (more, refused) = (left.next().is_some(), self.refused);
        let activity = if after.is_none() { self.activity(is_its) } else { Vec::new() };
        FromMapper::Services { names, more, refused, activity }
    }

    /// What happens where most does, of services that are told of: where most jobs wait, then where most
    /// end.
    pub(super) fn activity(&self, is_told: impl Fn(&Name) -> bool) -> Vec<Activity> {
        let mut all: BTreeMap<&Name, Activity> = BTreeMap::new();
        let none = |service: &Name| Activity {
            service: service.clone(),
            waiting: 0,
            senders: 0,
            ended_per_s: 0.0,
        };
        for (name, waiting) in self.demand.services() {
            let (waiting, senders) = (waiting.jobs, waiting.senders);
            all.insert(name, Activity { waiting, senders, ..none(name) });
        }
        for (name, service) in self.services.by_name() {
            let ended_per_s = service.ended.per_s();
            if ended_per_s > 0.0 {
                all.entry(name).or_insert_with(|| none(name)).ended_per_s = ended_per_s;
            }
        }
        all.retain(|name, _| is_told(name));
        let mut all: Vec<_> = all.into_values().collect();
        all.sort_by(|one, other| {
            let order = other.waiting.cmp(&one.waiting);
            order.then(other.ended_per_s.total_cmp(&one.ended_per_s))
        });
        all.truncate(ACTIVITIES_MAX);
        all
    }
}
