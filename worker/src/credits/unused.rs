//! Credits that were granted and not used yet: when each lapses, and which of them can be called back.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use svcmap_proto::names::SenderId;
use svcmap_proto::time::{Timestamp, earliest};

/// A credit that was asked for and not used for so long stands: far beyond what a message and a sleepy
/// process take.
pub(super) const STANDS: Duration = Duration::from_millis(100);

/// One credit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Credit {
    pub(super) sender: SenderId,
    pub(super) granted_at: Timestamp,
    pub(super) expires_at: Timestamp,
    /// Largest payload that it stands for.
    pub(super) bytes: u32,
    /// Whether its sender was asked to give it back.
    pub(super) recalled: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unused {
    /// By number, oldest first.
    credits: BTreeMap<u64, Credit>,
    /// When each of these lapses: not in their order, as lifetimes follow the service time.
    expiries: BTreeSet<(Timestamp, u64)>,
    /// Of these, those whose jobs are to be expected at any moment.
    fresh: BTreeSet<u64>,
    /// Of these, those that were asked for, for [`STANDS`].
    asked: BTreeSet<u64>,
    /// Of these, the others that were not recalled.
    standing: BTreeSet<u64>,
    /// How many were recalled.
    recalled: u32,
    /// Until when each of these, and of some that are no more, is to be given back.
    recalls: VecDeque<(Timestamp, u64)>,
    /// Payloads that all of them stand for.
    bytes: usize,
}

impl Unused {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.credits.len()
    }

    /// Bytes of payload that they stand for together.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// One of them.
    pub(super) fn get(&self, number: u64) -> Option<&Credit> {
        self.credits.get(&number)
    }

    /// A credit that its sender has asked for.
    pub(super) fn add_asked(&mut self, number: u64, credit: Credit) {
        self.add(number, credit);
        self.fresh.insert(number);
        self.asked.insert(number);
    }

    /// One that nobody has asked for.
    pub(super) fn add_standing(&mut self, number: u64, credit: Credit) {
        self.add(number, credit);
        self.standing.insert(number);
    }

    fn add(&mut self, number: u64, credit: Credit) {
        self.expiries.insert((credit.expires_at, number));
        self.bytes += credit.bytes as usize;
        self.credits.insert(number, credit);
    }

    /// It was used or given back, or it is void.
    pub(super) fn remove(&mut self, number: u64) -> Option<Credit> {
        let credit = self.credits.remove(&number)?;
        self.expiries.remove(&(credit.expires_at, number));
        self.fresh.remove(&number);
        self.asked.remove(&number);
        self.standing.remove(&number);
        self.recalled -= u32::from(credit.recalled);
        self.bytes -= credit.bytes as usize;
        Some(credit)
    }

    /// How many jobs are to be expected at any moment, as they are for so long after a grant.
    pub(super) fn fresh(&mut self, now: Timestamp, expected_within: Duration) -> u32 {
        while self.first_is_older(now, &self.fresh, expected_within) {
            self.fresh.pop_first();
        }
        super::count(self.fresh.len())
    }

    /// What was asked for and not used for long stands from now on.
    pub(super) fn age(&mut self, now: Timestamp) {
        while self.first_is_older(now, &self.asked, STANDS) {
            self.standing.extend(self.asked.pop_first());
        }
    }

    fn first_is_older(&self, now: Timestamp, numbers: &BTreeSet<u64>, age: Duration) -> bool {
        self.first_reaches(numbers, age).is_some_and(|at| at <= now)
    }

    /// When the oldest of these is so old.
    fn first_reaches(&self, numbers: &BTreeSet<u64>, age: Duration) -> Option<Timestamp> {
        numbers.first().and_then(|number| self.get(*number)).map(|credit| credit.granted_at + age)
    }

    /// Calls back a standing credit, the oldest, if fewer than so many were called back already. It is
    /// to be given back by `until`. Returns whose it is.
    pub(super) fn recall(&mut self, until: Timestamp, most: u32) -> Option<SenderId> {
        if self.recalled >= most {
            return None;
        }
        let number = self.standing.pop_first()?;
        let credit = self.credits.get_mut(&number)?;
        credit.recalled = true;
        self.recalled += 1;
        self.recalls.push_back((until, number));
        Some(credit.sender)
    }

    /// The owner of a credit that was called back and that it neither used nor gave back in time.
    pub(super) fn poll_unreturned(&mut self, now: Timestamp) -> Option<SenderId> {
        while let Some(&(until, number)) = self.recalls.front()
            && until <= now
        {
            self.recalls.pop_front();
            if let Some(credit) = self.credits.get(&number) {
                return Some(credit.sender);
            }
        }
        None
    }

    /// When there may be one.
    pub(super) fn next_unreturned(&self) -> Option<Timestamp> {
        self.recalls.front().map(|(until, _)| *until)
    }

    /// All of them last longer by that.
    pub(super) fn extend(&mut self, gap: Duration) {
        self.credits.values_mut().for_each(|credit| credit.expires_at = credit.expires_at + gap);
        self.expiries = self.expiries.iter().map(|(at, number)| (*at + gap, *number)).collect();
        self.recalls.iter_mut().for_each(|(until, _)| *until = *until + gap);
    }

    /// One that nobody has claimed in time.
    pub(super) fn lapsed(&self, now: Timestamp) -> Option<u64> {
        self.expiries.first().filter(|(at, _)| *at <= now).map(|(_, number)| *number)
    }

    /// When the first of them lapses.
    pub(super) fn next_expiry(&self) -> Option<Timestamp> {
        self.expiries.first().map(|(at, _)| *at)
    }

    /// When one is no longer fresh, as it is for so long after a grant, or begins to stand.
    pub(super) fn next_change(&self, expected_within: Duration) -> Option<Timestamp> {
        let stale_at = self.first_reaches(&self.fresh, expected_within);
        earliest(stale_at, self.first_reaches(&self.asked, STANDS))
    }
}
