//! The world: nodes, the network between them, the load on them, and the course of time.
//!
//! The nodes are the pure types that ship. Only what lies outside them is simulated: sockets, the
//! clock, handlers, and whoever submits jobs. Messages are not encoded.

mod faults;
mod processes;

use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use svcmap_proto::control::{Entry, Publication, ServiceStanding, SnapshotPart, ToMapper};
use svcmap_proto::names::{Epoch, Name};
use svcmap_proto::time::Timestamp;
use svcmap_worker::pure::{Ending, JobSpec, Origin, Task, TaskId};
use svcmap_worker::{JobId, Policy, Priority};

use super::ledger::{Findings, Ledger};
use super::network::Network;
use super::nodes::{
    self, Carrier, Effect, MapperNode, Message, Node, SenderNode, WorkerNode, service,
};
use super::policies::{Rule, Truth};
use super::queue::Queue;
use super::scenario::{Feed, Scenario, is_high};
use super::workload::Workload;
use faults::{Fault, Stop};
use processes::Wakes;

/// Not at the clock's zero, before which there is nothing.
const START: Timestamp = Timestamp::from_micros(1_000_000_000);

/// Entries in one part of a snapshot on the board, as many as one message may list.
const BOARD_PART: usize = 4096;

#[derive(Clone, Debug)]
enum Event {
    /// The next job of a stream comes.
    Arrival(usize),
    /// One of those that come all at once.
    Burst(usize),
    /// A sender's user submits it.
    Submit {
        sender: usize,
        job: u64,
    },
    /// A node is to act on its deadlines.
    Wake(Node),
    /// A message arrives.
    Deliver {
        from: Node,
        to: Node,
        message: Box<Message>,
    },
    /// The same publication arrives at all of these.
    Published {
        to: Vec<Node>,
        publication: Rc<Publication>,
    },
    /// A sender's user takes a job back.
    Cancel {
        sender: usize,
        job: u64,
    },
    /// A handler ends.
    Finish {
        worker: usize,
        task: TaskId,
        ending: Ending,
    },
    /// The board is renewed.
    Board,
    /// The connections to the mapper are there, or gone.
    Connections(bool),
    Fault(Fault),
}

impl Event {
    /// How many jobs come to a worker with it.
    fn jobs(&self) -> usize {
        match self {
            Event::Deliver { message, .. } => message.jobs(),
            _ => 0,
        }
    }

    /// In which process it happens, if in one.
    fn process(&self) -> Option<Node> {
        match self {
            // A connection is there once the worker has said its part.
            Event::Deliver { from, message, .. } if matches!(**message, Message::Connected(_)) => {
                Some(*from)
            }
            Event::Wake(node) | Event::Deliver { to: node, .. } => Some(*node),
            Event::Finish { worker, .. } => Some(Node::Worker(*worker)),
            Event::Submit { sender, .. }
            | Event::Cancel { sender, .. }
            | Event::Fault(Fault::Break { sender, .. }) => Some(Node::Sender(*sender)),
            _ => None,
        }
    }
}

/// See the module.
pub struct World {
    scenario: Scenario,
    now: Timestamp,
    measured_at: Timestamp,
    ends_at: Timestamp,
    queue: Queue<Event>,
    network: Network,
    workload: Workload,
    mapper: Option<MapperNode>,
    /// Each worker's process, and those that have ended.
    workers: Vec<WorkerNode>,
    speeds: Vec<f64>,
    /// Each sender's process, and those that have ended.
    senders: Vec<SenderNode>,
    /// Which of them submits the jobs of each stream.
    processes: Vec<usize>,
    /// Those that do nothing now.
    stopped: BTreeMap<Node, Stop>,
    /// What goes wrong by chance.
    luck: fastrand::Rng,
    /// When each node is woken next.
    wake_at: Wakes,
    ledger: Ledger,
    /// Jobs whose look-up is under way, for each sender.
    asking: Vec<VecDeque<u64>>,
    board_revision: u64,
    lives_of_mapper: u64,
    truth: Arc<Truth>,
    effects: Vec<Effect>,
    service: Name,
    payload: Bytes,
    events: u64,
    trace: Option<Vec<u8>>,
}

impl World {
    /// The world of a scenario, before anything happens.
    pub fn new(scenario: Scenario) -> Self {
        let truth = Arc::new(Truth::new(&scenario));
        let (all, measured_at) = (scenario.workers, START + scenario.warm_up);
        let workers = all - scenario.late.map_or(0, |late| late.workers);
        let mut world = Self {
            now: START,
            measured_at,
            ends_at: measured_at + scenario.duration,
            queue: Queue::default(),
            network: Network::new(&scenario),
            workload: Workload::new(&scenario, START),
            mapper: None,
            workers: (0..workers).map(|n| WorkerNode::new(START, &scenario, n, n)).collect(),
            speeds: (0..all).map(|number| scenario.speed(number)).collect(),
            senders: Vec::new(),
            processes: Vec::new(),
            stopped: BTreeMap::new(),
            luck: fastrand::Rng::with_seed(scenario.seed ^ 0x6c75_636b_0000_0000),
            wake_at: Wakes { mapper: None, workers: vec![None; workers], senders: Vec::new() },
            ledger: Ledger::new(&scenario, measured_at, &truth),
            asking: Vec::new(),
            board_revision: 0,
            lives_of_mapper: 0,
            truth,
            effects: Vec::new(),
            service: service(),
            payload: Bytes::new(),
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
        self.processes = (0..self.scenario.senders).map(|_| self.start_sender()).collect();
        match self.scenario.feed {
            Feed::Board => {
                self.connect_all();
                self.queue.push(self.now, Event::Board);
            }
            Feed::Mapper | Feed::Query => self.queue.push(self.now, Event::Connections(true)),
        }
        self.plan_faults();
        self.plan_late();
        for stream in 0..self.processes.len() {
            self.plan_arrival(stream);
            for _ in 0..self.scenario.burst.map_or(0, |burst| burst.jobs) {
                self.queue.push(self.measured_at, Event::Burst(stream));
            }
        }
    }

    /// Plans the next job of a stream, if it comes in time.
    fn plan_arrival(&mut self, stream: usize) {
        let at = self.workload.next_arrival(stream);
        let until = match self.scenario.burst {
            Some(burst) => self.measured_at.before(burst.pause),
            None => self.ends_at,
        };
        if at < until {
            self.queue.push(at, Event::Arrival(stream));
        }
    }

    /// Runs until every job that is measured has its outcome.
    pub fn run(&mut self) -> Findings {
        while let Some((at, event)) = self.queue.pop() {
            self.now = at;
            if at >= self.ends_at && self.ledger.is_settled() {
                break;
            }
            self.events += 1;
            self.happen(event);
        }
        self.ledger.findings(&self.scenario, self.events)
    }

    /// What was written down.
    pub fn trace(&self) -> &[u8] {
        self.trace.as_deref().unwrap_or_default()
    }

    /// An event happens, now or when its process can see to it.
    fn happen(&mut self, event: Event) {
        if let Some(event) = self.hold_back(event)
            && let Some(node) = self.take(event)
        {
            self.act(node);
        }
    }

    /// Takes in what happens. Returns which node is to act on it.
    fn take(&mut self, event: Event) -> Option<Node> {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            // Memory takes all that is written.
            let _ = writeln!(trace, "{now} {event:?}");
        }
        match event {
            Event::Arrival(stream) => {
                let service_time = self.workload.service_time(stream);
                let job = self.ledger.submit(now, stream, service_time);
                let sender = self.processes[stream];
                self.plan_cancel(sender, job);
                self.happen(Event::Submit { sender, job });
                self.plan_arrival(stream);
            }
            Event::Burst(stream) => {
                let times = self.scenario.burst.map_or(1.0, |burst| burst.times_as_long);
                let service_time = self.workload.service_time(stream).mul_f64(times);
                let job = self.ledger.submit(now, stream, service_time);
                self.happen(Event::Submit { sender: self.processes[stream], job });
            }
            Event::Submit { sender, job } => return self.submit(sender, job),
            Event::Cancel { sender, job } => return self.cancel(sender, job),
            Event::Wake(node) => {
                let wake_at = self.wake_at.of(node);
                if *wake_at == Some(now) {
                    *wake_at = None;
                    return Some(node);
                }
            }
            Event::Deliver { from, to, message } => return self.deliver(from, to, *message),
            Event::Published { to, publication } => self.show(&to, &publication),
            Event::Finish { worker, task, ending } => {
                self.workers[worker].handle_finished(now, task, ending);
                return Some(Node::Worker(worker));
            }
            Event::Board => self.renew_board(),
            Event::Connections(are_there) => self.connect_mapper(are_there),
            Event::Fault(fault) => self.handle_fault(fault),
        }
        None
    }

    /// A publication arrives at all of these.
    fn show(&mut self, to: &[Node], publication: &Rc<Publication>) {
        for &node in to {
            let message = Message::Publication(Rc::clone(publication));
            if self.stopped.contains_key(&node) {
                let (from, message) = (Node::Mapper, Box::new(message));
                self.hold_back(Event::Deliver { from, to: node, message });
            } else {
                self.deliver(Node::Mapper, node, message);
                self.act(node);
            }
        }
    }

    fn deliver(&mut self, from: Node, to: Node, message: Message) -> Option<Node> {
        let now = self.now;
        match to {
            Node::Mapper => self.mapper.as_mut()?.handle_message(now, from, message),
            Node::Worker(number) => {
                if let Message::ToWorker(line, _) = &message
                    && !self.carrier(from)?.has(*line)
                {
                    return None;
                }
                for _ in 0..message.jobs() {
                    self.truth.arrive(self.workers[number].number());
                }
                self.workers[number].handle_message(now, from, message);
            }
            Node::Sender(number) => {
                if let Message::Connected(line) = message {
                    self.plan_break(number, line);
                }
                let answers = self.scenario.feed == Feed::Query
                    && matches!(message, Message::FromMapper(_))
                    && !self.asking[number].is_empty();
                self.senders[number].handle_message(now, message);
                if answers && let Some(job) = self.asking[number].pop_front() {
                    self.hand_over(number, job);
                }
            }
        }
        Some(to)
    }

    /// What carries the messages of a process of the library.
    fn carrier(&self, node: Node) -> Option<&Carrier> {
        match node {
            Node::Mapper => None,
            Node::Worker(number) => Some(&self.workers.get(number)?.carrier),
            Node::Sender(number) => Some(&self.senders.get(number)?.carrier),
        }
    }

    fn carrier_mut(&mut self, node: Node) -> Option<&mut Carrier> {
        match node {
            Node::Mapper => None,
            Node::Worker(number) => Some(&mut self.workers.get_mut(number)?.carrier),
            Node::Sender(number) => Some(&mut self.senders.get_mut(number)?.carrier),
        }
    }

    /// Lets a node act, does what it wants, and plans when it acts next.
    fn act(&mut self, node: Node) {
        if self.stopped.contains_key(&node) {
            return;
        }
        let mut effects = std::mem::take(&mut self.effects);
        let now = self.now;
        let timeout = match node {
            Node::Mapper => self.mapper.as_mut().and_then(|mapper| mapper.act(now, &mut effects)),
            Node::Worker(number) => {
                let worker = &mut self.workers[number];
                let timeout = worker.act(now, &mut effects);
                self.truth.set(worker.number(), worker.jobs());
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
                self.send(node, to, message);
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

    fn send(&mut self, from: Node, to: Node, message: Box<Message>) {
        let at = self.network.arrival(self.now, from, to);
        self.queue.push(at, Event::Deliver { from, to, message });
    }

    /// A pulse goes to everybody, news of the service to its senders.
    fn publish(&mut self, is_pulse: bool, publication: Publication) {
        if !is_pulse && self.scenario.feed == Feed::Query {
            return;
        }
        let publication = Rc::new(publication);
        // Only to offer slots does a worker want to know of its peers.
        let all = is_pulse || self.scenario.rule == Rule::Shipped(Policy::Svcmap);
        let workers = if all { self.workers.len() } else { 0 };
        let senders = self.processes.iter().map(|number| Node::Sender(*number));
        let subscribers = (0..workers).map(Node::Worker).chain(senders);
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
        let ended = |number| matches!(self.stopped.get(&Node::Worker(number)), Some(Stop::Ended));
        let workers = self.workers.iter_mut().enumerate();
        for (_, worker) in workers.filter(|(number, _)| !ended(*number)) {
            let Some(registered) = worker.registration(now) else { continue };
            entries.push(Entry {
                instance: registered.key.instance,
                incarnation: registered.incarnation,
                endpoints: registered.endpoints,
                host: registered.host,
                pid: registered.pid,
                error: registered.error,
                key: None,
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
                standing: ServiceStanding::Heard,
                part: part as u16,
                parts: chunks.len() as u16,
                entries: entries.to_vec(),
            }));
            let senders: Vec<_> = self.processes.iter().map(|n| Node::Sender(*n)).collect();
            self.show(&senders, &publication);
        }
        self.queue.push(now + self.scenario.publish_interval, Event::Board);
    }

    /// A sender's user submits a job; it may have to be asked first who is there.
    fn submit(&mut self, sender: usize, number: u64) -> Option<Node> {
        if self.scenario.feed == Feed::Query {
            self.asking[sender].push_back(number);
            let message = Message::ToMapper(ToMapper::Sync { service: self.service.clone() });
            self.send(Node::Sender(sender), Node::Mapper, Box::new(message));
            return None;
        }
        self.hand_over(sender, number);
        Some(Node::Sender(sender))
    }

    fn hand_over(&mut self, sender: usize, number: u64) {
        let is_high = is_high(self.scenario.high_every, number);
        let priority = if is_high { Priority::High } else { Priority::Normal };
        let spec = JobSpec { priority, ..nodes::job(&self.scenario, &self.service, &self.payload) };
        self.senders[sender].submit(self.now, JobId(number), spec);
    }

    fn start(&mut self, node: Node, task: &Task) {
        let (Node::Worker(worker), Origin::Sender { attempt, .. }) = (node, task.origin) else {
            return;
        };
        let service_time = self.ledger.start(self.now, attempt);
        let number = self.workers[worker].number();
        let (time, ending) = match self.failing_time(number) {
            Some(time) => (time, Ending::Failed { code: None }),
            None => (service_time.div_f64(self.speeds[number]), Ending::Done),
        };
        let at = self.now + time + self.scenario.handling;
        self.queue.push(at, Event::Finish { worker, task: task.id, ending });
    }
}
