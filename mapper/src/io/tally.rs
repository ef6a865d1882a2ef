//! Counts by reason, told as one line at most per interval.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::time::Duration;

use svcmap_proto::time::Timestamp;

/// How often something happened, by reason. As many reasons as `R` has values.
#[derive(Debug)]
pub(super) struct Tally<R> {
    interval: Duration,
    total: u64,
    since_summary: BTreeMap<R, u64>,
    summarised_at: Option<Timestamp>,
}

/// Displays as `the one 3, the other 1; 12 in all`.
#[derive(Debug)]
pub(super) struct Summary<R> {
    by_reason: BTreeMap<R, u64>,
    total: u64,
}

impl<R: Ord> Tally<R> {
    /// Nothing counted yet.
    pub(super) fn new(interval: Duration) -> Self {
        Self { interval, total: 0, since_summary: BTreeMap::new(), summarised_at: None }
    }

    /// It happened once more.
    pub(super) fn count(&mut self, reason: R) {
        self.total += 1;
        *self.since_summary.entry(reason).or_default() += 1;
    }

    /// When a summary is due; `None` if nothing happened since the last.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let due_at = self.summarised_at.map_or(Timestamp::default(), |at| at + self.interval);
        (!self.since_summary.is_empty()).then_some(due_at)
    }

    /// What happened since the last summary, if it is time for one.
    pub(super) fn poll_summary(&mut self, now: Timestamp) -> Option<Summary<R>> {
        self.poll_timeout().filter(|due_at| *due_at <= now)?;
        self.summarised_at = Some(now);
        Some(Summary { by_reason: std::mem::take(&mut self.since_summary), total: self.total })
    }
}

impl<R: Display> Display for Summary<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (reason, count)) in self.by_reason.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{reason} {count}")?;
        }
        write!(f, "; {} in all", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line() {
        let at = Timestamp::from_micros;
        let mut tally = Tally::new(Duration::from_secs(1));
        assert_eq!(tally.poll_timeout(), None);
        (0..100).for_each(|_| tally.count("full"));
        tally.count("away");
        let line = |tally: &mut Tally<_>, now| tally.poll_summary(at(now)).map(|s| s.to_string());
        assert_eq!(line(&mut tally, 5).as_deref(), Some("away 1, full 100; 101 in all"));
        tally.count("full");
        assert_eq!(line(&mut tally, 1_000_004), None);
        assert_eq!(tally.poll_timeout(), Some(at(1_000_005)));
        assert_eq!(line(&mut tally, 1_000_005).as_deref(), Some("full 1; 102 in all"));
        assert_eq!(line(&mut tally, 9_000_000), None);
    }
}
