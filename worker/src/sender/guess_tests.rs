//! A sender whose jobs are shorter than their way, with workers that do as the test says.

use svcmap_proto::jobs::{Claim, Verdict};
use svcmap_proto::load::Load;

use super::handover_tests::{Alone, entry, new_sender, publish, spec};
use super::*;
use crate::outcome::Outcome;
use crate::testing::*;
use svcmap_proto::jobs::ToWorker;

/// Of a worker of four slots that takes a millisecond for a job, with so many here.
fn load(jobs: u32) -> Load {
    Load { mean_service_us: 1000, ..placement_tests::load(jobs) }
}

fn submit(alone: &mut Alone, now: Timestamp, jobs: std::ops::Range<u64>) {
    jobs.for_each(|job| alone.sender.handle_submit(now, JobId(job), spec(b"1")));
}

fn done(alone: &mut Alone, now: Timestamp, (link, job): &(u64, Sent), load: Load) {
    alone.end_at(now, *link, job.number, job, Verdict::Done, load);
}

/// After a first job, which every worker was asked for, and whose way took ten times as long as it
/// did. All workers have said that they are idle.
fn short(workers: u16) -> Alone {
    let mut alone = Alone::new(workers);
    submit(&mut alone, at(0), 0..u64::from(workers));
    alone.see(at(0));
    let links: Vec<_> = alone.links.values().copied().collect();
    links.iter().for_each(|link| alone.grant(at(0), *link, 1));
    let jobs = alone.jobs(at(0));
    assert_eq!(jobs.len(), usize::from(workers));
    jobs.iter().for_each(|job| done(&mut alone, at(20), job, load(0)));
    alone.see(at(20));
    alone
}

#[test]
fn short_jobs_go_at_once_to_whoever_has_least_of_this_sender() {
    let mut alone = short(3);
    submit(&mut alone, at(21), 10..13);
    let first = alone.jobs(at(21));
    assert!(first.iter().all(|(_, job)| (job.claim, job.share) == (Claim::Nothing, 0)));
    let mut links: Vec<_> = first.iter().map(|(link, _)| *link).collect();
    links.sort_unstable();
    assert_eq!(links, [0, 1, 2]);
    // The next one follows the first that comes back, however much that one has to do.
    done(&mut alone, at(41), &first[1], load(2));
    submit(&mut alone, at(41), 13..14);
    assert_eq!(alone.jobs(at(41))[0].0, first[1].0);
}

#[test]
fn no_more_are_under_way_than_outcomes_allow() {
    let mut alone = short(3);
    submit(&mut alone, at(21), 10..40);
    let first = alone.jobs(at(21));
    assert_eq!(first.len(), 4);
    for job in &first {
        done(&mut alone, at(41), job, load(0));
    }
    assert!((5..=8).contains(&alone.jobs(at(41)).len()));
}

#[test]
fn where_there_is_no_slot_nothing_is_guessed() {
    let mut alone = short(1);
    submit(&mut alone, at(21), 10..11);
    let job = alone.jobs(at(21)).remove(0);
    done(&mut alone, at(41), &job, Load { promised: 2, ..load(2) });
    submit(&mut alone, at(41), 11..12);
    let sent = alone.see(at(41));
    // Nothing is under way whose outcome would tell of room, so one slot is asked for.
    let [(_, ToWorker::Ask(demand))] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!(demand.share, 1);
}

#[test]
fn who_was_asked_gets_no_guess_before_it_has_said_what_it_granted() {
    let mut alone = Alone::new(1);
    submit(&mut alone, at(0), 0..4);
    alone.see(at(0));
    let link = alone.links[&0];
    alone.grant(at(0), link, 1);
    let first = alone.jobs(at(0)).remove(0);
    // It grants the next one before it hears that no more are wanted.
    done(&mut alone, at(20), &first, load(0));
    assert!(alone.jobs(at(20)).is_empty());
    alone.grant(at(21), link, 1);
    let second = alone.jobs(at(21)).remove(0);
    assert_eq!((second.1.claim, second.1.share), (Claim::Credit, 0));
    assert!(alone.jobs(at(21)).is_empty());
    done(&mut alone, at(41), &second, load(0));
    let rest = alone.jobs(at(41));
    assert_eq!(rest.len(), 2);
    assert!(rest.iter().all(|(_, job)| job.claim == Claim::Nothing));
}

#[test]
fn while_outcomes_fail_to_come_an_idle_worker_is_asked() {
    let mut alone = short(2);
    submit(&mut alone, at(21), 10..40);
    assert_eq!(alone.jobs(at(21)).len(), 4, "that is all that may be under way");
    let idle = Load { sequence: 2, ..load(0) };
    let entries = (0..3).map(|worker| entry(worker, idle)).collect();
    publish(&mut alone.sender, at(22), 2, entries);
    assert_eq!(alone.see(at(22)), []);
    let due = alone.sender.poll_timeout().unwrap();
    assert!(due < at(100), "{due:?}");
    alone.sender.handle_timeout(due);
    let sent = alone.see(due);
    let [(link, ToWorker::Ask(demand))] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((alone.worker(*link), demand.share), (2, 1));
}

#[test]
fn a_job_for_one_worker_only_asks_there_however_short_it_is() {
    let mut alone = short(2);
    let instance = Some(name("w-1"));
    alone.sender.handle_submit(at(21), JobId(10), JobSpec { instance, ..spec(b"1") });
    let sent = alone.see(at(21));
    let [(link, ToWorker::Ask(demand))] = &sent[..] else { panic!("{sent:?}") };
    assert_eq!((alone.worker(*link), demand.share, demand.pinned), (1, 1, true));
}

#[test]
fn when_jobs_grow_longer_they_ask_again() {
    let mut alone = short(1);
    let long = Load { mean_service_us: 100_000_000, ..load(0) };
    submit(&mut alone, at(21), 10..11);
    let job = alone.jobs(at(21)).remove(0);
    done(&mut alone, at(41), &job, long);
    submit(&mut alone, at(41), 11..12);
    let sent = alone.see(at(41));
    assert!(matches!(&sent[..], [(_, ToWorker::Ask(_))]), "{sent:?}");
}

#[test]
fn jobs_without_a_hold_take_what_is_free_and_nothing_is_promised_beside_them() {
    let mut alone = Alone::new(1);
    for job in 1..=5 {
        let urgent = JobSpec { hold: Some(Duration::ZERO), ..spec(b"1") };
        alone.sender.handle_submit(at(0), JobId(job), urgent);
    }
    let jobs = alone.jobs(at(0));
    assert_eq!(jobs.len(), 4);
    assert!(jobs.iter().all(|(_, job)| (job.claim, job.share) == (Claim::Nothing, 0)));
    alone.sender.handle_timeout(at(0));
    alone.see(at(0));
    assert_eq!(alone.refused, [(JobId(5), Reason::NoCredit)]);
}

#[test]
fn without_a_hold_a_job_is_refused_as_soon_as_it_is_known_who_is_there() {
    let mut sender = new_sender(1);
    let urgent = JobSpec { hold: Some(Duration::ZERO), ..spec(b"1") };
    sender.handle_submit(at(0), JobId(1), urgent);
    sender.handle_timeout(at(0));
    assert!(std::iter::from_fn(|| sender.poll_output(at(0))).all(|output| !is_refusal(&output)));
    publish(&mut sender, at(5), 1, vec![entry(0, Load { sequence: 1, ..load(4) })]);
    assert!(sender.poll_timeout() <= Some(at(5)));
    sender.handle_timeout(at(5));
    assert!(std::iter::from_fn(|| sender.poll_output(at(5))).any(|output| is_refusal(&output)));
}

fn is_refusal(output: &SenderOutput) -> bool {
    matches!(output, SenderOutput::Settled { outcome: Outcome::Refused(_), .. })
}
