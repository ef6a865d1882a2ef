//! A server, and a real link at the other end of a connection that may break at any moment.

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use svcmap_proto::jobs::AttemptId;
use svcmap_proto::load::State;
use svcmap_proto::payload::Payloads;

use super::drain::FLUSH_LIMIT;
use super::*;
use crate::intake::Ending;
use crate::link::{Closing, Identity, Link, LinkOutput, Timing};
use crate::testing::*;

const LIFE: Incarnation = Incarnation(11);
const TIMING: Timing = Timing { beat: ms(100), expiry: ms(300), idle: ms(60_000) };

/// One that has the timing of the link.
fn server_of(config: IntakeConfig) -> Server {
    let mut server = Server::new(key(), LIFE, config);
    server.set_expiry(at(0), TIMING.expiry);
    server
}

/// What the link said of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Told {
    Ended(Verdict, Bytes),
    NeverSeen,
    Lost,
}

/// A sender's link, a worker's server, and what is on its way between them.
struct World {
    now: Timestamp,
    link: Link,
    server: Server,
    to_worker: VecDeque<ToWorker>,
    to_sender: VecDeque<FromWorker>,
    /// The connection that is up.
    connection: Option<Connection>,
    connections: u8,
    /// What the handlers have, in the order in which they begin it.
    running: Vec<Task>,
    handlers: usize,
    started: BTreeSet<AttemptId>,
    assigned: u64,
    told: BTreeMap<AttemptId, Told>,
    cancelled: BTreeSet<AttemptId>,
    /// Whose handlers were told that nobody waits.
    stopped: BTreeSet<AttemptId>,
    /// The link had a reason to give up the worker at least once.
    given_up: bool,
    newest_state: Option<State>,
}

impl World {
    fn new(config: IntakeConfig) -> Self {
        let identity = Identity { sender: SENDER, result_bytes_max: 1000, takes_credits: true };
        let mut world = Self {
            now: at(0),
            link: Link::new(at(0), identity, key(), LIFE, TIMING),
            handlers: config.concurrency as usize,
            server: server_of(config),
            to_worker: VecDeque::new(),
            to_sender: VecDeque::new(),
            connection: None,
            connections: 0,
            running: Vec::new(),
            started: BTreeSet::new(),
            assigned: 0,
            told: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            stopped: BTreeSet::new(),
            given_up: false,
            newest_state: None,
        };
        world.connect();
        world
    }

    fn connect(&mut self) {
        if self.connection.is_none() {
            self.connections += 1;
            self.connection = Some(Connection::from(vec![self.connections]));
            self.link.reopen(self.now);
            self.link.handle_writable(self.now);
            self.act();
        }
    }

    /// All that is on its way is lost.
    fn reset(&mut self) {
        self.connection = None;
        self.to_worker.clear();
        self.to_sender.clear();
        self.link.handle_unwritable(self.now);
        self.act();
    }

    fn assign(&mut self) {
        if self.link.is_usable() {
            self.assigned += 1;
            let deadline = self.now + Duration::from_secs(3600);
            self.link.assign(self.now, unclaimed(attempt(self.assigned), deadline, 1));
            self.act();
        }
    }

    fn deliver_to_worker(&mut self) {
        if let Some(message) = self.to_worker.pop_front()
            && let Some(connection) = self.connection.clone()
        {
            self.server.handle_message(self.now, connection, message);
            self.act();
        }
    }

    fn deliver_to_sender(&mut self) {
        if let Some(message) = self.to_sender.pop_front() {
            self.link.handle_message(self.now, message);
            self.act();
        }
    }

    fn finish(&mut self, which: usize) {
        if which < self.running.len().min(self.handlers) {
            let task = self.running.remove(which);
            let result = Bytes::copy_from_slice(&attempt_of(task.origin).job.to_le_bytes());
            self.server.handle_finished(self.now, task.id, Ending::Done, result);
            self.act();
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.link.handle_timeout(self.now);
        self.server.handle_timeout(self.now);
        self.act();
        // What stays due would be acted on again and again, at full speed.
        let due = [self.link.poll_timeout(), self.server.poll_timeout()];
        assert!(due.iter().flatten().all(|at| *at > self.now), "{due:?} at {:?}", self.now);
    }

    /// Everything gets where it is going, and every job that was started ends.
    fn quiesce(&mut self) {
        self.settle(true);
    }

    /// Everything gets where it is going; jobs end, or none does.
    fn settle(&mut self, jobs_end: bool) {
        for _ in 0..100 {
            self.connect();
            for round in 0.. {
                if self.to_worker.is_empty() && self.to_sender.is_empty() {
                    break;
                }
                assert!(round < 1000, "they talk without end");
                self.deliver_to_worker();
                self.deliver_to_sender();
            }
            if jobs_end {
                self.finish(0);
            }
            self.pass(ms(20));
        }
    }

    fn act(&mut self) {
        while let Some(output) = self.link.poll_output() {
            match output {
                LinkOutput::Send(message) => {
                    if self.connection.is_some() {
                        self.to_worker.push_back(message);
                    }
                }
                LinkOutput::Ended(ended) => {
                    for ended in ended {
                        self.tell(ended.attempt, Told::Ended(ended.verdict, ended.payload));
                    }
                }
                LinkOutput::NeverSeen(attempt) => self.tell(attempt, Told::NeverSeen),
                LinkOutput::Lost { attempt, .. } => self.tell(attempt, Told::Lost),
                LinkOutput::Load { load, .. } => self.newest_state = Some(load.state),
                LinkOutput::Granted { .. }
                | LinkOutput::Offered(_)
                | LinkOutput::Declined(_)
                | LinkOutput::Progress(_) => {}
                LinkOutput::Closed(closing) => {
                    self.given_up |= matches!(closing, Closing::Lost | Closing::Unreachable);
                    // Its socket is closed with it.
                    self.connection = None;
                    self.to_worker.clear();
                    self.to_sender.clear();
                }
            }
        }
        while let Some(output) = self.server.poll_output(self.now) {
            match output {
                ServerOutput::Start(task) => {
                    let again = !self.started.insert(attempt_of(task.origin));
                    assert!(!again, "{} was started twice", attempt_of(task.origin));
                    self.running.push(task);
                }
                ServerOutput::Cancel(task) => {
                    let place = self.running.iter().position(|running| running.id == task);
                    let Some(place) = place else { continue };
                    if place < self.handlers {
                        self.stopped.insert(attempt_of(self.running[place].origin));
                    } else {
                        let task = self.running.remove(place);
                        self.started.remove(&attempt_of(task.origin));
                        self.server.handle_withdrawn(self.now, task.id);
                    }
                }
                ServerOutput::TakeBack => {
                    let waiting = self.running.split_off(self.handlers.min(self.running.len()));
                    for task in &waiting {
                        self.started.remove(&attempt_of(task.origin));
                    }
                    let jobs = waiting.into_iter().map(|task| (task.id, task.payload));
                    self.server.handle_taken_back(self.now, jobs);
                }
                ServerOutput::TakeProgress
                | ServerOutput::Reply { .. }
                | ServerOutput::Offer { .. }
                | ServerOutput::SetAside { .. }
                | ServerOutput::FailsAlike { .. }
                | ServerOutput::Trusted
                | ServerOutput::Untold { .. }
                | ServerOutput::UntoldMore(_) => {}
                ServerOutput::Answer { to, message } => {
                    if self.connection.as_ref() == Some(&to) {
                        self.to_sender.push_back(message);
                    } else {
                        self.server.handle_gone(self.now, &to);
                    }
                }
                ServerOutput::Outcomes { to, sender, batch } => {
                    if self.connection.as_ref() == Some(&to) {
                        self.to_sender.push_back(FromWorker::Outcomes(batch));
                    } else {
                        self.server.handle_unreachable(self.now, sender, batch.first_number);
                    }
                }
            }
        }
    }

    fn tell(&mut self, attempt: AttemptId, told: Told) {
        let before = self.told.insert(attempt, told.clone());
        assert_eq!(before, None, "{attempt} was told before, and now as {told:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Assign,
    ToWorker,
    ToSender,
    Finish(usize),
    Cancel(u64),
    Reset,
    Connect,
    /// Somebody says, wrongly, that the worker is gone.
    Gone,
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => Just(Step::Assign),
        8 => Just(Step::ToWorker),
        8 => Just(Step::ToSender),
        5 => (0usize..3).prop_map(Step::Finish),
        1 => (1u64..30).prop_map(Step::Cancel),
        1 => Just(Step::Reset),
        3 => Just(Step::Connect),
        1 => Just(Step::Gone),
        3 => (1u64..80).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..150)
}

/// Lets them happen.
fn play(config: IntakeConfig, steps: Vec<Step>) -> World {
    let mut world = World::new(config);
    for step in steps {
        match step {
            Step::Assign => world.assign(),
            Step::ToWorker => world.deliver_to_worker(),
            Step::ToSender => world.deliver_to_sender(),
            Step::Finish(which) => world.finish(which),
            Step::Cancel(job) => {
                if job <= world.assigned && !world.told.contains_key(&attempt(job)) {
                    // What was not sent is taken back instead, as its sender does it.
                    if !world.link.withdraw(attempt(job)) {
                        world.cancelled.insert(attempt(job));
                        world.link.cancel(attempt(job));
                        world.act();
                    } else {
                        world.tell(attempt(job), Told::NeverSeen);
                    }
                }
            }
            Step::Reset => world.reset(),
            Step::Connect => world.connect(),
            Step::Gone => {
                world.given_up = true;
                world.link.handle_ended(world.now);
                world.act();
            }
            Step::Pass(time) => world.pass(ms(time)),
        }
    }
    world
}

/// Lets them happen, and then everything come to its end.
fn world_after(config: IntakeConfig, steps: Vec<Step>) -> World {
    let mut world = play(config, steps);
    world.quiesce();
    // Whatever happened, the next job is done.
    world.assign();
    world.quiesce();
    let last = world.told.get(&attempt(world.assigned));
    assert!(matches!(last, Some(Told::Ended(Verdict::Done, _))), "{last:?}");
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_attempt_is_told_once_whatever_the_connection_does(steps in steps()) {
        let config = IntakeConfig { concurrency: 2, queue: 2, ..IntakeConfig::default() };
        let world = world_after(config, steps);
        prop_assert_eq!(world.told.len() as u64, world.assigned, "{:?}", world.told);
        for (attempt, told) in &world.told {
            let started = world.started.contains(attempt);
            match told {
                Told::Ended(Verdict::Done, result) => {
                    prop_assert!(started);
                    prop_assert_eq!(&result[..], attempt.job.to_le_bytes());
                }
                Told::Ended(..) | Told::NeverSeen => prop_assert!(!started, "{attempt} {told:?}"),
                // Only who was out of reach for an expiry, or said to be gone, is given up.
                Told::Lost => prop_assert!(world.given_up),
            }
        }
    }

    #[test]
    fn results_that_had_to_be_dropped_are_lost_and_nothing_else_is(steps in steps()) {
        // Room for two results that nobody has acknowledged.
        let config = IntakeConfig {
            concurrency: 2, queue: 2, results_bytes_max: 16, ..IntakeConfig::default()
        };
        let world = world_after(config, steps);
        prop_assert_eq!(world.told.len() as u64, world.assigned, "{:?}", world.told);
        for (attempt, told) in &world.told {
            let started = world.started.contains(attempt);
            match told {
                Told::Ended(Verdict::Done, _) => prop_assert!(started),
                Told::Ended(..) | Told::NeverSeen => prop_assert!(!started, "{attempt} {told:?}"),
                Told::Lost => {}
            }
        }
    }

    #[test]
    fn a_cancel_gets_there_whatever_the_connection_does(steps in steps()) {
        let config = IntakeConfig { concurrency: 2, queue: 2, ..IntakeConfig::default() };
        let mut world = play(config, steps);
        world.settle(false);
        for attempt in &world.cancelled {
            let is_stopped = world.stopped.contains(attempt);
            prop_assert!(world.told.contains_key(attempt) || is_stopped, "{attempt}");
        }
    }

    #[test]
    fn a_drain_ends_only_when_nobody_has_to_wonder(before in steps(), after in steps()) {
        let config = IntakeConfig { concurrency: 2, queue: 2, ..IntakeConfig::default() };
        let mut world = world_after(config, before);
        for _ in 0..4 {
            world.assign();
        }
        world.server.drain(world.now, Duration::from_secs(3600));
        world.act();
        let resets = |step: &Step| matches!(step, Step::Reset | Step::Gone | Step::Pass(_));
        for step in after.into_iter().filter(|step| !resets(step)) {
            match step {
                Step::Assign if world.newest_state == Some(State::Draining) => {}
                Step::Assign => world.assign(),
                Step::ToWorker => world.deliver_to_worker(),
                Step::ToSender => world.deliver_to_sender(),
                Step::Finish(which) => world.finish(which),
                _ => world.pass(ms(1)),
            }
            if world.server.drained().is_some() {
                prop_assert_eq!(world.told.len() as u64, world.assigned);
            }
        }
        world.quiesce();
        prop_assert!(world.server.drained().is_some());
    }
}

/// A sender that does as the test says.
fn hello(open: Vec<svcmap_proto::jobs::OpenAttempt>, connection: u32) -> SenderHello {
    let (payload_bytes_max, takes_credits) = (10, false);
    let incarnation = LIFE;
    SenderHello {
        connection,
        incarnation,
        payload_bytes_max,
        takes_credits,
        open,
        ..crate::testing::hello()
    }
}

fn answers(server: &mut Server, now: Timestamp) -> Vec<FromWorker> {
    std::iter::from_fn(|| server.poll_output(now))
        .filter_map(|output| match output {
            ServerOutput::Answer { message, .. } => Some(message),
            ServerOutput::Outcomes { batch, .. } => Some(FromWorker::Outcomes(batch)),
            _ => None,
        })
        .collect()
}

fn server() -> (Server, Connection) {
    (Server::new(key(), LIFE, IntakeConfig::default()), Connection::from(vec![1]))
}

#[test]
fn a_hello_to_somebody_else_learns_who_is_here() {
    let (mut server, from) = server();
    let other = SenderHello { incarnation: Incarnation(10), ..hello(Vec::new(), 1) };
    server.handle_message(at(0), from.clone(), ToWorker::Hello(other));
    assert_eq!(
        answers(&mut server, at(0)),
        [FromWorker::NotHere { key: key(), incarnation: LIFE }]
    );
    let ping = ToWorker::Ping { received_outcomes: 0 };
    server.handle_message(at(0), from.clone(), ping);
    assert_eq!(answers(&mut server, at(0)), [FromWorker::HelloWanted]);
    let newer = SenderHello { oldest: 200, newest: 201, ..hello(Vec::new(), 1) };
    server.handle_message(at(0), from, ToWorker::Hello(newer));
    let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
    assert_eq!(answers(&mut server, at(0)), [FromWorker::WrongVersion { oldest, newest }]);
}

#[test]
fn a_result_that_its_sender_cannot_take_is_a_failure() {
    let (mut server, from) = server();
    server.handle_message(at(0), from.clone(), ToWorker::Hello(hello(Vec::new(), 1)));
    let (number, deadline_ms) = (1, 1000);
    let job = job(number, attempt(1), deadline_ms);
    server.handle_message(at(0), from, job.message());
    let Some(ServerOutput::Start(task)) = server.poll_output(at(0)) else { panic!("no start") };
    server.handle_finished(at(1), task.id, Ending::Done, vec![0; 11]);
    let last = answers(&mut server, at(1)).pop();
    let Some(FromWorker::Outcomes(batch)) = last else { panic!("{last:?}") };
    assert_eq!(batch.outcomes[0].verdict, FAILED);
}

#[test]
fn a_job_whose_metadata_cannot_be_read_has_failed_and_those_beside_it_run() {
    let (mut server, from) = server();
    server.handle_message(at(0), from.clone(), ToWorker::Hello(hello(Vec::new(), 1)));
    let mut batch = job(1, attempt(1), 1000).batch();
    batch.jobs[0].metadata_bytes = 3;
    batch.jobs.push(job(2, attempt(2), 1000).job);
    batch.payloads = Payloads::new([&Bytes::from_static(b"lie")]);
    server.handle_message(at(0), from, ToWorker::Jobs(batch));
    let Some(ServerOutput::Start(task)) = server.poll_output(at(0)) else { panic!("no start") };
    assert_eq!(attempt_of(task.origin), attempt(2));
    let last = answers(&mut server, at(0)).pop();
    let Some(FromWorker::Outcomes(batch)) = last else { panic!("{last:?}") };
    assert_eq!((batch.outcomes[0].attempt, &batch.outcomes[0].verdict), (attempt(1), &FAILED));
}

#[test]
fn a_sender_that_is_gone_or_silent_does_not_hold_up_a_drain() {
    for gone in [true, false] {
        let (mut server, from) = server();
        server.handle_message(at(0), from.clone(), ToWorker::Hello(hello(Vec::new(), 1)));
        server.drain(at(10), Duration::from_secs(10));
        server.handle_timeout(at(10));
        answers(&mut server, at(10));
        assert_eq!(server.drained(), None);
        if gone {
            server.handle_gone(at(10), &from);
        } else {
            let limit = server.poll_timeout().unwrap();
            assert_eq!(limit, at(10) + FLUSH_LIMIT);
            server.handle_timeout(limit);
        }
        assert_eq!(server.drained(), Some(DrainReport::default()));
    }
}
