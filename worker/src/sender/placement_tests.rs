//! Where jobs go, and that none waits or is refused while somebody would take it.

use svcmap_proto::control::Entry;
use svcmap_proto::jobs::{Claim, Demand, Verdict};
use svcmap_proto::load::{Load, Share, State};

use super::handover_tests::{Alone, entry, publish, slot, spec};
use super::*;
use crate::choice::Policy;
use crate::testing::*;
use svcmap_proto::jobs::ToWorker;

/// Of a worker with four slots and so many jobs.
pub(super) fn load(jobs: u32) -> Load {
    Load {
        sequence: 1,
        running: jobs.min(1),
        queued: jobs.saturating_sub(1),
        concurrency: 1,
        slots: 4,
        ..Load::default()
    }
}

/// Of one without, whose jobs take so many milliseconds.
fn paced(mean_ms: u64) -> Load {
    Load { sequence: 2, mean_service_us: mean_ms * 1000, ..load(0) }
}

/// Of one of the JSON dialect.
fn json() -> Load {
    Load { sequence: 1, share: Share::new(0.1), ..Load::default() }
}

fn entries(loads: impl IntoIterator<Item = Load>) -> Vec<Entry> {
    (0..).zip(loads).map(|(worker, load)| entry(worker, load)).collect()
}

fn urgent(bytes: usize) -> JobSpec {
    JobSpec { hold: Some(Duration::ZERO), ..spec(&vec![b'1'; bytes]) }
}

fn submit(alone: &mut Alone, now: Timestamp, job: u64, spec: JobSpec) {
    alone.sender.handle_submit(now, JobId(job), spec);
}

/// What is sent now, once all that is due has been done.
fn turn(alone: &mut Alone, now: Timestamp) -> Vec<(u64, ToWorker)> {
    let mut sent = alone.see(now);
    alone.sender.handle_timeout(now);
    sent.extend(alone.see(now));
    sent
}

/// The jobs among that, and the workers that they go to.
fn jobs(alone: &Alone, sent: Vec<(u64, ToWorker)>) -> Vec<(u16, Sent)> {
    let jobs = |(link, message)| Sent::all(message).into_iter().map(move |job| (link, job));
    sent.into_iter().flat_map(jobs).map(|(link, job)| (alone.worker(link), job)).collect()
}

/// The workers that jobs go to now, with what each claims.
fn claims(alone: &mut Alone, now: Timestamp) -> Vec<(u16, u64, Claim)> {
    let sent = turn(alone, now);
    jobs(alone, sent).iter().map(|(to, job)| (*to, job.attempt.job, job.claim)).collect()
}

/// The first job of a service has found out that this worker, which takes it, cannot start it.
fn unable(alone: &mut Alone, worker: u16) {
    let link = alone.links[&worker];
    alone.grant(at(1), link, 1);
    let (to, job) = alone.jobs(at(1)).remove(0);
    assert_eq!(to, link);
    let cannot_start = Verdict::Rejected(Reason::CannotStart);
    alone.end_at(at(2), link, 1, &job, cannot_start, load(0));
    turn(alone, at(2));
}

#[test]
fn who_cannot_read_a_job_is_not_waited_for_by_it() {
    let mut alone = Alone::among(entries([load(0), json()]));
    submit(&mut alone, at(0), 1, spec(b"\xff"));
    alone.see(at(0));
    unable(&mut alone, 0);
    let link = alone.links[&0];
    alone.grant(at(100), link, 1);
    assert_eq!(claims(&mut alone, at(100)), [(0, 1, Claim::Credit)]);
}

#[test]
fn a_job_that_waits_for_others_than_who_could_not_start_it_holds_up_nobody() {
    let mut alone = Alone::new(2);
    submit(&mut alone, at(0), 1, spec(b"1"));
    alone.see(at(0));
    let worker = *alone.links.keys().next().unwrap();
    unable(&mut alone, worker);
    (2..=4).for_each(|job| submit(&mut alone, at(3), job, spec(b"1")));
    alone.see(at(3));
    let link = alone.links[&worker];
    alone.grant(at(4), link, 2);
    let credit = |job| (worker, job, Claim::Credit);
    assert_eq!(claims(&mut alone, at(4)), [credit(2), credit(3)]);
}

#[test]
fn who_takes_no_job_that_large_is_not_waited_for_by_it() {
    let mut alone = Alone::new(2);
    alone.payload_bytes_max.insert(0, 10_000);
    (1..=2).for_each(|job| submit(&mut alone, at(0), job, spec(&[b'1'; 5000])));
    // What both take is known.
    alone.see(at(0));
    assert_eq!(alone.links.len(), 2);
    unable(&mut alone, 0);
    assert_eq!(alone.refused, []);
    let link = alone.links[&0];
    alone.grant(at(100), link, 2);
    let sent: Vec<_> = claims(&mut alone, at(100)).iter().map(|(to, job, _)| (*to, *job)).collect();
    assert_eq!(sent, [(0, 1), (0, 2)]);
}

#[test]
fn a_slot_of_who_could_not_start_a_job_is_given_back() {
    let mut alone = Alone::new(2);
    submit(&mut alone, at(0), 1, spec(b"1"));
    alone.see(at(0));
    let worker = *alone.links.keys().next().unwrap();
    unable(&mut alone, worker);
    let link = alone.links[&worker];
    alone.sender.handle_link_message(at(3), link, FromWorker::Offered(slot(worker, 1)));
    let sent = alone.see(at(3));
    let is_return = |(to, message): &(u64, ToWorker)| {
        *to == link && matches!(message, ToWorker::Return(Claim::Offer(_)))
    };
    assert!(sent.iter().any(is_return), "{sent:?}");
    assert!(jobs(&alone, sent).is_empty());
}

/// A slow worker, 0, has promised a slot when a job comes, and a fast one, 1, has not.
fn slow_promise(fast: Load, slow_ms: u64, spec: JobSpec) -> Alone {
    let mut alone = Alone::new(2);
    alone.payload_bytes_max.insert(0, 10_000);
    // Both have done a job, and the fast one has said how it is since.
    (8..10).for_each(|job| submit(&mut alone, at(0), job, self::spec(b"1")));
    alone.see(at(0));
    let (slow, link) = (alone.links[&0], alone.links[&1]);
    [slow, link].iter().for_each(|link| alone.grant(at(0), *link, 1));
    for (link, job) in alone.jobs(at(0)) {
        let load = if link == slow { paced(slow_ms) } else { fast };
        alone.end_at(at(1), link, 1, &job, Verdict::Done, load);
    }
    for sequence in 3..40 {
        let pong = FromWorker::Pong { received_jobs: 1, load: Load { sequence, ..fast } };
        alone.sender.handle_link_message(at(1), link, pong);
    }
    alone.see(at(1));
    alone.grant_at(at(2), slow, 1, Load { sequence: 3, ..paced(slow_ms) });
    alone.see(at(2));
    submit(&mut alone, at(2), 1, spec);
    alone
}

fn fast() -> Load {
    // One runs and none waits.
    Load { running: 1, ..paced(20) }
}

#[test]
fn a_promise_of_a_slow_worker_is_kept_for_later_while_a_fast_one_may_promise_more() {
    let mut alone = slow_promise(fast(), 600, spec(b"1"));
    assert_eq!(claims(&mut alone, at(2)), []);
    // Nothing else happens, so it looks again by itself; and it asks for no second promise.
    let mut asked = 0;
    let (mut now, mut taken) = (at(2), Vec::new());
    while taken.is_empty() {
        now = alone.sender.poll_timeout().expect("a job waits").max(now);
        assert!(now < at(2900), "it has waited for longer than it takes there");
        let sent = turn(&mut alone, now);
        let is_ask = |(to, message): &(u64, ToWorker)| {
            alone.worker(*to) == 0 && matches!(message, ToWorker::Ask(Demand { share: 1.., .. }))
        };
        asked += sent.iter().filter(|sent| is_ask(sent)).count();
        taken = jobs(&alone, sent);
    }
    assert_eq!((asked, taken[0].0, taken[0].1.claim), (0, 0, Claim::Credit));
    assert!(now.since(at(2)) >= ms(600), "{now}");
}

#[test]
fn whoever_is_not_held_for_longer_takes_the_promise_of_a_slow_worker() {
    for hold in [0, 500] {
        let spec = JobSpec { hold: Some(ms(hold)), ..spec(b"1") };
        // The fast one has no room.
        let mut alone = slow_promise(Load { promised: 3, ..fast() }, 600, spec);
        assert_eq!(claims(&mut alone, at(2)), [(0, 1, Claim::Credit)], "held for {hold} ms");
        assert_eq!(alone.refused, []);
    }
}

#[test]
fn a_promise_is_taken_at_the_end_of_a_hold_that_is_longer() {
    let mut alone = slow_promise(fast(), 600, JobSpec { hold: Some(ms(700)), ..spec(b"1") });
    assert_eq!(claims(&mut alone, at(2)), []);
    assert_eq!(claims(&mut alone, at(30)), []);
    assert_eq!(claims(&mut alone, at(702)), [(0, 1, Claim::Credit)]);
}

#[test]
fn a_promise_is_not_weighed_against_who_can_promise_nothing() {
    let cannot = [
        Load { state: State::Failing, ..fast() },
        Load { state: State::Draining, ..fast() },
        Load { share: Share::new(0.0), ..fast() },
    ];
    for load in cannot {
        let mut alone = slow_promise(fast(), 600, spec(b"\xff"));
        let load = Load { sequence: 50, ..load };
        let news = vec![entry(0, Load { sequence: 4, ..paced(600) }), entry(1, load)];
        publish(&mut alone.sender, at(3), 2, news);
        assert_eq!(claims(&mut alone, at(3)), [(0, 1, Claim::Credit)], "{load:?}");
    }
    // Nor against who takes no job that large.
    let mut alone = slow_promise(fast(), 600, spec(&[b'1'; 5000]));
    assert_eq!(claims(&mut alone, at(2)), [(0, 1, Claim::Credit)]);
}

#[test]
fn a_job_that_is_not_to_be_held_is_looked_at_wherever_it_stands() {
    let mut alone = Alone::new(1);
    (1..=3).for_each(|job| submit(&mut alone, at(0), job, spec(b"1")));
    assert_eq!(claims(&mut alone, at(0)), []);
    (4..=9).for_each(|job| submit(&mut alone, at(1), job, urgent(1)));
    let sent = claims(&mut alone, at(1));
    assert_eq!(sent, [4, 5, 6, 7].map(|job| (0, job, Claim::Nothing)));
    let refused = [8, 9].map(|job| (JobId(job), Reason::NoCredit));
    assert_eq!(alone.refused, refused);
}

#[test]
fn a_job_goes_where_it_is_not_too_large() {
    for policy in [Policy::Svcmap, Policy::NoCredits] {
        // The one that looks better takes less.
        let mut alone = Alone::by(policy, 1, entries([load(0), load(2)]));
        alone.payload_bytes_max.insert(1, 10_000);
        let mut sent = Vec::new();
        for (now, job) in [(at(1), 1), (at(2), 2)] {
            submit(&mut alone, now, job, urgent(5000));
            sent.extend(claims(&mut alone, now));
        }
        assert_eq!(sent, [1, 2].map(|job| (1, job, Claim::Nothing)), "{policy}");
        submit(&mut alone, at(3), 3, urgent(10_001));
        turn(&mut alone, at(3));
        assert_eq!(alone.refused, [(JobId(3), Reason::TooLarge)], "{policy}");
        // To one that takes less there is no other way.
        let instance = Some(name("w-0"));
        submit(&mut alone, at(4), 4, JobSpec { instance, ..urgent(5000) });
        turn(&mut alone, at(4));
        assert_eq!(alone.refused[1..], [(JobId(4), Reason::TooLarge)], "{policy}");
    }
}

/// Two workers whose jobs are shorter than their way, and two jobs that have just been done.
fn short(alone: &mut Alone, workers: u16) {
    (0..workers.into()).for_each(|job| submit(alone, at(0), 100 + job, spec(b"1")));
    alone.see(at(0));
    let links: Vec<_> = alone.links.values().copied().collect();
    links.iter().for_each(|link| alone.grant(at(0), *link, 1));
    let jobs = alone.jobs(at(0));
    assert_eq!(jobs.len(), usize::from(workers));
    for (link, job) in &jobs {
        alone.end_at(at(20), *link, job.number, job, Verdict::Done, paced(1));
    }
    alone.see(at(20));
}

#[test]
fn a_guess_is_not_too_large_for_its_worker() {
    let mut alone = Alone::new(2);
    alone.payload_bytes_max.insert(1, 10_000);
    short(&mut alone, 2);
    (1..=3).for_each(|job| submit(&mut alone, at(21), job, spec(&[b'1'; 5000])));
    assert_eq!(claims(&mut alone, at(21)), [1, 2, 3].map(|job| (1, job, Claim::Nothing)));
    assert_eq!(alone.refused, []);
}

#[test]
fn a_worker_that_has_as_many_of_this_sender_as_slots_gets_no_more_at_once() {
    let mut alone = Alone::new(1);
    (1..=4).for_each(|job| submit(&mut alone, at(0), job, urgent(1)));
    assert_eq!(claims(&mut alone, at(0)).len(), 4);
    // What it said is old when it comes.
    publish(&mut alone.sender, at(100), 2, entries([Load { sequence: 9, ..load(0) }]));
    submit(&mut alone, at(100), 5, urgent(1));
    assert_eq!(claims(&mut alone, at(100)), []);
    assert_eq!(alone.refused, [(JobId(5), Reason::NoCredit)]);
}

#[test]
fn a_worker_with_room_is_found_however_many_have_none() {
    let full = std::iter::repeat_n(load(4), 30);
    let mut alone = Alone::among(entries(full.chain([load(0)])));
    (1..=4).for_each(|job| submit(&mut alone, at(0), job, urgent(1)));
    assert_eq!(claims(&mut alone, at(0)), [1, 2, 3, 4].map(|job| (30, job, Claim::Nothing)));
    assert_eq!(alone.refused, []);
}

#[test]
fn those_that_are_equal_get_as_many_whoever_stands_beside_them() {
    let mut counts = [0; 12];
    for number in 1..=600 {
        // All but the last four are full.
        let loads = (0..12).map(|worker| load(if worker < 8 { 4 } else { 0 }));
        let mut alone = Alone::by(Policy::Svcmap, number, entries(loads));
        submit(&mut alone, at(0), 1, urgent(1));
        counts[usize::from(claims(&mut alone, at(0))[0].0)] += 1;
    }
    assert!(counts[8..].iter().all(|count| (100..200).contains(count)), "{counts:?}");
}

#[test]
fn workers_of_both_kinds_serve_one_lane() {
    let mut alone = Alone::among(entries([load(0), json()]));
    submit(&mut alone, at(0), 1, spec(b"1"));
    submit(&mut alone, at(0), 2, spec(b"\xff"));
    submit(&mut alone, at(0), 3, spec(b"3"));
    let sent = turn(&mut alone, at(0));
    // One goes by the report of the JSON worker, the others ask the native one.
    let (json, native) = (alone.requests.clone(), alone.links[&0]);
    assert_eq!((json.len(), alone.worker(json[0])), (1, 1));
    let ask = |(to, message): &(u64, ToWorker)| match message {
        ToWorker::Ask(Demand { share, .. }) => Some((*to, *share)),
        _ => None,
    };
    assert_eq!(sent.iter().filter_map(ask).collect::<Vec<_>>(), [(native, 2)]);
    // The next one waits for the native one, whatever room there is elsewhere.
    let ok = br#"{"status":"ok","message":"job accepted"}"#;
    alone.sender.handle_link_reply(at(1), json[0], None, ok).unwrap();
    assert_eq!(claims(&mut alone, at(1)), []);
    alone.grant(at(2), native, 1);
    assert_eq!(claims(&mut alone, at(2)), [(0, 2, Claim::Credit)]);
    assert_eq!(alone.requests, [json[0], json[0]]);
}
