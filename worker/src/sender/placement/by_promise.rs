//! Where a job would be done first, of the workers that have promised this sender a slot. Where nobody
//! has whose promise is worth it, it goes [by a guess](super::by_guess) or waits for one that is.

use std::borrow::Cow;

use svcmap_proto::jobs::Claim;
use svcmap_proto::names::InstanceKey;

use super::by_guess::ByGuess;
use super::{LOOKS, Placed, Placement, Situation, Unplaced};
use crate::outbox::Lane;

/// A worker where a job would be done so many times later than elsewhere does not get it at once.
const MUCH: f64 = 2.0;

/// See the module.
#[derive(Default)]
pub(in crate::sender) struct ByPromise {
    /// Whether any worker has promised a slot: where jobs are short it is looked for once for all.
    is_promised: bool,
    otherwise: ByGuess,
}

impl Placement for ByPromise {
    fn begin(&mut self, situation: &Situation<'_>, lane: &Lane, instances: &[InstanceKey]) {
        self.is_promised = situation.known.links.credited(&lane.service).next().is_some();
        self.otherwise.begin(situation, lane, instances);
    }

    fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>> {
        let promise = if self.is_promised { situation.best_promise(job) } else { None };
        let placed = match promise {
            Some((placed, finish)) if situation.is_worth_it(job, finish) => placed,
            _ => self.otherwise.place(situation, job)?,
        };
        self.otherwise.count(&placed.key);
        Some(placed)
    }

    fn takes_credits(&self) -> bool {
        true
    }
}

impl Situation<'_> {
    /// Where a job would be done first, of those that have promised a slot for it, and the time until
    /// then, in seconds: of a few, if there are many.
    fn best_promise(&mut self, job: &Unplaced<'_>) -> Option<(Placed<'static>, f64)> {
        let (lane, bytes) = (job.lane, job.next.payload_bytes);
        let may_take_it = |key: &InstanceKey| {
            lane.instance.as_ref().is_none_or(|instance| *instance == key.instance)
                && (!job.is_narrowed || job.instances.contains(key))
        };
        let credited = self.known.links.credited_from(&lane.service, self.random);
        let credited = credited.filter(|(_, state)| {
            let link = &state.link;
            link.has_credit_for(self.known.now, bytes)
                && link.is_usable()
                && may_take_it(link.key())
        });
        let numbers: Vec<_> = credited.map(|(number, _)| number).take(LOOKS).collect();
        let estimates = self.services.estimates(&lane.service);
        let found = numbers.into_iter().filter_map(|number| {
            let candidate = self.known.candidate_at(number, bytes)?;
            Some((number, candidate, estimates.expected_finish(&candidate)))
        });
        let (number, candidate, finish) = found.min_by(|(.., a), (.., b)| a.total_cmp(b))?;
        let key = Cow::Owned(self.known.links.get(number)?.link.key().clone());
        let (age, claim) = (candidate.load_age(), Claim::Credit);
        Some((Placed { key, number: Some(number), age, claim, claimed_until: None }, finish))
    }

    /// Whether a promise is to be used of a worker where the job would be done after so many seconds,
    /// rather than to wait for one of a worker where that would be much sooner. Whoever has waited for
    /// as long as it takes there waits no longer, nor does who is held for less than that.
    fn is_worth_it(&mut self, job: &Unplaced<'_>, finish: f64) -> bool {
        let estimates = self.services.estimates(&job.lane.service);
        let waited = self.known.now.since(job.next.submitted_at).as_secs_f64();
        let left = job.next.hold_left(self.known.now);
        if finish <= MUCH * estimates.usual_finish()
            || finish <= waited
            || left.is_some_and(|left| left.as_secs_f64() <= finish)
        {
            return true;
        }
        let finishes = self.rotated(job.instances).filter_map(|key| {
            let (_, candidate) = self.known.promiser(key, job.next.payload_bytes)?;
            Some(estimates.expected_finish(&candidate))
        });
        let best = finishes.take(LOOKS).min_by(f64::total_cmp).unwrap_or(f64::INFINITY);
        finish <= MUCH * (best + estimates.round_trip())
    }
}
