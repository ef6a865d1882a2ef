//! Who sends what nobody can read: told for a while, and then cut off.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;
use crate::time::Timestamp;

/// After this, what somebody sent before does not matter any more.
const INTERVAL: Duration = Duration::from_secs(1);

/// How many bad messages came on each connection lately. `C` names a connection.
#[derive(Clone, Debug)]
pub struct Conduct<C> {
    since: Timestamp,
    bad: BTreeMap<C, u32>,
}

impl<C> Default for Conduct<C> {
    fn default() -> Self {
        Self { since: Timestamp::default(), bad: BTreeMap::new() }
    }
}

impl<C: Ord> Conduct<C> {
    /// A message came there that was refused. Whether that is one too many: the first beyond
    /// [`limits::BAD_MESSAGES_MAX`] in a second. What comes behind it was under way already.
    pub fn handle_bad(&mut self, now: Timestamp, connection: C) -> bool {
        if now.since(self.since) >= INTERVAL {
            self.bad.clear();
            self.since = now;
        }
        let count = self.bad.entry(connection).or_default();
        *count += 1;
        *count == limits::BAD_MESSAGES_MAX + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_sends_few_bad_messages_a_second_goes_on_and_who_sends_more_does_not() {
        let mut conduct = Conduct::default();
        let at = |ms: u64| Timestamp::from_micros(1_000_000 + ms * 1000);
        for second in 0..5 {
            for _ in 0..limits::BAD_MESSAGES_MAX {
                assert!(!conduct.handle_bad(at(second * 1000), 1));
            }
        }
        assert!(!conduct.handle_bad(at(4500), 2));
        assert!(conduct.handle_bad(at(4998), 1));
        assert!(!conduct.handle_bad(at(4999), 1));
        assert!(!conduct.handle_bad(at(5000), 1));
        assert_eq!(conduct.bad.len(), 1);
    }
}
