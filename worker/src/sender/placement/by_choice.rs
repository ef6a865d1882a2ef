//! Whom a [`Choice`] chooses, by what is known of each and whatever has been promised: that is how
//! other policies are measured, and how workers of the JSON dialect get their jobs.

use std::borrow::Cow;
use std::time::Duration;

use svcmap_proto::names::InstanceKey;

use super::{Known, Placed, Placement, Situation, Unplaced};
use crate::choice::{Candidate, Candidates, Choice};
use crate::outbox::Next;

/// See the module.
pub(in crate::sender) struct ByChoice(pub(in crate::sender) Box<dyn Choice>);

impl Placement for ByChoice {
    fn place<'a>(
        &mut self,
        situation: &mut Situation<'_>,
        job: &Unplaced<'a>,
    ) -> Option<Placed<'a>> {
        let (key, age) = situation.choose(&mut *self.0, job.instances, job.next)?;
        Some(Placed::unpromised(Cow::Borrowed(key), None, age))
    }

    fn learns_from_answers(&self) -> bool {
        self.0.learns_from_answers()
    }
}

impl Situation<'_> {
    /// Whom a job goes to, and how old what is known of that one's load is.
    pub(super) fn choose<'a>(
        &mut self,
        choice: &mut dyn Choice,
        instances: &'a [InstanceKey],
        next: &Next,
    ) -> Option<(&'a InstanceKey, Option<Duration>)> {
        let now = self.known.now;
        let mut takers = Takers { known: &mut self.known, instances, next };
        let index = choice.choose(now, &mut takers, self.random)?;
        let chosen = takers.candidate(index)?;
        Some((instances.get(index)?, chosen.load_age()))
    }
}

/// The instances, to a [`Choice`]: those that can make something of the payload.
struct Takers<'a, 'b> {
    known: &'a mut Known<'b>,
    instances: &'a [InstanceKey],
    next: &'a Next,
}

impl Candidates for Takers<'_, '_> {
    fn len(&self) -> usize {
        self.instances.len()
    }

    fn candidate(&mut self, index: usize) -> Option<Candidate> {
        self.known.taker(self.instances.get(index)?, self.next)
    }
}
