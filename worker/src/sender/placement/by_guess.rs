//! Whom a job goes to although nobody has promised it a slot: a worker of the JSON dialect, as those
//! make no promises; whoever seems to have room, if the job is not to be held; and while jobs take
//! less time than their way, as then asking costs more than the whole job.
//!
//! Where jobs are short, what workers say is old when a job arrives, and whoever follows it follows
//! it together with all others. What a sender has under way with each worker it knows for certain:
//! the job goes where that is least. That holds for slow workers as well, as they give back less.
//! How many go at all, [`ConcurrencyLimit`](crate::sender::concurrency_limit::ConcurrencyLimit) decides.

use std::borrow::Cow;
use std::sync::Arc;

use svcmap_proto::load::State;
use svcmap_proto::names::{InstanceKey, Name};

use super::{Placed, Placement, Situation, Unplaced};
use crate::choice::{Candidate, PowerOfTwo};
use crate::outbox::Lane;

/// See the module. What it keeps is the same for all jobs of a lane that are placed together, or
/// changes with them only.
#[derive(Default)]
pub(super) struct ByGuess {
    json_choice: PowerOfTwo,
    /// The instances that speak the JSON dialect.
    json: Arc<[InstanceKey]>,
    /// Whether jobs go without asking first.
    guesses: bool,
    /// How many are with workers, but for those of the JSON dialect.
    under_way: u32,
}

impl Placement for ByGuess {
    fn begin(&mut self, situation: &Situation<'_>, lane: &Lane, instances: &[InstanceKey]) {
        self.json = match lane.instance {
            None => situation.services.json(&lane.service),
            Some(_) => instances.iter().filter(|key| situation.speaks_json(key)).cloned().collect(),
        };
        self.guesses = situation.services.guesses(lane);
        self.under_way = if self.guesses { situation.native_under_way(&lane.service) } else { 0 };
    }

    fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>> {
        if !self.json.is_empty()
            && let Some((key, age)) =
                situation.choose(&mut self.json_choice, &self.json, job.next.id)
        {
            let key = Cow::Owned(key.clone());
            return Some(Placed::unpromised(key, None, age));
        }
        if job.next.is_urgent {
            return situation.first_with_room(&job.lane.service, job.instances);
        }
        if !self.guesses {
            return None;
        }
        let limit = situation.services.get_mut(&job.lane.service).concurrency_limit.as_mut();
        let may_go = limit.is_none_or(|limit| limit.has_room(self.under_way));
        if may_go { situation.least_own(job.instances) } else { None }
    }

    fn handle_sent(&mut self, key: &InstanceKey) {
        self.under_way += u32::from(!self.json.contains(key));
    }
}

impl Situation<'_> {
    /// Where a job would be done first, of a few workers that seem to have room.
    fn first_with_room<'a>(
        &mut self,
        service: &Name,
        instances: &'a [InstanceKey],
    ) -> Option<Placed<'a>> {
        let estimates = self.services.estimates(service);
        let found = self.sample(instances).filter_map(|key| {
            let candidate = self.candidate(key)?;
            let has_room = may_have_room(&candidate)
                && candidate
                    .load
                    .is_none_or(|load| estimates.jobs(&candidate) <= f64::from(load.slots));
            has_room.then(|| (key, candidate, estimates.expected_finish(&candidate)))
        });
        let (key, candidate, _) = found.min_by(|(.., a), (.., b)| a.total_cmp(b))?;
        Some(Placed::unpromised(Cow::Borrowed(key), None, candidate.load_age()))
    }

    /// The worker of a few with which this sender has least under way; of several the first, which is a
    /// random one: whatever they said, others follow it as well.
    fn least_own<'a>(&mut self, instances: &'a [InstanceKey]) -> Option<Placed<'a>> {
        let found = self.sample(instances).filter_map(|key| {
            let (number, candidate) = self.numbered_candidate(key)?;
            let is_promising = number.is_some_and(|number| self.is_promising(number));
            let has_room = may_have_room(&candidate) && !is_promising;
            has_room.then_some((key, number, candidate))
        });
        let (key, number, candidate) = found.min_by_key(|(.., candidate)| candidate.own)?;
        Some(Placed::unpromised(Cow::Borrowed(key), number, candidate.load_age()))
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
