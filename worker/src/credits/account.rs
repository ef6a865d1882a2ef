//! What a worker knows of each sender that has jobs or unused credits here or waits for some, and in
//! which order they get theirs.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use svcmap_proto::jobs::Priority;
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

/// One sender's.
#[derive(Clone, Debug, Default)]
pub(super) struct Account {
    /// Numbers of its unused credits that it was told of; lower ones are older.
    told: BTreeSet<u64>,
    /// And of those that it was not told of, which are newer than all of these.
    untold: BTreeSet<u64>,
    /// Credits that it wants and has not got.
    pub(super) wanted: u32,
    /// Since when.
    pub(super) since: Timestamp,
    /// When it last got one that it wanted.
    pub(super) granted_at: Timestamp,
    /// The size of the payload that it wants the next one for.
    pub(super) bytes: u32,
    /// Whether that job can go nowhere else.
    pub(super) pinned: bool,
    /// Its priority.
    pub(super) priority: Priority,
    /// Jobs of it that are here.
    pub(super) jobs: u32,
}

impl Account {
    /// Its place among those who wait: highest priority, then fewest jobs and unused credits here, then
    /// longest waiting. Who has just got one waits anew, however long its next job has waited: else those with many jobs would
    /// come before everybody who came later.
    fn place(&self, sender: SenderId) -> Option<Place> {
        let here = self.jobs + self.unused();
        let since = self.since.max(self.granted_at);
        (self.wanted > 0).then_some((Reverse(self.priority), here, since, sender))
    }

    /// How many unused credits it has.
    pub(super) fn unused(&self) -> u32 {
        super::count(self.told.len() + self.untold.len())
    }

    fn is_empty(&self) -> bool {
        self.jobs == 0 && self.wanted == 0 && self.unused() == 0
    }
}

type Place = (Reverse<Priority>, u32, Timestamp, SenderId);

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
        let (.., sender) = self.waiting.first()?;
        Some((*sender, self.by_sender.get(sender)?))
    }

    /// How many jobs of a sender are here.
    #[cfg(test)]
    pub(super) fn jobs_of(&self, sender: SenderId) -> u32 {
        self.by_sender.get(&sender).map_or(0, |account| account.jobs)
    }

    /// How many unused credits a sender has.
    pub(super) fn unused_of(&self, sender: SenderId) -> u32 {
        self.by_sender.get(&sender).map_or(0, Account::unused)
    }

    /// How many it has and wants.
    pub(super) fn due(&self, sender: SenderId) -> u32 {
        self.by_sender.get(&sender).map_or(0, |account| account.unused() + account.wanted)
    }

    /// Their numbers, oldest first.
    pub(super) fn unused(&self, sender: SenderId) -> impl Iterator<Item = u64> {
        let account = self.by_sender.get(&sender).into_iter();
        account.flat_map(|account| account.told.iter().chain(&account.untold)).copied()
    }

    /// Of these, those that it was not told of.
    pub(super) fn untold(&self, sender: SenderId) -> impl Iterator<Item = u64> {
        self.by_sender.get(&sender).into_iter().flat_map(|account| &account.untold).copied()
    }

    /// The sender is told of so many of them, the oldest.
    pub(super) fn tell(&mut self, sender: SenderId, credits: u32) {
        self.change(sender, |account| {
            let told = (0..credits).map_while(|_| account.untold.pop_first());
            account.told.extend(told);
        });
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
            account.untold.insert(number);
        });
    }

    /// A sender has an unused credit less.
    pub(super) fn remove(&mut self, sender: SenderId, number: u64) {
        self.change(sender, |account| {
            let _ = account.told.remove(&number) || account.untold.remove(&number);
        });
    }

    /// Changes an account, and all that follows from it.
    pub(super) fn change(&mut self, sender: SenderId, change: impl FnOnce(&mut Account)) {
        let account = self.by_sender.entry(sender).or_default();
        let (place, wanted) = (account.place(sender), account.wanted);
        let had_untold = !account.untold.is_empty();
        change(account);
        let (new_place, new_wanted) = (account.place(sender), account.wanted);
        let (has_untold, is_empty) = (!account.untold.is_empty(), account.is_empty());
        if place != new_place {
            place.map(|place| self.waiting.remove(&place));
            new_place.map(|place| self.waiting.insert(place));
        }
        self.wanted = self.wanted - wanted + new_wanted;
        match (had_untold, has_untold) {
            (false, true) => self.untold.insert(sender),
            (true, false) => self.untold.remove(&sender),
            _ => false,
        };
        if is_empty {
            self.by_sender.remove(&sender);
        }
    }
}
