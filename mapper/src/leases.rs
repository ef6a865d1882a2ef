//! Leases: who was heard when, and who has been silent for too long. Expiry runs on a timer, not
//! on the arrival of somebody else's message.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

/// The leases of all listed instances. Bounded by whoever lists them.
#[derive(Debug, Default)]
pub struct Leases {
    leases: BTreeMap<InstanceKey, Lease>,
    /// The same leases by their end: what expires next comes first.
    by_end: BTreeSet<(Timestamp, InstanceKey)>,
}

#[derive(Debug)]
struct Lease {
    heard_at: Timestamp,
    ends_at: Timestamp,
    /// A suspension has extended it already.
    extended: bool,
}

impl Leases {
    /// The instance was heard: its lease starts anew, or for the first time, and lasts so long.
    pub fn renew(&mut self, now: Timestamp, key: &InstanceKey, expiry: Duration) {
        let ends_at = now + expiry;
        self.by_end.insert((ends_at, key.clone()));
        let lease = Lease { heard_at: now, ends_at, extended: false };
        if let Some(earlier) = self.leases.insert(key.clone(), lease)
            && earlier.ends_at != ends_at
        {
            self.by_end.remove(&(earlier.ends_at, key.clone()));
        }
    }

    /// The instance is not listed any more.
    pub fn remove(&mut self, key: &InstanceKey) {
        if let Some(lease) = self.leases.remove(key) {
            self.by_end.remove(&(lease.ends_at, key.clone()));
        }
    }

    /// This process did not run during the last `gap`: whoever spoke meanwhile may not be heard
    /// yet. Extends each lease by the gap, at most once until it is renewed, so that a mapper that
    /// stumbles on and on does not keep the dead. Who was heard after the gap needs no extension.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        let stopped_at = now.before(gap);
        for (key, lease) in &mut self.leases {
            if lease.extended || lease.heard_at > stopped_at {
                continue;
            }
            self.by_end.remove(&(lease.ends_at, key.clone()));
            lease.ends_at = lease.ends_at + gap;
            lease.extended = true;
            self.by_end.insert((lease.ends_at, key.clone()));
        }
    }

    /// The next instance whose lease has ended; its lease is gone.
    pub fn poll_expired(&mut self, now: Timestamp) -> Option<InstanceKey> {
        let (ends_at, _) = self.by_end.first()?;
        if *ends_at > now {
            return None;
        }
        let (_, key) = self.by_end.pop_first()?;
        self.leases.remove(&key);
        Some(key)
    }

    /// When the next lease ends.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.by_end.first().map(|(ends_at, _)| *ends_at)
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXPIRY: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn key(instance: &str) -> InstanceKey {
        InstanceKey { service: "s".parse().unwrap(), instance: instance.parse().unwrap() }
    }

    #[test]
    fn silence_ends_a_lease_and_a_word_renews_it() {
        let mut leases = Leases::default();
        leases.renew(at(10), &key("a"), EXPIRY);
        leases.renew(at(11), &key("b"), EXPIRY);
        leases.renew(at(12), &key("a"), EXPIRY);
        assert_eq!(leases.poll_timeout(), Some(at(14)));
        assert_eq!(leases.poll_expired(at(13)), None);
        assert_eq!(leases.poll_expired(at(15)), Some(key("b")));
        assert_eq!(leases.poll_expired(at(15)), Some(key("a")));
        assert_eq!((leases.poll_expired(at(99)), leases.poll_timeout()), (None, None));
        assert!(leases.is_empty());
    }

    #[test]
    fn two_words_at_one_moment_are_one() {
        let mut leases = Leases::default();
        leases.renew(at(1), &key("a"), EXPIRY);
        leases.renew(at(1), &key("a"), EXPIRY);
        assert_eq!(leases.poll_expired(at(4)), Some(key("a")));
        assert_eq!(leases.poll_expired(at(4)), None);
    }

    #[test]
    fn who_left_does_not_expire() {
        let mut leases = Leases::default();
        leases.renew(at(1), &key("a"), EXPIRY);
        leases.remove(&key("a"));
        leases.remove(&key("never"));
        assert_eq!((leases.len(), leases.poll_expired(at(99))), (0, None));
    }

    #[test]
    fn a_suspension_extends_a_lease_once_until_it_is_renewed() {
        let mut leases = Leases::default();
        leases.renew(at(0), &key("a"), EXPIRY);
        leases.handle_suspension(at(10), Duration::from_secs(9));
        assert_eq!(leases.poll_timeout(), Some(at(12)));
        leases.handle_suspension(at(20), Duration::from_secs(9));
        assert_eq!(leases.poll_timeout(), Some(at(12)), "extended twice");
        leases.renew(at(21), &key("a"), EXPIRY);
        leases.handle_suspension(at(31), Duration::from_secs(9));
        assert_eq!(leases.poll_timeout(), Some(at(33)));
    }

    #[test]
    fn who_was_heard_after_the_suspension_needs_no_extension() {
        let mut leases = Leases::default();
        leases.renew(at(0), &key("slept"), EXPIRY);
        leases.renew(at(10), &key("spoke"), EXPIRY);
        leases.handle_suspension(at(10), Duration::from_secs(9));
        assert_eq!(leases.poll_expired(at(13)), Some(key("slept")));
        assert_eq!(leases.poll_expired(at(13)), Some(key("spoke")));
    }
}
