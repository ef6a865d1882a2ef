use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::testing::*;

const TRIES_MAX: u32 = 3;

fn spec(deadline_ms: u64, hold_ms: u64, idempotent: bool) -> JobSpec {
    JobSpec {
        service: name("resize"),
        instance: None,
        payload: Arc::new(vec![1]),
        deadline: ms(deadline_ms),
        hold: Some(ms(hold_ms)),
        idempotent,
        detached: false,
    }
}

fn lane() -> Lane {
    Lane { service: name("resize"), instance: None }
}

fn full(_: &Lane) -> Option<Reason> {
    Some(Reason::Full)
}

fn settled(outbox: &mut Outbox) -> Vec<(JobId, Outcome)> {
    std::iter::from_fn(|| outbox.poll_settled()).collect()
}

#[derive(Clone, Debug)]
enum Step {
    Submit { deadline_ms: u64, hold_ms: u64, idempotent: bool },
    Assign,
    Ended(usize, Verdict),
    NeverSeen(usize),
    Lost(usize),
    Cancel(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let verdict = prop_oneof![
        Just(Verdict::Done),
        Just(Verdict::Failed),
        Just(Verdict::Abandoned),
        Just(Verdict::Rejected(Reason::Full)),
        Just(Verdict::Rejected(Reason::Cancelled)),
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
        4 => (1u64..120).prop_map(Step::Pass),
    ]
}

/// What is known of a job that was submitted.
struct Submitted {
    deadline: Timestamp,
    idempotent: bool,
    tries: u32,
    cancelled: bool,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_job_is_settled_once_and_in_time(steps in prop::collection::vec(step(), 1..120)) {
        let mut outbox = Outbox::new(TRIES_MAX);
        let mut submitted: BTreeMap<JobId, Submitted> = BTreeMap::new();
        let mut outcomes: BTreeMap<JobId, Outcome> = BTreeMap::new();
        let mut under_way: Vec<AttemptId> = Vec::new();
        let mut now = at(0);
        let end = std::iter::once(Step::Pass(1000));
        for step in steps.into_iter().chain(end) {
            match step {
                Step::Submit { deadline_ms, hold_ms, idempotent } => {
                    let id = JobId(submitted.len() as u64 + 1);
                    let deadline = now + ms(deadline_ms);
                    let job = Submitted { deadline, idempotent, tries: 0, cancelled: false };
                    submitted.insert(id, job);
                    outbox.submit(now, id, spec(deadline_ms, hold_ms, idempotent));
                }
                Step::Assign => {
                    if let Some(Assigned { attempt, deadline, .. }) = outbox.assign(&lane(), 1) {
                        let job = submitted.get_mut(&JobId(attempt.job)).unwrap();
                        prop_assert_eq!(deadline, job.deadline);
                        under_way.push(attempt);
                    }
                }
                Step::Ended(which, ref verdict) => {
                    if which < under_way.len() {
                        let attempt = under_way.remove(which);
                        let job = submitted.get_mut(&JobId(attempt.job)).unwrap();
                        if !outcomes.contains_key(&JobId(attempt.job)) {
                            job.tries += 1;
                        }
                        outbox.handle_ended(now, attempt, verdict, &key(), Vec::new());
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
                        }
                        outbox.handle_lost(now, attempt, Cause::PeerEnded);
                        if !job.idempotent {
                            // It may have run, so nobody else gets it.
                            prop_assert!(outbox.waiting(&lane()).all(|id| id.0 != attempt.job));
                        }
                    }
                }
                Step::Cancel(job) => {
                    if let Some(job) = submitted.get_mut(&JobId(job)) {
                        job.cancelled = true;
                    }
                    outbox.cancel(now, JobId(job));
                }
                Step::Pass(time) => {
                    now = now + ms(time);
                    outbox.handle_timeout(now, full, |_, _| false);
                }
            }
            for (id, outcome) in settled(&mut outbox) {
                let job = &submitted[&id];
                prop_assert!(job.tries <= TRIES_MAX);
                if outcome == Outcome::Unknown(Cause::PeerEnded) && job.idempotent {
                    let last_chance = job.tries == TRIES_MAX || job.deadline <= now;
                    prop_assert!(last_chance || job.cancelled);
                }
                prop_assert_eq!(outcomes.insert(id, outcome), None, "settled twice");
            }
            let waiting = outbox.waiting(&lane()).count();
            let with_workers = u32::try_from(outbox.len() - waiting).unwrap();
            prop_assert_eq!(outbox.under_way(&name("resize")), with_workers);
            if matches!(step, Step::Pass(_)) {
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
    let mut outbox = Outbox::new(TRIES_MAX);
    outbox.submit(at(0), JobId(1), spec(10_000, 300, false));
    outbox.handle_timeout(at(299), full, |_, _| false);
    assert_eq!(settled(&mut outbox), []);
    assert_eq!(outbox.poll_timeout(), Some(at(300)));
    outbox.handle_timeout(at(300), full, |_, _| false);
    let refusal = Refusal { reason: Reason::Full, attempts: 0, waited: ms(300) };
    assert_eq!(settled(&mut outbox), [(JobId(1), Outcome::Refused(refusal))]);
}

#[test]
fn nothing_is_concluded_from_knowing_nothing() {
    let mut outbox = Outbox::new(TRIES_MAX);
    outbox.submit(at(0), JobId(1), spec(5000, 0, false));
    for time in (0..5000).step_by(500) {
        outbox.handle_timeout(at(time), |_| None, |_, _| false);
        assert_eq!(settled(&mut outbox), []);
    }
    outbox.handle_timeout(at(5000), |_| None, |_, _| false);
    let Some((_, Outcome::Refused(refusal))) = outbox.poll_settled() else { panic!("not refused") };
    assert_eq!(refusal.reason, Reason::Expired);
}

#[test]
fn a_rejected_job_goes_elsewhere_a_few_times() {
    let mut outbox = Outbox::new(TRIES_MAX);
    outbox.submit(at(0), JobId(1), spec(10_000, 5000, false));
    for tries in 1..=TRIES_MAX {
        assert_eq!(settled(&mut outbox), []);
        let Assigned { attempt, .. } = outbox.assign(&lane(), 1).unwrap();
        assert_eq!(attempt, AttemptId { job: 1, attempt: tries });
        let rejected = Verdict::Rejected(Reason::Full);
        outbox.handle_ended(at(1), attempt, &rejected, &key(), Vec::new());
        // An answer to an attempt that is over means nothing.
        outbox.handle_ended(at(1), attempt, &Verdict::Done, &key(), Vec::new());
    }
    let Some((_, Outcome::Refused(refusal))) = outbox.poll_settled() else { panic!("not refused") };
    assert_eq!((refusal.reason, refusal.attempts), (Reason::Full, TRIES_MAX));
}

#[test]
fn whoever_drains_does_not_use_up_a_jobs_tries() {
    let mut outbox = Outbox::new(TRIES_MAX);
    outbox.submit(at(0), JobId(1), spec(10_000, 5000, false));
    for _ in 0..3 * TRIES_MAX {
        let Assigned { attempt, .. } = outbox.assign(&lane(), 1).unwrap();
        let rejected = Verdict::Rejected(Reason::Draining);
        outbox.handle_ended(at(1), attempt, &rejected, &key(), Vec::new());
        assert_eq!(settled(&mut outbox), []);
    }
    let Assigned { attempt, .. } = outbox.assign(&lane(), 1).unwrap();
    outbox.handle_ended(at(1), attempt, &Verdict::Done, &key(), Vec::new());
    assert!(matches!(settled(&mut outbox)[..], [(JobId(1), Outcome::Done(_))]));
}

#[test]
fn what_was_not_sent_by_its_deadline_is_refused_and_what_was_is_unknown() {
    let mut outbox = Outbox::new(TRIES_MAX);
    for id in [1, 2] {
        outbox.submit(at(0), JobId(id), spec(100, 100, true));
        outbox.assign(&lane(), id).unwrap();
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
    let mut outbox = Outbox::new(TRIES_MAX);
    for id in [1, 2] {
        outbox.submit(at(0), JobId(id), spec(100, 100, true));
    }
    outbox.assign(&lane(), 1).unwrap();
    outbox.stop(at(1));
    let outcomes = settled(&mut outbox);
    assert_eq!(outcomes[0], (JobId(1), Outcome::Unknown(Cause::Stopped)));
    assert!(matches!(&outcomes[1], (JobId(2), Outcome::Refused(_))));
    assert!(outbox.is_empty());
}

#[test]
fn a_slot_that_was_passed_on_and_is_not_there_costs_no_try_and_says_nothing() {
    let mut outbox = Outbox::new(TRIES_MAX);
    outbox.submit(at(0), JobId(1), spec(5000, 5000, false));
    let key = crate::testing::key();
    let reject = |outbox: &mut Outbox, is_passed_on| {
        let attempt = outbox.assign(&lane(), 1).unwrap().attempt;
        if is_passed_on {
            outbox.handle_passed_on(attempt);
        }
        let full = Verdict::Rejected(Reason::Full);
        outbox.handle_ended(at(1), attempt, &full, &key, Vec::new());
    };
    for _ in 0..3 {
        assert!(outbox.takes_offers(JobId(1)));
        reject(&mut outbox, true);
    }
    // Whoever is fooled three times goes by what it knows itself.
    assert!(!outbox.takes_offers(JobId(1)));
    for _ in 0..TRIES_MAX - 1 {
        reject(&mut outbox, false);
    }
    assert_eq!(settled(&mut outbox), []);
    reject(&mut outbox, false);
    let [(JobId(1), Outcome::Refused(refusal))] = &settled(&mut outbox)[..] else { panic!() };
    assert_eq!((refusal.reason, refusal.attempts), (Reason::Full, TRIES_MAX));
}
