//! How much instances do in a second: from their counters in two views. Pure.

use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::time::Duration;

use svcmap_proto::names::InstanceKey;
use svcmap_proto::status::{InstanceRow, Report};
use svcmap_proto::time::Timestamp;

use crate::text::compact;

/// A rate is over at least so long: over less, it says when reports came and not what was done.
const WINDOW_MIN: Duration = Duration::from_millis(500);

/// Jobs in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Rate {
    pub done: f64,
    pub failed: f64,
    pub rejected: f64,
}

impl AddAssign for Rate {
    fn add_assign(&mut self, other: Self) {
        self.done += other.done;
        self.failed += other.failed;
        self.rejected += other.rejected;
    }
}

/// One of its figures, for people.
pub(super) fn figure(rate: Option<Rate>, of: fn(Rate) -> f64) -> String {
    rate.map_or_else(|| "-".to_owned(), |rate| compact(of(rate)))
}

/// The counters of one life, when it said them.
#[derive(Clone, Copy, Debug)]
struct Counters {
    incarnation: u64,
    said_at: Timestamp,
    done: u64,
    failed: u64,
    rejected: u64,
}

/// The rates of all instances.
#[derive(Debug, Default)]
pub(super) struct Rates(BTreeMap<InstanceKey, (Counters, Option<Rate>)>);

impl Rates {
    /// Takes a view in, that came at this time.
    pub fn update(&mut self, report: &Report, now: Timestamp) {
        let mut before = std::mem::take(&mut self.0);
        for row in &report.instances {
            let key = key(row);
            let last = before.remove(&key);
            self.0.insert(key, next(last, Counters::of(row, now)));
        }
    }

    /// `None` until it was seen for long enough.
    pub fn of(&self, row: &InstanceRow) -> Option<Rate> {
        self.0.get(&key(row)).and_then(|(_, rate)| *rate)
    }

    /// The sum over those that have one.
    pub fn sum<'a>(&self, rows: impl Iterator<Item = &'a InstanceRow>) -> Option<Rate> {
        rows.filter_map(|row| self.of(row)).fold(None, |sum, rate| {
            let mut sum = sum.unwrap_or_default();
            sum += rate;
            Some(sum)
        })
    }
}

/// Of which instance a row is.
pub(super) fn key(row: &InstanceRow) -> InstanceKey {
    InstanceKey { service: row.service.clone(), instance: row.instance.clone() }
}

fn next(last: Option<(Counters, Option<Rate>)>, now: Counters) -> (Counters, Option<Rate>) {
    match last {
        Some((then, rate)) if then.incarnation == now.incarnation => {
            let elapsed = now.said_at.since(then.said_at);
            if elapsed < WINDOW_MIN { (then, rate) } else { (now, Some(now.rate(&then, elapsed))) }
        }
        // Another life counts from 0.
        _ => (now, None),
    }
}

impl Counters {
    fn of(row: &InstanceRow, now: Timestamp) -> Self {
        Self {
            incarnation: row.incarnation,
            said_at: now.before(Duration::from_millis(row.age_ms.into())),
            done: row.done,
            failed: row.failed,
            rejected: row.rejected,
        }
    }

    fn rate(&self, then: &Self, elapsed: Duration) -> Rate {
        // A counter that has shrunk is a lie, and no rate is below 0.
        let rate = |now: u64, then: u64| now.saturating_sub(then) as f64 / elapsed.as_secs_f64();
        Rate {
            done: rate(self.done, then.done),
            failed: rate(self.failed, then.failed),
            rejected: rate(self.rejected, then.rejected),
        }
    }
}
