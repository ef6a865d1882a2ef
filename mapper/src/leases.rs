//! Leases: who was heard when, and who has been silent for too long. Expiry runs on a timer, not
//! on the arrival of somebody else's message.
//!
//! Whoever is listed holds its own [`Lease`], so that hearing it sets two numbers and moves nothing.
//! Each is looked at when it would have ended at the last look: about once in an expiry.

use std::collections::BTreeSet;
use std::time::Duration;

use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

/// The lease of one instance. It begins when it is first renewed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Lease {
    heard_at: Timestamp,
    ends_at: Timestamp,
    /// A suspension has extended it already.
    extended: bool,
    /// When it is looked at: never later than its end.
    look_at: Option<Timestamp>,
}

impl Lease {
    /// Whether the silence was too long.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        self.ends_at <= now
    }

    /// This process did not run during the last `gap`: whoever spoke meanwhile may not be heard
    /// yet. Extends the lease by the gap, at most once until it is renewed, so that a mapper that
    /// stumbles on and on does not keep the dead. Who was heard after the gap needs no extension.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        if !self.extended && self.heard_at <= now.before(gap) {
            self.ends_at = self.ends_at + gap;
            self.extended = true;
        }
    }
}

/// When to look at which lease. Bounded by whoever lists the instances.
#[derive(Debug, Default)]
pub struct Leases {
    looks: BTreeSet<(Timestamp, InstanceKey)>,
}

impl Leases {
    /// The instance was heard: its lease starts anew, or for the first time, and lasts so long.
    pub fn renew(
        &mut self,
        now: Timestamp,
        key: &InstanceKey,
        lease: &mut Lease,
        expiry: Duration,
    ) {
        let Lease { look_at, .. } = *lease;
        *lease = Lease { heard_at: now, ends_at: now + expiry, extended: false, look_at };
        if look_at.is_none_or(|at| at > lease.ends_at) {
            self.look_at_end(key, lease);
        }
    }

    /// The lease did not end when it was looked at, or ends earlier than it was to be looked at.
    pub fn look_at_end(&mut self, key: &InstanceKey, lease: &mut Lease) {
        self.remove(key, lease);
        lease.look_at = Some(lease.ends_at);
        self.looks.insert((lease.ends_at, key.clone()));
    }

    /// The instance is not listed any more.
    pub fn remove(&mut self, key: &InstanceKey, lease: &Lease) {
        if let Some(look_at) = lease.look_at {
            self.looks.remove(&(look_at, key.clone()));
        }
    }

    /// The next instance to look at: its lease has ended, or is [to be looked at
    /// again](Leases::look_at_end).
    pub fn poll_look(&mut self, now: Timestamp) -> Option<InstanceKey> {
        let (look_at, _) = self.looks.first()?;
        if *look_at > now {
            return None;
        }
        self.looks.pop_first().map(|(_, key)| key)
    }

    /// When to look next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.looks.first().map(|(look_at, _)| *look_at)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// Leases with those who hold them.
    #[derive(Default)]
    struct Book {
        held: BTreeMap<InstanceKey, Lease>,
        leases: Leases,
    }

    impl Book {
        fn renew(&mut self, now: Timestamp, key: &InstanceKey, expiry: Duration) {
            let lease = self.held.entry(key.clone()).or_default();
            self.leases.renew(now, key, lease, expiry);
        }

        fn remove(&mut self, key: &InstanceKey) {
            if let Some(lease) = self.held.remove(key) {
                self.leases.remove(key, &lease);
            }
        }

        fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
            self.held.values_mut().for_each(|lease| lease.handle_suspension(now, gap));
        }

        fn poll_expired(&mut self, now: Timestamp) -> Option<InstanceKey> {
            while let Some(key) = self.leases.poll_look(now) {
                let lease = self.held.get_mut(&key).unwrap();
                if lease.has_ended(now) {
                    self.remove(&key);
                    return Some(key);
                }
                self.leases.look_at_end(&key, lease);
            }
            None
        }
    }

    const EXPIRY: Duration = Duration::from_secs(3);

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    fn key(instance: &str) -> InstanceKey {
        InstanceKey { service: "s".parse().unwrap(), instance: instance.parse().unwrap() }
    }

    #[test]
    fn silence_ends_a_lease_and_a_word_renews_it() {
        let mut leases = Book::default();
        leases.renew(at(10), &key("a"), EXPIRY);
        leases.renew(at(11), &key("b"), EXPIRY);
        leases.renew(at(12), &key("a"), EXPIRY);
        assert_eq!(leases.leases.poll_timeout(), Some(at(13)), "when it would have ended first");
        assert_eq!(leases.poll_expired(at(13)), None);
        assert_eq!(leases.poll_expired(at(15)), Some(key("b")));
        assert_eq!(leases.poll_expired(at(15)), Some(key("a")));
        assert_eq!((leases.poll_expired(at(99)), leases.leases.poll_timeout()), (None, None));
        assert!(leases.held.is_empty() && leases.leases.looks.is_empty());
    }

    #[test]
    fn two_words_at_one_moment_are_one() {
        let mut leases = Book::default();
        leases.renew(at(1), &key("a"), EXPIRY);
        leases.renew(at(1), &key("a"), EXPIRY);
        assert_eq!(leases.poll_expired(at(4)), Some(key("a")));
        assert_eq!(leases.poll_expired(at(4)), None);
    }

    #[test]
    fn a_shorter_lease_ends_earlier() {
        let mut leases = Book::default();
        leases.renew(at(1), &key("a"), 10 * EXPIRY);
        leases.renew(at(2), &key("a"), EXPIRY);
        assert_eq!(leases.leases.poll_timeout(), Some(at(5)));
        assert_eq!(leases.poll_expired(at(5)), Some(key("a")));
        assert_eq!(leases.leases.poll_timeout(), None);
    }

    #[test]
    fn who_left_does_not_expire() {
        let mut leases = Book::default();
        leases.renew(at(1), &key("a"), EXPIRY);
        leases.remove(&key("a"));
        leases.remove(&key("never"));
        assert_eq!((leases.held.len(), leases.poll_expired(at(99))), (0, None));
    }

    #[test]
    fn a_suspension_extends_a_lease_once_until_it_is_renewed() {
        let mut leases = Book::default();
        leases.renew(at(0), &key("a"), EXPIRY);
        leases.handle_suspension(at(10), Duration::from_secs(9));
        leases.handle_suspension(at(20), Duration::from_secs(9));
        assert_eq!(leases.held[&key("a")].ends_at, at(12), "extended once");
        assert_eq!(leases.poll_expired(at(11)), None);
        assert_eq!(leases.leases.poll_timeout(), Some(at(12)));
        leases.renew(at(21), &key("a"), EXPIRY);
        leases.handle_suspension(at(31), Duration::from_secs(9));
        assert_eq!(leases.poll_expired(at(32)), None);
        assert_eq!(leases.poll_expired(at(33)), Some(key("a")));
    }

    #[test]
    fn who_was_heard_after_the_suspension_needs_no_extension() {
        let mut leases = Book::default();
        leases.renew(at(0), &key("slept"), EXPIRY);
        leases.renew(at(10), &key("spoke"), EXPIRY);
        leases.handle_suspension(at(10), Duration::from_secs(9));
        assert_eq!(leases.poll_expired(at(13)), Some(key("slept")));
        assert_eq!(leases.poll_expired(at(13)), Some(key("spoke")));
    }
}
