//! Whom a job goes to although nobody has promised it a slot: a worker of the JSON dialect, as those
//! make no promises; whoever seems to have room, if the job is not to be held; and while jobs take
//! less time than their way, as then asking costs more than the whole job.
//!
//! Where jobs are short, what workers say is old when a job arrives, and whoever follows it follows
//! it together with all others. What a sender has under way with each worker it knows for certain:
//! the job goes where that is least. That holds for slow workers as well, as they give back less.
//! How many go at all, [`ConcurrencyLimit`](super::concurrency_limit::ConcurrencyLimit) decides.

use std::borrow::Cow;
use std::sync::Arc;

use svcmap_proto::jobs::Claim;
use svcmap_proto::load::State;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use super::Sender;
use super::credit::Found;
use crate::choice::Candidate;
use crate::outbox::{Lane, Next};

/// What is the same for all jobs of a lane that are looked at together, or changes with them only.
pub(super) struct Round {
    service: Name,
    /// Those that speak the JSON dialect.
    json: Arc<[InstanceKey]>,
    /// Whether any worker has promised a slot.
    pub(super) is_promised: bool,
    /// Whether jobs go without asking first.
    guesses: bool,
    /// How many are with workers, but for those of the JSON dialect.
    under_way: u32,
}

impl Round {
    /// A job goes to that worker.
    pub(super) fn handle_sent(&mut self, key: &InstanceKey) {
        self.under_way += u32::from(!self.json.contains(key));
    }
}

impl Sender {
    /// The jobs of a lane are looked at, which can go to these instances.
    pub(super) fn round(&self, lane: &Lane, instances: &[InstanceKey]) -> Round {
        let json = match lane.instance {
            None => self.json(&lane.service),
            Some(_) => instances.iter().filter(|key| self.speaks_json(key)).cloned().collect(),
        };
        let service = lane.service.clone();
        let is_promised = self.links.credited(&service).next().is_some();
        let guesses = self.guesses(lane);
        let under_way = if guesses { self.native_under_way(&service) } else { 0 };
        Round { service, json, is_promised, guesses, under_way }
    }

    /// See the module.
    pub(super) fn without_promise<'a>(
        &mut self,
        now: Timestamp,
        next: &Next,
        instances: &'a [InstanceKey],
        round: &Round,
    ) -> Option<Found<'a>> {
        if !round.json.is_empty()
            && let Some((key, age)) = self.choose(now, &round.json, next.id)
        {
            let (key, claim, finish, number) = (Cow::Owned(key.clone()), Claim::Nothing, 0.0, None);
            return Some(Found { key, age, claim, finish, number });
        }
        if next.is_urgent {
            return self.first_with_room(now, &round.service, instances);
        }
        if !round.guesses {
            return None;
        }
        let limit = self.services.get_mut(&round.service);
        let limit = limit.and_then(|service| service.concurrency_limit.as_mut());
        let may_go = limit.is_none_or(|limit| limit.has_room(round.under_way));
        if may_go { self.guess(now, instances) } else { None }
    }

    /// The instances of a service that its jobs go to and that speak the JSON dialect.
    fn json(&self, service: &Name) -> Arc<[InstanceKey]> {
        self.services.get(service).map(|service| service.subset.json()).unwrap_or_default()
    }

    fn speaks_json(&self, key: &InstanceKey) -> bool {
        self.peers.member(key).is_some_and(|member| member.load.share.is_some())
    }

    /// Whether jobs of a lane go without asking first. Those that can go to one worker only have
    /// nobody else to turn to, so they ask.
    pub(super) fn guesses(&self, lane: &Lane) -> bool {
        lane.instance.is_none() && self.estimates(&lane.service).is_short()
    }

    /// How many jobs of a service are with workers, but for those of the JSON dialect.
    pub(super) fn native_under_way(&self, service: &Name) -> u32 {
        let json = self.json(service);
        let busy = json.iter().filter_map(|key| Some((key, self.peers.member(key)?.life)));
        let busy = busy.filter_map(|(key, life)| self.links.get(self.links.number(key, life)?));
        let with_them: u32 = busy.map(|state| state.link.open()).sum();
        self.outbox.under_way(service).saturating_sub(with_them)
    }

    /// Where a job would be done first, of a few workers that seem to have room.
    fn first_with_room<'a>(
        &mut self,
        now: Timestamp,
        service: &Name,
        instances: &'a [InstanceKey],
    ) -> Option<Found<'a>> {
        let estimates = self.estimates(service);
        let found = self.sample(instances).filter_map(|key| {
            let (candidate, finish) = self.look(now, key)?;
            let has_room = may_have_room(&candidate)
                && candidate
                    .load
                    .is_none_or(|load| estimates.jobs(&candidate) <= f64::from(load.slots));
            has_room.then(|| found(key, &candidate, finish, None))
        });
        found.min_by(|a, b| a.finish.total_cmp(&b.finish))
    }

    /// The worker of a few with which this sender has least under way; of several the first, which is a
    /// random one: whatever they said, others follow it as well.
    fn guess<'a>(&mut self, now: Timestamp, instances: &'a [InstanceKey]) -> Option<Found<'a>> {
        let found = self.sample(instances).filter_map(|key| {
            let member = self.peers.member(key)?;
            let number = self.links.number(key, member.life);
            let (expiry, host) = (self.timing.expiry, self.host);
            let candidate = self.links.candidate(now, number, member, expiry, host)?;
            let is_promising = number.is_some_and(|number| self.is_promising(number));
            let has_room = may_have_room(&candidate) && !is_promising;
            has_room.then(|| (candidate.own, found(key, &candidate, 0.0, number)))
        });
        found.min_by_key(|(own, _)| *own).map(|(_, found)| found)
    }

    /// Whether slots of that worker are promised, maybe without this sender knowing it yet: they are
    /// among those that a guess would take.
    fn is_promising(&self, number: u64) -> bool {
        let link = self.links.get(number).map(|state| &state.link);
        self.asks.is_asked(number)
            || link.is_some_and(|link| link.has_credits() || link.may_be_promised())
    }
}

/// Whether a worker has a slot for one more, as far as it has said and this sender has sent.
fn may_have_room(candidate: &Candidate) -> bool {
    match &candidate.load {
        Some(load) => {
            load.state == State::Ready
                && load.share.is_none()
                && candidate.unreflected < load.free()
        }
        None => candidate.own == 0,
    }
}

fn found<'a>(
    key: &'a InstanceKey,
    candidate: &Candidate,
    finish: f64,
    number: Option<u64>,
) -> Found<'a> {
    let (key, age) = (Cow::Borrowed(key), candidate.load.map(|_| candidate.age));
    Found { key, age, claim: Claim::Nothing, finish, number }
}
