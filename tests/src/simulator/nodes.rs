//! The nodes: the types that ship, put together as their `io` modules do it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use svcmap_mapper::registry::{self, Identity, Registry};
use svcmap_proto::control::{
    FromMapper, Publication, Registration, ToMapper, Welcome, topic_service,
};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, Name, SenderId};
use svcmap_proto::time::{Timestamp, earliest};
use svcmap_worker::choice::Choice;
use svcmap_worker::config::{IntakeConfig, OutboxConfig};
use svcmap_worker::intake::{Ending, Task, TaskId};
use svcmap_worker::observation::Observation;
use svcmap_worker::outbox::{JobId, JobSpec};
use svcmap_worker::outcome::Outcome;
use svcmap_worker::sender::{Sender, SenderOutput};
use svcmap_worker::senders::Connection;
use svcmap_worker::server::{Server, ServerOutput};
use svcmap_worker::session::{Session, SessionOutput};

use super::scenario::Scenario;

/// All run on one machine.
const HOST: HostId = HostId(1);

/// Which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Node {
    /// The mapper.
    Mapper,
    /// A worker, by number.
    Worker(usize),
    /// A sender, by number.
    Sender(usize),
}

/// What travels between nodes.
#[derive(Clone, Debug)]
pub enum Message {
    /// From a worker or sender.
    ToMapper(ToMapper),
    /// To a worker or sender.
    FromMapper(FromMapper),
    /// On PUB, for one subscriber. All of them share it.
    Publication(Rc<Publication>),
    /// A connection is there, for that link of the sender.
    Connected(u64),
    /// From that link of a sender.
    ToWorker(u64, ToWorker),
    /// To that link of a sender.
    FromWorker(u64, FromWorker),
}

/// What a node wants done, or has found out.
#[derive(Debug)]
pub enum Effect {
    /// Send this.
    Send(Node, Box<Message>),
    /// Send this to all who subscribed to that service, or to everybody.
    Publish(Option<Name>, Publication),
    /// Make a connection to that worker, for that link.
    Connect(usize, u64),
    /// A handler is to run this.
    Start(Task),
    /// A sender decided something.
    Observed(Observation),
    /// A job has its outcome.
    Settled(JobId, Outcome),
}

/// The one service there is.
pub fn service() -> Name {
    name("s")
}

fn name(text: &str) -> Name {
    #[allow(clippy::expect_used)] // only called with names
    text.parse().expect("a name")
}

fn endpoint(number: usize) -> Endpoint {
    #[allow(clippy::expect_used)] // the host is one
    Endpoint::tcp("127.0.0.1", (number + 1) as u16).expect("an endpoint")
}

/// The number of a worker, which is its name.
pub fn worker_number(instance: &Name) -> usize {
    instance.as_str().parse().unwrap_or(usize::MAX)
}

/// The instance of that number. Names sort like numbers.
pub fn worker_key(number: usize) -> InstanceKey {
    InstanceKey { service: service(), instance: name(&format!("{number:05}")) }
}

/// What a worker registers with.
pub fn registration(number: usize, load: Load) -> Registration {
    Registration {
        key: worker_key(number),
        incarnation: Incarnation(1),
        endpoints: vec![endpoint(number)],
        host: HOST,
        pid: 1,
        load,
    }
}

/// What the mapper of that epoch dictates.
pub fn welcome(scenario: &Scenario, epoch: Epoch) -> Welcome {
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Welcome {
        epoch,
        warming: false,
        beat_ms: ms(scenario.beat),
        expiry_ms: ms(3 * scenario.beat),
        publish_ms: ms(scenario.publish_interval),
        publish: endpoint(0),
        observed: String::new(),
        highest: None,
    }
}

/// A worker's process.
#[derive(Debug)]
pub struct WorkerNode {
    number: usize,
    server: Server,
    session: Session,
}

impl WorkerNode {
    /// A worker that knows nobody yet.
    pub fn new(scenario: &Scenario, number: usize) -> Self {
        let (concurrency, queue) = (scenario.concurrency, scenario.queue);
        let config = IntakeConfig { concurrency, queue, ..IntakeConfig::default() };
        let key = worker_key(number);
        let server = Server::new(key.clone(), Incarnation(1), config);
        Self { number, server, session: Session::new(Some(key)) }
    }

    /// Jobs that are here.
    pub fn jobs(&self) -> usize {
        self.server.intake().len()
    }

    /// What it says of itself.
    pub fn load(&mut self, now: Timestamp) -> Load {
        self.server.load(now)
    }

    /// The connection to the mapper is there, or gone.
    pub fn handle_connection(&mut self, now: Timestamp, is_there: bool) {
        match is_there {
            true => self.session.handle_connected(now),
            false => self.session.handle_disconnected(),
        }
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, from: Node, message: Message) {
        match (from, message) {
            (_, Message::FromMapper(message)) => self.session.handle_message(now, message),
            (_, Message::Publication(publication)) => {
                pulse(&mut self.session, now, &publication, self.number);
            }
            (Node::Sender(sender), Message::ToWorker(link, message)) => {
                self.server.handle_message(now, connection(sender, link), message, &[]);
            }
            _ => {}
        }
    }

    /// A handler ended.
    pub fn handle_finished(&mut self, now: Timestamp, task: TaskId) {
        self.server.handle_finished(now, task, Ending::Done, Vec::new());
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        self.session.handle_timeout(now);
        while let Some(output) = self.server.poll_output(now) {
            match output {
                ServerOutput::Answer { to, message } => {
                    let (sender, link) = sender_and_link(&to);
                    let message = Message::FromWorker(link, message);
                    effects.push(Effect::Send(sender, Box::new(message)));
                }
                ServerOutput::Outcome { to, header, .. } => {
                    let (sender, link) = sender_and_link(&to);
                    let message = Message::FromWorker(link, FromWorker::Outcome(header));
                    effects.push(Effect::Send(sender, Box::new(message)));
                }
                ServerOutput::Start(task) => effects.push(Effect::Start(task)),
                // No client speaks JSON here, and handlers do not look at the flag.
                ServerOutput::Reply { .. } | ServerOutput::Cancel(_) => {}
            }
        }
        let load = self.server.load(now);
        self.session.handle_load(now, &load);
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Send(message) => {
                    let message = Message::ToMapper(message);
                    effects.push(Effect::Send(Node::Mapper, Box::new(message)));
                }
                SessionOutput::Welcomed(_) => {
                    let load = self.server.load(now);
                    self.session.register(now, registration(self.number, load));
                }
                _ => {}
            }
        }
        earliest(self.server.poll_timeout(), self.session.poll_timeout())
    }
}

/// A sender's process.
pub struct SenderNode {
    number: usize,
    sender: Sender,
    session: Session,
    /// The worker behind each link.
    links: BTreeMap<u64, usize>,
}

impl SenderNode {
    /// A sender that knows nobody yet.
    pub fn new(scenario: &Scenario, number: usize, choice: Box<dyn Choice>) -> Self {
        let config = OutboxConfig {
            attempts_max: scenario.tries,
            active_peers_max: scenario.peers_max,
            ..OutboxConfig::default()
        };
        let id = SenderId(number as u128 + 1);
        let seed = scenario.seed.wrapping_add(number as u64);
        let mut sender = Sender::new(id, HOST, 1, config, choice, seed);
        sender.observe();
        Self { number, sender, session: Session::new(None), links: BTreeMap::new() }
    }

    /// The connection to the mapper is there, or gone.
    pub fn handle_connection(&mut self, now: Timestamp, is_there: bool) {
        match is_there {
            true => self.session.handle_connected(now),
            false => self.session.handle_disconnected(),
        }
        self.sender.follow(now, &service());
    }

    /// There is no mapper, but this timing and a board.
    pub fn handle_welcome(&mut self, now: Timestamp, welcome: &Welcome) {
        self.sender.handle_welcome(now, 0, welcome);
    }

    /// Its user wants a job done.
    pub fn submit(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        self.sender.handle_submit(now, id, spec);
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::FromMapper(FromMapper::Snapshot { service, part }) => {
                self.sender.handle_snapshot(now, 0, &service, &part);
            }
            Message::FromMapper(message) => self.session.handle_message(now, message),
            Message::Publication(publication) => {
                pulse(&mut self.session, now, &publication, self.number);
                match &*publication {
                    Publication::Pulse { .. } => self.sender.handle_pulse(0),
                    _ => self.sender.handle_publication(now, 0, &service(), &publication),
                }
            }
            Message::Connected(link) => self.sender.handle_link_writable(now, link),
            Message::FromWorker(link, message) => {
                self.sender.handle_link_message(now, link, message, &[]);
            }
            Message::ToMapper(_) | Message::ToWorker(..) => {}
        }
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        self.session.handle_timeout(now);
        loop {
            self.poll(now, effects);
            let due_at = self.sender.poll_timeout();
            if due_at.is_none_or(|at| at > now) {
                return earliest(due_at, self.session.poll_timeout());
            }
            self.sender.handle_timeout(now);
        }
    }

    fn poll(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Send(message) => {
                    let message = Message::ToMapper(message);
                    effects.push(Effect::Send(Node::Mapper, Box::new(message)));
                }
                SessionOutput::Welcomed(welcome) => self.sender.handle_welcome(now, 0, &welcome),
                _ => {}
            }
        }
        while let Some(output) = self.sender.poll_output(now) {
            match output {
                SenderOutput::Connect { link, endpoint } => {
                    let worker = usize::from(endpoint.port().unwrap_or(0)) - 1;
                    self.links.insert(link, worker);
                    effects.push(Effect::Connect(worker, link));
                }
                SenderOutput::Disconnect { link } => {
                    self.links.remove(&link);
                }
                SenderOutput::Send { link, message, .. } => {
                    if let Some(&worker) = self.links.get(&link) {
                        let message = Message::ToWorker(link, message);
                        effects.push(Effect::Send(Node::Worker(worker), Box::new(message)));
                    }
                }
                SenderOutput::Sync { service, .. } => {
                    let message = Message::ToMapper(ToMapper::Sync { service });
                    effects.push(Effect::Send(Node::Mapper, Box::new(message)));
                }
                SenderOutput::Observed(observation) => {
                    effects.push(Effect::Observed(observation));
                }
                SenderOutput::Settled { job, outcome } => {
                    effects.push(Effect::Settled(job, outcome));
                }
                // Everybody subscribes to the one service; none is of the JSON dialect.
                SenderOutput::Subscribe(_)
                | SenderOutput::Silent { .. }
                | SenderOutput::Request { .. } => {}
            }
        }
    }
}

/// The mapper's process.
#[derive(Debug)]
pub struct MapperNode {
    registry: Registry,
}

impl MapperNode {
    /// That life of the mapper, which knows nobody yet.
    pub fn new(scenario: &Scenario, now: Timestamp, epoch: Epoch) -> Self {
        let config = svcmap_mapper::Config {
            beat: scenario.beat,
            publish_interval: scenario.publish_interval,
            ..svcmap_mapper::Config::default()
        };
        let (mapper, publish) = (endpoint(0), endpoint(1));
        let identity = Identity { epoch, host: HOST, endpoint: mapper, publish };
        Self { registry: Registry::new(config, identity, now) }
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, from: Node, message: Message) {
        if let Message::ToMapper(message) = message {
            let from = registry::Connection::new(&node_bytes(from));
            self.registry.handle_message(now, now.as_micros(), &from, "", message);
        }
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        if self.registry.poll_timeout().is_some_and(|at| at <= now) {
            self.registry.handle_timeout(now);
        }
        while let Some(output) = self.registry.poll_output() {
            match output {
                registry::Output::Reply { to, message } => {
                    let to = node_of(to.as_bytes());
                    let message = Box::new(Message::FromMapper(message));
                    effects.push(Effect::Send(to, message));
                }
                registry::Output::Publish { topic, message } => {
                    effects.push(Effect::Publish(topic_service(&topic), message));
                }
                registry::Output::JsonReply { .. } | registry::Output::Event(_) => {}
            }
        }
        self.registry.poll_timeout()
    }
}

/// A pulse: the numbers of nodes are their places in the spread of registrations.
fn pulse(session: &mut Session, now: Timestamp, publication: &Publication, number: usize) {
    if let Publication::Pulse { epoch, instances } = publication {
        let place = number as f64 / f64::from((*instances).max(1));
        session.handle_pulse(now, *epoch, *instances, place);
    }
}

fn connection(sender: usize, link: u64) -> Connection {
    let mut bytes = (sender as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(&link.to_le_bytes());
    Connection(bytes)
}

fn sender_and_link(connection: &Connection) -> (Node, u64) {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let (sender, link) = connection.0.split_at(8);
    (Node::Sender(number(sender) as usize), number(link))
}

fn node_bytes(node: Node) -> [u8; 9] {
    let (kind, number) = match node {
        Node::Mapper => (0, 0),
        Node::Worker(number) => (1, number),
        Node::Sender(number) => (2, number),
    };
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

fn node_of(bytes: &[u8]) -> Node {
    let number = bytes[1..].try_into().map_or(0, u64::from_le_bytes) as usize;
    match bytes[0] {
        0 => Node::Mapper,
        1 => Node::Worker(number),
        _ => Node::Sender(number),
    }
}

/// A job without payload, which nobody gives up.
pub fn job(scenario: &Scenario, payload: &Arc<Vec<u8>>) -> JobSpec {
    JobSpec {
        service: service(),
        instance: None,
        payload: Arc::clone(payload),
        deadline: DEADLINE,
        hold: scenario.hold,
        idempotent: false,
    }
}

/// Longer than any simulated job takes.
const DEADLINE: Duration = Duration::from_secs(3600);
