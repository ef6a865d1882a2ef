//! What becomes of jobs whose sender is gone, silent, or wants them no more.

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, Detachment, OpenAttempt};

use super::*;
use crate::intake::Ending;
use crate::testing::*;

const EXPIRY: Duration = ms(300);

/// A worker of one handler, whose sender has job 1 running and 2 to 4 waiting, of which 4 is
/// detached.
pub(super) struct Scene {
    pub(super) server: Server,
    pub(super) running: Option<TaskId>,
    cancelled: Vec<TaskId>,
    pub(super) told: Vec<(AttemptId, Verdict)>,
}

fn from() -> Connection {
    Connection::from(vec![1])
}

impl Scene {
    pub(super) fn new() -> Self {
        let config = IntakeConfig { concurrency: 1, queue: 9, ..IntakeConfig::default() };
        let mut server = Server::new(key(), Incarnation(1), config);
        server.set_expiry(at(0), EXPIRY);
        let (cancelled, told) = (Vec::new(), Vec::new());
        let mut scene = Self { server, running: None, cancelled, told };
        scene.say(at(0), ToWorker::Hello(hello()));
        for number in 1..=4 {
            let detachment = if number == 4 { Detachment::Detached } else { Detachment::Attached };
            let mut job = job(number, attempt(number), 60_000);
            (job.detachment, job.redirects_left) = (detachment, 3);
            scene.say(at(number), job.message());
        }
        scene
    }

    pub(super) fn say(&mut self, now: Timestamp, message: ToWorker) {
        self.server.handle_message(now, from(), message);
        self.act(now);
    }

    pub(super) fn pass(&mut self, now: Timestamp) {
        self.server.handle_timeout(now);
        self.act(now);
    }

    pub(super) fn act(&mut self, now: Timestamp) {
        while let Some(output) = self.server.poll_output(now) {
            match output {
                ServerOutput::Start(task) => self.running = Some(task.id),
                ServerOutput::Cancel(task) => self.cancelled.push(task),
                ServerOutput::Outcomes { batch, .. } => {
                    let told = |outcome: svcmap_proto::jobs::OutcomeHeader| {
                        (outcome.attempt, outcome.verdict)
                    };
                    self.told.extend(batch.outcomes.into_iter().map(told));
                }
                _ => {}
            }
        }
    }

    pub(super) fn queued(&self) -> Vec<AttemptId> {
        self.waiting().into_iter().map(|attempt| attempt.expect("it is somebody's")).collect()
    }

    /// The same, with `None` for what is done for nobody.
    fn waiting(&self) -> Vec<Option<AttemptId>> {
        let attempt = |task: &Task| match task.origin {
            Origin::Sender { attempt, .. } => Some(attempt),
            _ => None,
        };
        self.server.intake().queued().map(attempt).collect()
    }
}

fn open(numbers: &[u64]) -> Vec<OpenAttempt> {
    let open = |&number| OpenAttempt { number, attempt: attempt(number), cancelled: false };
    numbers.iter().map(open).collect()
}

#[test]
fn what_waits_for_a_silent_sender_is_dropped_after_an_expiry_but_for_what_is_detached() {
    let mut scene = Scene::new();
    assert_eq!(scene.queued(), [attempt(2), attempt(3), attempt(4)]);
    // Its last word was job 4, at 4.
    scene.pass(at(303));
    assert_eq!(scene.queued().len(), 3);
    scene.pass(scene.server.poll_timeout().unwrap());
    assert_eq!(scene.queued(), [attempt(4)]);
    // It may come back, and can try these elsewhere; what runs goes on.
    let unreachable = Verdict::Rejected(Reason::Unreachable);
    assert_eq!(scene.told, [(attempt(2), unreachable.clone()), (attempt(3), unreachable.clone())]);
    assert_eq!(scene.cancelled, []);
    // Not before the job's deadline is that forgotten.
    scene.told.clear();
    scene.pass(at(59_000));
    let again = SenderHello { connection: 2, open: open(&[1, 2, 3, 4]), ..hello() };
    scene.say(at(59_000), ToWorker::Hello(again));
    assert_eq!(scene.told, [(attempt(2), unreachable.clone()), (attempt(3), unreachable)]);
}

#[test]
fn a_sender_that_says_something_each_beat_is_waited_for() {
    let mut scene = Scene::new();
    for beat in 1..100 {
        scene.say(at(beat * 100), ToWorker::Received { outcomes: 0 });
        scene.pass(at(beat * 100 + 99));
    }
    assert_eq!(scene.queued().len(), 3);
    scene.pass(at(10_200));
    assert_eq!(scene.queued(), [attempt(4)]);
}

#[test]
fn silence_while_the_worker_stood_still_means_nothing() {
    let mut scene = Scene::new();
    scene.server.handle_suspension(at(50_000), ms(49_900));
    scene.pass(at(50_000));
    assert_eq!(scene.queued().len(), 3);
    scene.pass(at(50_210));
    assert_eq!(scene.queued(), [attempt(4)]);
}

#[test]
fn what_hello_names_no_more_is_dropped_at_once() {
    let mut scene = Scene::new();
    let hello = SenderHello { connection: 2, open: open(&[3]), ..hello() };
    scene.say(at(10), ToWorker::Hello(hello));
    assert_eq!(scene.queued(), [attempt(3), attempt(4)]);
    assert_eq!(scene.cancelled, [scene.running.unwrap()]);
    assert_eq!(scene.told, [], "nobody waits for it");
    // How that ends says nothing of the handler, who was told to stop.
    let task = scene.running.unwrap();
    scene.server.handle_finished(at(10), task, Ending::NotStarted, &b"killed"[..]);
    scene.act(at(10));
    assert!(!scene.server.wants_verdict(at(10)));
    // The credits' books agree with the intake's.
    assert_eq!(scene.server.load(at(10)).queued, 1);
}

#[test]
fn who_has_given_up_all_it_had_here_makes_room_for_others() {
    let mut scene = Scene::new();
    scene.say(at(10), ToWorker::Hello(SenderHello { connection: 2, ..hello() }));
    for now in [11, 12] {
        assert!(scene.server.senders.has_jobs(SENDER), "one runs, and one is detached");
        let task = scene.running.take().expect("it runs");
        scene.server.handle_finished(at(now), task, Ending::Done, Bytes::new());
        scene.act(at(now));
    }
    assert!(!scene.server.senders.has_jobs(SENDER));
}

#[test]
fn who_says_goodbye_is_forgotten_with_all_that_is_not_detached() {
    let mut scene = Scene::new();
    scene.say(at(10), ToWorker::Goodbye);
    assert_eq!(scene.waiting(), [None]);
    assert_eq!(scene.cancelled, [scene.running.unwrap()]);
    assert!(scene.server.senders.connections().next().is_none());
    // What it detached is done, and nobody is told.
    scene.pass(at(5000));
    for now in [5001, 5002] {
        let task = scene.running.take().expect("it runs");
        scene.server.handle_finished(at(now), task, Ending::Done, b"result".to_vec());
        scene.act(at(now));
    }
    assert_eq!((scene.told, scene.server.intake().len()), (Vec::new(), 0));
    assert!(scene.server.senders.is_flushed());
}

#[test]
fn whoever_said_goodbye_may_come_back() {
    let mut scene = Scene::new();
    scene.say(at(10), ToWorker::Goodbye);
    scene.say(at(11), ToWorker::Ping { received_outcomes: 0 });
    let again = SenderHello { connection: 2, ..hello() };
    scene.say(at(12), ToWorker::Hello(again));
    scene.say(at(13), job(5, attempt(5), 60_000).message());
    assert_eq!(scene.waiting(), [None, Some(attempt(5))]);
    // What ends now of before is nothing that it has here.
    for (now, job) in [(14, 1), (15, 4)] {
        let task = scene.running.take().expect("it runs");
        scene.server.handle_finished(at(now), task, Ending::Done, Bytes::new());
        scene.act(at(now));
        assert!(scene.server.senders.has_jobs(SENDER), "{job}");
    }
    assert_eq!(scene.told, []);
    let task = scene.running.take().expect("it runs");
    scene.server.handle_finished(at(16), task, Ending::Done, Bytes::new());
    scene.act(at(16));
    assert_eq!(scene.told, [(attempt(5), Verdict::Done)]);
    assert!(!scene.server.senders.has_jobs(SENDER));
}

#[test]
fn what_is_taken_back_is_not_begun_and_what_runs_goes_on() {
    let mut scene = Scene::new();
    for number in [1, 2, 4] {
        scene.say(at(10), ToWorker::TakeBack { attempt: attempt(number) });
    }
    assert_eq!(scene.queued(), [attempt(3)]);
    assert_eq!(scene.cancelled, []);
    let cancelled = Verdict::Rejected(Reason::Cancelled);
    assert_eq!(scene.told, [2, 4].map(|number| (attempt(number), cancelled.clone())));
    // It is taken back as well when it is too late for that.
    scene.say(at(11), ToWorker::Cancel { attempt: attempt(1) });
    assert_eq!(scene.cancelled, [scene.running.unwrap()]);
}
