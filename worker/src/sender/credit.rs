//! How a sender gets credits, which it [spends](super::placement).
//!
//! While jobs wait, as many workers are asked for credits as there are jobs, each for the same share, and
//! each the better of two random ones. Who gets a credit tells, with the job, what its share is now.

use std::borrow::Cow;
use std::time::Duration;

use svcmap_proto::jobs::{Claim, Demand, OfferedSlot, Priority};
use svcmap_proto::load::better_of_two;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::Sender;
use super::placement::Placed;
use crate::handover;
use crate::outbox::{JobId, Lane, Next};

/// While nobody can be asked there is nothing to lose by waiting: what happens elsewhere is heard anyway.
const PATIENCE_WITHOUT: Duration = Duration::from_millis(250);

/// Peers of its own service to which a worker offers slots: few connections, and nearly as good as all
/// (a twentieth of the longest waits more at sixteen workers).
const OFFER_PEERS_MAX: usize = 8;

/// Peers that a worker looks at before it offers a slot to the busiest of them.
const OFFER_LOOKS: usize = 6;

/// A peer's load means something to who offers it a slot for so many services.
const OFFER_FRESH: u32 = 3;

impl Sender {
    /// Asks for credits while jobs wait in a lane, and says so when none does.
    pub(super) fn ask(&mut self, now: Timestamp, lane: &Lane, instances: &[InstanceKey]) {
        let waiting = self.patient(lane);
        if waiting == 0 {
            let estimates = self.services.estimates(&lane.service);
            if estimates.is_tight() || estimates.is_long() {
                for number in self.asks.links(lane) {
                    self.ask_for(now, lane, number, 0);
                }
            }
            let credited = self.links.credited(&lane.service).map(|(number, _)| number);
            for number in credited.collect::<Vec<_>>() {
                self.return_unwanted(now, &lane.service, number);
            }
            return;
        }
        self.ask_for_more_urgent(now, lane, waiting);
        let guesses = self.services.guesses(lane);
        let most = if guesses { 1 } else { waiting.min(instances.len()) };
        // As long as something is under way, its outcome tells when more can go.
        let asks_now = !guesses || self.situation(now).native_under_way(&lane.service) == 0;
        while asks_now && self.asks.len(lane) < most {
            let Some(key) = self.next_to_ask(now, lane, instances, f64::INFINITY) else { break };
            if !self.ask_one(now, lane, &key, waiting) {
                break;
            }
        }
        self.wait(now, lane);
    }

    /// A job of a higher priority waits than those that credits were asked for: they are asked for it.
    fn ask_for_more_urgent(&mut self, now: Timestamp, lane: &Lane, waiting: usize) {
        let Some(Next { priority, .. }) = self.next(lane) else { return };
        if priority == Priority::Low {
            return;
        }
        for number in self.asks.links(lane) {
            if self.links.get(number).is_some_and(|s| s.link.is_asked_below(priority)) {
                self.ask_for_share(now, lane, number, waiting);
            }
        }
    }

    /// Where jobs are long, a handler stands still for the whole time in which a credit that was asked for
    /// is not used: it goes back as soon as no job waits.
    pub(super) fn return_unwanted(&mut self, now: Timestamp, service: &Name, number: u64) {
        let is_wanted =
            !self.services.estimates(service).is_long() || self.outbox.has_waiting(service);
        if let Some(state) = self.links.get_mut(number).filter(|_| !is_wanted) {
            state.link.return_promises(now);
        }
    }

    /// How many jobs of a lane wait for credits: not those that are not to be held.
    fn patient(&self, lane: &Lane) -> usize {
        let Some(lane) = self.outbox.find(lane) else { return 0 };
        match self.outbox.next(lane) {
            Some(next) if next.is_urgent() => self.outbox.patient(lane),
            _ => self.outbox.depth(lane),
        }
    }

    /// The job that has waited longest in a lane.
    fn next(&self, lane: &Lane) -> Option<Next> {
        self.outbox.next(self.outbox.find(lane)?)
    }

    /// No credit has come for a while: asks one more worker, if one seems to have nothing to do, or
    /// else one of those that were asked, again: what it knows of that may have got lost, or been
    /// reckoned against a credit that has lapsed here and not yet there.
    pub(super) fn ask_another(&mut self, now: Timestamp, lane: &Lane) {
        let waiting = self.patient(lane);
        let instances = self.instances(lane);
        if waiting == 0 {
            return;
        }
        let most = if self.services.guesses(lane) { 1 } else { waiting + 1 };
        let may_ask = self.asks.len(lane) < most.min(instances.len());
        let next = may_ask.then(|| self.next_to_ask(now, lane, &instances, 0.5)).flatten();
        if let Some(key) = next {
            self.ask_one(now, lane, &key, waiting);
        } else if let Some(number) = self.random.choice(self.asks.links(lane)) {
            self.ask_for_share(now, lane, number, waiting);
        }
        self.wait(now, lane);
        // A promise that was not worth it may be by now.
        self.outbox.touch(&lane.service);
    }

    /// Asks again if nothing comes of what was asked for.
    fn wait(&mut self, now: Timestamp, lane: &Lane) {
        let patience = self.services.estimates(&lane.service).patience();
        let is_asking = self.services.guesses(lane) || self.asks.len(lane) > 0;
        let patience = if is_asking { patience } else { patience.max(PATIENCE_WITHOUT) };
        self.asks.wait(now, lane, patience);
    }

    /// The better of two random workers that were not asked for this lane, of those that have less
    /// than so many jobs for each that can run at once.
    fn next_to_ask(
        &mut self,
        now: Timestamp,
        lane: &Lane,
        instances: &[InstanceKey],
        jobs: f64,
    ) -> Option<InstanceKey> {
        let estimates = self.services.estimates(&lane.service);
        let bytes = self.next(lane).map_or(0, |next| next.payload_bytes);
        let mut random = self.random.fork();
        let index = better_of_two(instances.len(), &mut random, |index| {
            let key = &instances[index];
            let (number, candidate) = self.situation(now).known.promiser(key, bytes)?;
            let link = number.and_then(|number| Some((number, self.links.get(number)?)));
            // Whoever has promised enough is not asked for more before that is used.
            if link.is_some_and(|(number, state)| {
                self.asks.contains(lane, number) || state.link.has_credit_for(now, bytes)
            }) {
                return None;
            }
            let load = candidate.load.unwrap_or_default();
            let has_little = load.expected_wait(estimates.jobs(&candidate)) < jobs;
            has_little.then(|| estimates.expected_finish(&candidate))
        })?;
        instances.get(index).cloned()
    }

    fn ask_one(&mut self, now: Timestamp, lane: &Lane, key: &InstanceKey, waiting: usize) -> bool {
        let Some(number) = self.link(now, key) else { return false };
        self.ask_for_share(now, lane, number, waiting);
        true
    }

    fn ask_for_share(&mut self, now: Timestamp, lane: &Lane, number: u64, waiting: usize) {
        let share =
            if self.services.guesses(lane) { 1 } else { self.asks.share(lane, number, waiting) };
        self.ask_for(now, lane, number, share);
    }

    fn ask_for(&mut self, now: Timestamp, lane: &Lane, number: u64, share: u32) {
        let share = self.asks.set(lane, number, share);
        let oldest = self.next(lane);
        let since = oldest.map_or(now, |oldest| oldest.submitted_at);
        let bytes = oldest.map_or(0, |oldest| oldest.payload_bytes);
        let demand = Demand {
            share,
            waited_us: svcmap_proto::time::wire_us(now.since(since)),
            payload_bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
            pinned: self.asks.is_pinned(&lane.service, number),
            priority: oldest.map(|oldest| oldest.priority).unwrap_or_default(),
        };
        if let Some(state) = self.links.get_mut(number) {
            state.link.ask(now, demand);
        }
    }

    /// Jobs of the lane go to workers: with the last one each is told how many credits it is asked for,
    /// those included that are there.
    pub(super) fn tell_shares(&mut self, now: Timestamp, lane: &Lane) {
        let mut given = std::mem::take(&mut self.given);
        let priority = self.next(lane).map(|next| next.priority).unwrap_or_default();
        // Of each worker's only the last one counts.
        while let Some((number, bytes)) = given.pop() {
            given.retain(|(other, _)| *other != number);
            let share = self.share_after(now, lane, number, bytes);
            if let Some(state) = self.links.get_mut(number) {
                state.link.set_share(share, priority);
            }
        }
        self.given = given;
    }

    /// How many credits are wanted of that worker, which has just been given a job of so many bytes,
    /// those included that are there.
    fn share_after(&mut self, now: Timestamp, lane: &Lane, number: u64, bytes: usize) -> u32 {
        let next_bytes = self.next(lane).map_or(0, |next| next.payload_bytes);
        let Some(state) = self.links.get(number) else { return 0 };
        if !self.identity.takes_credits || state.rep.is_some() {
            return 0;
        }
        // With a job only credits for one as large can be asked for.
        let fits = next_bytes <= bytes || state.link.is_usual(next_bytes);
        let waiting = if fits && !self.services.guesses(lane) { self.patient(lane) } else { 0 };
        let share = self.asks.share(lane, number, waiting);
        if share == 0 && !self.asks.is_asked(number) {
            return 0;
        }
        let (all, enough) = state.link.credits(now, next_bytes);
        let more = share.saturating_sub(enough);
        match self.asks.set(lane, number, more) {
            0 => 0,
            // The worker takes off all that it knows of, be they enough or not.
            more => more.saturating_add(all),
        }
    }

    /// A slot was passed on, for that job, or for whichever waits longest.
    pub(super) fn take_slot(
        &mut self,
        now: Timestamp,
        service: &Name,
        job: Option<JobId>,
        slot: &OfferedSlot,
    ) {
        let lane = Lane::any(service);
        let key = InstanceKey { service: service.clone(), instance: slot.instance.clone() };
        let next = self.next(&lane).filter(|next| {
            job.is_none_or(|job| next.id == job)
                && next.payload_bytes
                    <= usize::try_from(slot.payload_bytes_max).unwrap_or(usize::MAX)
                && self.outbox.takes_offer(next.id, &slot.instance)
                && self.peers.is_member(&key, slot.incarnation)
        });
        if let Some(next) = next
            && let Some(candidate) = self.situation(now).known.candidate(&key, next.payload_bytes)
        {
            let lifetime = Duration::from_millis(u64::from(slot.lifetime_ms));
            let placed = Placed {
                key: Cow::Borrowed(&key),
                number: None,
                age: candidate.load_age(),
                claim: Claim::Offer(slot.offer),
                claimed_until: Some(now + lifetime),
            };
            if self.send(now, next.id, placed) {
                self.tell_shares(now, &lane);
                return;
            }
        }
        let number = self.links.number(&key, slot.incarnation);
        if let Some(state) = number.and_then(|number| self.links.get_mut(number)) {
            state.link.return_offer(slot.offer);
        }
    }

    /// Offers a slot of this process's own worker to a busy peer: to the one with most to do of a few
    /// random ones; `blind`: to any, if nothing is known of them. A message takes one `way`. Returns
    /// whether a peer was found.
    pub fn offer(
        &mut self,
        now: Timestamp,
        own: &InstanceKey,
        slot: OfferedSlot,
        (blind, way): (bool, Duration),
    ) -> bool {
        self.follow(now, &own.service);
        let (peers, sender) = (&self.peers, self.identity.sender);
        let state = self.services.get_mut(&own.service);
        let peers = state.offer_peers.instances(peers, &own.service, sender, OFFER_PEERS_MAX);
        let first = self.random.usize(..peers.len().max(1));
        let from_there = peers.iter().skip(first).chain(peers.iter().take(first));
        let mut some: Vec<_> = from_there.filter(|key| *key != own).take(OFFER_LOOKS).collect();
        some.retain(|key| self.situation(now).known.candidate(key, 0).is_some());
        let (mut known, mut busiest) = (0, None);
        for key in &some {
            let Some(waiting) = self.waiting_at(now, key) else { continue };
            known += 1;
            let mean = self
                .situation(now)
                .known
                .candidate(key, 0)
                .and_then(|c| self.services.estimates(&own.service).service(&c));
            let is_busy = waiting >= handover::gate(mean, way) && handover::is_worth_it(mean, way);
            if is_busy && busiest.is_none_or(|(most, _)| waiting > most) {
                busiest = Some((waiting, *key));
            }
        }
        let any = (blind && known == 0).then(|| some.first()).flatten().copied();
        let Some(key) = busiest.map(|(_, key)| key).or(any) else { return false };
        let Some(number) = self.link(now, key) else { return false };
        self.links.get_mut(number).is_some_and(|state| state.link.offer(slot))
    }

    /// Jobs that wait at a native peer, if what is known of that still means something.
    fn waiting_at(&self, now: Timestamp, key: &InstanceKey) -> Option<u32> {
        let member = self.peers.member(key)?;
        // A process that only serves learns the pace from nobody else. Of a peer that has finished
        // nothing every word counts that is younger than a beat and a way.
        let said = member.load.mean_service().unwrap_or(2 * self.timing.beat);
        let fresh = OFFER_FRESH * self.services.estimates(&key.service).patience().max(said);
        let counts = now.since(member.load_at) <= fresh && member.load.share.is_none();
        counts.then_some(member.load.queued)
    }
}
