//! The simulator against theory: each gate passes, and fails once its system is another one. And the
//! simulator against itself: the same seed takes the same course.

use std::time::Duration;

use svcmap_simulator::gates::{self, Gate};
use svcmap_simulator::scenario::{Faults, Span};
use svcmap_simulator::{Feed, Rule, Scenario, World};
use svcmap_worker::Policy;

fn pass(wanted: &str) {
    let mut gates = 0;
    for gate in gates::all().iter().filter(|gate| gate.name.contains(wanted)) {
        let Gate { name, expected, .. } = gate;
        let right = gate.run();
        assert!(right.passed, "{name}: {right:?} for {expected}");
        let wrong = gate.run_wrong(2);
        assert!(!wrong.passed, "{name} does not notice another system: {wrong:?} for {expected}");
        gates += 1;
    }
    assert!(gates > 0, "no gate is called {wanted}");
}

#[test]
fn waits_with_many_servers() {
    pass("M/M/4");
    pass("M/M/8");
    pass("M/M/16");
    pass("M/M/32");
}

#[test]
fn responses_of_fresh_p2c() {
    pass("fresh p2c");
}

#[test]
fn losses_of_random_shares() {
    pass("M/M/1/11");
}

#[test]
fn the_floor_in_overload() {
    pass("overload floor");
}

#[test]
fn responses_on_a_board_that_is_renewed_often() {
    pass("T 0.5,");
    pass("T 1,");
    pass("T 2,");
}

#[test]
fn responses_on_a_board_that_is_renewed_seldom() {
    pass("T 5,");
    pass("T 10,");
    pass("T 20,");
}

#[test]
fn the_same_seed_takes_the_same_course() {
    let scenarios = [
        Scenario::default(),
        Scenario { feed: Feed::Board, ..Scenario::default() },
        Scenario { feed: Feed::Query, ..Scenario::default() }.with_rule(Rule::Prequal),
        Scenario::default().with_rule(Rule::Shipped(Policy::Least)),
    ];
    for scenario in scenarios {
        let scenario = scenario.with_jobs(2000);
        let trace = |scenario: &Scenario| {
            let mut world = World::new(scenario.clone()).with_trace();
            world.run();
            world.trace().to_vec()
        };
        let first = trace(&scenario);
        assert!(first.len() > 100_000, "it says what happens");
        assert_eq!(first, trace(&scenario));
        assert_ne!(first, trace(&Scenario { seed: 2, ..scenario }));
    }
}

#[test]
fn whatever_goes_wrong_every_job_has_its_outcome() {
    let span = |ms| Some(Span { from: Duration::from_secs(1), length: Duration::from_millis(ms) });
    let faults = [
        Faults { publication_loss: 0.2, ..Faults::default() },
        Faults { worker_paused: span(500), ..Faults::default() },
        Faults { mapper_away: span(2000), ..Faults::default() },
    ];
    for faults in faults {
        let scenario = Scenario { faults, utilisation: 0.7, ..Scenario::default() };
        let report = World::new(scenario.with_jobs(4000)).run().report;
        assert!(report.submitted > 3500, "{report:?}");
        assert_eq!(report.outcomes.all(), report.submitted, "{report:?}");
        // Those who know each other go on without a mapper.
        let done = report.outcomes.done as f64 / report.submitted as f64;
        assert!(done > 0.995, "{report:?}");
    }
}

#[test]
fn a_wrong_cache_shows_where_it_must() {
    let far = |rule, feed, interval| {
        let scenario = Scenario { feed, ..Scenario::default() }.with_interval(interval);
        World::new(scenario.with_rule(rule).with_jobs(20_000)).run().report.far
    };
    let shipped = Rule::Shipped;
    // All run after the same worker: worse than chance.
    let least = far(shipped(Policy::Least), Feed::Board, 10.0);
    let random = far(shipped(Policy::Random), Feed::Board, 10.0);
    assert!(least > 2.0 * random, "{least} {random}");
    // What the mapper tells at once mends most of it.
    let told = far(shipped(Policy::Two), Feed::Mapper, 10.0);
    let shown = far(shipped(Policy::Two), Feed::Board, 10.0);
    assert!(told < shown / 10.0, "{told} {shown}");
    assert_eq!(far(Rule::Oracle, Feed::Board, 10.0), 0.0);
}
