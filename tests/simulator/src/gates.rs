//! Theory gates: systems of which theory knows the answer. A simulator that misses one of them is
//! wrong, whatever else it says.
//!
//! Each gate is run several times with different seeds. It is passed if theory's figure lies within
//! the confidence interval (99.9 %) of the runs' mean, widened by what a finite number of workers
//! may differ from the very many of theory.

use std::time::Duration;

use svcmap::distribution::Distribution;
use svcmap_worker::Policy;

use super::scenario::{Feed, Scenario};
use super::theory::{self, Board};
use super::{Findings, Rule, World};

/// Runs of each gate.
const RUNS: u64 = 10;

/// Student's t for 99.9 % and 9 degrees of freedom.
const STUDENT_T: f64 = 4.781;

/// So many slots are never filled here.
const NEVER_FULL: u32 = 60_000;

/// A system, and what theory says of it.
pub struct Gate {
    /// What it is.
    pub name: String,
    /// The system.
    pub scenario: Scenario,
    /// Which figure is compared.
    pub figure: fn(&Findings) -> f64,
    /// What theory says it is.
    pub expected: f64,
    /// Share by which so many workers may differ from very many.
    pub finite: f64,
    /// Makes the system another one, of which theory says something else.
    pub wrong: fn(Scenario) -> Scenario,
}

/// What came of a gate.
#[derive(Clone, Copy, Debug)]
pub struct Verdict {
    /// The mean of the runs.
    pub mean: f64,
    /// Half of the width of its confidence interval (99.9 %).
    pub half_width: f64,
    /// How far it may lie from theory.
    pub tolerance: f64,
    /// Whether it does not.
    pub passed: bool,
}

impl Gate {
    /// Runs it.
    pub fn run(&self) -> Verdict {
        self.run_as(|scenario| scenario)
    }

    /// Runs it with the wrong system, and with so small a part of the jobs: it has to fail even so.
    pub fn run_wrong(&self, part: u32) -> Verdict {
        self.run_as(|scenario| {
            let wrong = (self.wrong)(scenario);
            Scenario { duration: wrong.duration / part, ..wrong }
        })
    }

    fn run_as(&self, change: impl Fn(Scenario) -> Scenario) -> Verdict {
        let figures: Vec<f64> = (1..=RUNS)
            .map(|run| {
                // Gates do not share their luck.
                let seed = self
                    .name
                    .bytes()
                    .fold(run, |seed, b| seed.wrapping_mul(31).wrapping_add(b.into()));
                let scenario = Scenario { seed, ..self.scenario.clone() };
                (self.figure)(&World::new(change(scenario)).run())
            })
            .collect();
        let mean = figures.iter().sum::<f64>() / RUNS as f64;
        let squares: f64 = figures.iter().map(|figure| (figure - mean).powi(2)).sum();
        let half_width = STUDENT_T * (squares / (RUNS - 1) as f64 / RUNS as f64).sqrt();
        let tolerance = half_width + self.finite * self.expected;
        let passed = (mean - self.expected).abs() <= tolerance;
        Verdict { mean, half_width, tolerance, passed }
    }
}

/// All of them.
pub fn all() -> Vec<Gate> {
    let mut gates = Vec::new();
    gates.extend([4, 8, 16, 32].map(many_servers));
    gates.extend([0.5, 0.7, 0.9].map(fresh_two));
    gates.extend([0.7, 0.9, 1.0, 1.2].map(random_loss));
    gates.push(floor(1.2));
    gates.extend([0.5, 1.0, 2.0, 5.0, 10.0, 20.0].map(board));
    gates
}

/// A system without distances, on a board.
fn ideal() -> Scenario {
    let base = Scenario::default();
    Scenario { delay: Duration::ZERO, feed: Feed::Board, peers_max: usize::MAX, ..base }
}

/// Very many of them, with queues without an end.
fn very_many() -> Scenario {
    let warm_up = 60 * Scenario::default().service_time;
    Scenario { workers: 250, senders: 1, queue: NEVER_FULL, warm_up, ..ideal() }
}

fn constant(scenario: Scenario) -> Scenario {
    Scenario { distribution: Distribution::Constant, ..scenario }
}

/// M/M/c: one worker with c handlers.
fn many_servers(concurrency: u32) -> Gate {
    let scenario = Scenario { workers: 1, senders: 1, concurrency, queue: NEVER_FULL, ..ideal() };
    Gate {
        name: format!("M/M/{concurrency} mean wait"),
        scenario: scenario.with_rule(Rule::Shipped(Policy::Random)).with_jobs(60_000),
        figure: |findings| findings.mean_wait,
        expected: theory::mean_wait(concurrency, 0.9),
        finite: 0.0,
        wrong: constant,
    }
}

/// Many workers, and each job goes to the better of two by their true queues.
fn fresh_two(utilisation: f64) -> Gate {
    let scenario = Scenario { utilisation, ..very_many() };
    Gate {
        name: format!("fresh p2c mean response, rho {utilisation}"),
        scenario: scenario.with_interval(50.0).with_rule(Rule::FreshTwo).with_jobs(40_000),
        figure: |findings| findings.mean_response,
        expected: theory::fresh_two_response(utilisation),
        // A tail that is estimated from n workers is off by 1/n in the mean.
        finite: 0.01,
        wrong: constant,
    }
}

/// M/M/1/11: each worker gets a random share.
fn random_loss(utilisation: f64) -> Gate {
    let scenario = Scenario { utilisation, senders: 8, ..ideal() };
    Gate {
        name: format!("M/M/1/11 loss, rho {utilisation}"),
        scenario: scenario
            .with_interval(50.0)
            .with_rule(Rule::Shipped(Policy::Random))
            .with_jobs(60_000),
        figure: |findings| findings.loss,
        expected: theory::loss(11, utilisation),
        finite: 0.0,
        wrong: constant,
    }
}

/// Nobody can do more than all workers together, and whoever knows all of them does no less.
fn floor(utilisation: f64) -> Gate {
    let scenario = Scenario { utilisation, senders: 8, ..ideal() };
    Gate {
        name: format!("overload floor, rho {utilisation}"),
        scenario: scenario.with_interval(50.0).with_rule(Rule::Oracle).with_jobs(60_000),
        figure: |findings| findings.loss,
        expected: theory::overload_floor(utilisation),
        finite: 0.0,
        wrong: |scenario| scenario.with_rule(Rule::Shipped(Policy::Random)),
    }
}

/// The better of two on a board that is renewed each interval.
fn board(interval: f64) -> Gate {
    let scenario = very_many();
    let warm_up = scenario.warm_up + scenario.service_time.mul_f64(4.0 * interval);
    let shown = Board { utilisation: 0.9, interval, slots: 80, avoids_full: true };
    Gate {
        name: format!("p2c on a board, T {interval}, mean response"),
        scenario: Scenario { warm_up, ..scenario }
            .with_interval(interval)
            .with_rule(Rule::Shipped(Policy::Two))
            .with_jobs(40_000),
        figure: |findings| findings.mean_response,
        expected: shown.solve().0,
        // As for the fresh one.
        finite: 0.01,
        wrong: constant,
    }
}
