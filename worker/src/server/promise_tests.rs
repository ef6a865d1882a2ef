//! What a worker promises, and what it does with slots of its peers, as senders see it.

use std::collections::BTreeMap;

use bytes::Bytes;
use svcmap_proto::jobs::Demand;
use svcmap_proto::jobs::{Claim, Grant, OfferId};
use svcmap_proto::load::State;

use super::*;
use crate::intake::Ending;
use crate::testing::*;

mod aside;
mod offers;

const LIFE: Incarnation = Incarnation(11);

/// What became of a job: whose, which, and how.
type Ended = (u8, u64, Verdict);

/// What the worker did.
#[derive(Debug, Default)]
struct Seen {
    started: Vec<TaskId>,
    /// Whose job, and how it ended.
    ended: Vec<Ended>,
    /// To whom, how many, and whether with an outcome.
    granted: Vec<(u8, u32, bool)>,
    recalled: Vec<u8>,
    offered: Vec<(u8, OfferId)>,
    declined: Vec<(u8, OfferId)>,
    offers: Vec<(OfferedSlot, bool)>,
    states: Vec<State>,
    /// Why it was set aside.
    errors: Vec<String>,
}

/// A worker, and senders by number.
struct Scene {
    server: Server,
    sent: BTreeMap<u8, u64>,
}

impl Scene {
    fn new(concurrency: u32, queue: u32) -> Self {
        let config = IntakeConfig { concurrency, queue, ..IntakeConfig::default() };
        Self { server: Server::new(key(), LIFE, config), sent: BTreeMap::new() }
    }

    /// One whose jobs take 40 ms, as it has just found out, and what it does with that.
    fn idle(concurrency: u32, queue: u32) -> (Self, Seen) {
        let mut scene = Self::new(concurrency, queue);
        scene.greet(at(60), 9);
        scene.job(at(60), 9, |_| {});
        let seen = scene.see(at(60));
        seen.offers.iter().for_each(|(slot, _)| scene.server.handle_no_taker(slot.offer));
        scene.finish(at(100), seen.started[0]);
        let seen = scene.see(at(100));
        scene.server.handle_gone(at(100), &Connection::from(vec![9]));
        (scene, seen)
    }

    /// The same, once it has promised nothing to anybody.
    fn experienced(concurrency: u32, queue: u32) -> Self {
        let (mut scene, seen) = Self::idle(concurrency, queue);
        seen.offers.iter().for_each(|(slot, _)| scene.server.handle_no_taker(slot.offer));
        scene
    }

    fn say(&mut self, now: Timestamp, who: u8, message: ToWorker) {
        self.server.handle_message(now, Connection::from(vec![who]), message);
    }

    fn greet(&mut self, now: Timestamp, who: u8) {
        let sender = SenderId(who.into());
        let hello = SenderHello { sender, incarnation: LIFE, payload_bytes_max: 100, ..hello() };
        self.say(now, who, ToWorker::Hello(hello));
    }

    fn ask(&mut self, now: Timestamp, who: u8, share: u32) {
        self.say(now, who, ToWorker::Ask(Demand { share, ..Demand::default() }));
    }

    /// The next job of a sender, on nothing, unless `change` says more.
    fn job(&mut self, now: Timestamp, who: u8, change: impl FnOnce(&mut Sent)) {
        let number = self.sent.entry(who).or_default();
        *number += 1;
        let mut job = job(*number, attempt(*number), 60_000);
        (job.redirects_left, job.payload) = (3, vec![1].into());
        change(&mut job);
        self.say(now, who, job.message());
    }

    fn offer(&mut self, now: Timestamp, who: u8, slot: OfferedSlot) {
        self.say(now, who, ToWorker::Offer(slot));
    }

    fn finish(&mut self, now: Timestamp, task: TaskId) {
        self.server.handle_finished(now, task, Ending::Done, Bytes::new());
    }

    fn see(&mut self, now: Timestamp) -> Seen {
        let mut seen = Seen::default();
        while let Some(output) = self.server.poll_output(now) {
            match output {
                ServerOutput::Start(task) => seen.started.push(task.id),
                ServerOutput::Outcomes { to, batch, .. } => {
                    let who = to.id[0];
                    for outcome in batch.outcomes {
                        seen.ended.push((who, outcome.attempt.job, outcome.verdict));
                    }
                    seen.granted.extend(batch.grant.map(|grant| (who, grant.credits, true)));
                }
                ServerOutput::Answer { to, message } => {
                    let who = to.id[0];
                    match message {
                        FromWorker::Grant { grant, .. } => {
                            seen.granted.push((who, grant.credits, false));
                        }
                        FromWorker::Recall => seen.recalled.push(who),
                        FromWorker::Offered(slot) => seen.offered.push((who, slot.offer)),
                        FromWorker::Declined(offer) => seen.declined.push((who, offer)),
                        FromWorker::Pong { load, .. } => seen.states.push(load.state),
                        _ => {}
                    }
                }
                ServerOutput::Offer { slot, blind, .. } => seen.offers.push((slot, blind)),
                ServerOutput::SetAside { error, .. } | ServerOutput::FailsAlike { error } => {
                    seen.errors.push(error);
                }
                ServerOutput::Cancel(_)
                | ServerOutput::TakeBack
                | ServerOutput::TakeProgress
                | ServerOutput::Reply { .. }
                | ServerOutput::Trusted
                | ServerOutput::Untold { .. }
                | ServerOutput::UntoldMore(_) => {}
            }
            let load = self.server.load(now);
            assert!(load.busy() <= load.slots, "{load:?}");
        }
        seen
    }
}

/// A slot of another instance.
fn slot(offer: u64) -> OfferedSlot {
    OfferedSlot {
        instance: name("b"),
        incarnation: Incarnation(2),
        offer: OfferId(offer),
        lifetime_ms: 150,
        payload_bytes_max: 1000,
    }
}

#[test]
fn who_asks_is_granted_what_there_is_room_for_but_half_of_the_slots_at_most() {
    let mut scene = Scene::experienced(2, 3);
    scene.greet(at(0), 1);
    scene.ask(at(0), 1, 4);
    assert_eq!(scene.see(at(0)).granted, [(1, 3, false)]);
    scene.greet(at(0), 2);
    scene.ask(at(0), 2, 3);
    assert_eq!(scene.see(at(0)).granted, [(2, 2, false)]);
}

#[test]
fn a_promised_slot_is_free_for_who_has_the_promise_and_for_nobody_else() {
    let mut scene = Scene::experienced(1, 0);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.ask(at(0), 1, 1);
    assert_eq!(scene.see(at(0)).granted, [(1, 1, false)]);
    scene.job(at(1), 2, |_| {});
    scene.job(at(1), 2, |job| job.claim = Claim::Credit);
    let full = Verdict::Rejected(Reason::Full);
    assert_eq!(scene.see(at(1)).ended, [(2, 1, full.clone()), (2, 2, full.clone())]);
    scene.job(at(1), 1, |job| job.claim = Claim::Credit);
    let seen = scene.see(at(1));
    assert_eq!((seen.started.len(), seen.ended), (1, vec![]));
}

#[test]
fn a_full_worker_grants_when_a_job_ends_and_the_word_goes_with_the_outcome() {
    let mut scene = Scene::new(1, 0);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.job(at(0), 1, |job| job.share = 1);
    let task = scene.see(at(0)).started[0];
    scene.ask(at(0), 1, 1);
    assert_eq!(scene.see(at(0)).granted, []);
    scene.finish(at(100), task);
    let seen = scene.see(at(100));
    assert_eq!((seen.ended, seen.granted), (vec![(1, 1, Verdict::Done)], vec![(1, 1, true)]));
    // The same for somebody else goes by a message of its own.
    scene.job(at(100), 1, |job| job.claim = Claim::Credit);
    let task = scene.see(at(100)).started[0];
    scene.ask(at(101), 2, 1);
    scene.finish(at(200), task);
    assert_eq!(scene.see(at(200)).granted, [(2, 1, false)]);
}

#[test]
fn whose_job_ended_has_a_standing_credit_until_others_need_the_slot() {
    let mut scene = Scene::experienced(1, 2);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.ask(at(0), 1, 1);
    scene.see(at(0));
    scene.job(at(0), 1, |job| (job.claim, job.redirects_left) = (Claim::Credit, 0));
    let task = scene.see(at(0)).started[0];
    scene.finish(at(100), task);
    let seen = scene.see(at(100));
    assert_eq!(seen.granted, [(1, 1, true)]);
    scene.server.handle_no_taker(seen.offers[0].0.offer);
    scene.job(at(100), 2, |job| (job.share, job.redirects_left) = (3, 0));
    let seen = scene.see(at(100));
    assert_eq!((seen.granted, seen.recalled), (vec![(2, 1, false)], vec![1]));
    assert!(scene.see(at(100)).recalled.is_empty());
    scene.say(at(101), 1, ToWorker::Return(Claim::Credit));
    assert_eq!(scene.see(at(101)).granted, [(2, 1, false)]);
}

#[test]
fn who_guesses_gets_no_credit_that_it_has_not_asked_for() {
    let mut scene = Scene::new(1, 9);
    scene.greet(at(0), 1);
    scene.job(at(0), 1, |_| {});
    let task = scene.see(at(0)).started[0];
    scene.finish(at(100), task);
    assert_eq!(scene.see(at(100)).granted, []);
}

#[test]
fn who_takes_no_credits_gets_none_that_it_has_not_asked_for() {
    let mut scene = Scene::new(1, 9);
    let hello = SenderHello {
        oldest: codec::VERSION_OLDEST,
        newest: codec::VERSION,
        sender: SENDER,
        connection: 1,
        key: key(),
        incarnation: LIFE,
        received_outcomes: 0,
        payload_bytes_max: 100,
        takes_credits: false,
        open: Vec::new(),
    };
    scene.say(at(0), 1, ToWorker::Hello(hello));
    scene.job(at(0), 1, |_| {});
    let task = scene.see(at(0)).started[0];
    scene.finish(at(100), task);
    let seen = scene.see(at(100));
    assert_eq!((seen.ended.len(), seen.granted), (1, vec![]));
}

#[test]
fn a_hello_and_a_lost_connection_make_void_what_was_promised() {
    let mut scene = Scene::experienced(1, 0);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.ask(at(0), 1, 1);
    scene.see(at(0));
    scene.ask(at(1), 2, 1);
    assert_eq!(scene.see(at(1)).granted, []);
    scene.greet(at(2), 1);
    assert_eq!(scene.see(at(2)).granted, [(2, 1, false)]);
    scene.ask(at(3), 1, 1);
    assert_eq!(scene.see(at(3)).granted, []);
    scene.server.handle_gone(at(4), &Connection::from(vec![2]));
    assert_eq!(scene.see(at(4)).granted, [(1, 1, false)]);
}

#[test]
fn a_promise_that_cannot_be_told_goes_to_the_next() {
    let scene = || {
        let mut scene = Scene::experienced(1, 0);
        [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
        scene.ask(at(0), 1, 1);
        scene.ask(at(1), 2, 1);
        assert_eq!(scene.see(at(1)).granted, [(1, 1, false)]);
        scene
    };
    let grant = Grant { credits: 1, lifetime_ms: 1000, payload_bytes_max: 1 };
    let grant = FromWorker::Grant { grant, received_jobs: 0, load: Load::default() };
    let received = FromWorker::Declined(OfferId(1));
    for (message, granted) in [(grant, true), (FromWorker::Recall, true), (received, false)] {
        let mut scene = scene();
        scene.server.handle_unread(at(2), &Connection::from(vec![1]), &message);
        assert_eq!(scene.see(at(2)).granted.len(), usize::from(granted), "{message:?}");
    }
    for (is_granted, expected) in [(true, 1), (false, 0)] {
        let mut scene = scene();
        scene.server.handle_blocked(at(2), SenderId(1), 1, is_granted);
        assert_eq!(scene.see(at(2)).granted.len(), expected);
    }
}

#[test]
fn a_credit_that_nobody_claims_goes_to_the_next_in_time() {
    let mut scene = Scene::new(1, 0);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.ask(at(0), 1, 1);
    scene.see(at(0));
    scene.ask(at(1), 2, 1);
    // A second, and what it is kept longer than its owner knows.
    scene.server.handle_timeout(at(1099));
    assert_eq!(scene.see(at(1099)).granted, []);
    scene.server.handle_timeout(at(1100));
    assert_eq!(scene.see(at(1100)).granted, [(2, 1, false)]);
}

#[test]
fn who_was_suspended_keeps_its_promises_for_as_long() {
    let mut scene = Scene::new(1, 0);
    [1, 2].into_iter().for_each(|who| scene.greet(at(0), who));
    scene.ask(at(0), 1, 1);
    scene.see(at(0));
    scene.server.handle_suspension(at(50_000), ms(50_000));
    scene.server.handle_timeout(at(50_999));
    scene.job(at(50_999), 2, |_| {});
    scene.job(at(50_999), 1, |job| job.claim = Claim::Credit);
    let seen = scene.see(at(50_999));
    let ended = vec![(2, 1, Verdict::Rejected(Reason::Full))];
    assert_eq!((seen.started.len(), seen.ended), (1, ended));
}

#[test]
fn a_draining_worker_promises_nothing_and_gives_back_what_peers_offered() {
    let mut scene = Scene::experienced(1, 0);
    (1..=3).for_each(|who| scene.greet(at(100), who));
    scene.job(at(100), 1, |_| {});
    scene.offer(at(100), 2, slot(5));
    let task = scene.see(at(100)).started[0];
    scene.ask(at(101), 3, 1);
    assert_eq!(scene.see(at(101)).offered, [(3, OfferId(5))]);
    scene.offer(at(102), 2, slot(6));
    scene.server.drain(at(102), ms(1000));
    let seen = scene.see(at(102));
    assert_eq!((seen.states, seen.declined), (vec![State::Draining; 3], vec![(2, OfferId(6))]));
    scene.offer(at(103), 2, slot(7));
    scene.ask(at(103), 3, 1);
    scene.job(at(103), 3, |job| job.share = 5);
    scene.finish(at(104), task);
    scene.server.handle_timeout(at(104));
    let seen = scene.see(at(104));
    assert_eq!(seen.declined, [(2, OfferId(7))]);
    let ended = [(1, 1, Verdict::Done), (3, 1, Verdict::Rejected(Reason::Draining))];
    assert_eq!((seen.granted, seen.ended), (vec![], ended.to_vec()));
    assert!(seen.offers.is_empty() && scene.see(at(900)).offers.is_empty());
}

#[test]
fn a_drain_makes_credits_void_and_their_jobs_go_back() {
    let mut scene = Scene::new(1, 5);
    scene.greet(at(0), 1);
    scene.ask(at(0), 1, 2);
    scene.see(at(0));
    scene.server.drain(at(1), ms(1000));
    assert_eq!(scene.server.load(at(1)).promised, 0);
    scene.job(at(1), 1, |job| job.claim = Claim::Credit);
    assert_eq!(scene.see(at(1)).ended, [(1, 1, Verdict::Rejected(Reason::Draining))]);
}

#[test]
fn a_credit_for_the_next_job_is_enough_for_one_as_large_as_this() {
    let config = IntakeConfig {
        queue: 9,
        jobs_bytes_max: 1000,
        payload_bytes_max: 500,
        ..IntakeConfig::default()
    };
    let mut scene = Scene { server: Server::new(key(), LIFE, config), sent: BTreeMap::new() };
    scene.greet(at(0), 1);
    // It can go nowhere else, so it is granted although nobody knows how long jobs take.
    let mut job = job(1, attempt(1), 60_000);
    (job.share, job.payload) = (1, vec![0; 300].into());
    let from = Connection::from(vec![1]);
    scene.server.handle_message(at(0), from, job.message());
    let granted = std::iter::from_fn(|| scene.server.poll_output(at(0)));
    let granted = granted.filter_map(|output| match output {
        ServerOutput::Answer { message: FromWorker::Grant { grant, .. }, .. } => Some(grant),
        _ => None,
    });
    let sizes: Vec<_> = granted.map(|grant| grant.payload_bytes_max).collect();
    assert_eq!(sizes, [300], "a tenth of all would be 100");
}

#[test]
fn who_asks_for_everything_and_stands_still_holds_up_nobody_for_long() {
    let mut scene = Scene::experienced(1, 1);
    (1..=3).for_each(|who| scene.greet(at(100), who));
    [1, 2].into_iter().for_each(|who| scene.ask(at(100), who, 2));
    assert_eq!(scene.see(at(100)).granted, [(1, 1, false), (2, 1, false)]);
    scene.ask(at(200), 3, 1);
    assert_eq!(scene.see(at(200)).recalled, [1]);
    let granted = loop {
        let due = scene.server.poll_timeout().unwrap();
        assert!(due <= at(1310), "{due:?}");
        scene.server.handle_timeout(due);
        let seen = scene.see(due);
        if !seen.granted.is_empty() {
            break seen.granted;
        }
    };
    assert_eq!(granted, [(3, 1, false)]);
}

#[test]
fn a_promise_that_was_reclaimed_is_no_rejection_for_who_still_believes_in_it() {
    let mut scene = Scene::experienced(1, 0);
    [1, 2].into_iter().for_each(|who| scene.greet(at(100), who));
    scene.ask(at(100), 1, 1);
    assert_eq!(scene.see(at(100)).granted, [(1, 1, false)]);
    scene.ask(at(200), 2, 1);
    assert_eq!(scene.see(at(200)).recalled, [1]);
    scene.server.handle_timeout(at(1390));
    let answers = |scene: &mut Scene, now| {
        let outputs = std::iter::from_fn(|| scene.server.poll_output(now));
        let answers = outputs.filter_map(|output| match output {
            ServerOutput::Answer { to, message } => Some((to.id[0], message)),
            _ => None,
        });
        answers.map(|(to, message)| (to, message == FromWorker::HelloWanted)).collect::<Vec<_>>()
    };
    assert_eq!(answers(&mut scene, at(1390)), [(1, true), (2, false)]);
    // Its job on that credit is not seen at all: HELLO tells, and it goes elsewhere.
    scene.job(at(1401), 1, |job| job.claim = Claim::Credit);
    assert_eq!(answers(&mut scene, at(1401)), [(1, true)]);
    assert!(scene.server.intake().is_empty());
}
