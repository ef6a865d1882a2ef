//! A sender whose jobs wait: for whom, for how long, and what it says meanwhile.

use svcmap_proto::control::{Entry, ServiceStanding};
use svcmap_proto::names::Epoch;

use super::handover_tests::{entry, publish, spec};
use super::*;
use crate::choice::Policy;
use crate::outcome::Outcome;
use crate::testing::*;
use svcmap_proto::jobs::ToWorker;

/// A sender, and what it said until now.
struct Scene {
    sender: Sender,
    settled: Vec<(Timestamp, JobId, Outcome)>,
    unheard: Vec<Timestamp>,
    unserved: Vec<Timestamp>,
    unreachable: Vec<(Timestamp, String, u32, Trouble)>,
    connects: Vec<Timestamp>,
    /// The number of the last connection that was opened.
    hellos: u32,
}

impl Scene {
    /// Whom no mapper has told anything, on that host.
    fn alone(host: u128) -> Self {
        let (config, choice) = (OutboxConfig::default(), Policy::Svcmap.choice());
        Self {
            sender: Sender::new(SENDER, HostId(host), 1, config, choice, 1),
            settled: Vec::new(),
            unheard: Vec::new(),
            unserved: Vec::new(),
            unreachable: Vec::new(),
            connects: Vec::new(),
            hellos: 0,
        }
    }

    /// Whom a mapper has told that these are all.
    fn told(host: u128, entries: Vec<Entry>) -> Self {
        let mut scene = Self::alone(host);
        scene.sender.handle_welcome(at(0), 0, &welcome());
        scene.sender.follow(at(0), &name("resize"));
        publish(&mut scene.sender, at(0), 1, entries);
        scene
    }

    fn submit(&mut self, now: Timestamp, job: u64, hold: Option<Duration>) {
        let spec = JobSpec { hold, deadline: None, ..spec(b"x") };
        self.sender.handle_submit(now, JobId(job), spec);
        self.see(now);
    }

    /// The worker of that link is there, and idle.
    fn welcome(&mut self, now: Timestamp, link: u64) {
        self.sender.handle_link_writable(now, link);
        self.see(now);
        let connection = self.hellos;
        let (payload_bytes_max, load, forgotten) = (1000, idle(1).load, Vec::new());
        let welcome = FromWorker::Welcome {
            connection,
            received_jobs: 0,
            payload_bytes_max,
            load,
            forgotten,
        };
        self.sender.handle_link_message(now, link, welcome);
        self.see(now);
    }

    /// Lets time pass until then; nobody can be connected to.
    fn pass(&mut self, until: Timestamp) {
        while let Some(due) = self.sender.poll_timeout().filter(|due| *due <= until) {
            self.sender.handle_timeout(due);
            self.see(due);
        }
        self.see(until);
    }

    fn see(&mut self, now: Timestamp) {
        while let Some(output) = self.sender.poll_output(now) {
            match output {
                SenderOutput::Settled { job, outcome } => self.settled.push((now, job, outcome)),
                SenderOutput::Unheard(_) => self.unheard.push(now),
                SenderOutput::Unserved(_) => self.unserved.push(now),
                SenderOutput::Send { message: ToWorker::Hello(hello), .. } => {
                    self.hellos = hello.connection;
                }
                SenderOutput::Connect { .. } => self.connects.push(now),
                SenderOutput::Unreachable { key, endpoint, failures, trouble } => {
                    let who = format!("{key} {endpoint}");
                    self.unreachable.push((now, who, failures, trouble));
                }
                _ => {}
            }
        }
    }

    /// When each job was refused, and why.
    fn refused(&self) -> Vec<(Timestamp, u64, Reason)> {
        let refused = self.settled.iter().map(|(at, job, outcome)| match outcome {
            Outcome::Refused(refusal) => (*at, job.0, refusal.reason),
            outcome => panic!("{outcome:?}"),
        });
        refused.collect()
    }
}

fn idle(worker: u16) -> Entry {
    entry(worker, svcmap_proto::load::Load { slots: 4, concurrency: 1, ..Default::default() })
}

/// A snapshot of a service of which the mapper knows nobody, if only from before.
fn nobody(scene: &mut Scene, now: Timestamp, standing: ServiceStanding) {
    let (warming, part, parts, entries) = (false, 0, 1, Vec::new());
    let part =
        SnapshotPart { epoch: Epoch(1), revision: 9, warming, standing, part, parts, entries };
    scene.sender.handle_snapshot(now, 0, &name("resize"), &part);
}

#[test]
fn without_a_mapper_that_is_said_after_two_seconds_and_refused_after_the_patience() {
    let mut scene = Scene::alone(1);
    scene.submit(at(0), 1, None);
    scene.submit(at(0), 2, Some(Duration::ZERO));
    scene.submit(at(0), 3, Some(ms(5000)));
    scene.pass(at(90_000));
    let reason = Reason::NoMapper;
    assert_eq!(
        scene.refused(),
        [(at(2000), 2, reason), (at(5000), 3, reason), (at(30_000), 1, reason)]
    );
    assert_eq!(scene.unheard, [at(2000), at(4000), at(8000), at(16_000)]);
}

#[test]
fn a_mapper_that_comes_late_is_early_enough() {
    let mut scene = Scene::alone(1);
    scene.submit(at(0), 1, None);
    scene.pass(at(25_000));
    scene.sender.handle_welcome(at(25_000), 0, &welcome());
    publish(&mut scene.sender, at(25_000), 1, vec![idle(1)]);
    scene.pass(at(25_000));
    assert_eq!(scene.connects, [at(25_000)]);
}

#[test]
fn a_service_that_no_mapper_has_heard_of_is_refused_at_once() {
    let mut scene = Scene::told(1, Vec::new());
    nobody(&mut scene, at(0), ServiceStanding::Unheard);
    scene.submit(at(5), 1, None);
    scene.pass(at(5));
    assert_eq!(scene.refused(), [(at(5), 1, Reason::NoSuchService)]);
    // As soon as a mapper says so.
    let mut scene = Scene::alone(1);
    scene.submit(at(0), 1, None);
    scene.pass(at(700));
    scene.sender.handle_welcome(at(700), 0, &welcome());
    nobody(&mut scene, at(700), ServiceStanding::Unheard);
    scene.pass(at(700));
    assert_eq!(scene.refused(), [(at(700), 1, Reason::NoSuchService)]);
}

#[test]
fn a_service_that_is_none_of_its_business_is_refused_as_such() {
    let mut scene = Scene::alone(1);
    scene.submit(at(0), 1, None);
    scene.sender.handle_welcome(at(10), 0, &welcome());
    nobody(&mut scene, at(10), ServiceStanding::NotAllowed);
    scene.pass(at(10));
    assert_eq!(scene.refused(), [(at(10), 1, Reason::NotAllowed)]);
}

#[test]
fn one_that_somebody_served_is_waited_for() {
    // As far as the mapper has heard, or this sender.
    let mut heard = Scene::told(1, Vec::new());
    nobody(&mut heard, at(0), ServiceStanding::Heard);
    let mut seen = Scene::told(1, vec![idle(1)]);
    nobody(&mut seen, at(1), ServiceStanding::Heard);
    // It was not told that it left, so it waits for an expiry.
    seen.pass(at(4000));
    nobody(&mut seen, at(4000), ServiceStanding::Unheard);
    for mut scene in [heard, seen] {
        scene.submit(at(5000), 1, None);
        scene.pass(at(34_999));
        assert!(scene.refused().is_empty());
        scene.submit(at(34_999), 2, None);
        scene.pass(at(35_000));
        assert_eq!(scene.refused(), [(at(35_000), 1, Reason::NoSuchService)]);
        // That is said, seldomer and seldomer.
        let said = scene.unserved.len();
        assert!((3..=5).contains(&said) && scene.unheard.is_empty(), "{:?}", scene.unserved);
        scene.pass(at(40_000));
        publish(&mut scene.sender, at(40_000), 10, vec![idle(2)]);
        scene.pass(at(40_000));
        assert_eq!(scene.connects.last(), Some(&at(40_000)));
    }
}

#[test]
fn an_instance_that_never_was_is_not_here_and_one_that_was_is_waited_for() {
    let mut scene = Scene::told(1, vec![idle(1), idle(2)]);
    publish(&mut scene.sender, at(0), 2, vec![idle(1)]);
    scene.pass(at(4000));
    for (job, instance) in [(1, "w-2"), (2, "w-3")] {
        let instance = Some(name(instance));
        let spec = JobSpec { instance, deadline: None, ..spec(b"x") };
        scene.sender.handle_submit(at(4000), JobId(job), spec);
    }
    scene.pass(at(60_000));
    let reason = Reason::NotHere;
    assert_eq!(scene.refused(), [(at(4000), 2, reason), (at(34_000), 1, reason)]);
}

#[test]
fn a_worker_that_cannot_be_reached_is_not_full_and_that_is_said_seldomer_and_seldomer() {
    let mut scene = Scene::told(1, vec![idle(1)]);
    scene.submit(at(0), 1, None);
    scene.submit(at(0), 2, Some(ms(3000)));
    scene.pass(at(100_000));
    assert_eq!(scene.refused(), [(at(3000), 2, Reason::Unreachable)]);
    // Tried after 1, 2, 4, 8 and 16 seconds, each time for one.
    let starts: Vec<_> = scene.connects.iter().take(6).copied().collect();
    assert_eq!(starts, [0, 2000, 5000, 10_000, 19_000, 36_000].map(at));
    let who = "resize/w-1 tcp://10.0.0.1:6001".to_owned();
    let said = |time, failures| (at(time), who.clone(), failures, Trouble::NoAnswer);
    assert_eq!(scene.unreachable[..3], [said(1000, 1), said(3000, 2), said(11_000, 4)]);
    assert!(scene.unreachable.len() <= 4, "{:?}", scene.unreachable);
}

#[test]
fn a_worker_is_reached_where_it_is_now() {
    let moved = |port| {
        let endpoint = format!("tcp://10.0.0.2:{port}").parse().unwrap();
        Entry { endpoints: vec![endpoint], ..idle(1) }
    };
    let mut scene = Scene::told(1, vec![idle(1)]);
    // It is still being connected to.
    scene.submit(at(0), 1, None);
    publish(&mut scene.sender, at(10), 2, vec![moved(1)]);
    scene.see(at(10));
    assert_eq!(scene.connects, [at(0), at(10)]);
    // It is connected, and nothing is open there.
    scene.sender.handle_cancel(at(11), JobId(1));
    scene.welcome(at(12), 0);
    publish(&mut scene.sender, at(5000), 3, vec![moved(2)]);
    scene.submit(at(5000), 2, None);
    assert_eq!(scene.connects, [at(0), at(10), at(5000)]);
    // The same address is no reason to dial anew.
    publish(&mut scene.sender, at(5001), 4, vec![moved(2)]);
    scene.see(at(5001));
    assert_eq!(scene.connects.len(), 3);
    assert!(scene.unreachable.is_empty());
}

#[test]
fn a_worker_that_has_no_room_for_this_sender_is_full_and_not_out_of_reach() {
    let mut scene = Scene::told(1, vec![idle(1)]);
    scene.submit(at(0), 1, Some(ms(2000)));
    // Turned away, and again a second later.
    for (now, link) in [(at(1), 0), (at(1001), 0)] {
        scene.pass(now);
        scene.sender.handle_link_writable(now, link);
        scene.see(now);
        scene.sender.handle_link_message(now, link, FromWorker::TurnedAway);
        scene.see(now);
    }
    scene.pass(at(2000));
    assert_eq!(scene.refused(), [(at(2000), 1, Reason::NoCredit)]);
    let who = "resize/w-1 tcp://10.0.0.1:6001".to_owned();
    let said = |time, failures| (at(time), who.clone(), failures, Trouble::TurnedAway);
    assert_eq!(scene.unreachable, [said(1, 1), said(1001, 2)]);
}

#[test]
fn a_loopback_address_of_another_host_is_out_of_reach() {
    let away = || Entry { endpoints: vec!["tcp://127.0.0.1:6001".parse().unwrap()], ..idle(1) };
    let mut scene = Scene::told(1, vec![away()]);
    scene.submit(at(0), 1, None);
    scene.submit(at(0), 2, Some(ms(500)));
    scene.pass(at(5000));
    assert_eq!(scene.refused(), [(at(500), 2, Reason::Unreachable)]);
    let who = "resize/w-1 tcp://127.0.0.1:6001".to_owned();
    let (said_at, said, _, trouble) = &scene.unreachable[0];
    assert!((at(2000)..=at(3000)).contains(said_at), "{said_at}");
    assert_eq!((said, *trouble), (&who, Trouble::OtherHost));
    assert_eq!(scene.unreachable.len(), 2);
    assert!(scene.connects.is_empty());
    // From that host it is not.
    let mut scene = Scene::told(9, vec![away()]);
    scene.submit(at(0), 1, None);
    scene.pass(at(0));
    assert_eq!(scene.connects, [at(0)]);
}

#[test]
fn a_service_whose_workers_all_drain_is_waited_for_with_patience() {
    let draining = || {
        let mut entry = idle(1);
        entry.load.state = svcmap_proto::load::State::Draining;
        entry
    };
    let mut scene = Scene::told(1, vec![draining()]);
    scene.submit(at(0), 1, None);
    scene.submit(at(0), 2, Some(Duration::ZERO));
    scene.pass(at(60_000));
    let reason = Reason::Draining;
    assert_eq!(scene.refused(), [(at(0), 2, reason), (at(30_000), 1, reason)]);
}
