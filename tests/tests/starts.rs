//! How jobs are dealt out where nobody knows yet how long they take: to workers that have just
//! started, to one that comes late, and to those whose work has changed.

use svcmap::commands::status::Report;
use svcmap::deployment::Deployment;
use svcmap_tests::{Count, PATIENCE, deployment_of, eventually};
use svcmap_worker::{Client, Ticket};

const SLEEP: &[&str] = &["--builtin", "sleep"];
/// With room for all jobs: a worker could take them all.
const ROOMY: &[&str] = &["--builtin", "sleep", "--queue", "99"];

fn submit(client: &Client, jobs: usize, time: &str) -> Vec<Ticket> {
    let job =
        || client.job("nap", time.as_bytes().to_vec()).deadline(2 * PATIENCE).submit().unwrap();
    (0..jobs).map(|_| job()).collect()
}

/// How many jobs each instance has done, once all have told of that many.
fn done(deployment: &Deployment, jobs: u64) -> Vec<u64> {
    let mut done = Vec::new();
    let of = |report: &Report| report.instances.iter().map(|row| row.done).collect::<Vec<_>>();
    eventually("all jobs to be told of", || {
        let report = svcmap::commands::status::ask(deployment.access(), None, PATIENCE);
        done = report.map_or(Vec::new(), |report| of(&report));
        done.iter().sum::<u64>() == jobs
    });
    done
}

#[test]
fn a_burst_at_fresh_workers_takes_as_few_rounds_as_it_can() {
    for flags in [SLEEP, ROOMY] {
        let deployment = deployment_of("nap", 4, flags);
        let client = deployment.client().unwrap();
        assert_eq!(Count::of(submit(&client, 11, "500ms")).done, 11);
        let done = done(&deployment, 11);
        // Three rounds, of which the last is not full.
        assert!(done.iter().all(|jobs| (2..=3).contains(jobs)), "{done:?}");
    }
}

#[test]
fn a_worker_that_comes_late_does_its_half() {
    for flags in [SLEEP, ROOMY] {
        let mut deployment = deployment_of("nap", 1, flags);
        let client = deployment.client().unwrap();
        let tickets = submit(&client, 31, "300ms");
        let busy = |report: &Report| report.instances.iter().all(|row| row.done == 1);
        deployment.wait_for("the first to be done", busy).unwrap();
        deployment.start_worker("nap", "late", flags).unwrap();
        assert_eq!(Count::of(tickets).done, 31);
        let done = done(&deployment, 31);
        assert!(done.iter().all(|jobs| (11..=20).contains(jobs)), "{done:?}");
    }
}

#[test]
fn jobs_that_take_longer_than_those_before_are_dealt_out_evenly_all_the_same() {
    let deployment = deployment_of("nap", 4, ROOMY);
    let client = deployment.client().unwrap();
    assert_eq!(Count::of(submit(&client, 400, "1ms")).done, 400);
    let before = done(&deployment, 400);
    assert_eq!(Count::of(submit(&client, 11, "500ms")).done, 11);
    let after = done(&deployment, 411);
    let longer: Vec<_> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    // One that had taken several may be left with one more than its share.
    assert!(longer.iter().all(|jobs| *jobs <= 4), "{longer:?}");
}
