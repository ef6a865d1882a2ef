//! Jobs whose senders are content that a worker has them.

use svcmap_proto::jobs::Detachment;

use super::*;
use crate::intake::Ending;
use crate::testing::*;

/// A worker of one handler.
struct Scene {
    server: Server,
    started: Vec<Task>,
    told: Vec<(u64, Verdict)>,
    untold: Vec<(u64, String)>,
    more: Vec<u64>,
    stopped: Vec<TaskId>,
}

fn from() -> Connection {
    Connection::from(vec![1])
}

impl Scene {
    fn new() -> Self {
        let config = IntakeConfig { concurrency: 1, queue: 9, ..IntakeConfig::default() };
        let server = Server::new(key(), Incarnation(1), config);
        let (started, told, untold, more, stopped) = Default::default();
        let mut scene = Self { server, started, told, untold, more, stopped };
        scene.say(at(0), ToWorker::Hello(hello()));
        scene
    }

    fn say(&mut self, now: Timestamp, message: ToWorker) {
        self.server.handle_message(now, from(), message);
        self.act(now);
    }

    fn send(&mut self, now: Timestamp, number: u64, deadline_ms: u32) {
        let mut job = job(number, attempt(number), deadline_ms);
        (job.detachment, job.redirects_left) = (Detachment::Released, 3);
        self.say(now, job.message());
    }

    fn finish(&mut self, now: Timestamp, ending: Ending, payload: &'static str) {
        let task = self.started.remove(0).id;
        self.server.handle_ran(task, now, now);
        self.server.handle_finished(now, task, ending, payload);
        self.act(now);
    }

    fn pass(&mut self, now: Timestamp) {
        self.server.handle_timeout(now);
        self.act(now);
    }

    fn act(&mut self, now: Timestamp) {
        while let Some(output) = self.server.poll_output(now) {
            match output {
                ServerOutput::Start(task) => self.started.push(task),
                ServerOutput::Cancel(task) => self.stopped.push(task),
                ServerOutput::Outcomes { batch, .. } => {
                    let ended = batch.outcomes.into_iter();
                    self.told.extend(ended.map(|ended| (ended.attempt.job, ended.verdict)));
                }
                ServerOutput::Untold { sender, attempt, error } => {
                    assert_eq!(sender, SENDER);
                    self.untold.push((attempt.job, error));
                }
                ServerOutput::UntoldMore(jobs) => self.more.push(jobs),
                _ => {}
            }
        }
    }
}

const FAILED: Ending = Ending::Failed { code: None };

#[test]
fn they_are_accepted_at_once_or_rejected_as_any_other() {
    let mut scene = Scene::new();
    (1..=3).for_each(|number| scene.send(at(number), number, 60_000));
    scene.send(at(4), 4, 0);
    let accepted = |number| (number, Verdict::Accepted);
    let expired = (4, Verdict::Rejected(Reason::Expired));
    assert_eq!(scene.told, [accepted(1), accepted(2), accepted(3), expired]);
    // Whose they were is still known to the handler.
    assert_eq!(scene.started[0].origin, Origin::Released { sender: SENDER, attempt: attempt(1) });
    // What becomes of them is told nobody.
    scene.finish(at(10), Ending::Done, "result");
    scene.finish(at(11), FAILED, "a full disk");
    assert_eq!(scene.told.len(), 4);
    assert_eq!(scene.untold, [(2, "a full disk".to_owned())]);
}

#[test]
fn they_are_done_whatever_becomes_of_their_sender_and_of_the_worker_as_long_as_it_may() {
    let mut scene = Scene::new();
    (1..=3).for_each(|number| scene.send(at(number), number, 60_000));
    // Too late.
    scene.say(at(4), ToWorker::Cancel { attempt: attempt(1) });
    scene.say(at(4), ToWorker::TakeBack { attempt: attempt(2) });
    scene.say(at(5), ToWorker::Hello(SenderHello { connection: 2, ..hello() }));
    scene.say(at(6), ToWorker::Goodbye);
    scene.server.drain(at(7), ms(100));
    scene.act(at(7));
    scene.finish(at(8), Ending::Done, "");
    assert_eq!((scene.started.len(), scene.stopped.len()), (1, 0));
    scene.pass(at(107));
    assert_eq!(scene.stopped.len(), 1);
    let report = scene.server.drained().unwrap();
    assert_eq!((report.finished, report.dropped, report.abandoned), (1, 1, 1));
    let untold = |job, error: &str| (job, error.to_owned());
    let lost = [untold(3, "not begun: draining"), untold(2, "still ran when the worker stopped")];
    assert_eq!(scene.untold, lost);
}

#[test]
fn of_many_that_fail_ten_a_second_are_told_and_the_others_counted() {
    let mut scene = Scene::new();
    let fail = |scene: &mut Scene, number: u64, now| {
        scene.send(now, number, 60_000);
        scene.finish(now, FAILED, "no");
    };
    (1..=14).for_each(|number| fail(&mut scene, number, at(5000 + number)));
    let jobs = |scene: &Scene| scene.untold.iter().map(|(job, _)| *job).collect::<Vec<_>>();
    assert_eq!(jobs(&scene), (1..=10).collect::<Vec<_>>());
    assert!(scene.more.is_empty());
    while let Some(due) = scene.server.poll_timeout().filter(|due| *due <= at(6001)) {
        scene.pass(due);
    }
    assert_eq!(scene.more, [4]);
    fail(&mut scene, 15, at(6002));
    assert_eq!(jobs(&scene)[10..], [15]);
    scene.pass(at(9000));
    assert_eq!(scene.more, [4]);
    // What is left to tell at the end is told.
    (16..=30).for_each(|number| fail(&mut scene, number, at(9000)));
    scene.server.drain(at(9001), ms(100));
    scene.act(at(9001));
    assert_eq!(scene.more, [4, 5]);
}

#[test]
fn one_whose_deadline_comes_first_is_not_begun_and_people_are_told() {
    let mut scene = Scene::new();
    scene.send(at(1), 1, 60_000);
    scene.send(at(2), 2, 50);
    scene.pass(at(52));
    assert_eq!(scene.untold, [(2, "not begun: expired".to_owned())]);
    assert_eq!(scene.told, [(1, Verdict::Accepted), (2, Verdict::Accepted)]);
}

#[test]
fn one_that_cannot_be_started_has_failed_and_its_reason_is_told() {
    let mut scene = Scene::new();
    scene.send(at(1), 1, 60_000);
    scene.finish(at(2), Ending::NotStarted, "the program is gone");
    assert_eq!(scene.untold, [(1, "the program is gone".to_owned())]);
    assert_eq!((scene.server.load(at(3)).failed, scene.server.load(at(3)).rejected), (1, 0));
}

#[test]
fn who_sends_them_has_no_more_than_its_share_and_what_was_its_is_counted_down_once() {
    let mut scene = Scene::new();
    (1..=3).for_each(|number| scene.send(at(number), number, 60_000));
    assert_eq!(scene.server.credits.jobs_of(SENDER), 3);
    scene.finish(at(4), Ending::Done, "");
    assert_eq!(scene.server.credits.jobs_of(SENDER), 2);
    scene.say(at(5), ToWorker::Goodbye);
    assert_eq!(scene.server.credits.jobs_of(SENDER), 2);
    scene.finish(at(6), Ending::Done, "");
    scene.finish(at(7), Ending::Done, "");
    assert_eq!(scene.server.credits.jobs_of(SENDER), 0);
}
