use std::collections::BTreeMap;

use proptest::prelude::*;
use svcmap_proto::jobs::{OfferId, OfferedSlot};
use svcmap_proto::names::Incarnation;

use super::waiting::{LOOK_INTERVAL, NEWS_LIMIT};
use svcmap_proto::jobs::Priority;

use super::*;
use crate::testing::*;

const TRIES_MAX: u32 = 3;

const PATIENCE: Duration = ms(30_000);

fn spec(deadline_ms: u64, hold_ms: u64, idempotent: bool) -> JobSpec {
    JobSpec {
        deadline: Some(ms(deadline_ms)),
        hold: Some(ms(hold_ms)),
        idempotent,
        ..JobSpec::new(name("resize"), vec![1].into())
    }
}

/// That attempt ended so, without a word.
fn ended(attempt: AttemptId, verdict: Verdict) -> Ended {
    let (payload, ran, journey) = Default::default();
    Ended { attempt, verdict, payload, ran, journey }
}

fn lane() -> Lane {
    Lane { service: name("resize"), instance: None }
}

/// The first job of that lane goes over that link.
fn assign(outbox: &mut Outbox, link: u64) -> Option<Assigned> {
    outbox.assign(outbox.next(outbox.find(&lane())?)?.id, link)
}

/// Those that wait in it.
fn waiting(outbox: &Outbox) -> Vec<JobId> {
    let slots = outbox.find(&lane()).into_iter().flat_map(|lane| outbox.lanes.waiting(lane));
    slots.map(|slot| outbox.jobs[slot].id).collect()
}

fn full(_: &Lane) -> Standing {
    Standing::Served(Reason::Full)
}

fn settled(outbox: &mut Outbox) -> Vec<(JobId, Outcome)> {
    std::iter::from_fn(|| outbox.poll_settled()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Submit {
        deadline_ms: u64,
        hold_ms: u64,
        idempotent: bool,
    },
    Assign,
    Ended(usize, Verdict),
    NeverSeen(usize),
    Lost(usize),
    Cancel(u64),
    Refuse(u64),
    /// So much time passes; what is with workers could be taken back from a link, or not.
    Pass(u64, bool),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        Just(Verdict::Done),
        Just(FAILED),
        Just(Verdict::Abandoned),
        Just(Verdict::Rejected(Reason::Full)),
        Just(Verdict::Rejected(Reason::Cancelled)),
        Just(Verdict::Rejected(Reason::TooLarge)),
        Just(Verdict::HandedOver(slot())),
    ];
    prop_oneof![
        4 => (1u64..400, 0u64..400, any::<bool>()).prop_map(|(deadline_ms, hold_ms, idempotent)| {
            Step::Submit { deadline_ms, hold_ms, idempotent }
        }),
        5 => Just(Step::Assign),
        4 => (0usize..4, verdict).prop_map(|(which, verdict)| Step::Ended(which, verdict)),
        2 => (0usize..4).prop_map(Step::NeverSeen),
        2 => (0usize..4).prop_map(Step::Lost),
        1 => (1u64..20).prop_map(Step::Cancel),
        1 => (1u64..20).prop_map(Step::Refuse),
        4 => (1u64..120, any::<bool>()).prop_map(|(time, unsent)| Step::Pass(time, unsent)),
    ]
}

/// What is known of a job that was submitted.
struct Submitted {
    deadline: Timestamp,
    idempotent: bool,
    tries: u32,
    cancelled: bool,
    /// An attempt of it was lost, and nobody knows how far it got.
    may_have_run: bool,
}

fn slot() -> OfferedSlot {
    OfferedSlot {
        instance: name("b-1"),
        incarnation: Incarnation(1),
        offer: OfferId(1),
        lifetime_ms: 100,
        payload_bytes_max: 100,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_job_is_settled_once_in_time_and_truly(
        steps in prop::collection::vec(step(), 1..120),
        stops in any::<bool>(),
    ) {
        let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
        let mut submitted: BTreeMap<JobId, Submitted> = BTreeMap::new();
        let mut outcomes: BTreeMap<JobId, Outcome> = BTreeMap::new();
        let mut under_way: Vec<AttemptId> = Vec::new();
        let mut now = at(0);
        let end = std::iter::once(Step::Pass(1000, false));
        let last = steps.len() - 1;
        for (index, step) in steps.into_iter().chain(end).enumerate() {
            match step {
                Step::Submit { deadline_ms, hold_ms, idempotent } => {
                    let id = JobId(submitted.len() as u64 + 1);
                    let deadline = now + ms(deadline_ms);
                    let job = Submitted {
                        deadline,
                        idempotent,
                        tries: 0,
                        cancelled: false,
                        may_have_run: false,
                    };
                    submitted.insert(id, job);
                    outbox.submit(now, id, spec(deadline_ms, hold_ms, idempotent));
                }
                Step::Assign => {
                    if let Some(Assigned { attempt, deadline, .. }) = assign(&mut outbox, 1) {
                        let job = submitted.get_mut(&JobId(attempt.job)).unwrap();
                        prop_assert_eq!(deadline, Some(job.deadline));
                        under_way.push(attempt);
                    }
                }
                Step::Ended(which, ref verdict) => {
                    if which < under_way.len() {
                        let attempt = under_way.remove(which);
                        let job = submitted.get_mut(&JobId(attempt.job)).unwrap();
                        if !outcomes.contains_key(&JobId(attempt.job)) {
                            job.tries += u32::from(!matches!(verdict, Verdict::HandedOver(_)));
                            job.may_have_run |= *verdict == Verdict::Abandoned;
                        }
                        outbox.handle_ended(now, &key(), ended(attempt, verdict.clone()));
                    }
                }
                Step::NeverSeen(which) => {
                    if which < under_way.len() {
                        outbox.handle_never_seen(now, under_way.remove(which));
                    }
                }
                Step::Lost(which) => {
                    if which < under_way.len() {
                        let attempt = under_way.remove(which);
                        let job = submitted.get_mut(&JobId(attempt.job)).unwrap();
                        if !outcomes.contains_key(&JobId(attempt.job)) {
                            job.tries += 1;
                            job.may_have_run = true;
                        }
                        outbox.handle_lost(now, attempt, Cause::PeerEnded);
                        // Only a job that may run twice gets another chance, and it does.
                        let id = JobId(attempt.job);
                        let has_chance = job.tries < TRIES_MAX && job.deadline > now;
                        let again = job.idempotent && has_chance && !job.cancelled;
                        let waits = waiting(&outbox).contains(&id);
                        prop_assert_eq!(waits, again && !outcomes.contains_key(&id));
                    }
                }
                Step::Cancel(job) => {
                    if let Some(job) = submitted.get_mut(&JobId(job)) {
                        job.cancelled = true;
                    }
                    outbox.cancel(now, JobId(job));
                }
                Step::Refuse(job) => {
                    if waiting(&outbox).contains(&JobId(job)) {
                        outbox.refuse(now, JobId(job), Reason::NotJson);
                    }
                }
                Step::Pass(time, unsent) => {
                    now = now + ms(time);
                    let mut withdrawn = Vec::new();
                    outbox.handle_timeout(now, full, |attempt, _| {
                        withdrawn.extend(unsent.then_some(attempt));
                        unsent
                    });
                    under_way.retain(|attempt| !withdrawn.contains(attempt));
                }
            }
            if stops && index == last {
                outbox.stop(now);
            }
            for (id, outcome) in settled(&mut outbox) {
                let job = &submitted[&id];
                prop_assert!(job.tries <= TRIES_MAX);
                let is_refused = matches!(outcome, Outcome::Refused(_));
                prop_assert!(!(is_refused && job.may_have_run), "refused, although it may have run");
                prop_assert_eq!(outcomes.insert(id, outcome), None, "settled twice");
            }
            let waiting = waiting(&outbox).len();
            let with_workers = u32::try_from(outbox.len() - waiting).unwrap();
            prop_assert_eq!(outbox.under_way(&name("resize")), with_workers);
            if matches!(step, Step::Pass(..)) {
                for (id, job) in &submitted {
                    let late = job.deadline + DEADLINE_TICK <= now;
                    prop_assert!(!late || outcomes.contains_key(id), "no outcome in time");
                }
            }
        }
        prop_assert_eq!(outcomes.len(), submitted.len());
        prop_assert!(outbox.is_empty());
        prop_assert_eq!(outbox.poll_timeout(), None);
    }
}

#[test]
fn a_job_waits_for_room_as_long_as_it_is_held() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), spec(10_000, 300, false));
    outbox.handle_timeout(at(299), full, |_, _| false);
    assert_eq!(settled(&mut outbox), []);
    assert_eq!(outbox.poll_timeout(), Some(at(300)));
    outbox.handle_timeout(at(300), full, |_, _| false);
    let refusal = Refusal { reason: Reason::Full, attempts: 0, waited: ms(300) };
    assert_eq!(settled(&mut outbox), [(JobId(1), Outcome::Refused(refusal))]);
}

#[test]
fn jobs_of_a_higher_priority_go_first_and_one_that_comes_back_goes_before_its_equals() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    let classes = [Priority::Low, Priority::Normal, Priority::High, Priority::Normal];
    for (id, priority) in (1..).map(JobId).zip(classes) {
        outbox.submit(at(0), id, JobSpec { priority, ..spec(10_000, 5000, false) });
    }
    assert_eq!(waiting(&outbox), [3, 2, 4, 1].map(JobId));
    assert_eq!(assign(&mut outbox, 1).unwrap().priority, Priority::High);
    let normal = assign(&mut outbox, 1).unwrap();
    assert_eq!(normal.attempt.job, 2);
    outbox.submit(at(0), JobId(5), spec(10_000, 5000, false));
    outbox.handle_ended(at(1), &key(), ended(normal.attempt, Verdict::Rejected(Reason::Full)));
    assert_eq!(waiting(&outbox), [2, 4, 5, 1].map(JobId));
}

/// When a job without a deadline is refused and why, if that is known of its lane all the time; `None`
/// if it still waits after a day.
fn refused_after(hold: Option<Duration>, standing: Standing) -> Option<(Duration, Reason)> {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), JobSpec { deadline: None, hold, ..spec(0, 0, false) });
    let end = at(0) + Duration::from_secs(24 * 3600);
    while let Some(due) = outbox.poll_timeout().filter(|due| *due <= end) {
        outbox.handle_timeout(due, |_| standing, |_, _| false);
        if let Some((_, outcome)) = outbox.poll_settled() {
            let Outcome::Refused(refusal) = outcome else { panic!("{outcome:?}") };
            assert_eq!(refusal.waited, due.since(at(0)));
            return Some((refusal.waited, refusal.reason));
        }
    }
    None
}

#[test]
fn without_a_hold_a_job_waits_as_long_as_somebody_serves_its_service() {
    for reason in [Reason::NoCredit, Reason::Full, Reason::Unreachable] {
        assert_eq!(refused_after(None, Standing::Served(reason)), None);
        let held = refused_after(Some(ms(40)), Standing::Served(reason));
        assert_eq!(held, Some((ms(40), reason)));
    }
}

#[test]
fn a_service_that_was_there_is_waited_for_with_patience_and_another_not_at_all() {
    use Standing::{Missed, Unserved};
    for reason in [Reason::NoSuchService, Reason::NotHere, Reason::Draining] {
        assert_eq!(refused_after(None, Missed(reason)), Some((PATIENCE, reason)));
        assert_eq!(refused_after(Some(ms(90_000)), Missed(reason)), Some((PATIENCE, reason)));
        assert_eq!(refused_after(Some(ms(40)), Missed(reason)), Some((ms(40), reason)));
        // It is told as soon as it is looked at.
        assert_eq!(refused_after(None, Unserved(reason)), Some((LOOK_INTERVAL, reason)));
    }
}

#[test]
fn patience_begins_when_the_last_one_goes() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), JobSpec { deadline: None, hold: None, ..spec(0, 0, false) });
    for time in (0..120_000).step_by(1000) {
        outbox.handle_timeout(at(time), full, |_, _| false);
    }
    let missed = |_: &Lane| Standing::Missed(Reason::NoSuchService);
    outbox.look(at(119_500), &name("resize"), |_| false);
    for time in (119_500..148_900).step_by(100) {
        outbox.handle_timeout(at(time), missed, |_, _| false);
        assert_eq!(settled(&mut outbox), []);
    }
    outbox.handle_timeout(at(150_100), missed, |_, _| false);
    assert_eq!(settled(&mut outbox).len(), 1);
}

#[test]
fn a_suspension_costs_no_patience() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), JobSpec { deadline: None, hold: None, ..spec(0, 0, false) });
    let missed = |_: &Lane| Standing::Missed(Reason::NoSuchService);
    outbox.handle_suspension(at(100_000), ms(90_000));
    outbox.handle_timeout(at(100_000), missed, |_, _| false);
    assert_eq!(settled(&mut outbox), []);
    outbox.handle_timeout(at(120_000), missed, |_, _| false);
    assert_eq!(settled(&mut outbox).len(), 1);
}

#[test]
fn without_any_news_a_hold_waits_for_two_seconds_and_others_for_the_patience() {
    use Standing::{Unheard, Warming};
    assert_eq!(refused_after(None, Unheard), Some((PATIENCE, Reason::NoMapper)));
    assert_eq!(refused_after(Some(ms(5000)), Unheard), Some((ms(5000), Reason::NoMapper)));
    let (waited, reason) = refused_after(Some(Duration::ZERO), Unheard).unwrap();
    assert_eq!((waited, reason), (NEWS_LIMIT, Reason::NoMapper));
    // A mapper that has just started says nothing of who is not there.
    assert_eq!(refused_after(Some(ms(40)), Warming), Some((PATIENCE, Reason::NoSuchService)));
}

#[test]
fn a_deadline_ends_every_wait_in_time() {
    use Standing::{Missed, Served, Unheard, Warming};
    let standings = [
        (Served(Reason::NoCredit), Reason::NoCredit),
        (Missed(Reason::NoSuchService), Reason::NoSuchService),
        (Unheard, Reason::Expired),
        (Warming, Reason::Expired),
    ];
    for (standing, wanted) in standings {
        let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
        // The hold is over before anything is known; the deadline is what counts then.
        let hold = matches!(standing, Unheard | Warming).then_some(Duration::ZERO);
        outbox.submit(at(0), JobId(1), JobSpec { hold, ..spec(1700, 0, false) });
        while let Some(due) = outbox.poll_timeout() {
            assert!(due <= at(1700));
            outbox.handle_timeout(due, |_| standing, |_, _| false);
        }
        let Some((_, Outcome::Refused(refusal))) = outbox.poll_settled() else { panic!() };
        assert_eq!((refusal.reason, refusal.waited), (wanted, ms(1700)));
    }
}

#[test]
fn a_rejected_job_goes_elsewhere_a_few_times() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), spec(10_000, 5000, false));
    for tries in 1..=TRIES_MAX {
        assert_eq!(settled(&mut outbox), []);
        let Assigned { attempt, .. } = assign(&mut outbox, 1).unwrap();
        assert_eq!(attempt, AttemptId { job: 1, attempt: tries });
        let rejected = Verdict::Rejected(Reason::Full);
        outbox.handle_ended(at(1), &key(), ended(attempt, rejected));
        // An answer to an attempt that is over means nothing.
        outbox.handle_ended(at(1), &key(), ended(attempt, Verdict::Done));
    }
    let Some((_, Outcome::Refused(refusal))) = outbox.poll_settled() else { panic!("not refused") };
    assert_eq!((refusal.reason, refusal.attempts), (Reason::Full, TRIES_MAX));
}

#[test]
fn whoever_drains_does_not_use_up_a_jobs_tries() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), spec(10_000, 5000, false));
    for _ in 0..3 * TRIES_MAX {
        let Assigned { attempt, .. } = assign(&mut outbox, 1).unwrap();
        let rejected = Verdict::Rejected(Reason::Draining);
        outbox.handle_ended(at(1), &key(), ended(attempt, rejected));
        assert_eq!(settled(&mut outbox), []);
    }
    let Assigned { attempt, .. } = assign(&mut outbox, 1).unwrap();
    outbox.handle_ended(at(1), &key(), ended(attempt, Verdict::Done));
    assert!(matches!(settled(&mut outbox)[..], [(JobId(1), Outcome::Done(_))]));
}

#[test]
fn what_was_not_sent_by_its_deadline_is_refused_and_what_was_is_unknown() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    for id in [1, 2] {
        outbox.submit(at(0), JobId(id), spec(100, 100, true));
        assign(&mut outbox, id).unwrap();
    }
    // Link 1 still has its job, link 2 has sent it.
    outbox.handle_timeout(at(100) + DEADLINE_TICK, full, |_, link| link == 1);
    let outcomes = settled(&mut outbox);
    let Outcome::Refused(refusal) = outcomes[0].1 else { panic!("{outcomes:?}") };
    assert_eq!(refusal.reason, Reason::Expired);
    assert_eq!(outcomes[1], (JobId(2), Outcome::Unknown(Cause::Deadline)));
}

#[test]
fn a_stop_leaves_nobody_without_an_outcome() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    for id in [1, 2] {
        outbox.submit(at(0), JobId(id), spec(100, 100, true));
    }
    assign(&mut outbox, 1).unwrap();
    outbox.stop(at(1));
    let outcomes = settled(&mut outbox);
    assert_eq!(outcomes[0], (JobId(1), Outcome::Unknown(Cause::Stopped)));
    assert!(matches!(&outcomes[1], (JobId(2), Outcome::Refused(_))));
    assert!(outbox.is_empty());
}

#[test]
fn a_slot_that_was_passed_on_and_is_not_there_costs_no_try_and_says_nothing() {
    let mut outbox = Outbox::new(TRIES_MAX, PATIENCE);
    outbox.submit(at(0), JobId(1), spec(5000, 5000, false));
    let key = crate::testing::key();
    let reject = |outbox: &mut Outbox, is_passed_on| {
        let attempt = assign(outbox, 1).unwrap().attempt;
        if is_passed_on {
            outbox.handle_passed_on(attempt);
        }
        let full = Verdict::Rejected(Reason::Full);
        outbox.handle_ended(at(1), &key, ended(attempt, full));
    };
    for _ in 0..3 {
        assert!(outbox.takes_offer(JobId(1), &name("b-1")));
        reject(&mut outbox, true);
    }
    // Whoever is fooled three times goes by what it knows itself.
    assert!(!outbox.takes_offer(JobId(1), &name("b-1")));
    for _ in 0..TRIES_MAX - 1 {
        reject(&mut outbox, false);
    }
    assert_eq!(settled(&mut outbox), []);
    reject(&mut outbox, false);
    let [(JobId(1), Outcome::Refused(refusal))] = &settled(&mut outbox)[..] else { panic!() };
    assert_eq!((refusal.reason, refusal.attempts), (Reason::Full, TRIES_MAX));
}
