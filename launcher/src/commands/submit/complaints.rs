//! What went wrong with many jobs, told without repeating itself, and counted.

use std::collections::{BTreeMap, BTreeSet};

use crate::errors::Failure;

/// Most errors that are shown one by one: who wants all has them in the joblog.
const SHOWN_MAX: usize = 10;

/// Most kinds that are told apart.
const KINDS_MAX: usize = 1000;

/// See the module.
#[derive(Default)]
pub struct Complaints {
    /// How many there were.
    all: u64,
    /// How many of them were said, or are the same as one that was.
    said: u64,
    /// How often each kind came.
    counts: BTreeMap<String, u64>,
    /// What was said.
    shown: BTreeSet<String>,
    fixes: BTreeSet<String>,
}

impl Complaints {
    /// Something of that kind went wrong. Returns what to say now: nothing if the same was said
    /// before or the like so often that nobody reads it, and no remedy that was given before.
    pub fn add(&mut self, kind: String, mut failure: Failure) -> Option<Failure> {
        self.all += 1;
        let is_known = self.counts.contains_key(&kind);
        if is_known || self.counts.len() < KINDS_MAX {
            *self.counts.entry(kind).or_default() += 1;
        }
        // What never came before is worth a line also late.
        let limit = if is_known { SHOWN_MAX } else { 2 * SHOWN_MAX };
        if self.shown.contains(&failure.message) {
            self.said += 1;
            return None;
        }
        if self.shown.len() >= limit {
            return None;
        }
        self.said += 1;
        self.shown.insert(failure.message.clone());
        failure.fix = failure.fix.filter(|fix| self.fixes.insert(fix.clone()));
        Some(failure)
    }

    /// How many were only counted.
    pub fn hidden(&self) -> u64 {
        self.all - self.said
    }

    /// The kinds that came most often, with their counts.
    pub fn commonest(&self, kinds: usize) -> Vec<(&str, u64)> {
        let mut all: Vec<_> = self.counts.iter().map(|(kind, n)| (kind.as_str(), *n)).collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        all.truncate(kinds);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(label: &str) -> Failure {
        Failure::failed(format!("{label}: full")).fix("retry later")
    }

    #[test]
    fn the_same_is_said_once_and_counted() {
        let mut complaints = Complaints::default();
        let mut add = |label: &str| complaints.add("full".to_owned(), full(label));
        assert_eq!(add("a"), Some(full("a")));
        assert_eq!(add("a"), None);
        assert_eq!(add("b"), Some(Failure { fix: None, ..full("b") }));
        complaints.add("gone".to_owned(), Failure::failed("c: gone"));
        assert_eq!(complaints.commonest(3), [("full", 3), ("gone", 1)]);
        assert_eq!(complaints.commonest(1), [("full", 3)]);
        assert_eq!(complaints.hidden(), 0);
    }

    #[test]
    fn nobody_reads_a_thousand_lines_but_what_is_new_is_said() {
        let mut complaints = Complaints::default();
        let mut add = |kind: &str, label: u32| {
            complaints.add(kind.to_owned(), Failure::failed(format!("{label}: {kind}"))).is_some()
        };
        assert_eq!((0..1000).filter(|&label| add("full", label)).count(), SHOWN_MAX);
        assert!(add("gone", 1000) && !add("gone", 1001));
        // However many kinds there are.
        let said = (0..5000).filter(|kind| add(&kind.to_string(), 1)).count();
        assert_eq!(said, SHOWN_MAX - 1);
        assert!(complaints.counts.len() <= KINDS_MAX);
    }
}
