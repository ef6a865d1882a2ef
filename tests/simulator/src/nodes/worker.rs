//! A worker's process.

use std::collections::BTreeSet;

use bytes::Bytes;
use svcmap_proto::control::Registration;
use svcmap_proto::jobs::FromWorker;
use svcmap_proto::names::{Incarnation, SenderId};
use svcmap_proto::time::Timestamp;
use svcmap_worker::Policy;
use svcmap_worker::config::{IntakeConfig, OutboxConfig};
use svcmap_worker::pure::{
    Connection, Ending, Instance, Process, Sender, Server, ServerOutput, TaskId,
};

use super::handlers::Handlers;
use super::{Carrier, Effect, HOST, Line, Message, Node, endpoint, worker_key};
use crate::Scenario;

/// See the module.
pub struct WorkerNode {
    number: usize,
    /// Connections that are no more.
    gone: BTreeSet<Connection>,
    handlers: Handlers,
    /// The process, and its connections.
    pub carrier: Carrier,
}

impl WorkerNode {
    /// A worker of that number that knows nobody yet. Processes that start later have higher numbers:
    /// each listens elsewhere, and is another life.
    pub fn new(now: Timestamp, scenario: &Scenario, process: usize, number: usize) -> Self {
        let (concurrency, queue) = (scenario.concurrency, scenario.queue(number));
        let instance = Instance {
            key: worker_key(number),
            incarnation: Some(Incarnation(process as u64 + 1)),
            endpoint: endpoint(process),
            advertise: Vec::new(),
            host: HOST,
            pid: 1,
            config: IntakeConfig { concurrency, queue, ..IntakeConfig::default() },
        };
        let id = SenderId(1 << 64 | process as u128);
        let seed = scenario.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(process as u64);
        let choice = Policy::Svcmap.choice();
        let sender = Sender::new(id, HOST, 1, OutboxConfig::default(), choice, seed);
        let process = Process::new(now, vec![endpoint(0)], sender, Some(instance), seed);
        let (gone, handlers) = (BTreeSet::new(), Handlers::new(concurrency));
        Self { number, gone, handlers, carrier: Carrier::new(process) }
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    fn server(&mut self) -> Option<&mut Server> {
        self.carrier.process.server()
    }

    /// Jobs that are here.
    pub fn jobs(&mut self) -> usize {
        self.server().map_or(0, |server| server.intake().len())
    }

    /// What it registers with, once it has been welcomed, and how it is now.
    pub fn registration(&mut self, now: Timestamp) -> Option<Registration> {
        let load = self.server()?.load(now);
        Some(Registration { load, ..self.carrier.process.registration()?.clone() })
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, from: Node, message: Message) {
        match (from, message) {
            (_, Message::ToWorker(line, message)) => {
                let from = connection(from, line);
                self.carrier.process.handle_message(now, from, message);
            }
            (Node::Sender(_), Message::Gone(line)) => self.handle_gone(from, line),
            (_, message) => self.carrier.handle_message(now, message),
        }
    }

    /// That connection of another process is no more: a socket that listens does not tell that, but
    /// what is sent there comes back.
    pub fn handle_gone(&mut self, from: Node, line: Line) {
        self.gone.insert(connection(from, line));
    }

    /// A handler ended.
    pub fn handle_finished(&mut self, now: Timestamp, task: TaskId, ending: Ending) {
        let began_at = self.handlers.finish(now, task);
        let process = &mut self.carrier.process;
        process.handle_finished(now, task, (began_at, now), ending, Bytes::new());
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        let (gone, handlers) = (&self.gone, &mut self.handlers);
        let serve = |process: &mut Process, output, effects: &mut Vec<Effect>| {
            effects.extend(serve(now, process, gone, handlers, output));
        };
        let due_at = self.carrier.act(now, effects, serve);
        self.handlers.begin(now, effects);
        if let Some(server) = self.server() {
            let load = server.load(now);
            assert!(load.busy() <= load.slots, "no slot is promised twice: {load:?}");
        }
        due_at
    }
}

/// Does what the serving half wants done.
fn serve(
    now: Timestamp,
    process: &mut Process,
    gone: &BTreeSet<Connection>,
    handlers: &mut Handlers,
    output: ServerOutput,
) -> Option<Effect> {
    match output {
        ServerOutput::Answer { to, .. } if gone.contains(&to) => {
            process.server()?.handle_gone(now, &to);
        }
        ServerOutput::Outcomes { to, sender, batch } if gone.contains(&to) => {
            process.server()?.handle_unreachable(now, sender, batch.first_number);
        }
        ServerOutput::Answer { to, message } => return Some(send(&to, message)),
        ServerOutput::Outcomes { to, batch, .. } => {
            return Some(send(&to, FromWorker::Outcomes(batch)));
        }
        ServerOutput::Start(task) => handlers.assign(task),
        ServerOutput::TakeBack => process.server()?.handle_taken_back(now, handlers.take_back()),
        // Whoever has begun it does not look at the flag.
        ServerOutput::Cancel(task) if handlers.withdraw(task) => {
            process.server()?.handle_withdrawn(now, task);
        }
        // No client speaks JSON here.
        _ => {}
    }
    None
}

fn send(to: &Connection, message: FromWorker) -> Effect {
    let (sender, line) = node_and_line(to);
    Effect::Send(sender, Box::new(Message::FromWorker(line, message)))
}

fn connection(from: Node, line: Line) -> Connection {
    let Line { link, generation } = line;
    let (kind, number) = match from {
        Node::Mapper => (0, 0),
        Node::Worker(number) => (1, number),
        Node::Sender(number) => (2, number),
    };
    let mut bytes = Vec::with_capacity(21);
    bytes.push(kind);
    bytes.extend_from_slice(&(number as u64).to_le_bytes());
    bytes.extend_from_slice(&link.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    Connection::from(bytes)
}

fn node_and_line(connection: &Connection) -> (Node, Line) {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let (node, line) = connection.id.split_at(9);
    let (link, generation) = line.split_at(8);
    let generation = generation.try_into().map_or(0, u32::from_le_bytes);
    let line = Line { link: number(link), generation };
    let process = number(&node[1..]) as usize;
    let node = if node[0] == 1 { Node::Worker(process) } else { Node::Sender(process) };
    (node, line)
}
