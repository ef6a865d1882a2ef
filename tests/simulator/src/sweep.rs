//! The sweep: one thing at a time changes around the base point, for each policy, and what comes of
//! it goes into one table.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rayon::prelude::*;
use svcmap::distribution::Distribution;
use svcmap_worker::Policy;

use super::scenario::{Faults, Feed, Span};
use super::table::Row;
use super::{Rule, Scenario, World};

/// A scenario of the sweep, and where it stands there.
#[derive(Clone, Debug)]
pub struct Point {
    /// What changes.
    pub axis: &'static str,
    /// What it is at this point.
    pub value: String,
    /// What is simulated.
    pub scenario: Scenario,
}

/// Policies that stand for the others where more would only repeat them.
fn some_rules() -> Vec<Rule> {
    let shipped = [
        Policy::Svcmap,
        Policy::NoCredits,
        Policy::TwoOwnAnswers,
        Policy::TwoOwn,
        Policy::Two,
        Policy::Least,
        Policy::Random,
        Policy::ThresholdNamed,
    ];
    let others = [Rule::AggressiveInterpretation, Rule::Prequal, Rule::Oracle];
    shipped.map(Rule::Shipped).into_iter().chain(others).collect()
}

/// All policies.
fn all_rules() -> Vec<Rule> {
    Policy::ALL.map(Rule::Shipped).into_iter().chain(Rule::OTHERS).collect()
}

/// Values of T, the publish interval in mean service times.
pub const INTERVALS: [f64; 9] = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0];

/// Numbers of senders.
pub const SENDERS: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, 128];

/// Offered load / capacity.
pub const UTILISATIONS: [f64; 8] = [0.5, 0.7, 0.8, 0.9, 0.95, 1.0, 1.1, 1.2];

/// All points, each measured for about so many jobs. `full` adds what changes two things at once.
pub fn points(jobs: u64, full: bool) -> Vec<Point> {
    let mut points = intervals();
    points.extend(sizes());
    points.extend(loads());
    points.extend(faults());
    if full {
        points.extend(crosses());
    }
    for point in &mut points {
        point.scenario = point.scenario.clone().with_jobs(jobs);
    }
    points
}

/// The base point with one change, for each of these policies.
fn axis<V: ToString + Copy>(
    axis: &'static str,
    rules: &[Rule],
    values: &[V],
    change: impl Fn(Scenario, V) -> Scenario,
) -> Vec<Point> {
    let point = |value: V, rule: Rule| {
        let scenario = change(Scenario::default(), value).with_rule(rule);
        Point { axis, value: value.to_string(), scenario }
    };
    values
        .iter()
        .flat_map(|v| rules.iter().map(move |rule| (*v, *rule)))
        .map(|(v, r)| point(v, r))
        .collect()
}

/// How old knowledge is: from a mapper, from a board, and by a query for each job.
fn intervals() -> Vec<Point> {
    let interval = |scenario: Scenario, means| scenario.with_interval(means);
    let with = |feed| move |scenario, means| Scenario { feed, ..interval(scenario, means) };
    let original = [Rule::Shipped(Policy::ThresholdNamed)];
    let mut points = axis("interval", &all_rules(), &INTERVALS, with(Feed::Mapper));
    points.extend(axis("interval", &all_rules(), &INTERVALS, with(Feed::Board)));
    points.extend(axis("interval", &original, &INTERVALS, with(Feed::Query)));
    points
}

/// How many there are, and how they are made.
fn sizes() -> Vec<Point> {
    let rules = some_rules();
    let mut points =
        axis("senders", &rules, &SENDERS, |scenario, senders| Scenario { senders, ..scenario });
    let board = |scenario: Scenario, senders| Scenario {
        senders,
        feed: Feed::Board,
        ..scenario.with_interval(10.0)
    };
    points.extend(axis("senders-old-board", &rules, &SENDERS, board));
    let workers = |scenario, workers| Scenario { workers, ..scenario };
    points.extend(axis("workers", &rules, &[2, 4, 8, 16, 32, 64], workers));
    let slots = |scenario, slots: u32| Scenario { queue: slots - 1, ..scenario };
    points.extend(axis("slots", &rules, &[2, 11, 64], slots));
    let speeds = |scenario, ratio| Scenario { speeds: vec![1.0, ratio], ..scenario };
    points.extend(axis("speeds", &rules, &[1.0, 2.0, 10.0], speeds));
    points
}

/// What they have to do, and how far they are apart.
fn loads() -> Vec<Point> {
    let rules = some_rules();
    let utilisation = |scenario, utilisation| Scenario { utilisation, ..scenario };
    let mut points = axis("utilisation", &rules, &UTILISATIONS, utilisation);
    for distribution in [
        Distribution::Constant,
        Distribution::Exponential,
        Distribution::Bimodal,
        Distribution::Pareto,
    ] {
        let name = [distribution.as_str()];
        let change = |scenario, _: &str| Scenario { distribution, ..scenario };
        points.extend(axis("distribution", &rules, &name, change));
    }
    let delay = |scenario: Scenario, means| Scenario {
        delay: scenario.service_time.mul_f64(means),
        ..scenario
    };
    points.extend(axis("delay", &rules, &[0.001, 0.025, 0.1, 0.5, 1.0], delay));
    points
}

/// What goes wrong.
fn faults() -> Vec<Point> {
    let rules = some_rules();
    let with = |scenario, faults| Scenario { faults, ..scenario };
    let loss = |scenario, publication_loss| {
        with(scenario, Faults { publication_loss, ..Faults::default() })
    };
    let mut points = axis("publications-lost", &rules, &[0.0, 0.01, 0.05, 0.2], loss);
    let from = Duration::from_secs(10);
    let pause = |scenario: Scenario, means: u32| {
        let length = means * scenario.service_time;
        let worker_paused = Some(Span { from, length });
        let scenario = Scenario { utilisation: 0.7, ..scenario };
        with(scenario, Faults { worker_paused, ..Faults::default() })
    };
    points.extend(axis("worker-paused", &rules, &[1, 10, 50], pause));
    let away = |scenario, seconds| {
        let mapper_away = Some(Span { from, length: Duration::from_secs(seconds) });
        with(scenario, Faults { mapper_away, ..Faults::default() })
    };
    points.extend(axis("mapper-away-s", &rules, &[0, 60], away));
    points
}

/// Two things at once.
fn crosses() -> Vec<Point> {
    let rules = some_rules();
    let mut points = Vec::new();
    for means in INTERVALS {
        let at = |scenario: Scenario| scenario.with_interval(means);
        let mut senders = axis("interval x senders", &rules, &SENDERS, |scenario, senders| {
            Scenario { senders, ..at(scenario) }
        });
        let loads = |scenario, utilisation| Scenario { utilisation, ..at(scenario) };
        let loads = axis("interval x utilisation", &rules, &UTILISATIONS, loads);
        senders.extend(loads);
        senders.iter_mut().for_each(|point| point.value = format!("{means} x {}", point.value));
        points.extend(senders);
    }
    points
}

/// Runs all points, as many at a time as there are processors, and tells of each. The rows stand in
/// the order of the points.
pub fn run(points: &[Point], tell: impl Fn(usize) + Sync) -> Vec<Row> {
    let done = AtomicUsize::new(0);
    let row = |point: &Point| {
        let row = Row::new(point, &World::new(point.scenario.clone()).run().report);
        tell(done.fetch_add(1, Ordering::Relaxed) + 1);
        row
    };
    let mut rows: Vec<Row> = points.par_iter().map(row).collect();
    super::table::compare_with_oracle(&mut rows);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_axis_changes_one_thing() {
        let points = points(1000, false);
        let base = Scenario::default();
        for point in &points {
            let Scenario { workers, senders, utilisation, .. } = point.scenario;
            let changed = [workers != base.workers, senders != base.senders]
                .iter()
                .filter(|changed| **changed)
                .count();
            assert!(changed <= 1, "{point:?}");
            assert!(utilisation == base.utilisation || !matches!(point.axis, "senders" | "delay"));
        }
        let named = |axis| points.iter().filter(|point| point.axis == axis).count();
        assert_eq!(named("interval"), 9 * (15 + 15 + 1));
        assert_eq!((named("senders"), named("utilisation")), (8 * 11, 8 * 11));
    }

    #[test]
    fn rows_come_in_the_order_of_the_points_and_know_the_oracle() {
        let points: Vec<Point> = points(500, false)
            .into_iter()
            .filter(|point| point.axis == "slots" && point.value == "11")
            .collect();
        let rows = run(&points, |_| {});
        let policies: Vec<_> = rows.iter().map(|row| row.policy.as_str()).collect();
        let expected: Vec<_> = points.iter().map(|p| p.scenario.rule.as_str()).collect();
        assert_eq!(policies, expected);
        assert_eq!(rows.last().map(|row| row.wait_p99_to_oracle), Some(1.0));
    }
}
