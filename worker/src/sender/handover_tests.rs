//! Senders and workers, wired without sockets: jobs are handed over from one worker to another.

use std::collections::BTreeMap;

use svcmap_proto::control::{Entry, ServiceStanding};
use svcmap_proto::jobs::{Claim, Grant, OfferedSlot, OutcomeBatch, OutcomeHeader, Verdict};
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey};

use super::*;
use crate::choice::Policy;
use crate::config::IntakeConfig;
use crate::intake::{Ending, TaskId};
use crate::outcome::Outcome;
use crate::senders::Connection;
use crate::server::{Server, ServerOutput};
use crate::testing::*;
use bytes::Bytes;
use svcmap_proto::jobs::OfferId;
use svcmap_proto::jobs::ToWorker;

const LIFE: Incarnation = Incarnation(5);

fn service() -> Name {
    name("resize")
}

fn worker_key(worker: u16) -> InstanceKey {
    InstanceKey { service: service(), instance: name(&format!("w-{worker}")) }
}

pub(super) fn entry(worker: u16, load: Load) -> Entry {
    Entry {
        instance: worker_key(worker).instance,
        incarnation: LIFE,
        endpoints: vec![format!("tcp://10.0.0.1:{}", 6000 + worker).parse().unwrap()],
        host: HostId(9),
        pid: 7,
        error: None,
        key: None,
        load,
        age_ms: 0,
    }
}

pub(super) fn publish(sender: &mut Sender, now: Timestamp, revision: u64, entries: Vec<Entry>) {
    let (warming, standing, part, parts) = (false, ServiceStanding::Heard, 0, 1);
    let part = SnapshotPart { epoch: Epoch(1), revision, warming, standing, part, parts, entries };
    sender.handle_snapshot(now, 0, &service(), &part);
}

pub(super) fn new_sender(number: u128) -> Sender {
    sender_by(Policy::Svcmap, number)
}

fn sender_by(policy: Policy, number: u128) -> Sender {
    let (config, choice) = (OutboxConfig::default(), policy.choice());
    let mut sender = Sender::new(SenderId(number), HostId(1), 1, config, choice, number as u64);
    sender.handle_welcome(at(0), 0, &welcome());
    sender.follow(at(0), &service());
    sender
}

pub(super) fn spec(payload: &[u8]) -> JobSpec {
    let spec = JobSpec::new(service(), Bytes::copy_from_slice(payload));
    JobSpec { deadline: Some(ms(60_000)), ..spec }
}

/// A worker, and what its handlers do.
struct Node {
    server: Server,
    running: Vec<(Timestamp, TaskId)>,
}

/// What is on its way.
enum Mail {
    ToWorker { worker: usize, from: Connection, message: ToWorker },
    ToSender { to: Connection, message: FromWorker },
}

/// Senders, the first of which are those of the workers.
struct World {
    now: Timestamp,
    nodes: Vec<Node>,
    senders: Vec<Sender>,
    /// Whom a link of a sender leads to.
    links: BTreeMap<(usize, u64), usize>,
    /// And when it arrives.
    mail: VecDeque<(Timestamp, Mail)>,
    way: Duration,
    /// Jobs that went without a promise.
    guesses: u64,
    random: fastrand::Rng,
    started: u64,
    outcomes: BTreeMap<JobId, Outcome>,
}

fn connection(sender: usize, link: u64) -> Connection {
    Connection::from(vec![sender as u8, link as u8])
}

impl World {
    fn new(workers: u16, queue: u32, senders: u16) -> Self {
        let config = IntakeConfig { concurrency: 1, queue, ..IntakeConfig::default() };
        let node = |worker| Node {
            server: Server::new(worker_key(worker), LIFE, config.clone()),
            running: Vec::new(),
        };
        let mut world = Self {
            now: at(0),
            nodes: (0..workers).map(node).collect(),
            senders: (1..=workers + senders).map(|number| new_sender(number.into())).collect(),
            links: BTreeMap::new(),
            mail: VecDeque::new(),
            way: ms(1),
            guesses: 0,
            random: fastrand::Rng::with_seed(7),
            started: 0,
            outcomes: BTreeMap::new(),
        };
        world.publish(1);
        world
    }

    fn publish(&mut self, revision: u64) {
        let now = self.now;
        let loads = self.nodes.iter_mut().enumerate();
        let entries: Vec<_> =
            loads.map(|(worker, node)| entry(worker as u16, node.server.load(now))).collect();
        for sender in &mut self.senders {
            publish(sender, now, revision, entries.clone());
        }
    }

    /// A millisecond passes.
    fn step(&mut self) {
        self.now = self.now + ms(1);
        let now = self.now;
        while self.mail.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, mail)) = self.mail.pop_front() else { break };
            match mail {
                Mail::ToWorker { worker, from, message } => {
                    self.nodes[worker].server.handle_message(now, from, message);
                }
                Mail::ToSender { to, message } => {
                    let (sender, link) = (to.id[0] as usize, to.id[1].into());
                    self.senders[sender].handle_link_message(now, link, message);
                }
            }
        }
        for worker in 0..self.nodes.len() {
            let node = &mut self.nodes[worker];
            node.server.handle_timeout(now);
            for (_, task) in node.running.extract_if(.., |(until, _)| *until <= now) {
                node.server.handle_finished(now, task, Ending::Done, vec![worker as u8]);
            }
            self.drive_worker(worker);
        }
        for sender in 0..self.senders.len() {
            self.senders[sender].handle_timeout(now);
            self.drive_sender(sender);
        }
        for node in &mut self.nodes {
            let load = node.server.load(now);
            assert!(load.busy() <= load.slots && load.running <= load.concurrency, "{load:?}");
        }
    }

    fn drive_worker(&mut self, worker: usize) {
        let (now, due) = (self.now, self.now + self.way);
        while let Some(output) = self.nodes[worker].server.poll_output(now) {
            let node = &mut self.nodes[worker];
            match output {
                ServerOutput::Start(task) => {
                    // Now and then a long one, behind which others wait.
                    let service = ms(if self.random.u8(..8) == 0 { 80 } else { 5 });
                    self.started += 1;
                    node.running.push((now + service, task.id));
                }
                ServerOutput::Answer { to, message } => {
                    self.mail.push_back((due, Mail::ToSender { to, message }));
                }
                ServerOutput::Outcomes { to, batch, .. } => {
                    let message = FromWorker::Outcomes(batch);
                    self.mail.push_back((due, Mail::ToSender { to, message }));
                }
                ServerOutput::Offer { slot, blind, way } => {
                    let (own, offer) = (worker_key(worker as u16), slot.offer);
                    if !self.senders[worker].offer(now, &own, slot, (blind, way)) {
                        node.server.handle_no_taker(offer);
                    }
                }
                ServerOutput::Cancel(_)
                | ServerOutput::TakeBack
                | ServerOutput::TakeProgress
                | ServerOutput::Reply { .. }
                | ServerOutput::SetAside { .. }
                | ServerOutput::FailsAlike { .. }
                | ServerOutput::Trusted
                | ServerOutput::Untold { .. }
                | ServerOutput::UntoldMore(_) => {}
            }
        }
    }

    fn drive_sender(&mut self, number: usize) {
        let (now, due) = (self.now, self.now + self.way);
        while let Some(output) = self.senders[number].poll_output(now) {
            match output {
                SenderOutput::Connect { link, endpoint, .. } => {
                    let worker = usize::from(endpoint.port().unwrap() - 6000);
                    self.links.insert((number, link), worker);
                    self.senders[number].handle_link_writable(now, link);
                }
                SenderOutput::Disconnect { link } => {
                    let worker = self.links[&(number, link)];
                    self.nodes[worker].server.handle_gone(now, &connection(number, link));
                }
                SenderOutput::Send { link, message } => {
                    let worker = self.links[&(number, link)];
                    if let ToWorker::Jobs(batch) = &message {
                        let guesses = batch.jobs.iter().filter(|job| job.claim == Claim::Nothing);
                        self.guesses += guesses.count() as u64;
                    }
                    let from = connection(number, link);
                    self.mail.push_back((due, Mail::ToWorker { worker, from, message }));
                }
                SenderOutput::Declined(offer) => {
                    self.nodes[number].server.handle_no_taker(offer);
                }
                SenderOutput::Settled { job, outcome } => {
                    let before = self.outcomes.insert(job, outcome);
                    assert_eq!(before, None, "{job:?} has two outcomes");
                }
                _ => {}
            }
        }
    }
}

#[test]
fn every_job_has_one_outcome_while_workers_hand_over_what_waits() {
    let mut world = World::new(4, 7, 3);
    let first = world.nodes.len();
    let mut submitted = 0;
    for step in 1..=3000_u64 {
        if step < 2500 {
            for sender in first..world.senders.len() {
                // Somewhat less than they can do, in bursts.
                if world.random.u8(..60) == 0 {
                    for _ in 0..world.random.u8(1..10) {
                        let id = JobId(submitted);
                        world.senders[sender].handle_submit(world.now, id, spec(b"1"));
                        submitted += 1;
                    }
                }
            }
        }
        if step % 20 == 0 {
            world.publish(step);
        }
        world.step();
    }
    assert_eq!(world.outcomes.len() as u64, submitted);
    let done = world.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Done(_)));
    assert_eq!((done.count() as u64, world.started), (submitted, submitted));
    assert!(world.nodes.iter().all(|node| node.server.intake().is_empty()));
    let tallies = world.senders.iter().flat_map(|sender| sender.statistics().instances.values());
    let (handed_over, rejected) =
        tallies.fold((0, 0), |(h, r), tally| (h + tally.handed_over, r + tally.rejected));
    assert!(handed_over >= 20, "{handed_over} of {submitted}");
    assert_eq!(rejected, 0);
}

#[test]
fn offers_of_slots_that_nobody_has_promised_cost_a_hop_but_no_outcome() {
    let mut world = World::new(4, 3, 4);
    let (first, forger) = (world.nodes.len(), world.senders.len() - 1);
    let from = |worker| connection(forger, 200 + worker as u64);
    let tell = |world: &mut World, worker: usize, message| {
        let mail = Mail::ToWorker { worker, from: from(worker), message };
        world.mail.push_back((world.now, mail));
    };
    for worker in 0..first {
        let (sender, key) = (SenderId(99), worker_key(worker as u16));
        let hello = svcmap_proto::jobs::SenderHello { sender, key, incarnation: LIFE, ..hello() };
        tell(&mut world, worker, ToWorker::Hello(hello));
    }
    let mut submitted = 0;
    for step in 1..=4000_u64 {
        if step < 2500 && world.random.u8(..4) == 0 {
            let sender = world.random.usize(first..forger);
            world.senders[sender].handle_submit(world.now, JobId(submitted), spec(b"1"));
            submitted += 1;
        }
        for worker in 0..first {
            let other = worker_key(world.random.usize(..first) as u16).instance;
            let (offer, lifetime_ms) = (OfferId(world.random.u64(..)), 1000);
            let (incarnation, payload_bytes_max) = (LIFE, 1000);
            let slot =
                OfferedSlot { instance: other, incarnation, offer, lifetime_ms, payload_bytes_max };
            tell(&mut world, worker, ToWorker::Offer(slot));
        }
        if step % 20 == 0 {
            world.publish(step);
        }
        world.step();
    }
    let tallies = world.senders.iter().flat_map(|sender| sender.statistics().instances.values());
    let in_vain: u64 = tallies.map(|tally| tally.stale).sum();
    assert!(in_vain > 50, "{in_vain} of {submitted}");
    let is_full =
        |outcome: &&Outcome| matches!(outcome, Outcome::Refused(r) if r.reason == Reason::Full);
    assert_eq!(world.outcomes.values().filter(is_full).count(), 0, "{:?}", world.outcomes);
    let done = world.outcomes.values().filter(|outcome| matches!(outcome, Outcome::Done(_)));
    assert_eq!((done.count() as u64, world.started), (submitted, submitted));
}

#[test]
fn short_jobs_go_without_a_promise_and_fill_nobody() {
    let mut world = World::new(4, 20, 3);
    world.way = ms(60);
    let mut submitted = 0;
    for step in 1..=6000_u64 {
        // Two thirds of what the workers can do.
        if step < 4000 && world.random.u8(..16) < 3 {
            let sender = world.nodes.len() + world.random.usize(..3);
            world.senders[sender].handle_submit(world.now, JobId(submitted), spec(b"1"));
            submitted += 1;
        }
        if step % 20 == 0 {
            world.publish(step);
        }
        world.step();
    }
    assert_eq!((world.outcomes.len() as u64, world.started), (submitted, submitted));
    let tallies: Vec<_> = world.senders.iter().map(|sender| sender.statistics()).collect();
    let rejected: u64 = tallies.iter().flat_map(|s| s.instances.values()).map(|t| t.rejected).sum();
    assert_eq!(rejected, 0);
    assert!(world.guesses > submitted * 3 / 4, "{} of {submitted}", world.guesses);
}

/// A sender, and what it said to workers that do as the test says.
pub(super) struct Alone {
    pub(super) sender: Sender,
    /// The links to the workers.
    pub(super) links: BTreeMap<u16, u64>,
    /// What was refused, and why.
    pub(super) refused: Vec<(JobId, Reason)>,
    /// How far jobs are.
    pub(super) progress: Vec<(JobId, Option<String>)>,
    /// The links to the workers of the JSON dialect that got a job, one for each.
    pub(super) requests: Vec<u64>,
    /// The largest payload that a worker takes, if that is not 1000 bytes.
    pub(super) payload_bytes_max: BTreeMap<u16, u32>,
}

impl Alone {
    pub(super) fn new(workers: u16) -> Self {
        let load = Load { sequence: 1, slots: 4, concurrency: 1, ..Load::default() };
        Self::among((0..workers).map(|worker| entry(worker, load)).collect())
    }

    pub(super) fn among(entries: Vec<Entry>) -> Self {
        Self::by(Policy::Svcmap, 1, entries)
    }

    /// With a policy, and a number that decides what is left to chance.
    pub(super) fn by(policy: Policy, number: u128, entries: Vec<Entry>) -> Self {
        let mut sender = sender_by(policy, number);
        publish(&mut sender, at(0), 1, entries);
        let (links, payload_bytes_max) = (BTreeMap::new(), BTreeMap::new());
        let (refused, requests, progress) = (Vec::new(), Vec::new(), Vec::new());
        Self { sender, links, refused, progress, requests, payload_bytes_max }
    }

    /// What it sends, with every worker that it connects to saying WELCOME at once.
    pub(super) fn see(&mut self, now: Timestamp) -> Vec<(u64, ToWorker)> {
        let mut sent = Vec::new();
        while let Some(output) = self.sender.poll_output(now) {
            match output {
                SenderOutput::Connect { link, endpoint, .. } => {
                    self.links.insert(endpoint.port().unwrap() - 6000, link);
                    self.sender.handle_link_writable(now, link);
                }
                SenderOutput::Send { link, message: ToWorker::Hello(hello), .. } => {
                    let welcome = FromWorker::Welcome {
                        connection: hello.connection,
                        received_jobs: 0,
                        payload_bytes_max: self.takes(link),
                        load: Load { slots: 4, concurrency: 1, ..Load::default() },
                        forgotten: Vec::new(),
                    };
                    self.sender.handle_link_message(now, link, welcome);
                }
                SenderOutput::Send { link, message, .. } => sent.push((link, message)),
                SenderOutput::Request { link, .. } => self.requests.push(link),
                SenderOutput::Settled { job, outcome: Outcome::Refused(refusal) } => {
                    self.refused.push((job, refusal.reason));
                }
                SenderOutput::Progress { job, text } => self.progress.push((job, text)),
                _ => {}
            }
        }
        sent
    }

    fn takes(&self, link: u64) -> u32 {
        self.payload_bytes_max.get(&self.worker(link)).copied().unwrap_or(1000)
    }

    pub(super) fn worker(&self, link: u64) -> u16 {
        *self.links.iter().find(|(_, other)| **other == link).unwrap().0
    }

    pub(super) fn jobs(&mut self, now: Timestamp) -> Vec<(u64, Sent)> {
        let jobs = |(link, message)| Sent::all(message).into_iter().map(move |job| (link, job));
        self.see(now).into_iter().flat_map(jobs).collect()
    }

    fn end(&mut self, now: Timestamp, link: u64, number: u64, job: &Sent, verdict: Verdict) {
        let load = Load { slots: 4, concurrency: 1, ..Load::default() };
        self.end_at(now, link, number, job, verdict, load);
    }

    /// The same, with more of what its worker says.
    pub(super) fn end_at(
        &mut self,
        now: Timestamp,
        link: u64,
        number: u64,
        job: &Sent,
        verdict: Verdict,
        load: Load,
    ) {
        let (residence_us, ran_us, payload_bytes, payloads) = Default::default();
        let batch = OutcomeBatch {
            first_number: number,
            received_jobs: job.number,
            load,
            grant: None,
            outcomes: vec![OutcomeHeader {
                attempt: job.attempt,
                verdict,
                residence_us,
                ran_us,
                payload_bytes,
            }],
            payloads,
        };
        self.sender.handle_link_message(now, link, FromWorker::Outcomes(batch));
    }

    pub(super) fn grant(&mut self, now: Timestamp, link: u64, credits: u32) {
        let load = Load { slots: 4, concurrency: 1, ..Load::default() };
        self.grant_at(now, link, credits, load);
    }

    /// The same, with more of what its worker says.
    pub(super) fn grant_at(&mut self, now: Timestamp, link: u64, credits: u32, load: Load) {
        let payload_bytes_max = self.takes(link);
        let grant = Grant { credits, lifetime_ms: 60_000, payload_bytes_max };
        let message = FromWorker::Grant { grant, received_jobs: 0, load };
        self.sender.handle_link_message(now, link, message);
    }
}

pub(super) fn slot(worker: u16, offer: u64) -> OfferedSlot {
    OfferedSlot {
        instance: worker_key(worker).instance,
        incarnation: LIFE,
        offer: OfferId(offer),
        lifetime_ms: 100,
        payload_bytes_max: 1000,
    }
}

#[test]
fn a_job_is_handed_over_three_times_and_then_stays() {
    let mut alone = Alone::new(2);
    alone.sender.handle_submit(at(0), JobId(1), spec(b"1"));
    alone.see(at(0));
    let link = *alone.links.values().next().unwrap();
    alone.grant(at(1), link, 1);
    let (mut moves, mut claims, mut outcomes) = (Vec::new(), Vec::new(), [0; 2]);
    for offer in 1..=4 {
        let (link, job) = alone.jobs(at(offer)).remove(0);
        moves.push(job.redirects_left);
        claims.push(job.claim);
        let worker = alone.worker(link);
        outcomes[usize::from(worker)] += 1;
        let verdict = Verdict::HandedOver(slot(1 - worker, offer));
        if offer < 4 {
            alone.end(at(offer), link, outcomes[usize::from(worker)], &job, verdict);
        }
    }
    assert_eq!(moves, [3, 2, 1, 0]);
    let offers = (1..=3).map(|offer| Claim::Offer(OfferId(offer)));
    assert_eq!(claims, [Claim::Credit].into_iter().chain(offers).collect::<Vec<_>>());
    assert!(!alone.sender.is_empty());
}

#[test]
fn a_slot_that_was_passed_on_is_claimed_by_who_waits_and_else_given_back() {
    let mut alone = Alone::new(2);
    (1..=2).for_each(|job| alone.sender.handle_submit(at(0), JobId(job), spec(b"1")));
    alone.see(at(0));
    let (here, there) = (alone.links[&0], alone.links[&1]);
    alone.grant(at(1), here, 1);
    assert_eq!(alone.jobs(at(1)).len(), 1);
    for offer in 1..=2 {
        alone.sender.handle_link_message(at(2), here, FromWorker::Offered(slot(1, offer)));
    }
    let sent = alone.see(at(2));
    let [(job_to, ToWorker::Jobs(batch)), (back_to, ToWorker::Return(back))] = &sent[..] else {
        panic!("{sent:?}");
    };
    let job = &batch.jobs[0];
    assert_eq!((*job_to, job.attempt.job, *back_to), (there, 2, there));
    assert_eq!((job.claim, *back), (Claim::Offer(OfferId(1)), Claim::Offer(OfferId(2))));
}

#[test]
fn without_a_hold_what_finds_no_slot_is_refused_at_once() {
    let mut world = World::new(1, 2, 1);
    for job in 0..5 {
        let spec = JobSpec { hold: Some(Duration::ZERO), ..spec(b"x") };
        let now = world.now;
        world.senders[1].handle_submit(now, JobId(job), spec);
    }
    for _ in 0..20 {
        world.step();
    }
    let unseen = |outcome: &&Outcome| matches!(outcome, Outcome::Refused(r) if r.attempts == 0);
    assert_eq!(world.outcomes.values().filter(unseen).count(), 2, "{:?}", world.outcomes);
    assert_eq!(world.started, 3);
}

#[test]
fn a_ready_peer_is_another_native_instance_that_was_heard_of_lately() {
    let mut sender = new_sender(1);
    let own = worker_key(1);
    let draining = Load { state: State::Draining, ..Load::default() };
    let share = svcmap_proto::load::Share::new(0.5);
    let json = Load { share, ..Load::default() };
    publish(
        &mut sender,
        at(0),
        1,
        vec![entry(1, Load::default()), entry(2, draining), entry(3, json)],
    );
    assert!(!sender.has_ready_peer(at(0), &own));
    publish(&mut sender, at(1), 2, vec![entry(1, Load::default()), entry(4, Load::default())]);
    assert!(sender.has_ready_peer(at(3000), &own));
    assert!(!sender.has_ready_peer(at(3002), &own), "nobody has said so for an expiry");
}

#[test]
fn a_sender_that_ends_says_goodbye_to_every_worker_that_it_has_a_connection_to() {
    let mut sender = new_sender(1);
    publish(&mut sender, at(0), 1, vec![entry(1, Load::default()), entry(2, Load::default())]);
    for worker in [1, 2] {
        let instance = Some(worker_key(worker).instance);
        let job = JobId(worker.into());
        sender.handle_submit(at(0), job, JobSpec { instance, ..spec(b"1") });
    }
    let links: Vec<_> = std::iter::from_fn(|| sender.poll_output(at(0)))
        .filter_map(|output| match output {
            SenderOutput::Connect { link, .. } => Some(link),
            _ => None,
        })
        .collect();
    assert_eq!(links.len(), 2);
    sender.handle_link_writable(at(1), links[0]);
    while sender.poll_output(at(1)).is_some() {}
    sender.stop(at(2));
    let mut goodbyes = Vec::new();
    let mut settled = 0;
    while let Some(output) = sender.poll_output(at(2)) {
        match output {
            SenderOutput::Send { link, message, .. } => goodbyes.push((link, message)),
            SenderOutput::Settled { .. } => settled += 1,
            _ => {}
        }
    }
    assert_eq!((goodbyes, settled), (vec![(links[0], ToWorker::Goodbye)], 2));
}
