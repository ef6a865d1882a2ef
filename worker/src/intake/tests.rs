use proptest::prelude::*;

use super::*;
use crate::testing::*;
use bytes::Bytes;

fn origin(job: u64) -> Origin {
    Origin::Sender { sender: SENDER, attempt: attempt(job) }
}

fn arrival(origin: Origin, deadline: Timestamp, payload: &[u8]) -> Arrival {
    let payload = Bytes::copy_from_slice(payload);
    let terms = Terms { deadline: Some(deadline), redirects_left: 3, ..Terms::default() };
    Arrival { origin, payload, terms }
}

fn config(concurrency: u32, queue: u32) -> IntakeConfig {
    IntakeConfig { concurrency, queue, ..IntakeConfig::default() }
}

#[derive(Clone, Debug)]
enum Step {
    Admit { bytes: usize, deadline_ms: u64 },
    Start,
    Finish { which: usize, ending: Ending },
    Cancel { job: u64 },
    Pass { ms: u64 },
    Drain,
    Abandon,
}

fn step() -> impl Strategy<Value = Step> {
    let ending = prop_oneof![Just(Ending::Done), Just(FAILING), Just(Ending::NotStarted)];
    prop_oneof![
        8 => (0usize..60, 0u64..200)
            .prop_map(|(bytes, deadline_ms)| Step::Admit { bytes, deadline_ms }),
        6 => Just(Step::Start),
        4 => (0usize..4, ending).prop_map(|(which, ending)| Step::Finish { which, ending }),
        2 => (0u64..60).prop_map(|job| Step::Cancel { job }),
        3 => (1u64..60).prop_map(|ms| Step::Pass { ms }),
        1 => Just(Step::Drain),
        1 => Just(Step::Abandon),
    ]
}

/// The intake as one would write it without a care for speed.
#[derive(Default)]
struct Model {
    /// Job, bytes, deadline; in the order of arrival.
    queue: Vec<(u64, usize, Timestamp)>,
    /// What the handlers have: job, its name here, bytes, deadline; in the order in which they begin.
    running: Vec<(u64, TaskId, usize, Timestamp)>,
    told: Vec<u64>,
    accepted: u64,
    done: u64,
    failed: u64,
    rejected: u64,
    draining: bool,
}

impl Model {
    fn bytes(&self) -> usize {
        let queued: usize = self.queue.iter().map(|(_, bytes, _)| bytes).sum();
        queued + self.running.iter().map(|(_, _, bytes, _)| bytes).sum::<usize>()
    }

    fn len(&self) -> usize {
        self.queue.len() + self.running.len()
    }
}

proptest! {
    #[test]
    fn it_does_what_a_naive_model_does_and_never_exceeds_its_slots(
        concurrency in 1u32..4,
        queue in 0u32..5,
        classes in 1u64..4,
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let priority = |job: u64| [Priority::Normal, Priority::High, Priority::Low][(job % classes) as usize];
        let config = IntakeConfig {
            payload_bytes_max: 50,
            jobs_bytes_max: 150,
            ..config(concurrency, queue)
        };
        let slots = config.slots() as usize;
        let mut intake = Intake::new(config);
        let mut model = Model::default();
        let (mut now, mut job, mut sequence) = (at(0), 0, 0);
        for step in steps {
            match step {
                Step::Admit { bytes, deadline_ms } => {
                    let deadline = now + ms(deadline_ms);
                    let wanted = if model.draining {
                        Some(Reason::Draining)
                    } else if bytes > 50 {
                        Some(Reason::TooLarge)
                    } else if deadline_ms == 0 {
                        Some(Reason::Expired)
                    } else if model.len() == slots || model.bytes() + bytes > 150 {
                        Some(Reason::Full)
                    } else {
                        None
                    };
                    let payload = vec![1; bytes];
                    let mut arrival = arrival(origin(job), deadline, &payload);
                    arrival.terms.priority = priority(job);
                    let got = intake.admit(now, arrival, Promised::default());
                    prop_assert_eq!(got.err(), wanted);
                    if wanted.is_none() {
                        let lower = |(queued, ..): &(u64, _, _)| priority(*queued) < priority(job);
                        let place = model.queue.iter().position(lower);
                        let place = place.unwrap_or(model.queue.len());
                        model.queue.insert(place, (job, bytes, deadline));
                        model.accepted += 1;
                    } else {
                        model.rejected += 1;
                    }
                    job += 1;
                }
                Step::Start => {
                    let started = intake.start_next(now);
                    let is_free = model.running.len() < concurrency as usize;
                    if is_free {
                        prop_assert_eq!(started.is_some(), !model.queue.is_empty());
                    } else if started.is_some() {
                        // Only jobs that take next to no time are handed out before one is free.
                        let mean = intake.last_mean().expect("one has ended");
                        prop_assert!(mean < ms(1) && !model.draining, "{mean:?}");
                    }
                    if let Some(task) = started {
                        // The one that came first of the highest class.
                        let (first, bytes, deadline) = model.queue.remove(0);
                        prop_assert_eq!(task.origin, origin(first));
                        model.running.push((first, task.id, bytes, deadline));
                    }
                }
                Step::Finish { which, ending } => {
                    if which < model.running.len().min(concurrency as usize) {
                        let (job, id, ..) = model.running.remove(which);
                        let ended = intake.handle_finished(now, id, ending);
                        prop_assert_eq!(ended.map(|ended| ended.origin), Some(origin(job)));
                        prop_assert_eq!(intake.handle_finished(now, id, ending), None);
                        *match ending {
                            Ending::Done => &mut model.done,
                            Ending::Failed { .. } => &mut model.failed,
                            Ending::NotStarted => &mut model.rejected,
                        } += 1;
                    }
                }
                Step::Cancel { job } => {
                    let queued = model.queue.iter().position(|(queued, ..)| *queued == job);
                    let running = model.running.iter().find(|(running, ..)| *running == job);
                    let wanted = match (queued, running) {
                        (Some(index), _) => {
                            model.queue.remove(index);
                            model.rejected += 1;
                            Cancelled::Removed
                        }
                        (None, Some((_, id, ..))) => Cancelled::Running(*id),
                        (None, None) => Cancelled::NotFound,
                    };
                    prop_assert_eq!(intake.cancel(origin(job)), wanted);
                }
                Step::Pass { ms: passed } => {
                    now = now + ms(passed);
                    for expired in intake.expire(now) {
                        let (job, waited) = match expired {
                            Expired::Waiting(origin) => (attempt_of(origin).job, true),
                            Expired::Running(origin, ..) => (attempt_of(origin).job, false),
                            Expired::RunLimit { .. } => panic!("none has a run limit"),
                        };
                        if waited {
                            let index = model.queue.iter().position(|(queued, ..)| *queued == job);
                            let (.., deadline) = model.queue.remove(index.unwrap());
                            prop_assert!(deadline <= now);
                            model.rejected += 1;
                        } else {
                            prop_assert!(model.running.iter().any(|(running, ..)| *running == job));
                            prop_assert!(!model.told.contains(&job), "told twice");
                            model.told.push(job);
                            let place = model.running.iter().position(|(running, ..)| *running == job);
                            let place = place.filter(|place| *place >= concurrency as usize);
                            // No handler has begun it, so none is told: it is taken from them.
                            if let Some(place) = place {
                                let (_, id, ..) = model.running.remove(place);
                                let ended = (origin(job), Reason::Expired);
                                prop_assert_eq!(intake.handle_withdrawn(now, id), Some(ended));
                                model.rejected += 1;
                            }
                        }
                    }
                    prop_assert!(model.queue.iter().all(|(.., deadline)| *deadline > now));
                    if intake.poll_stuck(now) {
                        let begun = model.running.len().min(concurrency as usize);
                        let ahead = model.running.split_off(begun);
                        let jobs = ahead.iter().map(|(_, id, bytes, _)| (*id, vec![1; *bytes].into()));
                        let unwanted = intake.handle_taken_back(now, jobs);
                        let is_unwanted = |job| unwanted.iter().any(|(whose, _)| *whose == origin(job));
                        model.rejected += unwanted.len() as u64;
                        let back = ahead.iter().filter(|(job, ..)| !is_unwanted(*job));
                        let back = back.map(|&(job, _, bytes, deadline)| (job, bytes, deadline));
                        for back in back.rev() {
                            let equal = |(queued, ..): &(u64, _, _)| priority(*queued) <= priority(back.0);
                            let place = model.queue.iter().position(equal);
                            model.queue.insert(place.unwrap_or(model.queue.len()), back);
                        }
                    }
                }
                Step::Drain => {
                    intake.drain();
                    model.draining = true;
                }
                Step::Abandon => {
                    let (queued, running) = intake.abandon();
                    prop_assert_eq!((queued.len(), running.len()),
                        (model.queue.len(), model.running.len()));
                    model.rejected += queued.len() as u64;
                    model.queue.clear();
                    model.running.clear();
                }
            }
            let load = intake.load(now, Promised::default());
            let running = (model.running.len() as u32).min(concurrency);
            prop_assert!(load.sequence > sequence);
            sequence = load.sequence;
            prop_assert_eq!(
                (load.queued, load.running, load.accepted, load.done, load.failed, load.rejected),
                (model.len() as u32 - running, running, model.accepted, model.done, model.failed,
                    model.rejected)
            );
            prop_assert!(load.busy() <= load.slots);
            prop_assert!(load.running <= concurrency);
            prop_assert_eq!(load.state == State::Draining, model.draining);
            let served = intake.served();
            let begun = model.running.iter().take(concurrency as usize);
            let begun: usize = begun.map(|(_, _, bytes, _)| bytes).sum();
            prop_assert_eq!(served.queued_bytes, model.bytes() - begun);
            prop_assert_eq!(served.rejected.values().sum::<u64>(), model.rejected);
            let ended = model.done + model.failed;
            prop_assert_eq!((served.waits.len(), served.service_times.len()), (ended, ended));
        }
    }
}

#[test]
fn without_a_queue_there_is_room_for_what_runs() {
    let mut intake = Intake::new(config(1, 0));
    assert!(intake.admit(at(0), arrival(origin(1), at(100), b""), Promised::default()).is_ok());
    // Whether the first was started yet or not.
    assert_eq!(
        intake.admit(at(0), arrival(origin(2), at(100), b""), Promised::default()),
        Err(Reason::Full)
    );
    let task = intake.start_next(at(0)).unwrap();
    assert_eq!(
        intake.admit(at(0), arrival(origin(3), at(100), b""), Promised::default()),
        Err(Reason::Full)
    );
    intake.handle_finished(at(5), task.id, Ending::Done);
    assert!(intake.admit(at(5), arrival(origin(4), at(100), b""), Promised::default()).is_ok());
}

#[test]
fn a_job_beyond_its_deadline_frees_its_slot_if_it_waited() {
    let mut intake = Intake::new(config(1, 1));
    for job in 1..=2 {
        intake.admit(at(0), arrival(origin(job), at(50), b""), Promised::default()).unwrap();
    }
    let task = intake.start_next(at(0)).unwrap();
    assert_eq!(intake.poll_timeout(), Some(at(50)));
    let expired = intake.expire(at(50));
    assert_eq!(expired, [Expired::Running(origin(1), task.id, true), Expired::Waiting(origin(2))]);
    assert_eq!(intake.len(), 1);
    assert_eq!(intake.poll_timeout(), None);
}

/// A job that may run for 50 ms and came with that deadline, started at 20.
fn limited(deadline: Option<Timestamp>) -> (Intake, TaskId) {
    let mut intake = Intake::new(config(1, 1));
    let mut job = arrival(origin(1), at(0), b"");
    (job.terms.deadline, job.terms.run_limit) = (deadline, Some(ms(50)));
    intake.admit(at(0), job, Promised::default()).unwrap();
    let task = intake.start_next(at(20)).unwrap();
    (intake, task.id)
}

#[test]
fn a_run_limit_counts_from_the_start_and_is_told_once() {
    for deadline in [None, Some(at(71)), Some(at(5000))] {
        let (mut intake, task) = limited(deadline);
        assert_eq!(intake.expire(at(69)), []);
        assert_eq!(intake.poll_timeout(), Some(at(70)));
        let (origin, limit, here) = (origin(1), ms(50), ms(70));
        let expired = Expired::RunLimit { origin, task, limit, deadline, here };
        assert_eq!(intake.expire(at(70)), [expired]);
        // Its sender knows, so its deadline concerns nobody. Its handler still has the slot.
        assert_eq!((intake.poll_timeout(), intake.len()), (None, 1));
        assert_eq!(intake.cancel(origin), Cancelled::NotFound);
        let finished = intake.handle_finished(at(90), task, Ending::Done).unwrap();
        assert_eq!(finished.origin, Origin::Overdue);
        let load = intake.load(at(90), Promised::default());
        assert_eq!((load.done, load.failed, load.running), (0, 1, 0));
    }
}

#[test]
fn a_deadline_that_passes_first_is_all_that_is_told() {
    let (mut intake, task) = limited(Some(at(60)));
    assert_eq!(intake.expire(at(65)), [Expired::Running(origin(1), task, true)]);
    assert_eq!((intake.poll_timeout(), intake.expire(at(99))), (None, Vec::new()));
    assert_eq!(intake.handle_finished(at(99), task, Ending::Done).unwrap().origin, origin(1));
}

#[test]
fn the_mean_follows_the_service_times() {
    let mut intake = Intake::new(config(1, 0));
    let mut run = |from, to| {
        intake
            .admit(at(from), arrival(origin(from), at(1_000_000), b""), Promised::default())
            .unwrap();
        let task = intake.start_next(at(from)).unwrap();
        intake.handle_finished(at(to), task.id, Ending::Done);
        intake.load(at(to), Promised::default()).mean_service_us
    };
    assert_eq!(run(0, 80), 80_000);
    assert_eq!(run(100, 100), 70_000);
    for start in 1..100 {
        run(1000 * start, 1000 * start + 16);
    }
    let mean = run(200_000, 200_016);
    assert!((16_000..16_010).contains(&mean), "{mean}");
}

#[test]
fn what_fails_or_was_not_started_teaches_no_service_time() {
    let mut intake = Intake::new(config(1, 0));
    let mut run = |from, to, ending| {
        intake
            .admit(at(from), arrival(origin(from), at(1_000_000), b""), Promised::default())
            .unwrap();
        let task = intake.start_next(at(from)).unwrap();
        intake.handle_finished(at(to), task.id, ending);
        intake.load(at(to), Promised::default()).mean_service_us
    };
    assert_eq!(run(0, 1, FAILING), 0);
    assert_eq!(run(10, 90, Ending::Done), 80_000);
    assert_eq!(run(100, 101, FAILING), 80_000);
    assert_eq!(run(110, 110, Ending::NotStarted), 80_000);
}

#[test]
fn how_a_job_ends_that_was_told_to_stop_says_nothing_of_its_handler() {
    let mut intake = Intake::new(config(3, 0));
    for (job, deadline) in [(1, 50), (2, 1000), (3, 1000)] {
        intake.admit(at(0), arrival(origin(job), at(deadline), b""), Promised::default()).unwrap();
    }
    let tasks: Vec<_> = std::iter::from_fn(|| intake.start_next(at(0))).collect();
    intake.expire(at(60));
    assert_eq!(intake.cancel(origin(2)), Cancelled::Running(tasks[1].id));
    let was_stopped = tasks.iter().map(|task| {
        intake.handle_finished(at(70), task.id, FAILING).map(|ended| ended.was_stopped)
    });
    assert_eq!(was_stopped.collect::<Vec<_>>(), [Some(true), Some(true), Some(false)]);
}

#[test]
fn a_job_is_known_to_be_wanted_until_its_deadline_when_that_has_passed() {
    let mut intake = Intake::new(config(1, 0));
    intake.admit(at(0), arrival(origin(1), at(50), b""), Promised::default()).unwrap();
    let task = intake.start_next(at(0)).unwrap();
    assert_eq!(intake.expire(at(60)), [Expired::Running(origin(1), task.id, true)]);
    assert_eq!(intake.expire(at(70)), []);
    let finished = intake.handle_finished(at(80), task.id, Ending::Done).unwrap();
    assert_eq!(finished.deadline, Some(at(50)));
}

#[test]
fn a_handler_that_sees_itself_that_its_time_is_over_was_stopped() {
    let mut intake = Intake::new(config(1, 0));
    intake.admit(at(0), arrival(origin(1), at(50), b""), Promised::default()).unwrap();
    let task = intake.start_next(at(0)).unwrap();
    // Nobody has looked at the deadline yet.
    assert!(intake.handle_finished(at(50), task.id, FAILING).unwrap().was_stopped);
}

#[test]
fn how_long_a_job_took_that_was_stopped_is_the_least_that_it_takes() {
    let mut intake = Intake::new(config(1, 0));
    let mut run = |start: u64, end: u64, is_cancelled: bool| {
        let start = at(start);
        intake.admit(start, arrival(origin(1), at(10_000), b""), Promised::default()).unwrap();
        let task = intake.start_next(start).unwrap();
        if is_cancelled {
            intake.cancel(origin(1));
        }
        intake.handle_finished(at(end), task.id, Ending::Done);
        intake.load(at(end), Promised::default()).mean_service_us
    };
    assert_eq!(run(0, 80, false), 80_000);
    assert_eq!(run(100, 101, true), 80_000);
    assert_eq!(run(200, 360, true), 90_000);
}

#[test]
fn load_says_how_long_the_oldest_waits_and_when_a_handler_last_finished() {
    let mut intake = Intake::new(config(1, 5));
    assert_eq!(intake.load(at(0), Promised::default()).since_finish_ms, None);
    for job in 1..=3 {
        intake
            .admit(at(10 * job), arrival(origin(job), at(1000), b""), Promised::default())
            .unwrap();
    }
    let task = intake.start_next(at(30)).unwrap();
    let load = intake.load(at(120), Promised::default());
    assert_eq!((load.oldest_queued_ms, load.since_finish_ms), (100, None));
    intake.handle_finished(at(150), task.id, FAILING);
    assert_eq!(intake.load(at(151), Promised::default()).since_finish_ms, Some(1));
}

#[test]
fn the_oldest_that_waits_may_be_one_of_a_lower_class() {
    let mut intake = Intake::new(config(1, 20));
    let admit = |intake: &mut Intake, ms, job, priority| {
        let mut arrival = arrival(origin(job), at(60_000), b"");
        arrival.terms.priority = priority;
        intake.admit(at(ms), arrival, Promised::default()).unwrap();
    };
    admit(&mut intake, 0, 0, Priority::Normal);
    let task = intake.start_next(at(0)).unwrap();
    intake.handle_ran(task.id, at(0), at(0) + Duration::from_micros(20));
    intake.handle_finished(at(1), task.id, Ending::Done);
    admit(&mut intake, 2, 1, Priority::Low);
    admit(&mut intake, 10, 2, Priority::High);
    admit(&mut intake, 10, 3, Priority::High);
    assert!((0..2).all(|_| intake.start_next(at(10)).is_some()), "one is ahead");
    assert_eq!(intake.load(at(12), Promised::default()).oldest_queued_ms, 10);
}

/// After a first job that took 20 us, ten more wait.
fn quick() -> Intake {
    let mut intake = Intake::new(config(1, 20));
    let limit = at(60_000);
    intake.admit(at(0), arrival(origin(0), limit, b""), Promised::default()).unwrap();
    let task = intake.start_next(at(0)).unwrap();
    intake.handle_ran(task.id, at(0), at(0) + Duration::from_micros(20));
    intake.handle_finished(at(1), task.id, Ending::Done);
    for job in 1..=10 {
        intake.admit(at(1), arrival(origin(job), limit, b""), Promised::default()).unwrap();
    }
    intake
}

#[test]
fn handlers_are_handed_so_much_that_they_find_work_until_they_are_looked_at_again() {
    let mut intake = quick();
    let handed = std::iter::from_fn(|| intake.start_next(at(1)));
    // One to run, and 200 us of others.
    let handed: Vec<_> = handed.map(|task| attempt_of(task.origin).job).collect();
    assert_eq!(handed, (1..=10).collect::<Vec<_>>());
    let load = intake.load(at(1), Promised::default());
    assert_eq!((load.running, load.queued), (1, 9));
    assert_eq!(intake.cancel(origin(3)), Cancelled::Running(TaskId(3)));
    assert_eq!(intake.handle_withdrawn(at(1), TaskId(3)), Some((origin(3), Reason::Cancelled)));
    assert_eq!(intake.len(), 9);
}

#[test]
fn what_was_handed_out_waits_here_again_once_a_job_takes_long_or_a_drain_begins() {
    for drains in [false, true] {
        let mut intake = quick();
        while intake.start_next(at(1)).is_some() {}
        assert!(!intake.poll_stuck(at(1)));
        if drains {
            intake.drain();
        }
        assert_eq!(intake.poll_timeout(), Some(at(6)));
        assert!(intake.poll_stuck(if drains { at(1) } else { at(6) }));
        let back: Vec<_> = (2..=10).map(|id| (TaskId(id), Bytes::new())).collect();
        assert_eq!(intake.handle_taken_back(at(6), back.into_iter()), []);
        let queued: Vec<_> = intake.queued().map(|task| attempt_of(task.origin).job).collect();
        assert_eq!(queued, (2..=10).collect::<Vec<_>>());
        assert!(intake.start_next(at(7)).is_none() && !intake.poll_stuck(at(20)));
        // From the next one that ends on, it is as it was.
        intake.handle_ran(TaskId(1), at(6), at(6) + Duration::from_micros(20));
        intake.handle_finished(at(8), TaskId(1), Ending::Done);
        assert!(intake.start_next(at(8)).is_some());
        assert_eq!(intake.start_next(at(8)).is_some(), !drains);
    }
}

#[test]
fn a_job_whose_time_to_run_is_limited_waits_until_a_handler_is_free() {
    let mut intake = quick();
    let mut job = arrival(origin(11), at(60_000), b"");
    job.terms.run_limit = Some(ms(50));
    intake.queue = Queue::default();
    intake.admit(at(1), job.clone(), Promised::default()).unwrap();
    intake.admit(at(1), Arrival { origin: origin(12), ..job }, Promised::default()).unwrap();
    assert!(intake.start_next(at(1)).is_some());
    assert!(intake.start_next(at(1)).is_none());
}

#[test]
fn what_nobody_wants_any_more_does_not_wait_again() {
    let mut intake = quick();
    while intake.start_next(at(1)).is_some() {}
    assert_eq!(intake.cancel(origin(3)), Cancelled::Running(TaskId(3)));
    intake.drain();
    assert!(intake.poll_stuck(at(1)));
    let back: Vec<_> = (2..=10).map(|id| (TaskId(id), Bytes::new())).collect();
    let unwanted = intake.handle_taken_back(at(1), back.into_iter());
    assert_eq!(unwanted, [(origin(3), Reason::Cancelled)]);
    assert!(intake.queued().all(|task| task.origin != origin(3)) && intake.len() == 9);
}

#[test]
fn a_limited_job_that_no_handler_has_begun_keeps_its_time() {
    let mut intake = quick();
    intake.queue = Queue::default();
    let run_limit = Some(ms(50));
    let mut job = arrival(origin(11), at(0), b"");
    (job.terms.deadline, job.terms.run_limit) = (None, run_limit);
    intake.admit(at(1), job, Promised::default()).unwrap();
    let task = intake.start_next(at(1)).unwrap();
    let back = [(task.id, task.payload)];
    assert_eq!(intake.handle_taken_back(at(20), back.into_iter()), []);
    assert_eq!(intake.queued().next().map(|task| task.terms.run_limit), Some(run_limit));
    assert_eq!(intake.expire(at(60)), [], "its time has not begun");
    intake.start_next(at(70)).unwrap();
    assert_eq!(intake.poll_timeout(), Some(at(120)));
}

#[test]
fn while_jobs_fail_here_nothing_waits_at_the_handlers() {
    let mut intake = quick();
    while intake.start_next(at(1)).is_some() {}
    intake.set_cautious(true);
    assert!(intake.is_ahead() && intake.poll_stuck(at(1)));
    let back: Vec<_> = (2..=10).map(|id| (TaskId(id), Bytes::new())).collect();
    intake.handle_taken_back(at(1), back.into_iter());
    intake.handle_finished(at(2), TaskId(1), FAILING);
    assert!(intake.start_next(at(2)).is_some());
    assert!(intake.start_next(at(2)).is_none());
}

#[test]
fn what_is_rejected_is_counted_by_the_reason_and_times_as_they_were() {
    let mut intake = Intake::new(config(1, 1));
    let far = at(1000);
    let mut admit = |job, deadline, bytes: usize| {
        let arrival = arrival(origin(job), deadline, &vec![7; bytes]);
        intake.admit(at(0), arrival, Promised::default()).err()
    };
    assert_eq!([admit(1, far, 10), admit(2, far, 5)], [None, None]);
    assert_eq!(admit(3, far, 1), Some(Reason::Full));
    assert_eq!(admit(4, at(0), 1), Some(Reason::Expired));
    let task = intake.start_next(at(3)).unwrap();
    assert_eq!(intake.served().queued_bytes, 5);
    intake.handle_finished(at(7), task.id, Ending::Done);
    assert!(intake.take_back(origin(2)));
    let served = intake.served();
    let rejected = [Reason::Full, Reason::Expired, Reason::Cancelled].map(|reason| (reason, 1));
    assert_eq!(served.rejected, rejected.into());
    assert_eq!((served.waits.sum(), served.service_times.sum()), (ms(3), ms(4)));
    assert_eq!(served.queued_bytes, 0);
}
