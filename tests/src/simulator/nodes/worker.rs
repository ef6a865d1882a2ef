//! A worker's process.

use svcmap_proto::control::Registration;
use svcmap_proto::jobs::FromWorker;
use svcmap_proto::names::Incarnation;
use svcmap_proto::time::{Timestamp, earliest};
use svcmap_worker::config::IntakeConfig;
use svcmap_worker::intake::{Ending, TaskId};
use svcmap_worker::senders::Connection;
use svcmap_worker::server::{Server, ServerOutput};
use svcmap_worker::session::{Session, SessionOutput};

use super::{Effect, HOST, Line, Message, Node, endpoint, pulse, worker_key};
use crate::simulator::Scenario;

/// See the module.
#[derive(Debug)]
pub struct WorkerNode {
    /// Which process it is: where it listens, and which life.
    process: usize,
    number: usize,
    server: Server,
    session: Session,
}

impl WorkerNode {
    /// A worker of that number that knows nobody yet. Processes that start later have higher numbers.
    pub fn new(scenario: &Scenario, process: usize, number: usize) -> Self {
        let (concurrency, queue) = (scenario.concurrency, scenario.queue(number));
        let config = IntakeConfig { concurrency, queue, ..IntakeConfig::default() };
        let key = worker_key(number);
        let server = Server::new(key.clone(), incarnation(process), config);
        Self { process, number, server, session: Session::new(Some(key)) }
    }

    /// Its number.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Jobs that are here.
    pub fn jobs(&self) -> usize {
        self.server.intake().len()
    }

    /// What it registers with.
    pub fn registration(&mut self, now: Timestamp) -> Registration {
        Registration {
            key: worker_key(self.number),
            incarnation: incarnation(self.process),
            endpoints: vec![endpoint(self.process)],
            host: HOST,
            pid: 1,
            load: self.server.load(now),
        }
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
            (Node::Sender(sender), Message::ToWorker(line, message)) => {
                self.server.handle_message(now, connection(sender, line), message, &[]);
            }
            (Node::Sender(sender), Message::Gone(line)) => self.handle_gone(sender, line),
            _ => {}
        }
    }

    /// That connection of a sender is no more.
    pub fn handle_gone(&mut self, sender: usize, line: Line) {
        self.server.handle_gone(&connection(sender, line));
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
                    let (sender, line) = sender_and_line(&to);
                    let message = Message::FromWorker(line, message);
                    effects.push(Effect::Send(sender, Box::new(message)));
                }
                ServerOutput::Outcome { to, header, .. } => {
                    let (sender, line) = sender_and_line(&to);
                    let message = Message::FromWorker(line, FromWorker::Outcome(header));
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
                    let registration = self.registration(now);
                    self.session.register(now, registration);
                }
                _ => {}
            }
        }
        earliest(self.server.poll_timeout(), self.session.poll_timeout())
    }
}

fn incarnation(process: usize) -> Incarnation {
    Incarnation(process as u64 + 1)
}

fn connection(sender: usize, line: Line) -> Connection {
    let Line { link, generation } = line;
    let mut bytes = Vec::with_capacity(20);
    bytes.extend_from_slice(&(sender as u64).to_le_bytes());
    bytes.extend_from_slice(&link.to_le_bytes());
    bytes.extend_from_slice(&generation.to_le_bytes());
    Connection(bytes)
}

fn sender_and_line(connection: &Connection) -> (Node, Line) {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let (sender, line) = connection.0.split_at(8);
    let (link, generation) = line.split_at(8);
    let generation = generation.try_into().map_or(0, u32::from_le_bytes);
    (Node::Sender(number(sender) as usize), Line { link: number(link), generation })
}
