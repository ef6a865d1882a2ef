//! The world: nodes, the network between them, the load on them, and the course of time.
//!
//! The nodes are the pure types that ship. Only what lies outside them is simulated: sockets, the
//! clock, handlers, and whoever submits jobs. Messages are not encoded.

use std::collections::VecDeque;
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use svcmap_proto::control::{Entry, Publication, SnapshotPart, ToMapper};
use svcmap_proto::names::Epoch;
use svcmap_proto::time::Timestamp;
use svcmap_worker::intake::{Origin, Task, TaskId};
use svcmap_worker::outbox::JobId;

use super::ledger::{Findings, Ledger};
use super::network::Network;
use super::nodes::{
    self, Effect, MapperNode, Message, Node, SenderNode, WorkerNode, registration, service, welcome,
};
use super::policies::Truth;
use super::queue::Queue;
use super::scenario::{Feed, Scenario, Span};
use super::workload::Workload;

/// Not at the clock's zero, before which there is nothing.
const START: Timestamp = Timestamp::from_micros(1_000_000_000);

/// Entries in one part of a snapshot on the board, as many as one message may list.
const BOARD_PART: usize = 4096;

#[derive(Clone, Debug)]
enum Event {
    /// A sender's user submits the next job.
    Arrival(usize),
    /// A node is to act on its deadlines.
    Wake(Node),
    /// A message arrives.
    Deliver { from: Node, to: Node, message: Box<Message> },
    /// The same publication arrives at all of these.
    Published { to: Vec<Node>, publication: Rc<Publication> },
    /// A handler ends.
    Finish { worker: usize, task: TaskId },
    /// The board is renewed.
    Board,
    /// The connections to the mapper are there, or gone.
    Connections(bool),
}

impl Event {
    /// In which process it happens, if in one.
    fn process(&self) -> Option<Node> {
        match self {
            Event::Wake(node) | Event::Deliver { to: node, .. } => Some(*node),
            Event::Finish { worker, .. } => Some(Node::Worker(*worker)),
            _ => None,
        }
    }
}

/// See the module.
pub struct World {
    scenario: Scenario,
    now: Timestamp,
    queue: Queue<Event>,
    network: Network,
    workload: Workload,
    mapper: Option<MapperNode>,
    workers: Vec<WorkerNode>,
    speeds: Vec<f64>,
    senders: Vec<SenderNode>,
    /// When each node is woken next.
    wake_at: Wakes,
    ledger: Ledger,
    /// Jobs whose look-up is under way, for each sender.
    asking: Vec<VecDeque<u64>>,
    board_revision: u64,
    lives_of_mapper: u64,
    truth: Arc<Truth>,
    effects: Vec<Effect>,
    payload: Arc<Vec<u8>>,
    events: u64,
    trace: Option<Vec<u8>>,
}

#[derive(Debug, Default)]
struct Wakes {
    mapper: Option<Timestamp>,
    workers: Vec<Option<Timestamp>>,
    senders: Vec<Option<Timestamp>>,
}

impl Wakes {
    fn of(&mut self, node: Node) -> &mut Option<Timestamp> {
        match node {
            Node::Mapper => &mut self.mapper,
            Node::Worker(number) => &mut self.workers[number],
            Node::Sender(number) => &mut self.senders[number],
        }
    }
}

impl World {
    /// The world of a scenario, before anything happens.
    pub fn new(scenario: Scenario) -> Self {
        let truth = Arc::new(Truth::new(scenario.workers, scenario.slots()));
        let choice = |_| scenario.rule.choice(&scenario, &truth);
        let sender = |number| SenderNode::new(&scenario, number, choice(number));
        let (workers, senders) = (scenario.workers, scenario.senders);
        let mut world = Self {
            now: START,
            queue: Queue::default(),
            network: Network::new(&scenario),
            workload: Workload::new(&scenario, START),
            mapper: None,
            workers: (0..workers).map(|number| WorkerNode::new(&scenario, number)).collect(),
            speeds: (0..workers).map(|number| scenario.speed(number)).collect(),
            senders: (0..senders).map(sender).collect(),
            wake_at: Wakes {
                mapper: None,
                workers: vec![None; workers],
                senders: vec![None; senders],
            },
            ledger: Ledger::new(&scenario, START + scenario.warm_up, &truth),
            asking: vec![VecDeque::new(); senders],
            board_revision: 0,
            lives_of_mapper: 0,
            truth,
            effects: Vec::new(),
            payload: Arc::default(),
            events: 0,
            trace: None,
            scenario,
        };
        world.begin();
        world
    }

    /// Writes down every event from now on: the same scenario gives the same bytes.
    pub fn with_trace(mut self) -> Self {
        self.trace = Some(Vec::new());
        self
    }

    fn begin(&mut self) {
        match self.scenario.feed {
            Feed::Board => {
                for sender in 0..self.senders.len() {
                    let welcome = welcome(&self.scenario, Epoch(1));
                    self.senders[sender].handle_connection(self.now, false);
                    self.senders[sender].handle_welcome(self.now, &welcome);
                }
                self.queue.push(self.now, Event::Board);
            }
            Feed::Mapper | Feed::Query => self.queue.push(self.now, Event::Connections(true)),
        }
        if let Some(Span { from, length }) = self.scenario.faults.mapper_away {
            let at = START + self.scenario.warm_up + from;
            self.queue.push(at, Event::Connections(false));
            self.queue.push(at + length, Event::Connections(true));
        }
        for sender in 0..self.senders.len() {
            let at = self.workload.next_arrival(sender);
            self.queue.push(at, Event::Arrival(sender));
        }
    }

    /// Runs until every job that is measured has its outcome.
    pub fn run(&mut self) -> Findings {
        let ends_at = START + self.scenario.warm_up + self.scenario.duration;
        while let Some((at, event)) = self.queue.pop() {
            self.now = at;
            if at >= ends_at && self.ledger.is_settled() {
                break;
            }
            if let Some(resumes_at) = event.process().and_then(|node| self.paused_until(node)) {
                self.queue.push(resumes_at, event);
                continue;
            }
            self.events += 1;
            if let Some(trace) = &mut self.trace {
                // Memory takes all that is written.
                let _ = writeln!(trace, "{at} {event:?}");
            }
            self.handle(event, ends_at);
        }
        self.ledger.findings(&self.scenario, self.events)
    }

    /// What was written down.
    pub fn trace(&self) -> &[u8] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// Until when that process stands still, if it does.
    fn paused_until(&self, node: Node) -> Option<Timestamp> {
        let Span { from, length } = self.scenario.faults.worker_paused?;
        let from = START + self.scenario.warm_up + from;
        let until = from + length;
        (node == Node::Worker(0) && from <= self.now && self.now < until).then_some(until)
    }

    fn handle(&mut self, event: Event, ends_at: Timestamp) {
        let now = self.now;
        match event {
            Event::Arrival(sender) => {
                self.submit_next(sender);
                let next = self.workload.next_arrival(sender);
                if next < ends_at {
                    self.queue.push(next, Event::Arrival(sender));
                }
            }
            Event::Wake(node) => {
                let wake_at = self.wake_at.of(node);
                if *wake_at == Some(now) {
                    *wake_at = None;
                    self.act(node);
                }
            }
            Event::Deliver { from, to, message } => self.deliver(from, to, *message),
            Event::Published { to, publication } => {
                for node in to {
                    let message = Message::Publication(Rc::clone(&publication));
                    match self.paused_until(node) {
                        Some(at) => {
                            let (from, message) = (Node::Mapper, Box::new(message));
                            self.queue.push(at, Event::Deliver { from, to: node, message });
                        }
                        None => self.deliver(Node::Mapper, node, message),
                    }
                }
            }
            Event::Finish { worker, task } => {
                self.workers[worker].handle_finished(now, task);
                self.act(Node::Worker(worker));
            }
            Event::Board => self.renew_board(),
            Event::Connections(are_there) => self.connect_mapper(are_there),
        }
    }

    fn connect_mapper(&mut self, are_there: bool) {
        let now = self.now;
        self.mapper = are_there.then(|| {
            self.lives_of_mapper += 1;
            MapperNode::new(&self.scenario, now, Epoch(self.lives_of_mapper))
        });
        self.wake_at.mapper = None;
        for worker in 0..self.workers.len() {
            self.workers[worker].handle_connection(now, are_there);
            self.act(Node::Worker(worker));
        }
        for sender in 0..self.senders.len() {
            self.senders[sender].handle_connection(now, are_there);
            self.act(Node::Sender(sender));
        }
        if are_there {
            self.act(Node::Mapper);
        }
    }

    fn deliver(&mut self, from: Node, to: Node, message: Message) {
        let now = self.now;
        match to {
            Node::Mapper => {
                let Some(mapper) = &mut self.mapper else { return };
                mapper.handle_message(now, from, message);
            }
            Node::Worker(number) => self.workers[number].handle_message(now, from, message),
            Node::Sender(number) => {
                let answers = self.scenario.feed == Feed::Query
                    && matches!(message, Message::FromMapper(_))
                    && !self.asking[number].is_empty();
                self.senders[number].handle_message(now, message);
                if answers && let Some(job) = self.asking[number].pop_front() {
                    self.submit(number, job);
                }
            }
        }
        self.act(to);
    }

    /// Lets a node act, does what it wants, and plans when it acts next.
    fn act(&mut self, node: Node) {
        let mut effects = std::mem::take(&mut self.effects);
        let now = self.now;
        let timeout = match node {
            Node::Mapper => self.mapper.as_mut().and_then(|mapper| mapper.act(now, &mut effects)),
            Node::Worker(number) => {
                let worker = &mut self.workers[number];
                let timeout = worker.act(now, &mut effects);
                self.truth.set(number, worker.jobs());
                timeout
            }
            Node::Sender(number) => self.senders[number].act(now, &mut effects),
        };
        for effect in effects.drain(..) {
            self.carry_out(node, effect);
        }
        self.effects = effects;
        let wake_at = self.wake_at.of(node);
        if let Some(at) = timeout
            && wake_at.is_none_or(|planned| at < planned)
        {
            let at = at.max(now);
            *wake_at = Some(at);
            self.queue.push(at, Event::Wake(node));
        }
    }

    fn carry_out(&mut self, node: Node, effect: Effect) {
        match effect {
            Effect::Send(to, message) => {
                if matches!(*message, Message::ToWorker(..) | Message::FromWorker(..)) {
                    self.ledger.count_message();
                }
                let at = self.network.arrival(self.now, node, to);
                self.queue.push(at, Event::Deliver { from: node, to, message });
            }
            Effect::Publish(service, publication) => self.publish(service.is_none(), publication),
            Effect::Connect(worker, link) => {
                let at = self.network.connected(self.now);
                let message = Box::new(Message::Connected(link));
                let from = Node::Worker(worker);
                self.queue.push(at, Event::Deliver { from, to: node, message });
            }
            Effect::Start(task) => self.start(node, &task),
            Effect::Observed(observation) => self.ledger.observe(self.now, &observation),
            Effect::Settled(job, outcome) => self.ledger.settle(self.now, job, &outcome),
        }
    }

    /// A pulse goes to everybody, news of the service to its senders.
    fn publish(&mut self, is_pulse: bool, publication: Publication) {
        if !is_pulse && self.scenario.feed == Feed::Query {
            return;
        }
        let publication = Rc::new(publication);
        let workers = if is_pulse { self.workers.len() } else { 0 };
        let subscribers =
            (0..workers).map(Node::Worker).chain((0..self.senders.len()).map(Node::Sender));
        let to = subscribers.filter(|_| !self.network.loses_publication()).collect();
        for (at, to) in self.network.published(self.now, to) {
            let publication = Rc::clone(&publication);
            self.queue.push(at, Event::Published { to, publication });
        }
    }

    /// Shows everybody how loaded all workers are at this moment.
    fn renew_board(&mut self) {
        let now = self.now;
        self.board_revision += 1;
        let mut entries = Vec::with_capacity(self.workers.len());
        for (number, worker) in self.workers.iter_mut().enumerate() {
            let registered = registration(number, worker.load(now));
            entries.push(Entry {
                instance: registered.key.instance,
                incarnation: registered.incarnation,
                endpoints: registered.endpoints,
                host: registered.host,
                pid: registered.pid,
                load: registered.load,
                age_ms: 0,
            });
        }
        let chunks: Vec<_> = entries.chunks(BOARD_PART).collect();
        for (part, entries) in chunks.iter().enumerate() {
            let publication = Rc::new(Publication::Snapshot(SnapshotPart {
                epoch: Epoch(1),
                revision: self.board_revision,
                warming: false,
                part: part as u16,
                parts: chunks.len() as u16,
                entries: entries.to_vec(),
            }));
            for sender in 0..self.senders.len() {
                let message = Message::Publication(Rc::clone(&publication));
                self.senders[sender].handle_message(now, message);
                self.act(Node::Sender(sender));
            }
        }
        self.queue.push(now + self.scenario.publish_interval, Event::Board);
    }

    /// The next job of a sender comes; it may have to be asked first who is there.
    fn submit_next(&mut self, sender: usize) {
        let service_time = self.workload.service_time(sender);
        let number = self.ledger.submit(self.now, service_time);
        if self.scenario.feed == Feed::Query {
            self.asking[sender].push_back(number);
            let message = Message::ToMapper(ToMapper::Sync { service: service() });
            self.carry_out(Node::Sender(sender), Effect::Send(Node::Mapper, Box::new(message)));
        } else {
            self.submit(sender, number);
            self.act(Node::Sender(sender));
        }
    }

    fn submit(&mut self, sender: usize, number: u64) {
        let spec = nodes::job(&self.scenario, &self.payload);
        self.senders[sender].submit(self.now, JobId(number), spec);
    }

    fn start(&mut self, node: Node, task: &Task) {
        let (Node::Worker(worker), Origin::Sender { attempt, .. }) = (node, task.origin) else {
            return;
        };
        let Some(service_time) = self.ledger.start(self.now, attempt) else { return };
        let time = service_time.div_f64(self.speeds[worker]) + self.scenario.handling;
        self.queue.push(self.now + time, Event::Finish { worker, task: task.id });
    }
}
