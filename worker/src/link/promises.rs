//! Credits that a worker has granted to this sender and that no job has claimed yet, and how many
//! more were asked for.

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::jobs::{Claim, Demand, Grant, OfferId, OfferedSlot, Priority, ToWorker};
use svcmap_proto::time::Timestamp;

use super::{Link, LinkOutput, Phase};
use crate::config::SLOTS_MAX;

/// Most credits that are returned one by one. More are made void together, by HELLO: a worker that grants
/// what nobody asked for does not make its sender say as much.
const RETURNS_MAX: u32 = 64;

/// Credits of one grant.
#[derive(Clone, Copy, Debug)]
struct Credits {
    /// How many are left, at least one.
    count: u32,
    expires_at: Timestamp,
    /// Largest payload that each stands for.
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Promises {
    /// Oldest first, as at the worker.
    credits: VecDeque<Credits>,
    demand: Demand,
    /// Largest payload that the newest credits stand for.
    usual_bytes: usize,
    /// The number of the job that told that no more are wanted, until the worker's word counts it:
    /// what it had granted before is on its way.
    told_in: Option<u64>,
}

impl Promises {
    /// Whether credits were asked for that have not come.
    pub(super) fn are_asked_for(&self) -> bool {
        self.demand.share > 0
    }

    fn forget_lapsed(&mut self, now: Timestamp) {
        self.credits.retain(|credits| credits.expires_at > now);
    }

    /// How many credits there are, those that have lapsed and were not forgotten included.
    fn count(&self) -> u32 {
        self.credits.iter().map(|credits| credits.count).sum()
    }

    /// Takes one credit of that grant, if there is such a grant.
    fn take(&mut self, index: usize) -> bool {
        let Some(credits) = self.credits.get_mut(index) else { return false };
        credits.count -= 1;
        if credits.count == 0 {
            self.credits.remove(index);
        }
        true
    }
}

impl Link {
    /// Whether there is any credit, be it enough for the next job or not.
    pub fn has_credits(&self) -> bool {
        !self.promises.credits.is_empty()
    }

    /// Whether a job of so many bytes can claim a credit.
    pub fn has_credit_for(&self, now: Timestamp, bytes: usize) -> bool {
        self.promises.credits.iter().any(|credit| credit.expires_at > now && credit.bytes >= bytes)
    }

    /// How many credits have not lapsed, and how many of these a job of so many bytes can claim.
    pub fn credits(&self, now: Timestamp, bytes: usize) -> (u32, u32) {
        let stand = self.promises.credits.iter().filter(|credit| credit.expires_at > now);
        stand.fold((0, 0), |(all, enough), credit| {
            (all + credit.count, enough + if credit.bytes >= bytes { credit.count } else { 0 })
        })
    }

    /// Whether a credit for a job of so many bytes is one like those that were granted last.
    pub fn is_usual(&self, bytes: usize) -> bool {
        bytes <= self.promises.usual_bytes
    }

    /// Claims the oldest credit that is enough for so many bytes, as the worker does.
    pub(super) fn claim_credit(&mut self, now: Timestamp, bytes: usize) -> bool {
        self.promises.forget_lapsed(now);
        let index = self.promises.credits.iter().position(|credit| credit.bytes >= bytes);
        index.is_some_and(|index| self.promises.take(index))
    }

    /// Jobs wait for credits of that worker, or none does any more. It is told as soon as there is a
    /// connection.
    pub fn ask(&mut self, now: Timestamp, demand: Demand) {
        if self.is_closed() || (demand.share == 0 && !self.promises.are_asked_for()) {
            return;
        }
        self.expect_answer(now);
        self.promises.demand = demand;
        // While HELLO is on its way, this follows it.
        if matches!(self.phase, Phase::Ready | Phase::Greeting(_)) {
            self.say(ToWorker::Ask(demand));
        }
    }

    /// Whether it was asked for credits, and none of that priority or a higher one.
    pub fn is_asked_below(&self, priority: Priority) -> bool {
        self.promises.are_asked_for() && self.promises.demand.priority < priority
    }

    /// The job of that number tells the worker how many credits are wanted.
    pub(super) fn told_share(&mut self, share: u32, priority: Priority, number: u64) {
        let before = std::mem::replace(&mut self.promises.demand.share, share);
        self.promises.demand.priority = priority;
        if share > 0 {
            self.promises.told_in = None;
        } else if before > 0 {
            self.promises.told_in = Some(number);
        }
    }

    /// The worker has got the jobs up to that number.
    pub(super) fn handle_received(&mut self, received_jobs: u64) {
        self.promises.told_in.take_if(|number| *number <= received_jobs);
    }

    /// Whether credits may be on their way that are not wanted any more.
    pub fn may_be_promised(&self) -> bool {
        self.promises.told_in.is_some()
    }

    /// Nothing is asked for any more.
    pub(super) fn forget_demand(&mut self) {
        self.promises.demand.share = 0;
    }

    /// HELLO was sent: it makes void what was promised, and what was asked for is asked again.
    pub(super) fn renew_promises(&mut self) {
        self.void_promises();
        let demand = self.promises.demand;
        if demand.share > 0 {
            self.say(ToWorker::Ask(demand));
        }
    }

    /// Nothing can be claimed there any more.
    pub(super) fn void_promises(&mut self) {
        self.promises.credits.clear();
        self.promises.told_in = None;
    }

    pub(super) fn handle_grant(&mut self, now: Timestamp, grant: Grant) {
        // Before WELCOME it is one that HELLO has made void.
        if self.phase != Phase::Ready {
            return;
        }
        let expires_at = now + Duration::from_millis(u64::from(grant.lifetime_ms));
        let bytes = usize::try_from(grant.payload_bytes_max).unwrap_or(usize::MAX);
        self.promises.usual_bytes = bytes;
        // No worker has more to promise.
        self.promises.forget_lapsed(now);
        let credits = grant.credits.min(SLOTS_MAX - self.promises.count());
        if credits > 0 {
            self.promises.credits.push_back(Credits { count: credits, expires_at, bytes });
        }
        let demand = &mut self.promises.demand;
        demand.share = demand.share.saturating_sub(credits);
        self.outputs.push_back(LinkOutput::Granted { credits });
    }

    pub(super) fn handle_recall(&mut self, now: Timestamp) {
        // One that has lapsed at the worker as well would be taken for the next one.
        self.promises.forget_lapsed(now);
        if self.phase == Phase::Ready && self.promises.take(0) {
            self.say(ToWorker::Return(Claim::Credit));
        }
    }

    /// No job here has use for any promise of the worker.
    pub fn return_promises(&mut self, now: Timestamp) {
        self.ask(now, Demand::default());
        self.promises.forget_lapsed(now);
        match self.promises.count() {
            unused @ 0..=RETURNS_MAX => (0..unused).for_each(|_| self.handle_recall(now)),
            _ if self.phase == Phase::Ready => self.greet(now),
            _ => {}
        }
    }

    /// No job here has use for what was passed on.
    pub fn return_offer(&mut self, offer: OfferId) {
        if self.phase == Phase::Ready {
            self.say(ToWorker::Return(Claim::Offer(offer)));
        }
    }

    /// Offers that slot to this worker. `false` if there is no connection now.
    pub fn offer(&mut self, slot: OfferedSlot) -> bool {
        let is_ready = self.phase == Phase::Ready;
        if is_ready {
            self.say(ToWorker::Offer(slot));
        }
        is_ready
    }

    /// What was read after this process had been suspended may have come that long ago.
    pub(super) fn age_promises(&mut self, gap: Duration) {
        let credits = &mut self.promises.credits;
        credits.iter_mut().for_each(|credit| credit.expires_at = credit.expires_at.before(gap));
    }
}

#[cfg(test)]
mod tests;
