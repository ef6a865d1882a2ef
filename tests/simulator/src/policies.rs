//! Policies that do not ship, behind the same trait as those that do: they know what no process can
//! know, or need messages that svcmap does not have.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use svcmap_proto::load::better_of_two;
use svcmap_proto::time::Timestamp;
use svcmap_worker::Policy;
use svcmap_worker::pure::{Candidates, Choice};

use super::scenario::Scenario;

/// How workers are chosen in a scenario.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// As some policy of the library does.
    Shipped(Policy),
    /// The worker with the fewest jobs, as they truly are at this moment.
    Oracle,
    /// The better of two by the true number of jobs.
    FreshTwo,
    /// Basic load interpretation (Dahlin, IEEE TPDS 11(10)): each worker with a chance that fills
    /// all to the same level by the end of the interval.
    BasicInterpretation,
    /// Aggressive load interpretation (the same): any of those below the level that the jobs since
    /// the last publication have filled.
    AggressiveInterpretation,
    /// A pool of probes, and the coldest of them (Wydrowski et al., NSDI 2024).
    Prequal,
}

impl Rule {
    /// Those that do not ship.
    pub const OTHERS: [Rule; 4] =
        [Rule::BasicInterpretation, Rule::AggressiveInterpretation, Rule::Prequal, Rule::Oracle];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Rule::Shipped(policy) => policy.as_str(),
            Rule::Oracle => "oracle",
            Rule::FreshTwo => "p2c-fresh",
            Rule::BasicInterpretation => "basic-li",
            Rule::AggressiveInterpretation => "aggressive-li",
            Rule::Prequal => "prequal",
        }
    }

    /// What chooses, for one sender, in place of promises; `None`: these decide.
    pub fn choice(self, scenario: &Scenario, truth: &Arc<Truth>) -> Option<Box<dyn Choice>> {
        let truth = Arc::clone(truth);
        let per_second = scenario.rate();
        Some(match self {
            Rule::Shipped(policy) => return policy.choice(),
            Rule::Oracle => Box::new(Oracle { truth, two: false }),
            Rule::FreshTwo => Box::new(Oracle { truth, two: true }),
            Rule::BasicInterpretation => {
                let interval = Some(scenario.publish_interval);
                Box::new(Interpretation { per_second, interval })
            }
            Rule::AggressiveInterpretation => {
                Box::new(Interpretation { per_second, interval: None })
            }
            Rule::Prequal => Box::new(Prequal {
                truth,
                round_trip: 2 * scenario.way(),
                age_max: PROBE_AGE_MAX * scenario.service_time,
                on_the_way: VecDeque::new(),
                pool: VecDeque::new(),
            }),
        })
    }

    /// The rule of that name.
    pub fn by_name(name: &str) -> Option<Rule> {
        let shipped = name.parse().ok().map(Rule::Shipped);
        let other =
            || Rule::OTHERS.into_iter().chain([Rule::FreshTwo]).find(|r| r.as_str() == name);
        shipped.or_else(other)
    }
}

/// What nobody but the simulator knows.
#[derive(Debug)]
pub struct Truth {
    /// Jobs at each worker.
    jobs: Vec<AtomicU32>,
    /// Jobs that an oracle has sent there, and that are on their way.
    on_the_way: Vec<AtomicU32>,
    /// Room at each.
    slots: Vec<u32>,
    /// Messages of policies that the nodes know nothing of.
    messages: AtomicU64,
}

impl Truth {
    /// Workers without jobs.
    pub fn new(scenario: &Scenario) -> Self {
        let zeros = || (0..scenario.workers).map(|_| AtomicU32::new(0)).collect();
        let (jobs, on_the_way) = (zeros(), zeros());
        let slots = (0..scenario.workers).map(|worker| scenario.slots(worker)).collect();
        Self { jobs, on_the_way, slots, messages: AtomicU64::new(0) }
    }

    /// A worker has so many jobs.
    pub fn set(&self, worker: usize, jobs: usize) {
        self.jobs[worker].store(jobs as u32, Ordering::Relaxed);
    }

    /// Jobs at a worker.
    pub fn jobs(&self, worker: usize) -> u32 {
        self.jobs[worker].load(Ordering::Relaxed)
    }

    /// A job has come to a worker.
    pub fn arrive(&self, worker: usize) {
        let sent = &self.on_the_way[worker];
        sent.store(sent.load(Ordering::Relaxed).saturating_sub(1), Ordering::Relaxed);
    }

    /// Jobs at a worker, and those that an oracle has sent there.
    fn expected(&self, worker: usize) -> u32 {
        self.jobs(worker) + self.on_the_way[worker].load(Ordering::Relaxed)
    }

    /// Whether a worker has no room.
    pub fn is_full(&self, worker: usize) -> bool {
        self.jobs(worker) >= self.slots[worker]
    }

    /// Whether no worker has room.
    pub fn all_full(&self) -> bool {
        (0..self.jobs.len()).all(|worker| self.is_full(worker))
    }

    /// Messages of policies that the nodes know nothing of.
    pub fn messages(&self) -> u64 {
        self.messages.load(Ordering::Relaxed)
    }
}

/// By the truth, with what is on its way. Candidates are all workers, in the order of their numbers.
struct Oracle {
    truth: Arc<Truth>,
    two: bool,
}

impl Choice for Oracle {
    fn choose(
        &mut self,
        _now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let truth = &self.truth;
        if self.two {
            let wait = |worker| (!truth.is_full(worker)).then(|| f64::from(truth.jobs(worker)));
            return better_of_two(candidates.len(), random, wait);
        }
        // Any of the least loaded: start anywhere and go round.
        let count = candidates.len();
        let first = random.usize(..count.max(1));
        let round = (0..count).map(|n| (first + n) % count);
        let room = round.filter(|worker| !truth.is_full(*worker));
        let chosen = room.min_by_key(|worker| truth.expected(*worker))?;
        truth.on_the_way[chosen].fetch_add(1, Ordering::Relaxed);
        Some(chosen)
    }
}

/// See [`Rule::BasicInterpretation`] and [`Rule::AggressiveInterpretation`].
struct Interpretation {
    /// Jobs of all senders together.
    per_second: f64,
    /// What the level is computed for; `None`: the age of what is known.
    interval: Option<Duration>,
}

impl Choice for Interpretation {
    fn choose(
        &mut self,
        _now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        let (mut known, mut ages) = (Vec::new(), 0.0);
        for index in 0..candidates.len() {
            let Some(candidate) = candidates.candidate(index) else { continue };
            ages += candidate.age.as_secs_f64();
            if let Some(load) = candidate.load.filter(|load| load.is_eligible()) {
                known.push((index, load.jobs()));
            }
        }
        let age = ages / candidates.len().max(1) as f64;
        let time = self.interval.map_or(age, |interval| interval.as_secs_f64());
        let level = level(&known, self.per_second * time);
        // How far each lies below the level, or for the aggressive one: whether it does.
        let weight = |jobs: f64| match self.interval {
            Some(_) => (level - jobs).max(0.0),
            None => f64::from(jobs <= level),
        };
        let mut left = random.f64() * known.iter().map(|(_, jobs)| weight(*jobs)).sum::<f64>();
        for (index, jobs) in &known {
            left -= weight(*jobs);
            if left < 0.0 {
                return Some(*index);
            }
        }
        known.last().map(|(index, _)| *index)
    }

    fn learns_from_answers(&self) -> bool {
        false
    }
}

/// The level to which so many more jobs fill the workers: sum of (level - jobs)+ = more.
fn level(known: &[(usize, f64)], more: f64) -> f64 {
    let mut queues: Vec<f64> = known.iter().map(|(_, jobs)| *jobs).collect();
    queues.sort_by(f64::total_cmp);
    let mut sum = 0.0;
    for (index, jobs) in queues.iter().enumerate() {
        sum += jobs;
        let level = (sum + more) / (index + 1) as f64;
        if queues.get(index + 1).is_none_or(|next| level <= *next) {
            return level;
        }
    }
    0.0
}

/// Probes in the pool, as in the paper.
const POOL: usize = 16;

/// Probes for each job: one that is used, and two against ageing.
const PROBES: usize = 3;

/// A probe older than this is dropped, in service times: the paper's second at its services of some
/// 80 ms.
const PROBE_AGE_MAX: u32 = 12;

/// Of the jobs in flight in the pool, what lies above this quantile is hot.
const HOT: f64 = 0.84;

struct Prequal {
    truth: Arc<Truth>,
    round_trip: Duration,
    age_max: Duration,
    /// When the answer comes, about whom, and how many jobs it had when it was asked.
    on_the_way: VecDeque<(Timestamp, usize, u32)>,
    pool: VecDeque<(Timestamp, usize, u32)>,
}

impl Choice for Prequal {
    fn choose(
        &mut self,
        now: Timestamp,
        candidates: &mut dyn Candidates,
        random: &mut fastrand::Rng,
    ) -> Option<usize> {
        if candidates.is_empty() {
            return None;
        }
        let arrived = self.on_the_way.partition_point(|(at, ..)| *at <= now);
        self.pool.extend(self.on_the_way.drain(..arrived));
        while self.pool.len() > POOL {
            self.pool.pop_front();
        }
        let age_max = self.age_max;
        self.pool.retain(|(at, ..)| now.since(*at) <= age_max);
        let chosen = self.coldest().unwrap_or_else(|| random.usize(..candidates.len()));
        for _ in 0..PROBES {
            let worker = random.usize(..candidates.len());
            self.on_the_way.push_back((now + self.round_trip, worker, self.truth.jobs(worker)));
        }
        self.truth.messages.fetch_add(2 * PROBES as u64, Ordering::Relaxed);
        Some(chosen)
    }

    fn learns_from_answers(&self) -> bool {
        false
    }
}

impl Prequal {
    /// Takes the best probe out of the pool, and the oldest with it. Among equal workers the latency
    /// that a worker reports grows with its jobs, so the cold one with the least latency is the one
    /// with the fewest jobs.
    fn coldest(&mut self) -> Option<usize> {
        let mut jobs: Vec<u32> = self.pool.iter().map(|(_, _, jobs)| *jobs).collect();
        jobs.sort_unstable();
        let hot = *jobs.get((jobs.len() as f64 * HOT) as usize)?;
        let best =
            self.pool.iter().enumerate().min_by_key(|(_, (_, _, jobs))| (*jobs > hot, *jobs));
        let (index, _) = best?;
        let (_, worker, _) = self.pool.remove(index)?;
        self.pool.pop_front();
        Some(worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_where_the_jobs_fit() {
        let known = |jobs: &[f64]| jobs.iter().copied().enumerate().collect::<Vec<_>>();
        assert_eq!(level(&known(&[2.0, 0.0, 5.0]), 4.0), 3.0);
        assert_eq!(level(&known(&[2.0, 0.0, 5.0]), 1.0), 1.0);
        assert_eq!(level(&known(&[2.0, 0.0, 5.0]), 14.0), 7.0);
    }

    #[test]
    fn names_lead_to_rules_and_back() {
        let shipped = Policy::ALL.map(Rule::Shipped);
        for rule in shipped.into_iter().chain(Rule::OTHERS) {
            assert_eq!(Rule::by_name(rule.as_str()), Some(rule));
        }
        assert_eq!(Rule::by_name("best"), None);
    }
}
