//! What svcmap sets out to reach, and how near it comes: each goal at the base point or a step from it,
//! beside an oracle that knows all queues and to which nothing takes time.

use std::time::Duration;

use svcmap_worker::Policy;

use super::measured::{Pair, SERVICE_TIME, SHORT, base_of, far, loaded};
use super::scenario::{Failing, Faults, Span};
use super::{Findings, Rule, Scenario, World};

/// One goal, and what was measured for it.
#[derive(Clone, Debug)]
pub struct Goal {
    /// What it is about.
    pub name: &'static str,
    /// What was measured: of several points the worst.
    pub value: f64,
    /// What svcmap must reach.
    pub must: f64,
    /// What it aims for.
    pub aim: f64,
    /// More is better.
    pub more: bool,
}

impl Goal {
    fn at_most(name: &'static str, values: &[f64], must: f64, aim: f64) -> Self {
        Self { name, value: worst(values, f64::max), must, aim, more: false }
    }

    fn at_least(name: &'static str, values: &[f64], must: f64, aim: f64) -> Self {
        Self { name, value: worst(values, f64::min), must, aim, more: true }
    }

    /// Whether it reaches what it must.
    pub fn is_met(&self) -> bool {
        self.reaches(self.must)
    }

    /// Whether it reaches what it aims for.
    pub fn reaches_aim(&self) -> bool {
        self.reaches(self.aim)
    }

    fn reaches(&self, limit: f64) -> bool {
        if self.more { self.value >= limit } else { self.value <= limit }
    }
}

/// Nothing is good enough for what was not measured.
fn worst(values: &[f64], choose: fn(f64, f64) -> f64) -> f64 {
    let choose = |a: f64, b: f64| if a.is_nan() || b.is_nan() { f64::NAN } else { choose(a, b) };
    values.iter().copied().reduce(choose).unwrap_or(f64::NAN)
}

/// All goals that concern that many things, each measured with about so many jobs at each point.
pub fn all(jobs: u64) -> Vec<Goal> {
    let mut goals = base(jobs);
    goals.extend(tight(jobs));
    goals.extend(larger(jobs));
    goals.extend(short(jobs));
    goals.extend(faults(jobs));
    goals.extend(failing());
    goals.extend(priorities(jobs));
    goals
}

/// The base point at several loads.
pub fn base(jobs: u64) -> Vec<Goal> {
    base_at(&start(), jobs)
}

/// The same for jobs of normal priority where one in ten is of high priority, and what those gain.
pub fn priorities(jobs: u64) -> Vec<Goal> {
    let mixed = Scenario { high_every: Some(10), ..start() };
    let mut goals = base_at(&mixed, jobs);
    let [nine, over] = [0.9, 1.2].map(|utilisation| {
        let Findings { mean_wait, mean_wait_high, .. } =
            run(loaded(&mixed, utilisation).with_jobs(jobs));
        mean_wait_high / mean_wait
    });
    goals.extend([
        Goal::at_most("wait of high / normal priority, utilisation .9", &[nine], 0.7, 0.25),
        Goal::at_most("wait of high / normal priority, utilisation 1.2", &[over], 0.25, 0.1),
    ]);
    goals
}

fn base_at(start: &Scenario, jobs: u64) -> Vec<Goal> {
    let at = |utilisation| pair(loaded(start, utilisation), jobs);
    let [half, seven, nine, busy, over] = [0.5, 0.7, 0.9, 0.95, 1.2].map(at);
    let all = [&half, &seven, &nine, &busy, &over];
    let no_credits = start.clone().with_rule(Rule::Shipped(Policy::NoCredits));
    vec![
        Goal::at_most("FAR with credits", &all.map(Pair::far), 0.0, 0.0),
        Goal::at_most(
            "refused with a worker idle, utilisation to .9",
            &[&half, &seven, &nine].map(|pair| pair.svcmap.report.frr),
            1e-5,
            1e-6,
        ),
        Goal::at_least(
            "goodput / oracle, utilisation to .95",
            &[&half, &seven, &nine, &busy].map(Pair::goodput),
            0.9995,
            1.0,
        ),
        Goal::at_least("goodput / oracle, utilisation 1.2", &[over.goodput()], 0.995, 1.0),
        Goal::at_most(
            "p99 wait / oracle, utilisation .9 to 1.2",
            &[&nine, &busy, &over].map(Pair::wait),
            1.6,
            1.25,
        ),
        Goal::at_most(
            "p99 response / oracle, utilisation .5 and .7",
            &[&half, &seven].map(Pair::response),
            1.4,
            1.25,
        ),
        Goal::at_most(
            "messages for each job, utilisation to .95",
            &[&half, &seven, &nine, &busy].map(Pair::messages),
            3.2,
            2.6,
        ),
        Goal::at_most("messages for each job, utilisation 1.2", &[over.messages()], 8.0, 2.6),
        Goal::at_most(
            "FAR without credits, utilisation .9",
            &[far(&run(no_credits.with_jobs(jobs)))],
            1e-4,
            1e-5,
        ),
    ]
}

/// Two slots at each worker.
pub fn tight(jobs: u64) -> Vec<Goal> {
    let two = Scenario { queue: 1, ..start() };
    let at = |utilisation| pair(loaded(&two, utilisation), jobs);
    let [nine, over] = [0.9, 1.2].map(at);
    let far = [&nine, &over].map(Pair::far);
    vec![
        Goal::at_most("FAR with credits, two slots", &far, 0.0, 0.0),
        Goal::at_least("goodput / oracle, two slots, utilisation .9", &[nine.goodput()], 0.99, 1.0),
        Goal::at_least(
            "goodput / oracle, two slots, utilisation 1.2",
            &[over.goodput()],
            0.975,
            1.0,
        ),
        Goal::at_most(
            "messages for each job, two slots, utilisation .9",
            &[nine.messages()],
            6.0,
            2.6,
        ),
        Goal::at_most(
            "messages for each job, two slots, utilisation 1.2",
            &[over.messages()],
            8.0,
            2.6,
        ),
    ]
}

/// Several jobs at once, and many workers.
pub fn larger(jobs: u64) -> Vec<Goal> {
    let several = Scenario { concurrency: 4, queue: 40, ..start() };
    let many = Scenario { workers: 64, ..start() };
    let pairs = [several, many].map(|scenario| pair(scenario, jobs));
    vec![Goal::at_most(
        "p99 response / oracle, c = 4 and 64 workers",
        &pairs.each_ref().map(Pair::response),
        1.4,
        1.25,
    )]
}

/// Jobs that are shorter than their way, beside an oracle that has the same way and counts what is on
/// it.
pub fn short(jobs: u64) -> Vec<Goal> {
    let near = Scenario { delay: 3 * SHORT, concurrency: 4, queue: 60, ..brief(1000) };
    let farther = Scenario { delay: 10 * SHORT, warm_up: 5000 * SHORT, ..near.clone() };
    let farthest = Scenario { delay: 100 * SHORT, concurrency: 4, queue: 1020, ..brief(20_000) };
    let farthest = Scenario { senders: 8, workers: 4, ..farthest };
    let at = |scenario: &Scenario, utilisation| loaded(scenario, utilisation).with_jobs(jobs);
    let response = |scenario: &Scenario, utilisation| {
        let scenario = at(scenario, utilisation);
        Pair::of(scenario.clone(), scenario.with_rule(Rule::Oracle)).response()
    };
    let ratios: Vec<f64> = [&near, &farther, &farthest]
        .into_iter()
        .flat_map(|scenario| [0.9, 0.95].map(|utilisation| response(scenario, utilisation)))
        .collect();
    let over = [&near, &farther].map(|scenario| far(&run(at(scenario, 1.1))));
    vec![
        Goal::at_most("p99 response / oracle, short jobs, utilisation to .95", &ratios, 1.4, 1.25),
        Goal::at_most("FAR, short jobs, utilisation 1.1", &over, 1e-3, 1e-4),
    ]
}

/// No mapper, a worker that stands still, a sender that wants half of everything.
pub fn faults(jobs: u64) -> Vec<Goal> {
    let from = Duration::from_secs(2);
    let away = [1, 2, 3].map(minute_without_mapper);
    let pause = Span { from, length: 50 * SERVICE_TIME };
    let pause = Faults { worker_paused: Some(pause), ..Faults::default() };
    let trapped = [1, 2, 3, 4, 5].map(|seed| {
        let scenario = Scenario { faults: pause.clone(), utilisation: 0.7, seed, ..start() };
        run(scenario.with_jobs(10_000)).damage.jobs_trapped as f64
    });
    let heavy = Scenario { heavy_share: Some(0.5), ..loaded(&start(), 1.2) };
    vec![
        Goal::at_most("no mapper for 60 s: FAR", &away.each_ref().map(Pair::far), 0.0, 0.0),
        Goal::at_least(
            "no mapper for 60 s: goodput / oracle",
            &away.each_ref().map(Pair::goodput),
            0.995,
            1.0,
        ),
        Goal::at_most(
            "no mapper for 60 s: p99 wait / oracle",
            &away.each_ref().map(Pair::wait),
            1.6,
            1.25,
        ),
        Goal::at_most("jobs trapped in a suspended worker of 11 slots", &trapped, 11.0, 5.5),
        Goal::at_least(
            "one sender with half the load: what the others get",
            &[run(heavy.with_jobs(jobs)).done_others],
            0.99,
            0.997,
        ),
    ]
}

/// How long a job takes that fails at once.
const AT_ONCE: Duration = Duration::from_millis(1);

/// Workers whose jobs all fail at once, beside an oracle that has only the others, at nearly their
/// capacity and beyond it.
pub fn failing() -> Vec<Goal> {
    // Probes grow rarer: what is measured is the beginning, which is the worst.
    let jobs = 10_000;
    let ratios = |workers, bad, from| -> Vec<f64> {
        let points = [0.95, 1.2].into_iter().flat_map(|load| [1, 2, 3].map(|seed| (load, seed)));
        let ratio = |(load, seed)| {
            let rest = loaded(&Scenario { workers: workers - bad, seed, ..start() }, load);
            let failing = Failing { workers: bad, from, share: 1.0, takes: AT_ONCE };
            let faults = Faults { failing: Some(failing), ..Faults::default() };
            let utilisation = load * (workers - bad) as f64 / workers as f64;
            // Those that always fail are new.
            let warm_up = if from.is_none() && load < 1.0 { Duration::ZERO } else { rest.warm_up };
            let scenario = Scenario { workers, utilisation, faults, warm_up, ..rest.clone() };
            Pair::of(scenario.with_jobs(jobs), ideal(rest.with_jobs(jobs))).goodput()
        };
        points.map(ratio).collect()
    };
    let from = Some(Duration::from_secs(2));
    // As much as .86 of what handlers can do, as bad jobs take so little.
    let bad_input = [1, 2, 3].map(|seed| {
        let failing = Failing { workers: 16, from: None, share: 0.3, takes: AT_ONCE };
        let faults = Faults { failing: Some(failing), ..Faults::default() };
        let scenario = Scenario { utilisation: 1.2, faults, seed, ..start() };
        let report = run(scenario.with_jobs(100_000)).report;
        (report.outcomes.done + report.outcomes.failed) as f64 / report.submitted as f64
    });
    vec![
        Goal::at_least(
            "bad input, 3 of 10 fail everywhere: done or failed",
            &bad_input,
            0.9995,
            1.0,
        ),
        Goal::at_least("1 of 4 always fails: goodput / the rest's", &ratios(4, 1, None), 0.95, 1.0),
        Goal::at_least(
            "1 of 4 begins to fail: goodput / the rest's",
            &ratios(4, 1, from),
            0.95,
            1.0,
        ),
        Goal::at_least(
            "2 of 16 always fail: goodput / the rest's",
            &ratios(16, 2, None),
            0.95,
            1.0,
        ),
        Goal::at_least(
            "2 of 16 begin to fail: goodput / the rest's",
            &ratios(16, 2, from),
            0.95,
            1.0,
        ),
    ]
}

/// A minute at the base point in which no mapper is there.
fn minute_without_mapper(seed: u64) -> Pair {
    let minute = Span { from: Duration::ZERO, length: Duration::from_secs(60) };
    let faults = Faults { mapper_away: Some(minute), ..Faults::default() };
    let scenario = Scenario { faults, duration: minute.length, seed, ..start() };
    Pair::of(scenario.clone(), ideal(scenario))
}

/// The base point with short jobs, after so many services.
fn brief(warm_up: u32) -> Scenario {
    Scenario { warm_up: warm_up * SHORT, ..base_of(SHORT) }
}

/// The base point.
fn start() -> Scenario {
    base_of(SERVICE_TIME)
}

/// A scenario, and the same with an oracle to which nothing takes time.
fn pair(scenario: Scenario, jobs: u64) -> Pair {
    let scenario = scenario.with_jobs(jobs);
    Pair::of(scenario.clone(), ideal(scenario))
}

/// The same with an oracle to which nothing takes time, and nothing goes wrong.
fn ideal(scenario: Scenario) -> Scenario {
    let faults = Faults::default();
    Scenario { delay: Duration::ZERO, faults, ..scenario }.with_rule(Rule::Oracle)
}

fn run(scenario: Scenario) -> Findings {
    World::new(scenario).run()
}
