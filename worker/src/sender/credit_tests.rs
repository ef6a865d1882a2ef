//! Asks and credits at a sender: what it does where one gets lost, lapses or does not fit.

use svcmap_proto::jobs::{Demand, Grant};
use svcmap_proto::load::{Load, State};

use super::handover_tests::{Alone, entry, publish, slot, spec};
use super::*;
use crate::testing::*;
use svcmap_proto::jobs::ToWorker;

fn submit(alone: &mut Alone, now: Timestamp, jobs: std::ops::Range<u64>) {
    jobs.for_each(|job| alone.sender.handle_submit(now, JobId(job), spec(b"1")));
}

/// What each worker is asked for.
fn asks(sent: &[(u64, ToWorker)]) -> Vec<(u64, u32)> {
    let ask = |(link, message): &(u64, ToWorker)| match message {
        ToWorker::Ask(Demand { share, .. }) => Some((*link, *share)),
        _ => None,
    };
    sent.iter().filter_map(ask).collect()
}

#[test]
fn who_grants_nothing_is_asked_again_if_there_is_nobody_else() {
    let mut alone = Alone::new(1);
    submit(&mut alone, at(0), 0..3);
    let link = asks(&alone.see(at(0)))[0].0;
    let mut asked_again = Vec::new();
    for now in 1..=40 {
        alone.sender.handle_timeout(at(now));
        asked_again.extend(asks(&alone.see(at(now))).into_iter().map(|(to, n)| (now, to, n)));
    }
    // Each time after twice as long.
    assert_eq!(asked_again, [1, 3, 7, 15, 31].map(|now| (now, link, 3)));
}

#[test]
fn while_nobody_can_be_asked_the_loop_sleeps() {
    let mut alone = Alone::new(1);
    let load =
        Load { sequence: 2, state: State::Failing, slots: 9, concurrency: 1, ..Load::default() };
    publish(&mut alone.sender, at(0), 2, vec![entry(0, load)]);
    submit(&mut alone, at(1), 0..1);
    let (mut now, mut turns) = (at(1), 0);
    while now < at(2500) {
        assert_eq!(asks(&alone.see(now)), []);
        now = alone.sender.poll_timeout().expect("a job waits").max(now);
        alone.sender.handle_timeout(now);
        turns += 1;
    }
    // Ten of these looks, and a few of other parts.
    assert!(turns < 40, "{turns}");
}

#[test]
fn credits_that_are_there_are_not_asked_for_a_second_time() {
    let mut alone = Alone::new(1);
    submit(&mut alone, at(0), 0..5);
    alone.see(at(0));
    alone.grant(at(1), 0, 3);
    let shares: Vec<_> = alone.jobs(at(1)).iter().map(|(_, job)| job.share).collect();
    // Two wait once these are there, and all credits are used.
    assert_eq!(shares, [2, 2, 2]);
    alone.grant(at(2), 0, 2);
    let shares: Vec<_> = alone.jobs(at(2)).iter().map(|(_, job)| job.share).collect();
    assert_eq!(shares, [0, 0]);
}

#[test]
fn credits_that_are_too_small_do_not_stand_for_what_is_asked_for() {
    let mut alone = Alone::new(1);
    submit(&mut alone, at(0), 0..1);
    (1..3).for_each(|job| alone.sender.handle_submit(at(0), JobId(job), spec(&[b'1'; 600])));
    alone.see(at(0));
    let grant = Grant { credits: 3, lifetime_ms: 1000, payload_bytes_max: 500 };
    let load = Load { slots: 4, concurrency: 1, ..Load::default() };
    let message = FromWorker::Grant { grant, received_jobs: 0, load };
    alone.sender.handle_link_message(at(1), 0, message);
    let sent = alone.see(at(1));
    let job = sent.iter().find_map(|(_, message)| match message {
        ToWorker::Jobs(batch) => Some(batch),
        _ => None,
    });
    // With that one, credits of its size would be asked for.
    assert_eq!(job.unwrap().share, 0);
    assert_eq!(asks(&sent), [(0, 2)]);
    alone.grant(at(2), 0, 2);
    assert_eq!(alone.jobs(at(2)).len(), 2);
}

#[test]
fn what_no_worker_takes_is_refused_as_too_large() {
    let mut alone = Alone::new(2);
    alone.sender.handle_submit(at(0), JobId(1), spec(&[b'1'; 1001]));
    alone.sender.handle_submit(at(0), JobId(2), spec(&[b'1'; 1000]));
    alone.see(at(0));
    assert_eq!(alone.refused, [(JobId(1), Reason::TooLarge)]);
    alone.grant(at(1), 0, 1);
    assert_eq!(alone.jobs(at(1))[0].1.attempt.job, 2);
}

#[test]
fn what_was_asked_of_a_worker_that_is_gone_is_asked_of_others() {
    let mut alone = Alone::new(2);
    submit(&mut alone, at(0), 0..1);
    let (first, _) = asks(&alone.see(at(0)))[0];
    alone.grant(at(1), first, 1);
    assert_eq!(alone.jobs(at(1)).len(), 1);
    // It is the better one to ask for the next job, and then its connection breaks.
    let load = |worker| {
        let queued = if alone.links.get(&worker) == Some(&first) { 0 } else { 3 };
        let running = queued.min(1);
        Load { sequence: 2, running, queued, slots: 9, concurrency: 1, ..Load::default() }
    };
    let entries = (0..2).map(|worker| entry(worker, load(worker))).collect();
    publish(&mut alone.sender, at(2), 2, entries);
    submit(&mut alone, at(2), 1..2);
    assert_eq!(asks(&alone.see(at(2))), [(first, 1)]);
    alone.sender.handle_link_unwritable(at(3), first);
    let asked = asks(&alone.see(at(3)));
    assert!(matches!(asked[..], [(other, 1)] if other != first), "{asked:?}");
}

#[test]
fn a_job_that_can_go_nowhere_else_is_served_before_others() {
    let mut alone = Alone::new(1);
    submit(&mut alone, at(0), 0..3);
    let instance = Some(name("w-0"));
    alone.sender.handle_submit(at(0), JobId(3), JobSpec { instance, ..spec(b"1") });
    alone.see(at(0));
    alone.grant(at(1), 0, 1);
    assert_eq!(alone.jobs(at(1))[0].1.attempt.job, 3);
}

#[test]
fn a_slot_that_could_not_be_used_leaves_its_job_with_somebody_to_ask() {
    let mut alone = Alone::new(2);
    submit(&mut alone, at(0), 0..1);
    let (link, _) = asks(&alone.see(at(0)))[0];
    // Of an instance that is not known here yet.
    alone.sender.handle_link_message(at(1), link, FromWorker::Offered(slot(9, 1)));
    assert_eq!(asks(&alone.see(at(1))).len(), 1);
}

#[test]
fn a_closed_link_is_opened_again_only_after_its_end_was_told() {
    let mut alone = Alone::new(2);
    submit(&mut alone, at(0), 0..2);
    alone.see(at(0));
    let (here, there) = (alone.links[&0], alone.links[&1]);
    // In one turn the connection to a worker breaks, and another one passes on a slot of it.
    alone.sender.handle_link_unwritable(at(1), there);
    alone.sender.handle_link_message(at(1), here, FromWorker::Offered(slot(1, 1)));
    let outputs = std::iter::from_fn(|| alone.sender.poll_output(at(1)));
    let told: Vec<_> = outputs
        .filter_map(|output| match output {
            SenderOutput::Disconnect { link } => Some((link, false)),
            SenderOutput::Connect { link, .. } => Some((link, true)),
            _ => None,
        })
        .collect();
    assert_eq!(told, [(there, false)]);
}

#[test]
fn no_word_of_a_worker_is_too_absurd() {
    let mut alone = Alone::new(1);
    submit(&mut alone, at(0), 0..1);
    alone.see(at(0));
    let load = Load {
        mean_service_us: u64::MAX,
        slots: u32::MAX,
        concurrency: 1,
        sequence: u64::MAX,
        since_finish_ms: Some(u32::MAX),
        ..Load::default()
    };
    for _ in 0..3 {
        let grant = Grant { credits: u32::MAX, lifetime_ms: u32::MAX, payload_bytes_max: 1000 };
        let message = FromWorker::Grant { grant, received_jobs: u64::MAX, load };
        alone.sender.handle_link_message(at(1), 0, message);
        alone.see(at(1));
    }
    let credits = alone.sender.links.get(0).map(|state| state.link.credits(at(1), 0).0);
    assert!(credits.is_some_and(|credits| credits <= crate::config::SLOTS_MAX));
}
