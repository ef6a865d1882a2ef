//! Jobs whose senders are content that a worker has them.

use svcmap_proto::jobs::{AttemptId, Detachment};

use super::*;
use crate::intake::Ending;
use crate::testing::*;

/// A worker of one handler.
struct Scene {
    server: Server,
    started: Vec<Task>,
    told: Vec<(u64, Verdict)>,
    untold: Vec<(u64, AttemptId, String)>,
    stopped: Vec<TaskId>,
}

fn from() -> Connection {
    Connection(vec![1])
}

impl Scene {
    fn new() -> Self {
        let config = IntakeConfig { concurrency: 1, queue: 9, ..IntakeConfig::default() };
        let server = Server::new(key(), Incarnation(1), config);
        let (started, told, untold, stopped) = Default::default();
        let mut scene = Self { server, started, told, untold, stopped };
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
                ServerOutput::Untold { jobs, attempt, error } => {
                    self.untold.push((jobs, attempt, error));
                }
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
    assert_eq!(scene.untold, [(1, attempt(2), "a full disk".to_owned())]);
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
    assert_eq!(scene.server.drained().map(|report| report.dropped), Some(2));
    let errors: Vec<_> = scene.untold.iter().map(|(_, _, error)| error.as_str()).collect();
    assert_eq!(errors, ["still ran when the worker stopped"]);
    assert_eq!(scene.untold[0].0, 2, "one of them had not begun");
}

#[test]
fn who_fails_many_says_so_once_a_second() {
    let mut scene = Scene::new();
    for number in 1..=5 {
        scene.send(at(number * 10), number, 60_000);
        scene.finish(at(number * 10), FAILED, "no");
    }
    let untold = |jobs, number| (jobs, attempt(number), "no".to_owned());
    assert_eq!(scene.untold, [untold(1, 1)]);
    assert!(scene.server.poll_timeout() <= Some(at(1010)));
    scene.pass(at(1010));
    assert_eq!(scene.untold[1..], [untold(4, 5)]);
    scene.pass(at(5000));
    assert_eq!(scene.untold.len(), 2);
}

#[test]
fn one_whose_deadline_comes_first_is_not_begun_and_people_are_told() {
    let mut scene = Scene::new();
    scene.send(at(1), 1, 60_000);
    scene.send(at(2), 2, 50);
    scene.pass(at(52));
    assert_eq!(scene.untold, [(1, attempt(2), "not begun: expired".to_owned())]);
    assert_eq!(scene.told, [(1, Verdict::Accepted), (2, Verdict::Accepted)]);
}
