//! Which worker a job goes to by what the sender knows of each, promises apart: so that policies can be
//! measured beside what senders do, and for workers that make no promises.

mod baselines;
mod policy;

use std::time::Duration;

use svcmap_proto::load::{Load, State, better_of_two};
use svcmap_proto::time::Timestamp;

pub use baselines::{Least, Random, RoundRobin, Threshold};
pub use policy::{Policy, PolicyError};

/// A worker as a policy sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Candidate {
    /// Its newest load; `None` if it is unknown or too old to mean anything. Unknown is not idle.
    pub load: Option<Load>,
    /// How long ago that was true.
    pub age: Duration,
    /// Jobs that this sender sent there and that this load does not count yet: as far as they take
    /// slots, or were accepted by a worker that tells no more of them.
    pub unreflected: u32,
    /// Jobs that this sender has there and that have no outcome yet, counted by that load or not.
    pub own: u32,
}

impl Candidate {
    /// How old what is known of its load is; `None` if nothing is.
    pub fn load_age(&self) -> Option<Duration> {
        self.load.map(|_| self.age)
    }

    /// Jobs there, as far as can be known. This sender's own jobs are there for certain: a load
    /// that took long to get here cannot argue them away.
    fn jobs(&self, load: &Load) -> f64 {
        (load.jobs() + f64::from(self.unreflected)).max(f64::from(self.own))
    }

    /// Whether it can be given one more job. A worker of the JSON dialect answers one at a time, unless
    /// it says otherwise.
    pub fn is_eligible(&self) -> bool {
        match &self.load {
            Some(load) if load.share.is_some() => self.own < load.open_max() && load.is_eligible(),
            Some(load) => load.state == State::Ready && self.jobs(load) < f64::from(load.slots),
            None => self.own == 0,
        }
    }

    /// Jobs there for each that can run at once: how long a new one waits, in service times. A
    /// worker of which nothing is known comes after every one that has room.
    pub fn expected_wait(&self) -> f64 {
        match &self.load {
            Some(load) => load.expected_wait(self.jobs(load)),
            None => f64::INFINITY,
        }
    }
}

/// The workers that a policy chooses from. What it does not ask for costs nothing.
pub trait Candidates {
    /// How many there are.
    fn len(&self) -> usize;

    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What is known of one; `None` if it cannot be used now.
    fn candidate(&mut self, index: usize) -> Option<Candidate>;
}

impl Candidates for Vec<Candidate> {
    fn len(&self) -> usize {
        self.len()
    }

    fn candidate(&mut self, index: usize) -> Option<Candidate> {
        self.get(index).copied()
    }
}

/// A way to choose.
pub trait Choice: Send {
    /// The index of the chosen worker; `None` if none will do: the job waits until something
    /// changes, or is refused once its hold is over.
    fn choose(
        &mut self,
        now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize>;

    /// Whether the load on answers is to enter the cache, beside what mappers publish.
    fn learns_from_answers(&self) -> bool {
        true
    }
}

/// What a policy goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Basis {
    /// What mappers publish.
    Published,
    /// That, and the jobs that this sender has sent and that it does not count.
    Own,
    /// Both, and the load on every answer.
    #[default]
    Answers,
}

impl Basis {
    /// How long a job waits there, in service times, as far as is known; `None` if that worker
    /// cannot be given one.
    fn expected_wait(self, candidate: &Candidate) -> Option<f64> {
        match (self, &candidate.load) {
            (Basis::Published, Some(load)) => {
                load.is_eligible().then(|| load.expected_wait(load.jobs()))
            }
            _ => candidate.is_eligible().then(|| candidate.expected_wait()),
        }
    }
}

/// The better of two random eligible candidates: see [`better_of_two`].
///
/// By `Basis::Answers` it never chooses a worker known to be full, draining or gone, and never
/// has more than one open job at a worker whose load is unknown.
#[derive(Clone, Copy, Debug, Default)]
pub struct PowerOfTwo {
    /// What it goes by.
    pub basis: Basis,
}

impl Choice for PowerOfTwo {
    fn choose(
        &mut self,
        _now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let basis = self.basis;
        better_of_two(candidates.len(), random, |index| {
            basis.expected_wait(&candidates.candidate(index)?)
        })
    }

    fn learns_from_answers(&self) -> bool {
        self.basis == Basis::Answers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::at;

    fn candidate(busy: u32, slots: u32) -> Candidate {
        let load = Load { queued: busy, slots, concurrency: 1, ..Load::default() };
        Candidate { load: Some(load), ..Candidate::default() }
    }

    fn chosen(candidates: &[Candidate]) -> Vec<usize> {
        let mut random = fastrand::Rng::with_seed(7);
        let mut counts = vec![0; candidates.len()];
        let mut candidates = candidates.to_vec();
        for _ in 0..3000 {
            if let Some(index) = PowerOfTwo::default().choose(at(0), &mut candidates, &mut random) {
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
        let unknown = Candidate::default();
        assert_eq!(chosen(&[unknown, candidate(3, 4)]), [0, 3000]);
        assert_eq!(chosen(&[unknown]), [3000]);
        assert_eq!(chosen(&[Candidate { own: 1, ..unknown }]), [0]);
    }

    #[test]
    fn a_worker_of_the_json_dialect_gets_one_job_at_a_time() {
        let share = svcmap_proto::load::Share::new(0.5);
        let load = Load { share, ..Load::default() };
        let json = Candidate { load: Some(load), ..Candidate::default() };
        assert_eq!(chosen(&[json, candidate(1, 4)]), [3000, 0]);
        assert_eq!(chosen(&[Candidate { own: 1, ..json }, candidate(3, 4)]), [0, 3000]);
        assert_eq!(chosen(&[Candidate { unreflected: 1, ..json }, candidate(1, 4)]), [0, 3000]);
        let share = share.map(|share| share.giving_results(true));
        let several = Candidate { load: Some(Load { share, slots: 3, ..load }), ..json };
        assert_eq!(chosen(&[Candidate { own: 2, ..several }]), [3000]);
        assert_eq!(chosen(&[Candidate { own: 3, ..several }]), [0]);
    }

    #[test]
    fn equals_share() {
        let counts = chosen(&[candidate(1, 4); 3]);
        assert!(counts.iter().all(|count| (850..1150).contains(count)), "{counts:?}");
    }
}
