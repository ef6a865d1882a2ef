//! What went wrong with many jobs, told without repeating itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::errors::Failure;

/// See the module.
#[derive(Default)]
pub struct Complaints {
    /// How often each message came.
    counts: BTreeMap<String, u64>,
    fixes: BTreeSet<String>,
}

impl Complaints {
    /// Something went wrong. Returns what to say now: nothing if it was said before, and no remedy
    /// that was given before.
    pub fn add(&mut self, mut failure: Failure) -> Option<Failure> {
        let count = self.counts.entry(failure.message.clone()).or_default();
        *count += 1;
        if *count > 1 {
            return None;
        }
        failure.fix = failure.fix.filter(|fix| self.fixes.insert(fix.clone()));
        Some(failure)
    }

    /// What to say at the end of what came more than once.
    pub fn repeated(&self) -> impl Iterator<Item = Failure> {
        let repeated = self.counts.iter().filter(|(_, count)| **count > 1);
        repeated.map(|(message, count)| Failure::failed(format!("{message} ({count} times)")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_and_counted() {
        let mut complaints = Complaints::default();
        let full = |label| Failure::failed(format!("{label}: full")).fix("retry later");
        assert_eq!(complaints.add(full("a")), Some(full("a")));
        assert_eq!(complaints.add(full("a")), None);
        assert_eq!(complaints.add(full("b")), Some(Failure { fix: None, ..full("b") }));
        let repeated: Vec<_> = complaints.repeated().map(|failure| failure.message).collect();
        assert_eq!(repeated, ["a: full (2 times)"]);
    }
}
