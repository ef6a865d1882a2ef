//! Slots that a worker promises before a job comes: credits to senders, and reservations for what it
//! offers to its peers.
//!
//! `running + queued + promised <= slots`, always. A credit is given
//!
//! - to a sender that has asked for it, as long as the queue here is short: what waits, waits at its
//!   sender, where it can still go to whoever is free first. Where jobs are long, or nobody knows how long
//!   they are, there is no queue here at all;
//! - to a sender whose job has just ended, unasked, while there is plenty of room: the next one then
//!   needs no question.
//!
//! Credits that *stand*, as nobody asked for them or they were not used for a while, are called back when
//! others need the slot. Who does not answer that in time is to say HELLO again, which makes them void
//! at both ends.
//!
//! No sender has more than half of the slots, or of their bytes, in unused credits, and who asks for
//! many is to use them soon: so one that asks for everything, and then stands still, holds up nobody for
//! long.
//!
//! Whoever waits with a job of the highest priority comes first, and of several who has the fewest jobs
//! and unused credits here. A credit lapses by this worker's
//! clock, later than by that of its sender, who therefore never claims one in vain unless its
//! process stood still in between.

mod account;
mod unused;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use svcmap_proto::jobs::{Claim, Demand, Grant, OfferId};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::{Timestamp, earliest, wire_ms};

use crate::config::IntakeConfig;
use crate::handover;
use crate::slots::{Capacity, Occupancy, Promised};
use account::{Account, Accounts};
use unused::{Credit, Unused};

/// A credit's lifetime in mean service times, so that few lapse between two jobs of one sender.
const LIFETIME_SERVICES: u32 = 30;

/// Shortest lifetime of a credit: far beyond what a message and a sleepy process take.
const LIFETIME_MIN: Duration = Duration::from_secs(1);

/// Longest lifetime of a credit: for so long a sender that died unnoticed can lock a slot.
const LIFETIME_MAX: Duration = Duration::from_secs(60);

/// Of so many slots a sender may have one in unused credits for as long as it pleases: who has or wants
/// more is to use them within [`LIFETIME_MIN`].
const PATIENT_SHARE: u32 = 8;

/// So many are no more than one job and the next, however few slots there are.
const PATIENT_MIN: u32 = 2;

/// Time in which a credit that is called back is to be given back, on top of what a promise is kept
/// longer than its owner knows: far beyond what a message and a sleepy process take.
const RECALL_LIMIT: Duration = Duration::from_secs(1);

/// Least time by which a promise is kept longer than its owner knows of.
const MARGIN: Duration = Duration::from_millis(100);

/// The way, until the first job that was waited for tells.
const WAY_FIRST: Duration = Duration::from_micros(200);

/// A credit is fresh, its job to be expected at any moment, for so many ways.
const FRESH_WAYS: u32 = 5;

/// Weight of the newest sample of the way: an eighth, as in RFC 6298.
const WAY_WEIGHT: u32 = 8;

/// A longer sample of the way counts for so many times what is known at most: somebody stood still.
const WAY_GROWTH_MAX: u32 = 8;

/// Longest sample of the way that counts in any case.
const WAY_SAMPLE_MAX: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Credits {
    slots: u32,
    /// Jobs and promises that there may be for now.
    slots_max: u32,
    concurrency: u32,
    bytes_max: usize,
    payload_bytes_max: u32,
    /// What an ordinary credit stands for: so much fits into each slot at once.
    slot_bytes: u32,
    accounts: Accounts,
    unused: Unused,
    /// Slots that are offered to peers, and until when they are kept.
    reservations: BTreeMap<OfferId, Timestamp>,
    /// The number of the next credit.
    next: u64,
    /// Names offers so that nobody can guess one.
    random: fastrand::Rng,
    recalls: VecDeque<SenderId>,
    way: Duration,
    /// For how long after a grant its job is to be expected, as it was at the last one.
    expected_within: Duration,
    draining: bool,
}

impl Credits {
    /// Nothing is promised yet.
    pub fn new(config: &IntakeConfig) -> Self {
        let (slots, limit) = (config.slots(), config.payload_bytes_max);
        let per_slot = config.jobs_bytes_max / slots.max(1) as usize;
        let as_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
        Self {
            slots,
            slots_max: slots,
            concurrency: config.concurrency,
            bytes_max: config.jobs_bytes_max,
            payload_bytes_max: as_u32(limit),
            slot_bytes: as_u32(limit.min(per_slot)),
            accounts: Accounts::default(),
            unused: Unused::default(),
            reservations: BTreeMap::new(),
            next: 0,
            random: fastrand::Rng::with_seed(0),
            recalls: VecDeque::new(),
            way: WAY_FIRST,
            expected_within: unused::STANDS,
            draining: false,
        }
    }

    /// Offers get their names from this random number on; until then anybody can guess them.
    pub fn seed(&mut self, seed: u64) {
        self.random = fastrand::Rng::with_seed(seed);
    }

    /// How many jobs of a sender are here.
    #[cfg(test)]
    pub fn jobs_of(&self, sender: SenderId) -> u32 {
        self.accounts.jobs_of(sender)
    }

    /// What is promised.
    pub fn promised(&self) -> Promised {
        let slots = count(self.unused.len() + self.reservations.len());
        let offered_bytes = self.reservations.len() * self.slot_bytes as usize;
        Promised { slots, bytes: self.unused.bytes() + offered_bytes }
    }

    /// The time of one message, as jobs show that came at once on a credit.
    pub fn way(&self) -> Duration {
        self.way
    }

    /// A job of so many bytes, which waited so long at its sender, claims a slot. Returns whether
    /// one was promised: it is free now, for that job.
    pub fn claim(
        &mut self,
        now: Timestamp,
        sender: SenderId,
        claim: Claim,
        bytes: usize,
        waited: Duration,
    ) -> bool {
        match claim {
            Claim::Nothing => false,
            Claim::Credit => {
                let fits = |number: &u64| {
                    self.unused.get(*number).is_some_and(|credit| credit.bytes as usize >= bytes)
                };
                let Some(number) = self.accounts.unused(sender).find(fits) else { return false };
                let Some(credit) = self.remove(number) else { return false };
                let out = now.since(credit.granted_at);
                // A job that came to its sender later says nothing of the way, and one that found it
                // standing still not much.
                if waited >= out {
                    let sample = (out / 2).min(WAY_SAMPLE_MAX.max(WAY_GROWTH_MAX * self.way));
                    self.way = self.way - self.way / WAY_WEIGHT + sample / WAY_WEIGHT;
                }
                true
            }
            Claim::Offer(offer) => self.cancel_offer(offer),
        }
    }

    /// So many jobs of that sender were taken.
    pub fn handle_taken(&mut self, sender: SenderId, jobs: u32) {
        self.accounts.change(sender, |account| account.jobs += jobs);
    }

    /// A job of that sender is no longer here.
    pub fn handle_ended(&mut self, sender: SenderId) {
        self.accounts.change(sender, |account| account.jobs = account.jobs.saturating_sub(1));
    }

    /// A sender says how many credits it wants: in all, or beside those that it has not used yet.
    pub fn handle_demand(&mut self, now: Timestamp, sender: SenderId, demand: Demand) {
        let since = now.before(Duration::from_micros(demand.waited_us));
        let takes_none = self.draining || self.slots_max == 0;
        let most = if takes_none { 0 } else { self.most_wanted(sender, demand.payload_bytes) };
        self.accounts.change(sender, |account| {
            account.wanted = demand.share.min(most);
            account.since = since;
            account.bytes = demand.payload_bytes;
            account.pinned = demand.pinned;
            account.priority = demand.priority;
        });
    }

    /// A sender says, with a job, how many credits it wants for the next ones.
    pub fn handle_share(&mut self, now: Timestamp, sender: SenderId, demand: Demand) {
        let share = demand.share.saturating_sub(self.accounts.unused_of(sender));
        self.handle_demand(now, sender, Demand { share, ..demand });
    }

    /// How many more credits a sender can want: with those that it has not used, half of the slots and of
    /// the bytes; but one if none of these is enough for its job.
    fn most_wanted(&self, sender: SenderId, bytes: u32) -> u32 {
        let each = bytes.clamp(self.slot_bytes, self.payload_bytes_max).max(1) as usize;
        let of_bytes = count(self.bytes_max.div_ceil(2 * each));
        let half = self.slots.div_ceil(2).min(of_bytes);
        let most = half.saturating_sub(self.accounts.unused_of(sender));
        let is_enough = |number| self.unused.get(number).is_some_and(|c| c.bytes >= bytes);
        let has_enough = || self.accounts.unused(sender).any(is_enough);
        if most == 0 && !has_enough() { 1 } else { most }
    }

    /// A promise is not needed.
    pub fn handle_return(&mut self, sender: SenderId, claim: Claim) {
        match claim {
            Claim::Nothing => {}
            Claim::Credit => {
                let oldest = self.accounts.unused(sender).next();
                oldest.and_then(|number| self.remove(number));
            }
            Claim::Offer(offer) => {
                self.cancel_offer(offer);
            }
        }
    }

    /// What was promised to that sender is void, and it wants nothing.
    pub fn void(&mut self, sender: SenderId) {
        let numbers: Vec<_> = self.accounts.unused(sender).collect();
        for number in numbers {
            self.remove(number);
        }
        self.accounts.change(sender, |account| account.wanted = 0);
    }

    /// From now on nothing is promised, and what was is void.
    pub fn drain(&mut self) {
        self.draining = true;
        self.void_all();
    }

    /// All that was promised is void, and nobody wants anything. Returns who has jobs here or had to
    /// do with promises.
    pub fn void_all(&mut self) -> Vec<SenderId> {
        let senders = self.accounts.senders();
        senders.iter().for_each(|sender| self.void(*sender));
        self.reservations.clear();
        senders
    }

    /// For now there may be so many jobs and promises at most; `None`: as many as there are slots.
    pub fn set_slots_max(&mut self, slots_max: Option<u32>) {
        self.slots_max = slots_max.unwrap_or(self.slots);
    }

    /// Promises slots to those who wait for them, highest priority first, then fewest jobs and unused
    /// credits here, then longest waiting: as long as the queue, once they have come, stays short, unless a job can go
    /// nowhere else. If all slots are promised, standing credits are called back.
    pub fn grant(&mut self, now: Timestamp, here: Occupancy) {
        self.unused.age(now);
        self.expected_within = self.expected_within(here);
        let mut fresh = self.unused.fresh(now, self.expected_within);
        while let Some((sender, account)) = self.accounts.first() {
            let pinned = account.pinned;
            let bytes = account.bytes.clamp(self.slot_bytes, self.payload_bytes_max);
            if !self.has_room(here, self.slots, bytes) {
                self.recall(now);
                return;
            }
            if !pinned && here.jobs + fresh >= self.depth(here) {
                return;
            }
            fresh += 1;
            let (number, credit) = self.issue(now, here, sender, bytes);
            self.unused.add_asked(number, credit);
            self.accounts.change(sender, |account| {
                account.wanted -= 1;
                account.granted_at = now;
            });
        }
    }

    /// A job of that sender has ended, and it got no credit: a standing one, if there is room beside
    /// what may run at once and nobody waits.
    pub fn grant_standing(&mut self, now: Timestamp, here: Occupancy, sender: SenderId) {
        let slots = self.slots.saturating_sub(self.concurrency);
        let is_wanted = self.accounts.wanted() > 0 || self.accounts.unused(sender).next().is_some();
        if !self.draining && !is_wanted && self.has_room(here, slots, self.slot_bytes) {
            let (number, credit) = self.issue(now, here, sender, self.slot_bytes);
            self.unused.add_standing(number, credit);
        }
    }

    /// What that sender has been granted and was not told yet, once.
    pub fn take_untold(&mut self, now: Timestamp, sender: SenderId) -> Option<Grant> {
        let untold = self.accounts.untold(sender).filter_map(|number| self.unused.get(number));
        let mut untold = untold.peekable();
        let first = *untold.peek()?;
        // Those of another size go into a message of their own, and those that last longer or shorter.
        let last = first.expires_at..=first.expires_at + MARGIN;
        let alike = |c: &&Credit| c.bytes == first.bytes && last.contains(&c.expires_at);
        let credits = count(untold.take_while(alike).count());
        let lifetime_ms = wire_ms(first.expires_at.since(now + self.margin()));
        let grant = Grant { credits, lifetime_ms, payload_bytes_max: first.bytes };
        self.accounts.tell(sender, credits);
        Some(grant)
    }

    /// The next sender that has been granted something that it was not told yet.
    pub fn poll_untold(&mut self) -> Option<SenderId> {
        self.accounts.first_untold()
    }

    /// The next sender that is to give back a credit.
    pub fn poll_recall(&mut self) -> Option<SenderId> {
        self.recalls.pop_front()
    }

    /// The next sender that has not given back in time what was called back: it is to say HELLO again,
    /// as it may still believe in its credits.
    pub fn poll_unreturned(&mut self, now: Timestamp) -> Option<SenderId> {
        self.unused.poll_unreturned(now)
    }

    /// Reserves a slot to be offered to a peer, if a handler here has nothing to do and nobody
    /// waits for it. One at a time.
    pub fn offer(&mut self, now: Timestamp, here: Occupancy) -> Option<(OfferId, Duration)> {
        let fresh = self.unused.fresh(now, self.expected_within(here));
        let is_idle = here.jobs + fresh < self.concurrency;
        let is_free = self.accounts.wanted() == 0 && self.reservations.is_empty();
        let has_room = self.has_room(here, self.slots, self.slot_bytes);
        if self.draining || !is_idle || !is_free || !has_room {
            return None;
        }
        let offer = OfferId(self.random.u64(..));
        let lifetime = handover::keep(here, self.way) + handover::CLAIM;
        self.reservations.insert(offer, now + lifetime + self.margin());
        Some((offer, lifetime))
    }

    /// Takes who gets the next credit off the list, for a slot elsewhere that takes so many bytes.
    pub fn take_waiter(&mut self, bytes: u32) -> Option<SenderId> {
        let takes = |account: &Account| account.bytes <= bytes && !account.pinned;
        let (sender, _) = self.accounts.first().filter(|(_, account)| takes(account))?;
        self.accounts.change(sender, |account| account.wanted -= 1);
        Some(sender)
    }

    /// Whether a slot is reserved for what was offered.
    pub fn has_offered(&self) -> bool {
        !self.reservations.is_empty()
    }

    /// Largest payload that an offered slot takes.
    pub fn slot_bytes(&self) -> u32 {
        self.slot_bytes
    }

    /// Nobody takes that offer, or somebody has. Returns whether it stood.
    pub fn cancel_offer(&mut self, offer: OfferId) -> bool {
        self.reservations.remove(&offer).is_some()
    }

    /// This process was suspended for so long: nobody could claim anything.
    pub fn handle_suspension(&mut self, gap: Duration) {
        self.unused.extend(gap);
        self.reservations.values_mut().for_each(|until| *until = *until + gap);
    }

    /// Promises that nobody claimed in time are void.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(number) = self.unused.lapsed(now) {
            self.remove(number);
        }
        self.reservations.retain(|_, until| *until > now);
    }

    /// When [`Credits::handle_timeout`] and then [`Credits::grant`] have something to do again, if
    /// nothing else happens.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let reserved = self.reservations.values().min().copied();
        let is_wanted = self.accounts.wanted() > 0;
        let change = is_wanted.then(|| self.unused.next_change(self.expected_within)).flatten();
        let unused = earliest(self.unused.next_expiry(), self.unused.next_unreturned());
        earliest(earliest(unused, reserved), change)
    }

    /// How many jobs, with those that are to be expected, are enough here: what runs at once, what
    /// runs while a message goes there and back, and two against chance. Beside long jobs a message takes
    /// no time: what runs at once is enough.
    fn depth(&self, here: Occupancy) -> u32 {
        let Some(mean) =
            here.mean_service.filter(|_| !handover::is_long(here.mean_service, self.way))
        else {
            return self.concurrency;
        };
        let on_the_way = 2.0 * self.way.as_secs_f64() * f64::from(self.concurrency)
            / mean.as_secs_f64().max(1e-6);
        // What is beyond the slots, if only by rounding, is cut anyway.
        let on_the_way = on_the_way.ceil().min(f64::from(self.slots)) as u32;
        self.slots.min(self.concurrency.saturating_add(on_the_way).saturating_add(2))
    }

    /// For how long after a grant its job is to be expected at any moment. Where jobs are long, one that
    /// comes late costs little, and one that comes on top of it waits for long.
    fn expected_within(&self, here: Occupancy) -> Duration {
        if handover::is_long(here.mean_service, self.way) {
            unused::STANDS
        } else {
            FRESH_WAYS * self.way
        }
    }

    fn has_room(&self, here: Occupancy, slots: u32, bytes: u32) -> bool {
        let capacity = Capacity { slots: slots.min(self.slots_max), bytes: self.bytes_max };
        capacity.has_room(here, self.promised(), bytes as usize)
    }

    /// The next credit, and its number.
    fn issue(
        &mut self,
        now: Timestamp,
        here: Occupancy,
        sender: SenderId,
        bytes: u32,
    ) -> (u64, Credit) {
        let number = self.next;
        self.next += 1;
        let mean = here.mean_service.unwrap_or_default();
        let lifetime_max = if self.is_patient(sender) { LIFETIME_MAX } else { LIFETIME_MIN };
        let lifetime = mean.saturating_mul(LIFETIME_SERVICES).clamp(LIFETIME_MIN, lifetime_max);
        let expires_at = now + lifetime + self.margin();
        self.accounts.add(sender, number);
        (number, Credit { sender, granted_at: now, expires_at, bytes, recalled: false })
    }

    /// Whether a sender has and wants so few credits that they may stand for long.
    fn is_patient(&self, sender: SenderId) -> bool {
        self.accounts.due(sender) <= (self.slots / PATIENT_SHARE).max(PATIENT_MIN)
    }

    /// Calls back as many standing credits as are wanted, each once.
    fn recall(&mut self, now: Timestamp) {
        let until = now + RECALL_LIMIT + self.margin();
        while let Some(sender) = self.unused.recall(until, self.accounts.wanted()) {
            self.recalls.push_back(sender);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Credit> {
        let credit = self.unused.remove(number)?;
        self.accounts.remove(credit.sender, number);
        Some(credit)
    }

    /// How much longer than its owner knows a promise is kept.
    fn margin(&self) -> Duration {
        MARGIN.max(8 * self.way)
    }
}

/// Promises fit in 32 bits: there are at most [`crate::config::SLOTS_MAX`].
fn count(promises: usize) -> u32 {
    u32::try_from(promises).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
