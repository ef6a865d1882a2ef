//! Jobs that an instance could not start, and instances that are set aside.

use svcmap_proto::jobs::{Demand, Verdict};
use svcmap_proto::load::{Load, State};

use super::handover_tests::{Alone, entry, publish, spec};
use super::*;
use crate::testing::*;
use svcmap_proto::jobs::ToWorker;

const FREE: Load = Load { slots: 4, concurrency: 1, ..EMPTY };
const EMPTY: Load = Load {
    sequence: 9,
    state: State::Ready,
    queued: 0,
    queued_high: 0,
    queued_low: 0,
    running: 0,
    promised: 0,
    slots: 0,
    concurrency: 0,
    mean_service_us: 0,
    accepted: 0,
    done: 0,
    failed: 0,
    rejected: 0,
    turned_away: 0,
    oldest_queued_ms: 0,
    since_finish_ms: None,
    share: None,
    failing: 0,
};

/// The workers that are asked for credits.
fn asked(alone: &mut Alone, now: Timestamp) -> Vec<u64> {
    let ask = |(link, message): (u64, ToWorker)| match message {
        ToWorker::Ask(Demand { share: 1.., .. }) => Some(link),
        _ => None,
    };
    alone.see(now).into_iter().filter_map(ask).collect()
}

#[test]
fn a_job_that_could_not_be_started_is_not_tried_there_again_while_there_are_others() {
    let mut alone = Alone::new(2);
    alone.sender.handle_submit(at(0), JobId(1), spec(b"1"));
    let first = asked(&mut alone, at(0))[0];
    alone.grant(at(1), first, 1);
    let (link, job) = alone.jobs(at(1)).remove(0);
    assert_eq!(link, first);
    let cannot_start = Verdict::Rejected(Reason::CannotStart);
    alone.end_at(at(2), first, 1, &job, cannot_start.clone(), FREE);
    // However often it offers itself.
    alone.grant(at(3), first, 3);
    assert!(alone.jobs(at(3)).is_empty());
    let other = 1 - first;
    alone.sender.handle_timeout(at(50));
    alone.see(at(50));
    alone.grant(at(51), other, 1);
    let (link, job) = alone.jobs(at(51)).remove(0);
    assert_eq!(link, other);
    // Nobody can, so any may try again, up to five times.
    let mut numbers = [1, 0];
    let mut end = |alone: &mut Alone, now, link: u64, job: &_| {
        let number = &mut numbers[usize::from(link != first)];
        *number += 1;
        alone.end_at(now, link, *number, job, cannot_start.clone(), FREE);
    };
    end(&mut alone, at(52), other, &job);
    for tries in 3..=5 {
        assert_eq!(alone.refused, []);
        let now = at(100 * tries);
        alone.grant(now, first, 1);
        let (link, job) = alone.jobs(now).remove(0);
        end(&mut alone, now, link, &job);
    }
    alone.see(at(600));
    assert_eq!(alone.refused, [(JobId(1), Reason::CannotStart)]);
}

#[test]
fn one_that_could_not_start_a_job_gets_it_again_if_the_others_are_set_aside() {
    let mut alone = Alone::new(2);
    alone.sender.handle_submit(at(0), JobId(1), spec(b"1"));
    let first = asked(&mut alone, at(0))[0];
    alone.grant(at(1), first, 1);
    let (_, job) = alone.jobs(at(1)).remove(0);
    let aside = Load { state: State::Failing, ..FREE };
    let other = 1 - alone.worker(first);
    publish(&mut alone.sender, at(2), 2, vec![entry(1 - other, FREE), entry(other, aside)]);
    alone.end_at(at(2), first, 1, &job, Verdict::Rejected(Reason::CannotStart), FREE);
    alone.grant(at(3), first, 1);
    assert_eq!(alone.jobs(at(3)).len(), 1);
}

#[test]
fn who_is_set_aside_is_not_asked_and_its_promises_are_void() {
    let mut alone = Alone::new(2);
    (1..=4).for_each(|job| alone.sender.handle_submit(at(0), JobId(job), spec(b"1")));
    let links = asked(&mut alone, at(0));
    assert_eq!(links.len(), 2);
    let aside = Load { state: State::Failing, ..FREE };
    let pong = FromWorker::Pong { received_jobs: 0, load: aside };
    alone.sender.handle_link_message(at(1), links[0], pong);
    assert!(!asked(&mut alone, at(1)).contains(&links[0]));
    for now in 2..200 {
        alone.sender.handle_timeout(at(now));
        assert!(!asked(&mut alone, at(now)).contains(&links[0]));
    }
    // It is as soon as it is back.
    let back = Load { sequence: 10, ..FREE };
    let worker = alone.worker(links[0]);
    publish(&mut alone.sender, at(200), 2, vec![entry(worker, back), entry(1 - worker, FREE)]);
    assert_eq!(asked(&mut alone, at(200)), [links[0]]);
}
