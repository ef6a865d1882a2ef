//! What went wrong with many jobs, told without repeating itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::errors::Failure;
use crate::text::printable_line;

/// See the module.
#[derive(Default)]
pub struct Complaints {
    /// How often each kind came.
    counts: BTreeMap<String, u64>,
    fixes: BTreeSet<String>,
    /// The kind that was said last.
    last: String,
}

impl Complaints {
    /// Something of that kind went wrong. Returns what to say now: nothing if the like was said
    /// before, and no remedy that was given before.
    pub fn add(&mut self, kind: String, mut failure: Failure) -> Option<Failure> {
        let count = self.counts.entry(kind.clone()).or_default();
        *count += 1;
        if *count > 1 {
            return None;
        }
        self.last = kind;
        failure.fix = failure.fix.filter(|fix| self.fixes.insert(fix.clone()));
        Some(failure)
    }

    /// What to say at the end of what came more than once, the kind that was said last first: its
    /// words stand right above and need not be repeated.
    pub fn repeated(&self) -> impl Iterator<Item = String> {
        let more = |kind: &String| self.counts.get(kind).copied().unwrap_or(0).saturating_sub(1);
        let last = (more(&self.last) > 0).then(|| format!("  and {} more", more(&self.last)));
        let others = self.counts.keys().filter(move |kind| **kind != self.last && more(kind) > 0);
        let others =
            others.map(move |kind| format!("  and {} more: {}", more(kind), printable_line(kind)));
        last.into_iter().chain(others)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_and_counted() {
        let mut complaints = Complaints::default();
        let full = |label: &str| Failure::failed(format!("{label}: full")).fix("retry later");
        let mut add = |label: &str| complaints.add(label.to_owned(), full(label));
        assert_eq!(add("a"), Some(full("a")));
        assert_eq!(add("a"), None);
        assert_eq!(add("b"), Some(Failure { fix: None, ..full("b") }));
        assert_eq!((add("b"), add("b")), (None, None));
        add("c");
        assert!(complaints.repeated().eq(["  and 1 more: a", "  and 2 more: b"]));
        complaints.add("c".to_owned(), full("c"));
        assert_eq!(complaints.repeated().next().as_deref(), Some("  and 1 more"));
    }
}
