//! A worker's process.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::control::{FromMapper, Registration};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::names::{Incarnation, SenderId};
use svcmap_proto::time::{Timestamp, earliest};
use svcmap_worker::choice::Policy;
use svcmap_worker::config::{IntakeConfig, OutboxConfig};
use svcmap_worker::intake::{Ending, TaskId};
use svcmap_worker::sender::Sender;
use svcmap_worker::senders::Connection;
use svcmap_worker::server::{Server, ServerOutput};
use svcmap_worker::session::{Session, SessionOutput};

use super::{Effect, HOST, Line, Message, Node, Outgoing, endpoint, pulse, worker_key};
use crate::simulator::Scenario;

/// See the module.
pub struct WorkerNode {
    /// Which process it is: where it listens, and which life.
    process: usize,
    number: usize,
    server: Server,
    /// Connections that are no more.
    gone: BTreeSet<Connection>,
    /// Its sending half, which offers slots to peers.
    pub outgoing: Outgoing,
    session: Session,
}

impl WorkerNode {
    /// A worker of that number that knows nobody yet. Processes that start later have higher numbers.
    pub fn new(scenario: &Scenario, process: usize, number: usize) -> Self {
        let (concurrency, queue) = (scenario.concurrency, scenario.queue(number));
        let config = IntakeConfig { concurrency, queue, ..IntakeConfig::default() };
        let key = worker_key(number);
        let mut server = Server::new(key.clone(), incarnation(process), config);
        // As its mapper, if there is one, will dictate.
        server.set_expiry(Timestamp::default(), 3 * scenario.beat);
        let id = SenderId(1 << 64 | process as u128);
        let seed = scenario.seed.wrapping_mul(0x2545_f491_4f6c_dd1d).wrapping_add(process as u64);
        let choice = Policy::Svcmap.choice();
        let sender = Sender::new(id, HOST, 1, OutboxConfig::default(), choice, seed);
        let (outgoing, session) =
            (Outgoing::new(sender), Session::new(Timestamp::default(), Some(key), seed));
        Self { process, number, server, gone: BTreeSet::new(), outgoing, session }
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
            error: None,
            load: self.server.load(now),
        }
    }

    /// The connection to the mapper is there, or gone.
    pub fn handle_connection(&mut self, now: Timestamp, is_there: bool) {
        match is_there {
            true => self.session.handle_connected(now),
            false => self.session.handle_disconnected(now),
        }
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, from: Node, message: Message) {
        match (from, message) {
            (_, Message::FromMapper(FromMapper::Snapshot { service, part })) => {
                self.outgoing.sender.handle_snapshot(now, 0, &service, &part);
                self.session.handle_message(now, FromMapper::Snapshot { service, part });
            }
            (_, Message::FromMapper(message)) => self.session.handle_message(now, message),
            (_, Message::ToWorker(line, ToWorker::Offer(slot)))
                if !self.outgoing.sender.believes(now, &worker_key(self.number), &slot) =>
            {
                self.server.decline(now, connection(from, line), slot.offer);
            }
            (_, Message::ToWorker(line, message)) => {
                self.server.handle_message(now, connection(from, line), message);
            }
            (Node::Sender(_), Message::Gone(line)) => self.handle_gone(from, line),
            (_, message) => {
                if let Message::Publication(publication) = &message {
                    pulse(&mut self.session, now, publication, self.number);
                }
                self.outgoing.handle_message(now, message);
            }
        }
    }

    /// That connection of another process is no more: a socket that listens does not tell that, but
    /// what is sent there comes back.
    pub fn handle_gone(&mut self, from: Node, line: Line) {
        self.gone.insert(connection(from, line));
    }

    /// A handler ended.
    pub fn handle_finished(&mut self, now: Timestamp, task: TaskId, ending: Ending) {
        self.server.handle_finished(now, task, ending, Bytes::new());
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let halves = earliest(self.server.poll_timeout(), self.outgoing.sender.poll_timeout());
        earliest(halves, self.session.poll_timeout())
    }

    /// It was suspended for so long, and has read what came meanwhile.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.session.handle_suspension(now, gap);
        self.server.handle_suspension(now, gap);
        self.outgoing.sender.handle_suspension(now, gap);
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        if self.server.poll_timeout().is_some_and(|at| at <= now) {
            self.server.handle_timeout(now);
        }
        self.session.handle_timeout(now);
        if self.outgoing.sender.poll_timeout().is_some_and(|at| at <= now) {
            self.outgoing.sender.handle_timeout(now);
        }
        if self.server.wants_verdict(now) {
            let (key, load) = (worker_key(self.number), self.server.load(now));
            let verdict = self.outgoing.sender.judge(now, &key, &load);
            self.server.handle_verdict(now, verdict);
        }
        for offer in self.outgoing.poll(now, effects) {
            self.server.handle_no_taker(offer);
        }
        self.serve(now, effects);
        for offer in self.outgoing.poll(now, effects) {
            self.server.handle_no_taker(offer);
        }
        self.report(now, effects);
        self.poll_timeout()
    }

    fn serve(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(output) = self.server.poll_output(now) {
            match output {
                ServerOutput::Answer { to, .. } if self.gone.contains(&to) => {
                    self.server.handle_gone(now, &to);
                }
                ServerOutput::Outcomes { to, sender, batch } if self.gone.contains(&to) => {
                    self.server.handle_unreachable(now, sender, batch.first_number);
                }
                ServerOutput::Answer { to, message } => {
                    let (sender, line) = node_and_line(&to);
                    let message = Message::FromWorker(line, message);
                    effects.push(Effect::Send(sender, Box::new(message)));
                }
                ServerOutput::Outcomes { to, batch, .. } => {
                    let (sender, line) = node_and_line(&to);
                    let message = Message::FromWorker(line, FromWorker::Outcomes(batch));
                    effects.push(Effect::Send(sender, Box::new(message)));
                }
                ServerOutput::Start(task) => effects.push(Effect::Start(task)),
                ServerOutput::Offer { slot, blind, way } => {
                    let (offer, key) = (slot.offer, worker_key(self.number));
                    if !self.outgoing.sender.offer(now, &key, slot, (blind, way)) {
                        self.server.handle_no_taker(offer);
                    }
                }
                // No client speaks JSON here, and handlers do not look at the flag.
                ServerOutput::Reply { .. }
                | ServerOutput::Cancel(_)
                | ServerOutput::TakeBack
                | ServerOutput::SetAside { .. }
                | ServerOutput::Trusted => {}
            }
        }
    }

    fn report(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let load = self.server.load(now);
        assert!(load.busy() <= load.slots, "no slot is promised twice: {load:?}");
        self.session.handle_load(now, &load);
        self.session.handle_error(self.server.error());
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Send(message) => {
                    let message = Message::ToMapper(message);
                    effects.push(Effect::Send(Node::Mapper, Box::new(message)));
                }
                SessionOutput::Welcomed(welcome) => {
                    self.outgoing.sender.handle_welcome(now, 0, &welcome);
                    let registration = self.registration(now);
                    self.session.register(now, registration);
                }
                _ => {}
            }
        }
    }
}

fn incarnation(process: usize) -> Incarnation {
    Incarnation(process as u64 + 1)
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
    Connection(bytes)
}

fn node_and_line(connection: &Connection) -> (Node, Line) {
    let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let (node, line) = connection.0.split_at(9);
    let (link, generation) = line.split_at(8);
    let generation = generation.try_into().map_or(0, u32::from_le_bytes);
    let line = Line { link: number(link), generation };
    let process = number(&node[1..]) as usize;
    let node = if node[0] == 1 { Node::Worker(process) } else { Node::Sender(process) };
    (node, line)
}
