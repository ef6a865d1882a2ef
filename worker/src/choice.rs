//! Which worker a job goes to, given what the sender knows of each.
//!
//! Eligibility is not a matter of taste and stands outside the policies: never a worker known to be
//! full, draining or gone, and never more than one open job at a worker whose load is unknown.

use svcmap_proto::load::{Load, State};

/// A worker as a policy sees it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Its newest load; `None` if it is unknown or too old to mean anything. Unknown is not idle.
    pub load: Option<Load>,
    /// Jobs that this sender sent there and that this load does not count yet.
    pub unreflected: u32,
    /// Jobs that this sender has there and that have no outcome yet, counted by that load or not.
    pub own: u32,
}

impl Candidate {
    /// Jobs there, as far as can be known. This sender's own jobs are there for certain: a load
    /// that took long to get here cannot argue them away.
    fn jobs(&self, load: &Load) -> u32 {
        load.busy().saturating_add(self.unreflected).max(self.own)
    }

    /// Whether it can be given one more job.
    pub fn is_eligible(&self) -> bool {
        match &self.load {
            Some(load) => load.state == State::Ready && self.jobs(load) < load.slots,
            None => self.own == 0,
        }
    }

    /// It is given one more job.
    pub fn add(&mut self) {
        self.unreflected += 1;
        self.own += 1;
    }

    /// Jobs there for each that can run at once: how long a new one waits, in service times. A
    /// worker of which nothing is known comes after every one that has room.
    pub fn expected_wait(&self) -> f64 {
        match &self.load {
            Some(load) => f64::from(self.jobs(load)) / f64::from(load.concurrency.max(1)),
            None => f64::INFINITY,
        }
    }
}

/// A way to choose.
pub trait Choice: Send {
    /// The index of the chosen candidate; `None` only if none is eligible.
    fn choose(&mut self, candidates: &[Candidate], random: &mut fastrand::Rng) -> Option<usize>;
}

/// The better of two random eligible candidates (Mitzenmacher, IEEE TPDS 12(10), 2001): nearly as
/// good as knowing the shortest queue, and no herd follows one stale number.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo;

impl Choice for PowerOfTwo {
    fn choose(&mut self, candidates: &[Candidate], random: &mut fastrand::Rng) -> Option<usize> {
        let eligible = candidates.iter().filter(|candidate| candidate.is_eligible()).count();
        if eligible == 0 {
            return None;
        }
        let nth = |n: usize| {
            let mut indices = (0..candidates.len()).filter(|&i| candidates[i].is_eligible());
            indices.nth(n)
        };
        let first = random.usize(..eligible);
        if eligible == 1 {
            return nth(first);
        }
        // Any of the others, each with the same chance.
        let second = (first + random.usize(1..eligible)) % eligible;
        let (first, second) = (nth(first)?, nth(second)?);
        let better = candidates[second].expected_wait() < candidates[first].expected_wait();
        Some(if better { second } else { first })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidate(busy: u32, slots: u32) -> Candidate {
        let load = Load { queued: busy, slots, concurrency: 1, ..Load::default() };
        Candidate { load: Some(load), unreflected: 0, own: 0 }
    }

    fn chosen(candidates: &[Candidate]) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; candidates.len()];
        for _ in 0..3000 {
            if let Some(index) = PowerOfTwo.choose(candidates, &mut random) {
                counts[index] += 1;
            }
        }
        counts
    }

    #[test]
    fn never_a_full_or_draining_one() {
        let mut draining = candidate(0, 4);
        draining.load.as_mut().unwrap().state = State::Draining;
        let mut full_by_own_jobs = candidate(1, 4);
        full_by_own_jobs.unreflected = 3;
        let mut full_whatever_the_load_says = candidate(0, 4);
        full_whatever_the_load_says.own = 4;
        let full = [candidate(4, 4), draining, full_by_own_jobs, full_whatever_the_load_says];
        assert_eq!(chosen(&[&full[..], &[candidate(3, 4)]].concat()), [0, 0, 0, 0, 3000]);
        assert_eq!(chosen(&full), [0; 4]);
        assert_eq!(chosen(&[candidate(4, 4)]), [0]);
        assert_eq!(chosen(&[]), [0; 0]);
    }

    #[test]
    fn the_better_of_two_wins() {
        // The best of three is in two of the three pairs, the worst wins none.
        let counts = chosen(&[candidate(1, 9), candidate(2, 9), candidate(3, 9)]);
        assert!((1900..2100).contains(&counts[0]), "{counts:?}");
        assert_eq!(counts[2], 0);
    }

    #[test]
    fn unknown_is_not_idle() {
        let unknown = Candidate { load: None, unreflected: 0, own: 0 };
        assert_eq!(chosen(&[unknown, candidate(3, 4)]), [0, 3000]);
        assert_eq!(chosen(&[unknown]), [3000]);
        assert_eq!(chosen(&[Candidate { own: 1, ..unknown }]), [0]);
    }

    #[test]
    fn equals_share() {
        let counts = chosen(&[candidate(1, 4); 3]);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
