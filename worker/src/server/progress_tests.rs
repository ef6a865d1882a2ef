//! When senders are told how far their jobs are, and who is not told.

use svcmap_proto::jobs::AttemptId;
use svcmap_proto::limits::PROGRESS_BATCH_MAX;

use super::*;
use crate::intake::Ending;
use crate::testing::*;

/// What handlers have said since that was last taken, as `io` keeps it.
type Said = Vec<(TaskId, String)>;

/// What a sender is told in one message.
type Told = (u8, Vec<(AttemptId, String)>);

/// A worker of many handlers, and its senders.
struct Scene {
    server: Server,
    started: Vec<TaskId>,
}

impl Scene {
    fn new(concurrency: u32) -> Self {
        let config = IntakeConfig { concurrency, queue: 0, ..IntakeConfig::default() };
        Self { server: Server::new(key(), Incarnation(1), config), started: Vec::new() }
    }

    /// So many jobs of a sender begin.
    fn begin(&mut self, now: Timestamp, who: u8, jobs: u64) {
        let sender = SenderId(who.into());
        let hello = ToWorker::Hello(SenderHello { sender, ..hello() });
        self.server.handle_message(now, Connection::from(vec![who]), hello);
        for number in 1..=jobs {
            let job = job(number, attempt(number), 60_000).message();
            self.server.handle_message(now, Connection::from(vec![who]), job);
        }
        self.act(now, Vec::new());
    }

    /// Those handlers say that now, and nothing was there before.
    fn say(&mut self, now: Timestamp, said: Said) -> Vec<Told> {
        self.server.handle_progress_news(now);
        self.act(now, said)
    }

    /// What senders are told, if that is what handlers have said when somebody looks.
    fn act(&mut self, now: Timestamp, said: Said) -> Vec<Told> {
        let (mut said, mut told) = (Some(said), Vec::new());
        while let Some(output) = self.server.poll_output(now) {
            match output {
                ServerOutput::Start(task) => self.started.push(task.id),
                ServerOutput::TakeProgress => {
                    let said = said.take().expect("it was taken once");
                    self.server.handle_progress(now, said);
                }
                ServerOutput::Answer { to, message: FromWorker::Progress(reports) } => {
                    let reports = reports.into_iter().map(|report| (report.attempt, report.text));
                    told.push((to.id[0], reports.collect()));
                }
                _ => {}
            }
        }
        told
    }

    fn said(&self, number: usize, text: &str) -> (TaskId, String) {
        (self.started[number], text.to_owned())
    }
}

fn told(who: u8, job: u64, text: &str) -> Told {
    (who, vec![(attempt(job), text.to_owned())])
}

#[test]
fn a_sender_is_told_at_once_and_then_ten_times_a_second_at_most() {
    let mut scene = Scene::new(1);
    scene.begin(at(0), 7, 1);
    assert_eq!(scene.say(at(0), vec![scene.said(0, "1 %")]), [told(7, 1, "1 %")]);
    assert_eq!(scene.say(at(1), vec![scene.said(0, "2 %")]), []);
    assert_eq!(scene.server.poll_timeout(), Some(at(100)));
    assert_eq!(scene.act(at(99), vec![scene.said(0, "3 %")]), []);
    // By then another word has taken the place of the one before.
    assert_eq!(scene.act(at(100), vec![scene.said(0, "4 %")]), [told(7, 1, "4 %")]);
    assert_eq!(scene.act(at(300), vec![scene.said(0, "5 %")]), [], "nobody said so");
    assert_eq!(scene.say(at(300), vec![scene.said(0, "5 %")]), [told(7, 1, "5 %")]);
}

#[test]
fn those_of_a_sender_travel_together() {
    let mut scene = Scene::new(4);
    scene.begin(at(0), 7, 2);
    scene.begin(at(0), 8, 1);
    let said = (0..3).map(|number| scene.said(number, "on its way")).collect();
    let all = scene.say(at(0), said);
    let counts: Vec<_> = all.iter().map(|(who, reports)| (*who, reports.len())).collect();
    assert_eq!(counts, [(7, 2), (8, 1)]);
}

#[test]
fn as_many_as_fit_into_a_message() {
    let jobs = PROGRESS_BATCH_MAX as u64 + 1;
    let mut scene = Scene::new(jobs as u32);
    scene.begin(at(0), 7, jobs);
    let said = (0..jobs as usize).map(|number| scene.said(number, "x")).collect();
    let counts: Vec<_> = scene.say(at(0), said).iter().map(|(_, all)| all.len()).collect();
    assert_eq!(counts, [PROGRESS_BATCH_MAX, 1]);
}

#[test]
fn what_is_said_of_a_job_that_is_over_is_told_to_nobody() {
    let mut scene = Scene::new(1);
    scene.begin(at(0), 7, 1);
    let late = scene.said(0, "99 %");
    scene.server.handle_finished(at(1), scene.started[0], Ending::Done, "all");
    assert_eq!(scene.say(at(1), vec![late, (TaskId(99), "?".to_owned())]), []);
}

#[test]
fn who_is_silent_or_gone_or_reads_nothing_is_not_told() {
    let mut scene = Scene::new(3);
    (1..=3).for_each(|who| scene.begin(at(0), who, 1));
    let everybody = |scene: &Scene| (0..3).map(|number| scene.said(number, "here")).collect();
    let who = |told: Vec<Told>| told.into_iter().map(|(who, _)| who).collect::<Vec<_>>();
    assert_eq!(who(scene.say(at(0), everybody(&scene))), [1, 2, 3]);
    scene.server.handle_gone(at(100), &Connection::from(vec![1]));
    assert_eq!(who(scene.say(at(100), everybody(&scene))), [2, 3]);
    scene.server.handle_blocked(at(200), SenderId(2), 1, false);
    assert_eq!(who(scene.say(at(200), everybody(&scene))), [3]);
    let beat = ToWorker::Received { outcomes: 0 };
    scene.server.handle_message(at(3000), Connection::from(vec![2]), beat);
    scene.server.handle_timeout(at(3001));
    assert_eq!(who(scene.say(at(3001), everybody(&scene))), [2]);
}
