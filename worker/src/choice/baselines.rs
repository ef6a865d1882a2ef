//! Policies to measure others by.

use svcmap_proto::load::{SHARE_FULL, better_of_two};
use svcmap_proto::time::Timestamp;

use super::{Basis, Candidate, Candidates, Choice};

/// Any candidate, whatever its load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Random;

impl Choice for Random {
    fn choose(
        &mut self,
        _now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        better_of_two(candidates.len(), random, |index| candidates.candidate(index).map(|_| 0.0))
    }

    fn learns_from_answers(&self) -> bool {
        false
    }
}

/// One after the other, whatever their load; the first at random, or all senders would begin with
/// the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundRobin {
    last: Option<usize>,
}

impl Choice for RoundRobin {
    fn choose(
        &mut self,
        _now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let count = candidates.len();
        let last = self.last.unwrap_or_else(|| random.usize(..count.max(1)));
        let mut next = (1..=count).map(|step| (last + step) % count);
        self.last = next.find(|index| candidates.candidate(*index).is_some());
        self.last
    }

    fn learns_from_answers(&self) -> bool {
        false
    }
}

/// The least loaded of all eligible candidates; of equals any.
#[derive(Clone, Copy, Debug, Default)]
pub struct Least {
    /// What it goes by.
    pub basis: Basis,
}

impl Choice for Least {
    fn choose(
        &mut self,
        _now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let (mut best, mut least, mut equals) = (None, f64::INFINITY, 0);
        for index in 0..candidates.len() {
            let candidate = candidates.candidate(index);
            let Some(wait) = candidate.and_then(|c| self.basis.expected_wait(&c)) else {
                continue;
            };
            if wait < least || best.is_none() {
                (best, least, equals) = (Some(index), wait, 1);
            } else if wait == least {
                // The n-th of equals takes over with chance 1/n, so each is as likely in the end.
                equals += 1;
                if random.u32(..equals) == 0 {
                    best = Some(index);
                }
            }
        }
        best
    }

    fn learns_from_answers(&self) -> bool {
        self.basis == Basis::Answers
    }
}

/// The rule of the system that svcmap succeeds: no job goes to a worker whose published load is
/// 0.9 or more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Threshold {
    /// The job is meant for one worker, which is drawn for each: if that is above the threshold, no
    /// other will do.
    pub named: bool,
}

impl Choice for Threshold {
    fn choose(
        &mut self,
        now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let below = |candidate: Candidate| {
            candidate.load.is_some_and(|load| load.ratio() < SHARE_FULL).then_some(0.0)
        };
        if self.named {
            let index = Random.choose(now, candidates, random)?;
            return candidates.candidate(index).and_then(below).map(|_| index);
        }
        better_of_two(candidates.len(), random, |index| candidates.candidate(index).and_then(below))
    }

    fn learns_from_answers(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use svcmap_proto::load::Load;

    use super::*;
    use crate::testing::at;

    /// Workers with so many jobs in ten slots; of these jobs none is this sender's.
    fn candidates(busy: &[u32]) -> Vec<Candidate> {
        let load = |queued| Load { queued, slots: 10, concurrency: 1, ..Load::default() };
        let candidate = |busy| Candidate { load: Some(load(busy)), ..Candidate::default() };
        busy.iter().map(|busy| candidate(*busy)).collect()
    }

    /// How often each is chosen in 3000 times, and nobody.
    fn counts(mut choice: impl Choice, candidates: &[Candidate]) -> Vec<u32> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; candidates.len() + 1];
        let mut candidates = candidates.to_vec();
        for _ in 0..3000 {
            let chosen = choice.choose(at(0), &mut candidates, &mut random);
            counts[chosen.unwrap_or(candidates.len())] += 1;
        }
        counts
    }

    fn about(counts: &[u32], expected: &[u32]) {
        let near = |(a, b): (&u32, &u32)| a.abs_diff(*b) <= 150;
        assert!(counts.iter().zip(expected).all(near), "{counts:?} for {expected:?}");
    }

    #[test]
    fn random_and_round_robin_ignore_load() {
        about(&counts(Random, &candidates(&[0, 10, 5])), &[1000, 1000, 1000, 0]);
        about(&counts(RoundRobin::default(), &candidates(&[0, 10, 5])), &[1000, 1000, 1000, 0]);
        assert_eq!(counts(Random, &[]), [3000]);
        assert_eq!(counts(RoundRobin::default(), &[]), [3000]);
        let mut random = fastrand::Rng::with_seed(1);
        let first = |_| RoundRobin::default().choose(at(0), &mut candidates(&[0; 4]), &mut random);
        let first: std::collections::BTreeSet<_> = (0..100).map(first).collect();
        assert_eq!(first.len(), 4, "each may be the first");
    }

    #[test]
    fn least_takes_the_least_and_any_of_equals() {
        let least = Least { basis: Basis::Published };
        about(&counts(least, &candidates(&[3, 1, 1, 2])), &[0, 1500, 1500, 0, 0]);
        assert_eq!(counts(least, &candidates(&[10, 10])), [0, 0, 3000]);
        let mut own = candidates(&[1, 2]);
        own[0].unreflected = 2;
        assert_eq!(counts(least, &own), [3000, 0, 0], "it does not look at its own");
        assert_eq!(counts(Least { basis: Basis::Own }, &own), [0, 3000, 0]);
    }

    #[test]
    fn the_threshold_is_a_load_of_nine_tenths() {
        let any = Threshold { named: false };
        about(&counts(any, &candidates(&[9, 8, 0])), &[0, 1500, 1500, 0]);
        assert_eq!(counts(any, &candidates(&[9, 10])), [0, 0, 3000]);
        about(&counts(Threshold { named: true }, &candidates(&[9, 8, 0])), &[0, 1000, 1000, 1000]);
    }
}
