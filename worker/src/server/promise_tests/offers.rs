//! Slots that peers offer, and those that are offered to them.

use super::*;

fn handed_over(slot: OfferedSlot, lifetime_ms: u32) -> Verdict {
    Verdict::HandedOver(OfferedSlot { lifetime_ms, ..slot })
}

#[test]
fn a_slot_of_a_peer_takes_the_first_job_that_waits_and_that_never_runs_here() {
    let mut scene = Scene::experienced(1, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    (0..3).for_each(|_| scene.job(at(100), 1, |_| {}));
    let first = scene.see(at(100)).started[0];
    scene.offer(at(110), 2, slot(5));
    let seen = scene.see(at(110));
    assert_eq!(seen.ended, [(1, 2, handed_over(slot(5), 150))]);
    assert_eq!((seen.declined, scene.server.intake().len()), (vec![], 2));
    scene.finish(at(200), first);
    let seen = scene.see(at(200));
    assert_eq!((seen.ended, seen.started.len()), (vec![(1, 1, Verdict::Done)], 1));
    scene.finish(at(300), seen.started[0]);
    assert_eq!(scene.see(at(300)).ended, [(1, 3, Verdict::Done)]);
    assert!(scene.server.intake().is_empty());
}

#[test]
fn a_job_that_is_handed_over_is_an_outcome_like_others_and_is_told_again_after_a_reset() {
    let mut scene = Scene::experienced(1, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    (0..2).for_each(|_| scene.job(at(100), 1, |_| {}));
    scene.see(at(100));
    scene.offer(at(110), 2, slot(5));
    let told = [(1, 2, handed_over(slot(5), 150))];
    assert_eq!(scene.see(at(110)).ended, told);
    scene.greet(at(120), 1);
    assert_eq!(scene.see(at(120)).ended, told);
    scene.say(at(120), 1, ToWorker::Received { outcomes: 1 });
    scene.greet(at(130), 1);
    assert_eq!(scene.see(at(130)).ended, []);
}

#[test]
fn a_job_that_may_not_move_or_does_not_fit_stays() {
    let mut scene = Scene::experienced(1, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    scene.job(at(100), 1, |_| {});
    scene.job(at(100), 1, |job| job.redirects_left = 0);
    scene.see(at(100));
    scene.offer(at(110), 2, slot(5));
    assert_eq!(scene.see(at(110)).ended, []);
    scene.job(at(120), 1, |job| job.redirects_left = 1);
    assert_eq!(scene.see(at(120)).ended, [(1, 3, handed_over(slot(5), 140))]);
    scene.job(at(120), 1, |_| {});
    scene.offer(at(130), 2, OfferedSlot { payload_bytes_max: 0, ..slot(6) });
    assert_eq!(scene.see(at(130)).ended, []);
}

#[test]
fn a_slot_that_comes_before_the_job_that_has_to_wait_is_kept_for_it() {
    let mut scene = Scene::experienced(1, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    scene.offer(at(100), 2, slot(5));
    // A handler is free for this one.
    scene.job(at(101), 1, |_| {});
    let seen = scene.see(at(101));
    assert_eq!((seen.started.len(), seen.ended, seen.declined), (1, vec![], vec![]));
    scene.job(at(199), 1, |_| {});
    assert_eq!(scene.see(at(199)).ended, [(1, 2, handed_over(slot(5), 51))]);
}

#[test]
fn of_the_jobs_that_come_at_once_those_stay_for_which_a_handler_is_free() {
    let mut scene = Scene::experienced(3, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    scene.job(at(100), 1, |_| {});
    scene.see(at(100));
    (0..4).for_each(|_| scene.job(at(101), 1, |_| {}));
    (5..=7).for_each(|offer| scene.offer(at(101), 2, slot(offer)));
    let seen = scene.see(at(101));
    let ended = [(1, 4, handed_over(slot(5), 150)), (1, 5, handed_over(slot(6), 150))];
    assert_eq!((seen.started.len(), seen.ended), (2, ended.to_vec()));
}

#[test]
fn with_nothing_to_hand_over_a_slot_goes_to_who_waits_for_a_credit() {
    let mut scene = Scene::experienced(1, 0);
    (1..=3).for_each(|who| scene.greet(at(100), who));
    scene.job(at(100), 1, |_| {});
    scene.see(at(100));
    scene.ask(at(100), 3, 1);
    scene.offer(at(110), 2, slot(5));
    scene.offer(at(110), 2, slot(6));
    assert_eq!(scene.see(at(110)).offered, [(3, OfferId(5))]);
    // Who asks a busy worker is told at once of the slot elsewhere.
    scene.ask(at(120), 1, 1);
    assert_eq!(scene.see(at(120)).offered, [(1, OfferId(6))]);
}

#[test]
fn a_slot_that_nobody_has_use_for_is_declined_in_time() {
    let mut scene = Scene::experienced(1, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    scene.job(at(100), 1, |_| {});
    scene.offer(at(100), 2, slot(5));
    scene.see(at(100));
    assert_eq!(scene.server.poll_timeout(), Some(at(200)));
    scene.server.handle_timeout(at(199));
    assert_eq!(scene.see(at(199)).declined, []);
    scene.server.handle_timeout(at(200));
    assert_eq!(scene.see(at(200)).declined, [(2, OfferId(5))]);
}

#[test]
fn its_own_slot_is_declined_at_once() {
    let mut scene = Scene::new(1, 9);
    scene.greet(at(0), 1);
    scene.offer(at(0), 1, OfferedSlot { instance: key().instance, ..slot(5) });
    assert_eq!(scene.see(at(0)).declined, [(1, OfferId(5))]);
}

#[test]
fn an_idle_worker_offers_a_slot_and_keeps_it_for_who_brings_the_offer() {
    let (mut scene, seen) = Scene::idle(1, 0);
    scene.greet(at(100), 1);
    let [(offered, true)] = &seen.offers[..] else { panic!("not one, blindly") };
    assert_eq!((&offered.instance, offered.incarnation), (&key().instance, LIFE));
    assert_eq!(offered.lifetime_ms, 90);
    let (offer, claim) = (offered.offer, Claim::Offer(offered.offer));
    scene.job(at(101), 1, |_| {});
    assert_eq!(scene.see(at(101)).ended, [(1, 1, Verdict::Rejected(Reason::Full))]);
    scene.job(at(102), 1, |job| job.claim = claim);
    let seen = scene.see(at(102));
    assert_eq!((seen.started.len(), seen.ended), (1, vec![]));
    scene.server.handle_no_taker(offer);
    scene.finish(at(200), seen.started[0]);
    // Idle again, it may try a peer of which nothing is known once more.
    let offers = scene.see(at(200)).offers;
    assert!(matches!(offers[..], [(_, true)]), "{offers:?}");
}

#[test]
fn an_offer_that_found_nobody_is_made_again_after_a_service_to_who_is_known_to_be_busy() {
    let (mut scene, seen) = Scene::idle(1, 9);
    assert_eq!(scene.server.load(at(100)).promised, 1);
    scene.server.handle_no_taker(seen.offers[0].0.offer);
    assert_eq!(scene.server.load(at(100)).promised, 0);
    assert_eq!(scene.server.poll_timeout(), Some(at(140)));
    assert!(scene.see(at(139)).offers.is_empty());
    let offers = scene.see(at(140)).offers;
    let [(again, false)] = &offers[..] else { panic!("{offers:?}") };
    scene.server.handle_no_taker(again.offer);
    // And then after twice as long.
    assert_eq!(scene.server.poll_timeout(), Some(at(220)));
}

/// How many credits a worker of that scene grants to one who wants nine.
fn granted(scene: &mut Scene, now: Timestamp) -> u32 {
    scene.greet(now, 1);
    scene.ask(now, 1, 9);
    scene.see(now).granted.iter().map(|(_, credits, _)| credits).sum()
}

#[test]
fn who_has_finished_nothing_is_not_fast() {
    assert_eq!(granted(&mut Scene::new(2, 20), at(0)), 2);
    // Nor who has not for long: the work may be another.
    assert_eq!(granted(&mut Scene::experienced(2, 20), at(10_099)), 5);
    assert_eq!(granted(&mut Scene::experienced(2, 20), at(10_100)), 2);
}

#[test]
fn nor_is_who_has_been_at_work_for_long_as_fast_as_before() {
    let at_work_since = |started_at| {
        let mut scene = Scene::experienced(1, 20);
        scene.greet(started_at, 2);
        scene.job(started_at, 2, |job| job.share = 0);
        scene.see(started_at);
        granted(&mut scene, at(200))
    };
    assert_eq!((at_work_since(at(180)), at_work_since(at(119))), (3, 0));
}

#[test]
fn who_has_had_no_job_yet_offers_to_take_some_over() {
    let mut scene = Scene::new(1, 9);
    let offers = scene.see(at(0)).offers;
    let [(first, true)] = &offers[..] else { panic!("{offers:?}") };
    scene.server.handle_no_taker(first.offer);
    assert_eq!(scene.server.poll_timeout(), Some(at(100)));
    assert!(matches!(scene.see(at(100)).offers[..], [(_, false)]));
}

#[test]
fn what_waits_behind_a_first_job_can_be_taken_over() {
    let mut scene = Scene::new(1, 9);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    (0..2).for_each(|_| scene.job(at(0), 1, |_| {}));
    scene.see(at(0));
    scene.offer(at(1), 2, slot(5));
    assert_eq!(scene.see(at(1)).ended, [(1, 2, handed_over(slot(5), 150))]);
}

#[test]
fn nothing_is_offered_where_no_job_can_be_handed_over() {
    let mut scene = Scene::new(1, 9);
    scene.greet(at(0), 1);
    scene.job(at(0), 1, |job| job.redirects_left = 0);
    let task = scene.see(at(0)).started[0];
    scene.finish(at(100), task);
    assert!(scene.see(at(5000)).offers.is_empty());
}

#[test]
fn a_job_that_was_handed_over_no_longer_counts_against_its_sender() {
    let mut scene = Scene::experienced(1, 3);
    (1..=4).for_each(|who| scene.greet(at(100), who));
    [1, 1, 2, 3].into_iter().for_each(|who| scene.job(at(100), who, |_| {}));
    scene.see(at(100));
    scene.ask(at(101), 1, 1);
    scene.ask(at(102), 2, 1);
    scene.offer(at(110), 4, slot(5));
    let seen = scene.see(at(110));
    assert_eq!(seen.ended, [(1, 2, handed_over(slot(5), 150))]);
    // Each has one job here, and this one has waited longer.
    assert_eq!(seen.granted, [(1, 1, true)]);
}
