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
use svcmap_proto::names::InstanceKey;

use super::{LOOKS, Placed, Situation, Unplaced};
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

impl ByGuess {
    /// Jobs of a lane are to be placed, one after the other, at these instances.
    pub(super) fn begin(
        &mut self,
        situation: &Situation<'_>,
        lane: &Lane,
        instances: &[InstanceKey],
    ) {
        let speaks_json = |key: &&InstanceKey| situation.known.speaks_json(key);
        self.json = match lane.instance {
            None => situation.services.json(&lane.service),
            Some(_) => instances.iter().filter(speaks_json).cloned().collect(),
        };
        self.guesses = situation.services.guesses(lane);
        self.under_way = if self.guesses { situation.native_under_way(&lane.service) } else { 0 };
    }

    /// Where one of them goes; `None`: nowhere now.
    pub(super) fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>> {
        if !self.json.is_empty()
            && let Some((key, age)) = situation.choose(&mut self.json_choice, &self.json, job.next)
        {
            let key = Cow::Owned(key.clone());
            return Some(Placed::unpromised(key, None, age));
        }
        if job.next.is_urgent() {
            return situation.first_with_room(job);
        }
        if !self.guesses {
            return None;
        }
        let limit = situation.services.get_mut(&job.lane.service).concurrency_limit.as_mut();
        let may_go = limit.is_none_or(|limit| limit.has_room(self.under_way));
        if may_go { situation.least_own(job) } else { None }
    }

    /// One goes to that worker.
    pub(super) fn count(&mut self, key: &InstanceKey) {
        self.under_way += u32::from(!self.json.contains(key));
    }
}

impl Situation<'_> {
    /// Where a job would be done first, of a few workers that seem to have room; of equals any.
    fn first_with_room<'a>(&mut self, job: &Unplaced<'a>) -> Option<Placed<'a>> {
        let estimates = self.services.estimates(&job.lane.service);
        let found = self.rotated(job.instances).filter_map(|key| {
            let candidate = self.known.candidate(key, job.next.payload_bytes)?;
            let jobs = estimates.jobs(&candidate);
            let has_room = may_have_room(&candidate)
                && candidate.load.is_none_or(|load| jobs < f64::from(load.slots));
            let finish = estimates.expected_finish(&candidate);
            has_room.then(|| (finish, self.random.u32(..), key, candidate.load_age()))
        });
        let sooner = |a: &(f64, u32, _, _), b: &(f64, u32, _, _)| {
            a.0.total_cmp(&b.0).then_with(|| a.1.cmp(&b.1))
        };
        let (.., key, age) = found.take(LOOKS).min_by(sooner)?;
        Some(Placed::unpromised(Cow::Borrowed(key), None, age))
    }

    /// The worker with which this sender has least under way, of a few that seem to have room; of equals
    /// any: whatever they said, others follow it as well. What is under way may be done by now, so even
    /// as many as there are slots leave room.
    fn least_own<'a>(&mut self, job: &Unplaced<'a>) -> Option<Placed<'a>> {
        let found = self.rotated(job.instances).filter_map(|key| {
            let (number, candidate) = self.known.numbered_candidate(key, job.next.payload_bytes)?;
            let is_promising = number.is_some_and(|number| self.is_promising(number));
            let has_room = may_have_room(&candidate) && !is_promising;
            let age = candidate.load_age();
            has_room.then(|| (candidate.own, self.random.u32(..), key, number, age))
        });
        let (.., key, number, age) =
            found.take(LOOKS).min_by_key(|(own, chance, ..)| (*own, *chance))?;
        Some(Placed::unpromised(Cow::Borrowed(key), number, age))
    }

    /// Whether slots of that worker are promised, maybe without this sender knowing it yet: they are
    /// among those that a guess would take.
    fn is_promising(&self, number: u64) -> bool {
        let link = self.known.links.get(number).map(|state| &state.link);
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
