//! What happened between two views: who came, who left, and who is no longer as before. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::status::{InstanceRow, Report, Shown};
use svcmap_proto::time::Timestamp;

use super::rates::key;
use crate::commands::status::why_not_ready;
use crate::text::printable_line;

/// What was seen of an instance last.
#[derive(Clone, Copy, Debug)]
struct Seen {
    incarnation: u64,
    state: Shown,
}

/// A busy service is full again and again: that is told once in so long.
const FULL_AGAIN: Duration = Duration::from_secs(60);

/// The instances as they were seen last.
#[derive(Debug, Default)]
pub(super) struct Watch {
    seen: BTreeMap<InstanceKey, Seen>,
    /// When it was told of a service that instances of it are full.
    full_at: BTreeMap<Name, Timestamp>,
}

/// What can happen to an instance, what matters most first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Left,
    Is(Shown),
    LeftDrained,
    CameAgain,
    Came,
}

impl Watch {
    /// Who is there at first. Nothing has happened yet.
    pub fn new(report: &Report) -> Self {
        let mut watch = Self::default();
        watch.changes(report);
        watch
    }

    /// Takes a view in, and says what happened, what matters most first. The same of several
    /// instances of a service is one line.
    pub fn update(&mut self, report: &Report, now: Timestamp) -> Vec<String> {
        let rows: BTreeMap<InstanceKey, &InstanceRow> =
            report.instances.iter().map(|row| (key(row), row)).collect();
        let mut alike: BTreeMap<(Change, Name), Vec<InstanceKey>> = BTreeMap::new();
        for (key, change) in self.changes(report) {
            alike.entry((change, key.service.clone())).or_default().push(key);
        }
        self.full_at.retain(|_, at| now.since(*at) < FULL_AGAIN);
        let is_news = |change, service: &Name| {
            change != Change::Is(Shown::Full) || !self.full_at.contains_key(service)
        };
        alike.retain(|(change, service), _| is_news(*change, service));
        let full = alike.keys().filter(|(change, _)| *change == Change::Is(Shown::Full));
        self.full_at.extend(full.map(|(_, service)| (service.clone(), now)));
        let said = alike.into_iter().map(|((change, service), keys)| match &keys[..] {
            [only] => {
                let what = change.words(rows.get(only).copied(), false);
                format!("{only} {}", printable_line(&what))
            }
            all => format!("{} instances of {service} {}", all.len(), change.words(None, true)),
        });
        said.collect()
    }

    fn changes(&mut self, report: &Report) -> Vec<(InstanceKey, Change)> {
        let mut before = std::mem::take(&mut self.seen);
        let mut changes = Vec::new();
        for row in &report.instances {
            let (key, now) = (key(row), Seen { incarnation: row.incarnation, state: row.state });
            let change = match before.remove(&key) {
                None => Some(Change::Came),
                Some(then) if then.incarnation != now.incarnation => Some(Change::CameAgain),
                Some(then) if then.state == now.state => None,
                Some(then) if then.state == Shown::Full && now.state == Shown::Ready => None,
                Some(_) => Some(Change::Is(now.state)),
            };
            changes.extend(change.map(|change| (key.clone(), change)));
            self.seen.insert(key, now);
        }
        // A mapper that has just started does not know everybody yet: nobody has left for that.
        let knows_all = report.mappers.iter().any(|mapper| mapper.is_complete() && !mapper.warming);
        for (key, then) in before {
            match then.state {
                _ if !knows_all => {
                    self.seen.insert(key, then);
                }
                Shown::Draining => changes.push((key, Change::LeftDrained)),
                _ => changes.push((key, Change::Left)),
            }
        }
        changes
    }
}

impl Change {
    fn words(self, row: Option<&InstanceRow>, are_many: bool) -> String {
        let be = if are_many { "are" } else { "is" };
        match (self, row) {
            (Change::Left, _) => "left".to_owned(),
            (Change::LeftDrained, _) => "left, after draining".to_owned(),
            (Change::Came, _) => "came".to_owned(),
            (Change::CameAgain, _) => "came again, as a new process".to_owned(),
            (Change::Is(Shown::Ready), _) => format!("{be} ready again"),
            (Change::Is(Shown::Full), _) => format!("{be} full"),
            (Change::Is(_), Some(row)) => format!("{be} {}", why_not_ready(row)),
            (Change::Is(state), None) => format!("{be} {}", state.word()),
        }
    }
}
