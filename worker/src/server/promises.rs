//! What a worker promises, and what it does with slots that its peers offer.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{Demand, FromWorker, OfferId, OfferedSlot, Verdict};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::{Server, ServerOutput};
use crate::handover;
use crate::intake::Task;
use crate::senders::{Connection, Ended, wanted_until};

impl Server {
    /// Jobs wait for credits at a sender.
    pub(super) fn handle_ask(&mut self, now: Timestamp, sender: SenderId, demand: Demand) {
        if self.health.is_aside() && !self.is_draining() {
            // It does not know that yet, or would ask somebody else.
            self.tell_load(now, sender);
        }
        self.credits.handle_demand(now, sender, demand);
        // Who finds no handler free here may have one elsewhere.
        if self.intake.len() < self.concurrency() {
            self.promise(now);
        }
        self.serve_offers(now);
    }

    /// A peer offers a slot.
    pub(super) fn handle_offer(&mut self, now: Timestamp, from: Connection, slot: OfferedSlot) {
        let offer = slot.offer;
        let is_own = slot.instance == self.key.instance;
        if is_own
            || self.is_draining()
            || !self.health.is_trusted()
            || !self.offers.add(now, from.clone(), slot, self.credits.way())
        {
            self.answer(from, FromWorker::Declined(offer));
        } else {
            self.serve_offers(now);
        }
    }

    /// A peer offers a slot of somebody who is not known, or not to be believed.
    pub fn decline(&mut self, now: Timestamp, from: Connection, offer: OfferId) {
        let message = match self.senders.sender(now, &from) {
            Some(_) => FromWorker::Declined(offer),
            None => FromWorker::HelloWanted,
        };
        self.answer(from, message);
    }

    /// A sender says HELLO before it can use any promise: others may have them.
    pub(super) fn void(&mut self, now: Timestamp, sender: SenderId) {
        self.credits.void(sender);
        self.promise(now);
    }

    /// Who does not give back what was called back stands still, or is no sender of ours. It may
    /// believe in its credits all the same: before anything else it is to say HELLO.
    pub(super) fn reclaim(&mut self, now: Timestamp) {
        while let Some(sender) = self.credits.poll_unreturned(now) {
            match self.senders.connection(sender).cloned() {
                Some(to) => {
                    self.handle_gone(now, &to);
                    self.answer(to, FromWorker::HelloWanted);
                }
                None => self.void(now, sender),
            }
        }
    }

    /// Grants what can be granted.
    pub(super) fn promise(&mut self, now: Timestamp) {
        self.credits.grant(now, self.intake.occupancy(now));
    }

    /// The same after jobs have ended: their senders may get credits that they did not ask for.
    pub(super) fn promise_next(&mut self, now: Timestamp) {
        self.promise(now);
        let here = self.intake.occupancy(now);
        let mut ended = std::mem::take(&mut self.ended);
        for sender in ended.drain(..) {
            if self.senders.takes_standing(sender) {
                self.credits.grant_standing(now, here, sender);
            }
        }
        self.ended = ended;
        if self.intake.len() < self.concurrency() {
            (self.offer_at, self.offered) = (now, 0);
        }
    }

    /// Passes on what peers offer: to the first job that would wait here for longer than its way
    /// there, else to whoever waits for a credit.
    pub(super) fn serve_offers(&mut self, now: Timestamp) {
        while let Some(slot) = self.offers.first(now) {
            let (here, concurrency) = (self.intake.occupancy(now), self.intake.concurrency());
            let from = handover::first_place(here, concurrency, self.credits.way());
            if let Some(task) = self.intake.take_movable(from, slot.payload_bytes_max) {
                self.hand_over(now, task, slot);
            } else if let Some(sender) = self.credits.take_waiter(slot.payload_bytes_max) {
                let Some(to) = self.senders.connection(sender) else { continue };
                self.answer(to.clone(), FromWorker::Offered(slot));
            } else {
                return;
            }
            self.offers.remove_first();
        }
    }

    fn hand_over(&mut self, now: Timestamp, task: Task, slot: OfferedSlot) {
        let Task { origin, arrived_at, terms, .. } = task;
        let (here, ran, payload) = (now.since(arrived_at), Duration::ZERO, Bytes::new());
        let verdict = Verdict::HandedOver(slot);
        let wanted_until = wanted_until(now, terms.deadline);
        self.leave(origin);
        self.end(now, origin, Ended { verdict, here, ran, payload, wanted_until });
    }

    /// The next message about promises.
    pub(super) fn poll_promise(&mut self, now: Timestamp) -> Option<ServerOutput> {
        while let Some(sender) = self.credits.poll_untold() {
            let to = self.senders.connection(sender).cloned();
            let grant = self.credits.take_untold(now, sender);
            let (Some(to), Some(grant)) = (to, grant) else {
                self.void(now, sender);
                continue;
            };
            let received_jobs = self.senders.received_jobs(sender);
            let message = FromWorker::Grant { grant, received_jobs, load: self.load(now) };
            return Some(ServerOutput::Answer { to, message });
        }
        while let Some(sender) = self.credits.poll_recall() {
            if let Some(to) = self.senders.connection(sender) {
                let (to, message) = (to.clone(), FromWorker::Recall);
                return Some(ServerOutput::Answer { to, message });
            }
        }
        if let Some((to, offer)) = self.offers.poll_unused(now) {
            return Some(ServerOutput::Answer { to, message: FromWorker::Declined(offer) });
        }
        self.poll_offer(now)
    }

    /// A slot for a busy peer, while a handler here has nothing to do.
    fn poll_offer(&mut self, now: Timestamp) -> Option<ServerOutput> {
        if self.offer_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let here = self.intake.occupancy(now);
        self.offer_at = now + handover::retry(here.mean_service, self.offered);
        let (offer, lifetime) = self.credits.offer(now, here)?;
        let slot = OfferedSlot {
            instance: self.key.instance.clone(),
            incarnation: self.incarnation,
            offer,
            lifetime_ms: svcmap_proto::time::wire_ms(lifetime),
            payload_bytes_max: self.credits.slot_bytes(),
        };
        let blind = self.offered == 0;
        self.offered += 1;
        Some(ServerOutput::Offer { slot, blind, way: self.credits.way() })
    }

    /// No peer has use for what was offered.
    pub fn handle_no_taker(&mut self, offer: OfferId) {
        self.credits.cancel_offer(offer);
    }

    /// When a slot is offered next; `None` while none is free, or a peer could do nothing with it.
    pub(super) fn offer_timeout(&self) -> Option<Timestamp> {
        let is_free = self.intake.len() < self.concurrency() && !self.credits.has_offered();
        let is_wanted =
            self.has_movable != Some(false) && !self.is_draining() && self.health.is_trusted();
        let is_worth_it = handover::is_worth_it(self.intake.last_mean(), self.credits.way());
        // What has so little to do elsewhere is done before it has come here, while jobs are as they
        // were.
        let pause = if is_worth_it { None } else { self.intake.forgets_at() };
        (is_free && is_wanted).then(|| pause.map_or(self.offer_at, |at| at.max(self.offer_at)))
    }

    fn concurrency(&self) -> usize {
        self.intake.concurrency() as usize
    }
}
