use super::*;
use crate::testing::*;

/// An instance that did so many jobs, a share of the last of which failed.
fn load(done: u64, failing: u16) -> Load {
    Load { done, failing, slots: 4, concurrency: 1, ..Load::default() }
}

fn judged(own: (&str, Load), peers: &[(&str, Load)]) -> Verdict {
    let names: Vec<_> = peers.iter().map(|(peer, load)| (name(peer), load)).collect();
    judge((&name(own.0), &own.1), names.iter().map(|(name, load)| (name, *load)))
}

/// What each of these makes of itself, of all that say so.
fn verdicts(all: &[(&str, Load)]) -> Vec<Verdict> {
    let others = |own: usize| {
        let others = all.iter().enumerate().filter(|(index, _)| *index != own);
        others.map(|(_, other)| *other).collect::<Vec<_>>()
    };
    (0..all.len()).map(|own| judged(all[own], &others(own))).collect()
}

fn apart(all: &[(&str, Load)]) -> usize {
    verdicts(all).iter().filter(|verdict| **verdict == Verdict::Apart).count()
}

use Verdict::{Alike, Apart, Unknown};

#[test]
fn who_fails_while_the_others_do_not_is_apart() {
    let good = load(9, 0);
    let all = [("a", good), ("b", load(0, 500)), ("c", good), ("d", good)];
    assert_eq!(verdicts(&all), [Alike, Apart, Alike, Alike]);
    assert_eq!(judged(("b", load(0, 499)), &[("a", good), ("c", good)]), Alike);
    assert_eq!(judged(("b", load(9, 620)), &[("a", load(9, 100)), ("c", load(9, 130))]), Apart);
    assert_eq!(judged(("b", load(9, 590)), &[("a", load(9, 100)), ("c", load(9, 130))]), Alike);
}

#[test]
fn where_all_fail_alike_nobody_is_apart() {
    for failing in [500, 700, 900, 1000] {
        let all = ["a", "b", "c", "d"].map(|name| (name, load(0, failing)));
        assert_eq!(verdicts(&all), [Alike; 4]);
    }
    // One of them has had luck.
    let all = [("a", load(1, 600)), ("b", load(0, 900)), ("c", load(0, 950)), ("d", load(0, 800))];
    assert_eq!(verdicts(&all), [Alike; 4]);
}

#[test]
fn at_most_half_are_apart_and_never_the_last() {
    assert_eq!(judged(("a", load(0, 1000)), &[]), Alike);
    let (good, bad) = (load(9, 0), load(9, 1000));
    assert_eq!(apart(&[("a", good), ("b", bad)]), 1);
    assert_eq!(apart(&[("a", good), ("b", bad), ("c", bad)]), 1);
    // Of those that are alike it is the one with the greater name.
    assert_eq!(
        verdicts(&[("a", bad), ("b", good), ("c", bad), ("d", bad)]),
        [Alike, Alike, Apart, Apart]
    );
    // Or else the worse one.
    assert_eq!(verdicts(&[("a", bad), ("b", good), ("c", load(9, 900))]), [Apart, Alike, Alike]);
    // Who is aside already stays so.
    let aside = Load { state: State::Failing, ..load(9, 900) };
    assert_eq!(verdicts(&[("a", bad), ("b", good), ("c", aside)]), [Alike, Alike, Apart]);
    // One that drains takes no jobs, so it does not count.
    let leaves = Load { state: State::Draining, ..good };
    assert_eq!(verdicts(&[("a", leaves), ("b", bad)])[1], Alike);
}

#[test]
fn of_peers_that_have_finished_nothing_nothing_is_known() {
    let (fresh, bad) = (load(0, 0), load(0, 500));
    assert_eq!(verdicts(&[("a", fresh), ("b", bad), ("c", fresh)]), [Alike, Unknown, Alike]);
    // Others that fail as well prove nothing, one that works does.
    assert_eq!(verdicts(&[("a", fresh), ("b", bad), ("c", bad), ("d", fresh)])[1..3], [Unknown; 2]);
    assert_eq!(judged(("b", bad), &[("a", fresh), ("c", load(1, 0))]), Apart);
    // Instances of the JSON dialect tell nothing, ever: no reason to wait for it.
    let json = Load { share: svcmap_proto::load::Share::new(0.0), ..fresh };
    assert_eq!(judged(("b", bad), &[("a", json)]), Alike);
}

/// A job ends that began after all that was before.
fn end(health: &mut Health, ending: Ending, error: &[u8]) -> bool {
    health.handle_ended(at(u64::from(u32::MAX)), ending, error)
}

/// Fails so many jobs, one every millisecond from then on, as long as it takes any.
fn fail(health: &mut Health, now: Timestamp, jobs: u64, verdict: Verdict) -> u64 {
    for job in 0..jobs {
        let now = now + ms(job);
        health.handle_timeout(now, 0);
        if health.slots_max() == Some(0) {
            return job;
        }
        health.handle_ended(now, FAILING, b"no licence");
        if health.wants_verdict(now, false) {
            // Until somebody has looked, nothing goes on.
            assert_eq!(health.slots_max(), Some(0));
            health.handle_verdict(now, verdict);
        }
    }
    jobs
}

#[test]
fn the_first_four_failures_or_eleven_later_ones_set_an_instance_aside() {
    let mut health = Health::new(1);
    assert_eq!(fail(&mut health, at(0), 100, Apart), 4);
    assert_eq!((health.is_aside(), health.error()), (true, Some("no licence")));
    let mut load = Load::default();
    health.tell(&mut load);
    assert_eq!((load.state, load.failing), (State::Failing, 500));
    let mut health = Health::new(1);
    (0..100).for_each(|_| assert!(!end(&mut health, Ending::Done, b"")));
    assert_eq!(fail(&mut health, at(0), 100, Apart), 11);
}

#[test]
fn where_jobs_fail_everywhere_it_goes_on() {
    let mut health = Health::new(1);
    assert_eq!(fail(&mut health, at(0), 1000, Alike), 1000);
    assert_eq!((health.error(), health.slots_max()), (None, None));
}

#[test]
fn now_and_then_a_failure_is_nothing_to_ask_about() {
    let mut health = Health::new(1);
    for job in 0..1000 {
        let ending = if job % 3 == 0 { FAILING } else { Ending::Done };
        end(&mut health, ending, b"");
        assert!(!health.wants_verdict(at(job), false) && health.poll_timeout(false).is_none());
    }
}

#[test]
fn a_job_is_let_through_after_a_time_that_doubles_and_one_that_is_done_ends_it() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Apart);
    let mut now = at(3);
    let mut pauses = Vec::new();
    for _ in 0..8 {
        pauses.push(health.pause().as_secs_f64());
        let back_at = now + health.pause();
        assert!(!health.handle_timeout(back_at.before(ms(1)), 0));
        assert!(health.handle_timeout(back_at, 0));
        // One job, to see: others believe it to be ready, it offers nothing itself.
        assert_eq!((health.slots_max(), health.is_aside()), (Some(1), false));
        assert!(!health.is_trusted() && health.error().is_some());
        end(&mut health, FAILING, b"no licence");
        assert!(health.handle_verdict(back_at, Apart));
        now = back_at;
    }
    assert!((0.75..=1.25).contains(&pauses[0]) && pauses[7] <= 75.0, "{pauses:?}");
    assert!(pauses.windows(2).all(|two| two[1] > two[0] || two[1] >= 45.0), "{pauses:?}");
    health.handle_timeout(now + health.pause(), 0);
    assert!(end(&mut health, Ending::Done, b""));
    assert_eq!((health.slots_max(), health.error()), (None, None));
    // It is judged anew, but not forgiven yet.
    assert_eq!(fail(&mut health, now, 100, Apart), 4);
    assert!(health.pause() >= Duration::from_secs(45), "{:?}", health.pause());
    // That takes a dozen good jobs.
    health.handle_timeout(now + ms(200_000), 0);
    (0..13).for_each(|_| {
        end(&mut health, Ending::Done, b"");
    });
    fail(&mut health, now + ms(200_000), 100, Apart);
    assert!(health.pause() <= ms(1250), "{:?}", health.pause());
}

#[test]
fn only_the_job_that_was_let_through_tells_whether_it_is_mended() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Apart);
    // Two long ones began before, and do not keep it from being tried.
    let since = at(10_000);
    assert!(health.handle_timeout(since, 2));
    assert_eq!(health.slots_max(), Some(3));
    assert!(!health.handle_ended(at(0), Ending::Done, b""));
    assert!(!health.handle_ended(at(0), FAILING, b"of before"));
    assert!(!health.wants_verdict(since, false));
    assert_eq!((health.slots_max(), health.error()), (Some(3), Some("no licence")));
    assert!(health.handle_ended(since, Ending::Done, b""));
    assert_eq!(health.slots_max(), None);
}

#[test]
fn whoever_has_no_jobs_looks_at_nobody() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 20, Alike);
    assert!(health.poll_timeout(false).is_some());
    assert_eq!(health.poll_timeout(true), None);
    assert!(!health.wants_verdict(at(60_000), true));
}

#[test]
fn several_jobs_that_fail_together_double_nothing() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Apart);
    let pause = health.pause();
    for _ in 0..4 {
        end(&mut health, FAILING, b"no licence");
        assert!(!health.handle_verdict(at(5), Apart));
    }
    assert_eq!(health.pause(), pause);
}

#[test]
fn while_nobody_knows_the_pauses_are_short_at_first() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Unknown);
    let mut failed = 0;
    for tick in 4..10_000 {
        failed += fail(&mut health, at(tick), 1, Unknown);
    }
    // Ten seconds: 10 ms, 20 ms, … 1 s, 1 s.
    assert!((13..=18).contains(&failed), "{failed}");
    // As soon as it is known, it counts.
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Unknown);
    assert!(health.handle_timeout(at(100), 0));
    end(&mut health, FAILING, b"");
    health.handle_verdict(at(100), Alike);
    assert_eq!(health.slots_max(), None);
}

#[test]
fn what_cannot_be_started_pauses_at_once_whatever_the_peers_do() {
    for verdict in [Alike, Unknown] {
        let mut health = Health::new(1);
        end(&mut health, Ending::NotStarted, b"cannot start x");
        assert!(health.wants_verdict(at(0), false));
        assert!(health.handle_verdict(at(0), verdict));
        assert!(health.pause() <= ms(13), "{:?}", health.pause());
        assert_eq!(health.error(), Some("cannot start x"));
    }
}

#[test]
fn whoever_is_aside_looks_at_the_peers_and_comes_back_when_they_are_gone() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Apart);
    for round in 1..=6 {
        let now = at(100_000 * round);
        health.handle_timeout(now, 0);
        end(&mut health, FAILING, b"");
        health.handle_verdict(now, Apart);
    }
    let now = at(600_000);
    assert!(health.pause() > ms(40_000));
    let look_at = health.poll_timeout(false).unwrap();
    assert_eq!(look_at, now + LOOK_INTERVAL);
    assert!(!health.wants_verdict(now, false) && health.wants_verdict(look_at, false));
    health.handle_verdict(look_at, Apart);
    assert!(health.poll_timeout(false).unwrap() > look_at);
    health.handle_verdict(look_at, Alike);
    assert!(health.handle_timeout(look_at + PAUSE.1, 0));
}

#[test]
fn whoever_waits_for_a_job_to_try_is_trusted_once_the_peers_fail_as_well() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 4, Apart);
    let since = at(10_000);
    assert!(health.handle_timeout(since, 0));
    let look_at = since + PROBE_LOOK_INTERVAL;
    for is_idle in [true, false] {
        assert!(!health.wants_verdict(look_at.before(ms(1)), is_idle));
        assert!(health.wants_verdict(look_at, is_idle));
    }
    // It is on trial already.
    for verdict in [Apart, Unknown] {
        assert!(!health.handle_verdict(look_at, verdict));
        assert_eq!((health.slots_max(), health.is_aside()), (Some(1), false));
    }
    assert!(!health.handle_verdict(look_at + PROBE_LOOK_INTERVAL, Alike));
    assert_eq!((health.slots_max(), health.error()), (None, None));
    // Who once could not start a job does not compare with peers that are well.
    let mut health = Health::new(1);
    end(&mut health, Ending::NotStarted, b"cannot start x");
    health.handle_verdict(at(0), Alike);
    assert!(health.handle_timeout(at(100), 0));
    assert!(!health.wants_verdict(at(60_000), true));
}

#[test]
fn peers_that_recover_leave_behind_who_does_not() {
    let mut health = Health::new(1);
    fail(&mut health, at(0), 20, Alike);
    let look_at = health.poll_timeout(false).unwrap();
    assert!(health.handle_verdict(look_at, Apart));
    assert!(health.is_aside());
}

#[test]
fn an_error_is_cut_to_what_may_be_told() {
    assert_eq!(shortened(b"short"), "short");
    assert_eq!(shortened(&[b'x'; 500]).len(), ERROR_BYTES_MAX);
    let odd = shortened(&[0xff; 500]);
    assert!(odd.len() <= ERROR_BYTES_MAX && odd.chars().all(|c| c == char::REPLACEMENT_CHARACTER));
}
