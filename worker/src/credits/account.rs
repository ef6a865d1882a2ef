//! What a worker knows of each sender that has jobs or unused credits here or waits for some, and in
//! which order they get theirs.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

/// One sender's.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// Numbers of its unused credits, oldest first.
    unused: VecDeque<u64>,
    /// Of these, so many of the newest it was not told of.
    pub(super) untold: u32,
    /// Credits that it wants and has not got.
    pub(super) wanted: u32,
    /// Since when.
    pub(super) since: Timestamp,
    /// The size of the payload that it wants the next one for.
    pub(super) bytes: u32,
    /// Whether that job can go nowhere else.
    pub(super) pinned: bool,
    /// Jobs of it that are here.
    pub(super) jobs: u32,
}

impl Account {
    /// Its place among those who wait: fewest jobs and unused credits here, then longest waiting.
    fn place(&self, sender: SenderId) -> Option<Place> {
        let here = self.jobs + super::count(self.unused.len());
        (self.wanted > 0).then_some((here, self.since, sender))
    }

    fn is_empty(&self) -> bool {
        self.jobs == 0 && self.wanted == 0 && self.unused.is_empty()
    }
}

type Place = (u32, Timestamp, SenderId);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    by_sender: BTreeMap<SenderId, Account>,
    waiting: BTreeSet<Place>,
    wanted: u32,
    /// Who was not told of credits.
    untold: BTreeSet<SenderId>,
}

impl Accounts {
    /// Credits that all together want.
    pub(super) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Who gets the next credit, and what is known of whom.
    pub(super) fn first(&self) -> Option<(SenderId, &Account)> {
        let (_, _, sender) = self.waiting.first()?;
        Some((*sender, self.by_sender.get(sender)?))
    }

    /// The numbers of a sender's unused credits, oldest first.
    pub(super) fn unused(&self, sender: SenderId) -> impl Iterator<Item = u64> {
        self.by_sender.get(&sender).into_iter().flat_map(|account| &account.unused).copied()
    }

    /// Of these, those that it was not told of.
    pub(super) fn untold(&self, sender: SenderId) -> impl Iterator<Item = u64> {
        let account = self.by_sender.get(&sender);
        let told = account.map_or(0, |a| a.unused.len().saturating_sub(a.untold as usize));
        self.unused(sender).skip(told)
    }

    /// A sender that was not told of all its credits.
    pub(super) fn first_untold(&self) -> Option<SenderId> {
        self.untold.first().copied()
    }

    /// All senders.
    pub(super) fn senders(&self) -> Vec<SenderId> {
        self.by_sender.keys().copied().collect()
    }

    /// A sender has one more unused credit, and was not told.
    pub(super) fn add(&mut self, sender: SenderId, number: u64) {
        self.change(sender, |account| {
            account.unused.push_back(number);
            account.untold += 1;
        });
    }

    /// A sender has an unused credit less.
    pub(super) fn remove(&mut self, sender: SenderId, number: u64) {
        self.change(sender, |account| {
            account.unused.retain(|unused| *unused != number);
            account.untold = account.untold.min(super::count(account.unused.len()));
        });
    }

    /// Changes an account, and all that follows from it.
    pub(super) fn change(&mut self, sender: SenderId, change: impl FnOnce(&mut Account)) {
        let account = self.by_sender.entry(sender).or_default();
        let (place, wanted) = (account.place(sender), account.wanted);
        change(account);
        let (new_place, new_wanted) = (account.place(sender), account.wanted);
        let (has_untold, is_empty) = (account.untold > 0, account.is_empty());
        if place != new_place {
            place.map(|place| self.waiting.remove(&place));
            new_place.map(|place| self.waiting.insert(place));
        }
        self.wanted = self.wanted - wanted + new_wanted;
        match has_untold {
            true => self.untold.insert(sender),
            false => self.untold.remove(&sender),
        };
        if is_empty {
            self.by_sender.remove(&sender);
        }
    }
}
