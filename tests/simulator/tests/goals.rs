//! What svcmap must reach, in the simulator: every row of its goals, with as many jobs as fit into a minute.
//! `svcmap-simulate goals --jobs 300000` measures the same with many more.

use svcmap_simulator::goals::{self, Goal};
use svcmap_simulator::starts;

fn all_met(goals: &[Goal]) {
    for goal in goals {
        assert!(goal.is_met(), "{goal:?}");
    }
}

#[test]
fn at_the_base_point() {
    // A share of a hundred thousandth is one job here.
    all_met(&goals::base(100_000));
}

#[test]
fn at_the_start() {
    for start in starts::measure() {
        assert!(start.is_met(), "{start:?}");
    }
}

#[test]
fn in_tight_pools() {
    all_met(&goals::tight(60_000));
}

#[test]
fn in_larger_ones() {
    all_met(&goals::larger(100_000));
}

#[test]
fn where_jobs_are_short() {
    all_met(&goals::short(40_000));
}

#[test]
fn when_things_go_wrong() {
    all_met(&goals::faults(60_000));
}

#[test]
fn when_jobs_fail_at_some_workers() {
    all_met(&goals::failing());
}

#[test]
fn for_jobs_of_normal_priority_where_one_in_ten_is_of_high() {
    all_met(&goals::priorities(50_000));
}
