//! How svcmap begins: workers that have done nothing yet, jobs that come all at once, workers that come
//! late, and jobs that take longer than those before. What counts is when the last job is done.

use std::time::Duration;

use rayon::prelude::*;
use svcmap::distribution::Distribution;

use super::measured::base_of;
use super::scenario::{Burst, Late};
use super::{Findings, Scenario, World};

/// Runs of each start, with other random numbers.
const SEEDS: u64 = 20;

/// Time for everybody to find each other, before the first job.
const MEETING: Duration = Duration::from_secs(2);

/// A start, and what came of it.
#[derive(Clone, Debug)]
pub struct Start {
    /// What is special.
    pub name: &'static str,
    /// When the last job can be done at best, in milliseconds.
    pub best_ms: f64,
    /// When it was, as a ratio to that: in the middle of all runs, and in the worst.
    pub median: f64,
    /// See above.
    pub worst: f64,
    /// What the worst must not exceed.
    pub must: f64,
}

impl Start {
    /// Whether it reaches what it must.
    pub fn is_met(&self) -> bool {
        self.worst <= self.must
    }
}

/// All of them.
pub fn measure() -> Vec<Start> {
    let second = Duration::from_secs(1);
    let late = |after| Some(Late { workers: 1, after });
    let two = fresh(2, Duration::from_millis(500), 41);
    vec![
        measured("11 jobs of 1 s, 4 fresh workers", 3000.0, 1.05, fresh(4, second, 11)),
        measured("11 jobs of 50 ms, 4 fresh workers", 150.0, 1.4, fresh(4, second / 20, 11)),
        measured("11 jobs of 5 ms, 4 fresh workers", 15.0, 1.8, fresh(4, second / 200, 11)),
        measured(
            "41 jobs of 0.5 s, 1 fresh worker, another after 1 s",
            11_000.0,
            1.05,
            Scenario { late: late(second), ..two.clone() },
        ),
        measured(
            "the same with 51 slots",
            11_000.0,
            1.05,
            Scenario { late: late(second), queue: 50, ..two },
        ),
        measured(
            "160 jobs of 100 ms from 8 senders, 16 fresh workers",
            1000.0,
            1.4,
            Scenario { senders: 8, ..fresh(16, second / 10, 20) },
        ),
        measured(
            "11 jobs of 1 s, 4 workers that had jobs of 1 ms",
            3000.0,
            1.4,
            longer(fresh(4, second / 1000, 11), 1000.0),
        ),
        measured(
            "11 jobs of 1 s, 4 workers that had jobs of 1 ms and a pause of 15 s",
            3000.0,
            1.05,
            after_pause(longer(fresh(4, second / 1000, 11), 1000.0)),
        ),
    ]
}

/// Jobs of the same length come at once, from one sender, to workers that have had none.
fn fresh(workers: usize, service_time: Duration, jobs: u32) -> Scenario {
    Scenario {
        workers,
        senders: 1,
        distribution: Distribution::Constant,
        burst: Some(Burst { jobs, times_as_long: 1.0, pause: Duration::ZERO }),
        delay: Duration::from_micros(100),
        hold: Some(Duration::from_secs(600)),
        // Next to none, and none in time.
        utilisation: 1e-9,
        warm_up: MEETING,
        duration: Duration::from_secs(1),
        ..base_of(service_time)
    }
}

/// The same after ordinary jobs, which are so much shorter.
fn longer(scenario: Scenario, times_as_long: f64) -> Scenario {
    let burst = scenario.burst.map(|burst| Burst { times_as_long, ..burst });
    Scenario { burst, utilisation: 0.5, ..scenario }
}

/// The same after a time without any.
fn after_pause(scenario: Scenario) -> Scenario {
    let pause = Duration::from_secs(15);
    let burst = scenario.burst.map(|burst| Burst { pause, ..burst });
    Scenario { burst, warm_up: MEETING + pause, ..scenario }
}

fn measured(name: &'static str, best_ms: f64, must: f64, scenario: Scenario) -> Start {
    let run = |seed| last_done_ms(&World::new(Scenario { seed, ..scenario.clone() }).run());
    let mut runs: Vec<f64> = (1..=SEEDS).into_par_iter().map(run).collect();
    runs.sort_by(f64::total_cmp);
    let (median, worst) = (runs[runs.len() / 2] / best_ms, runs[runs.len() - 1] / best_ms);
    Start { name, best_ms, median, worst, must }
}

/// When the last job was done; never, if one was not.
fn last_done_ms(findings: &Findings) -> f64 {
    let report = &findings.report;
    let all_done = report.outcomes.done == report.submitted;
    // Of so few jobs that is the last.
    if all_done { report.response_ms.p99 } else { f64::INFINITY }
}
