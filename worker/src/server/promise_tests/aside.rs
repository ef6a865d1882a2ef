//! What a worker does whose jobs fail while those of its peers do not.

use super::*;
use crate::health::Verdict as Fares;
use crate::intake::Ending;

/// A worker of four handlers whose four jobs have just failed, though its peers fare well; others of
/// the same sender wait, one of which can go nowhere else.
fn failed() -> (Scene, Seen) {
    let mut scene = Scene::new(4, 20);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.ask(at(0), 2, 3);
    assert_eq!(scene.see(at(0)).granted, [(2, 3, false)]);
    (0..6).for_each(|_| scene.job(at(0), 1, |_| {}));
    scene.job(at(0), 1, |job| job.redirects_left = 0);
    let started = scene.see(at(0)).started;
    assert_eq!(started.len(), 4);
    for task in started {
        assert!(!scene.server.wants_verdict(at(1)));
        scene.server.handle_finished(at(1), task, FAILING, b"no licence".to_vec());
    }
    assert!(scene.server.wants_verdict(at(1)));
    scene.server.handle_verdict(at(1), Fares::Apart);
    let seen = scene.see(at(1));
    (scene, seen)
}

#[test]
fn it_gives_back_what_waits_makes_its_promises_void_and_says_so() {
    let (mut scene, seen) = failed();
    let no_credit = |job| (1, job, Verdict::Rejected(Reason::NoCredit));
    let ended: Vec<_> = (1..=4).map(|job| (1, job, FAILED)).collect();
    assert_eq!(seen.ended, [&ended[..], &[no_credit(5), no_credit(6)]].concat());
    assert_eq!((seen.states, seen.granted), (vec![State::Failing; 2], vec![]));
    assert_eq!(
        (seen.errors, scene.server.error()),
        (vec!["no licence".into()], Some("no licence"))
    );
    // What can go nowhere else is tried here.
    assert_eq!(seen.started.len(), 1);
    let load = scene.server.load(at(2));
    assert_eq!((load.state, load.promised, load.mean_service_us), (State::Failing, 0, 0));
}

#[test]
fn it_takes_and_promises_nothing_and_makes_no_offers() {
    let (mut scene, _) = failed();
    scene.ask(at(2), 2, 1);
    scene.job(at(2), 2, |job| job.claim = Claim::Credit);
    scene.offer(at(2), 2, slot(5));
    let seen = scene.see(at(2));
    assert_eq!(seen.ended, [(2, 1, Verdict::Rejected(Reason::NoCredit))]);
    assert_eq!((seen.granted, seen.declined), (vec![], vec![(2, OfferId(5))]));
    scene.server.handle_timeout(at(700));
    assert!(scene.see(at(700)).offers.is_empty());
}

#[test]
fn after_a_while_one_job_is_let_through_and_ends_it() {
    let (mut scene, seen) = failed();
    scene.finish(at(2), seen.started[0]);
    assert_eq!(scene.server.load(at(2)).state, State::Failing);
    // At least for three quarters of a second.
    scene.server.handle_timeout(at(750));
    assert_eq!(scene.server.load(at(750)).state, State::Failing);
    scene.server.handle_timeout(at(1260));
    assert_eq!(scene.server.load(at(1260)).state, State::Ready);
    scene.ask(at(1260), 2, 5);
    assert_eq!(scene.see(at(1260)).granted, [(2, 1, false)]);
    scene.job(at(1261), 2, |job| (job.claim, job.share) = (Claim::Credit, 5));
    let seen = scene.see(at(1261));
    assert_eq!((seen.started.len(), seen.granted), (1, vec![]));
    scene.finish(at(1300), seen.started[0]);
    let seen = scene.see(at(1300));
    assert_eq!(seen.granted, [(2, 5, true)]);
    assert_eq!(scene.server.load(at(1300)).failing, 0);
    assert_eq!(scene.server.error(), None);
}

#[test]
fn a_job_that_could_not_be_started_is_rejected_and_nothing_else_is_tried_for_a_moment() {
    let mut scene = Scene::new(1, 20);
    scene.greet(at(0), 1);
    (0..3).for_each(|_| scene.job(at(0), 1, |_| {}));
    let task = scene.see(at(0)).started[0];
    scene.server.handle_finished(at(1), task, Ending::NotStarted, b"cannot start x".to_vec());
    scene.server.handle_verdict(at(1), Fares::Alike);
    let seen = scene.see(at(1));
    let rejected = |job, reason| (1, job, Verdict::Rejected(reason));
    let back = [2, 3].map(|job| rejected(job, Reason::NoCredit));
    assert_eq!(seen.ended, [&[rejected(1, Reason::CannotStart)], &back[..]].concat());
    let load = scene.server.load(at(1));
    assert_eq!((load.failed, load.rejected, load.state), (0, 3, State::Failing));
    assert_eq!(seen.errors, ["cannot start x"]);
    scene.server.handle_timeout(at(14));
    assert_eq!(scene.server.load(at(14)).state, State::Ready);
}

#[test]
fn where_jobs_fail_everywhere_it_goes_on() {
    let mut scene = Scene::new(1, 20);
    scene.greet(at(0), 1);
    let mut said = Vec::new();
    let mut end = |scene: &mut Scene, jobs: std::ops::RangeInclusive<u64>, ending: Ending| {
        for job in jobs {
            scene.job(at(job), 1, |_| {});
            let mut seen = scene.see(at(job));
            said.append(&mut seen.errors);
            scene.server.handle_finished(at(job), seen.started[0], ending, b"no licence".to_vec());
            if scene.server.wants_verdict(at(job)) {
                scene.server.handle_verdict(at(job), Fares::Alike);
            }
        }
        said.clone()
    };
    assert_eq!(end(&mut scene, 1..=100, FAILING), ["no licence"]);
    let load = scene.server.load(at(100));
    assert_eq!((load.failed, load.state, load.failing), (100, State::Ready, 1000 - 1));
    // It is said once, until nearly all are done again.
    end(&mut scene, 101..=120, Ending::Done);
    assert_eq!(end(&mut scene, 121..=150, FAILING).len(), 1);
    end(&mut scene, 151..=300, Ending::Done);
    assert_eq!(end(&mut scene, 301..=330, FAILING).len(), 2);
}

#[test]
fn a_drain_goes_before() {
    let (mut scene, _) = failed();
    scene.server.drain(at(2), ms(1000));
    assert_eq!(scene.server.load(at(2)).state, State::Draining);
    assert!(!scene.server.wants_verdict(at(500)));
    let timeout = scene.server.poll_timeout();
    assert!(timeout.is_some_and(|at_| at_ > at(500)), "{timeout:?}");
}
