//! What goes wrong in the simulator: it does, and still every job has one outcome, or ended with
//! its sender's process.

use std::time::Duration;

use svcmap_simulator::scenario::{Crash, Faults, Span};
use svcmap_simulator::{Findings, Rule, Scenario, World, theory};
use svcmap_worker::Policy;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Not so much load that a fault alone fills the workers.
fn base() -> Scenario {
    Scenario { utilisation: 0.7, ..Scenario::default() }
}

/// What comes of a scenario, once no job of it is unaccounted for.
fn run(scenario: Scenario) -> Findings {
    let findings = World::new(scenario.with_jobs(8000)).run();
    let (report, damage) = (&findings.report, findings.damage);
    assert!(report.submitted > 7500, "{report:?}");
    assert_eq!(report.outcomes.all() + damage.jobs_ended, report.submitted, "{findings:?}");
    let wrong = (damage.jobs_hung, damage.contradictions, damage.jobs_for_nobody);
    assert_eq!(wrong, (0, 0, 0), "{findings:?}");
    findings
}

fn with(faults: Faults) -> Findings {
    run(Scenario { faults, ..base() })
}

fn share_done(findings: &Findings) -> f64 {
    findings.report.outcomes.done as f64 / findings.report.submitted as f64
}

#[test]
fn jitter_takes_its_time_and_loses_nothing() {
    let calm = run(base());
    let jitter = run(Scenario { jitter: ms(5), ..base() });
    // A job's way there and back, and some wait for those before them.
    let more = jitter.report.response_ms.mean - calm.report.response_ms.mean;
    assert!((10.0..20.0).contains(&more), "{more}");
    assert_eq!(share_done(&jitter), 1.0);
}

#[test]
fn connections_that_break_lose_no_job() {
    let findings = with(Faults { connection_loss: Some(ms(500)), ..Faults::default() });
    // Some 9 seconds of 512 connections, of which many are closed at times.
    assert!(findings.damage.connections_lost > 1500, "{findings:?}");
    assert!(share_done(&findings) > 0.999, "{findings:?}");
}

#[test]
fn a_sender_that_ends_takes_its_jobs_along_and_the_next_one_goes_on() {
    let findings = with(Faults { sender_crash: Some(ms(20)), ..Faults::default() });
    assert!(findings.damage.senders_ended > 200, "{findings:?}");
    assert!(findings.damage.jobs_ended > 50, "{findings:?}");
    let lost = findings.damage.jobs_ended as f64 / findings.report.submitted as f64;
    assert!(share_done(&findings) + lost > 0.999, "{findings:?}");
}

#[test]
fn a_worker_that_ends_leaves_its_jobs_unknown_and_comes_back() {
    for is_told in [false, true] {
        let end = |at, back_after| {
            let worker_crash = Some(Crash { at: ms(at), is_told, back_after });
            with(Faults { worker_crash, ..Faults::default() })
        };
        // At some of these moments it has jobs.
        let mut unknown = 0;
        for at in [1000, 1100, 1200, 1300, 1400] {
            for findings in [end(at, None), end(at, Some(ms(200)))] {
                let lost = findings.report.outcomes.unknown;
                assert!(lost <= 11, "{findings:?}");
                assert_eq!(findings.report.outcomes.done + lost, findings.report.submitted);
                unknown += lost;
            }
        }
        assert!(unknown > 0);
        let (ended, back) = (end(1200, None), end(1200, Some(ms(200))));
        let balance = |findings: &Findings| findings.report.balance.cv;
        assert!(balance(&ended) > 0.15 && balance(&back) < 0.1, "{ended:?} {back:?}");
    }
}

fn with_pause(length: Duration) -> Findings {
    let worker_paused = Some(Span { from: ms(1000), length });
    with(Faults { worker_paused, ..Faults::default() })
}

#[test]
fn a_worker_that_stands_still_traps_jobs() {
    let findings = with_pause(ms(500));
    assert!((1..=15).contains(&findings.damage.jobs_trapped), "{findings:?}");
    assert_eq!(share_done(&findings), 1.0);
}

#[test]
fn a_worker_that_is_given_up_traps_jobs_and_is_used_again() {
    let findings = with_pause(ms(5000));
    assert!(findings.report.outcomes.unknown > 0, "{findings:?}");
    assert!(findings.report.outcomes.unknown <= findings.damage.jobs_trapped, "{findings:?}");
}

#[test]
fn a_sender_that_stands_still_loses_nothing() {
    let sender_paused = Some(Span { from: ms(1000), length: ms(4000) });
    let findings = with(Faults { sender_paused, ..Faults::default() });
    assert_eq!(findings.report.outcomes.unknown, 0, "{findings:?}");
    // A share of 1 / 32 waits for two seconds in the mean, for more than half of the time.
    let more = findings.report.response_ms.mean - run(base()).report.response_ms.mean;
    assert!((20.0..60.0).contains(&more), "{more} {findings:?}");
}

#[test]
fn room_may_differ_from_worker_to_worker() {
    let scenario = Scenario { queues: vec![0, 20], utilisation: 0.9, ..Scenario::default() };
    let findings = run(scenario.with_rule(Rule::Shipped(Policy::Random)));
    // Erlang: half of the jobs meet one slot, and half meet 21.
    let expected = (theory::loss(1, 0.9) + theory::loss(21, 0.9)) / 2.0;
    assert!((findings.loss - expected).abs() < 0.02, "{findings:?} {expected}");
}

#[test]
fn what_one_sender_gets_is_told_apart() {
    let overload = Scenario { utilisation: 1.2, ..Scenario::default() };
    let findings = run(Scenario { heavy_share: Some(0.4), ..overload });
    let all = 0.4 * findings.done_first + 0.6 * findings.done_others;
    assert!((all - share_done(&findings)).abs() < 0.01, "{findings:?}");
    assert_ne!(findings.done_first, findings.done_others);
}

/// Jobs so long, and beats so short, that some wait at workers for longer than an expiry.
fn long_jobs(faults: Faults) -> Scenario {
    let (service_time, beat) = (ms(200), ms(50));
    Scenario { service_time, beat, utilisation: 0.95, faults, ..base() }
}

#[test]
fn nobody_works_for_a_sender_that_ended_an_expiry_ago() {
    // Without credits the queues of workers are long.
    for policy in [Policy::NoCredits, Policy::Svcmap] {
        let faults = Faults { sender_crash: Some(ms(500)), ..Faults::default() };
        let findings = run(long_jobs(faults).with_rule(Rule::Shipped(policy)));
        assert!(findings.damage.jobs_ended > 100, "{findings:?}");
    }
}

#[test]
fn a_cancelled_job_is_not_started_whatever_its_connection_did() {
    let connection_loss = Some(ms(100));
    let faults = Faults { cancelled: 0.2, connection_loss, ..Faults::default() };
    let findings = run(long_jobs(faults).with_rule(Rule::Shipped(Policy::NoCredits)));
    assert!(findings.damage.jobs_cancelled > 500, "{findings:?}");
    assert!(findings.damage.connections_lost > 1000, "{findings:?}");
}

#[test]
fn all_at_once() {
    let findings = run(Scenario {
        jitter: ms(1),
        faults: Faults {
            publication_loss: 0.05,
            connection_loss: Some(ms(250)),
            sender_crash: Some(ms(100)),
            ..Faults::default()
        },
        ..base()
    });
    assert!(findings.damage.connections_lost > 3000, "{findings:?}");
    assert!(findings.damage.jobs_ended > 0, "{findings:?}");
}
