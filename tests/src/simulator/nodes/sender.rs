//! A sender's process.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::control::{FromMapper, Publication, ToMapper, Welcome};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::{Timestamp, earliest};
use svcmap_worker::choice::Choice;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::outbox::{JobId, JobSpec};
use svcmap_worker::sender::{Sender, SenderOutput};
use svcmap_worker::session::{Session, SessionOutput};

use super::{Effect, HOST, Line, Message, Node, pulse, service};
use crate::simulator::Scenario;

/// See the module.
pub struct SenderNode {
    number: usize,
    sender: Sender,
    session: Session,
    /// The newest connection of each link.
    wires: BTreeMap<u64, Wire>,
}

/// A connection, and where it leads.
#[derive(Clone, Copy)]
struct Wire {
    worker: usize,
    generation: u32,
    is_open: bool,
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
        Self { number, sender, session: Session::new(None), wires: BTreeMap::new() }
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
            Message::Connected(line) if self.is_open(line) => {
                self.sender.handle_link_writable(now, line.link);
            }
            Message::Gone(line) if self.is_open(line) => {
                self.sender.handle_link_unwritable(now, line.link);
            }
            Message::FromWorker(line, message) if self.is_open(line) => {
                self.sender.handle_link_message(now, line.link, message, &[]);
            }
            _ => {}
        }
    }

    /// Whether what was sent on that connection gets there: it may be closed, but was not lost.
    pub fn has(&self, line: Line) -> bool {
        self.wires.get(&line.link).is_some_and(|wire| wire.generation == line.generation)
    }

    /// Whether that connection is neither closed nor lost.
    pub fn is_open(&self, line: Line) -> bool {
        self.has(line) && self.wires[&line.link].is_open
    }

    /// The connections that are not closed, and where they lead.
    pub fn lines(&self) -> impl Iterator<Item = (usize, Line)> {
        let open = self.wires.iter().filter(|(_, wire)| wire.is_open);
        open.map(|(&link, wire)| (wire.worker, Line { link, generation: wire.generation }))
    }

    /// A connection that is open breaks, and what is under way on it is lost. Returns to which
    /// worker it led, and which connection follows it.
    pub fn lose(&mut self, now: Timestamp, line: Line) -> Option<(usize, Line)> {
        let wire = self.wires.get_mut(&line.link)?;
        wire.generation += 1;
        let (worker, generation) = (wire.worker, wire.generation);
        self.sender.handle_link_unwritable(now, line.link);
        Some((worker, Line { generation, ..line }))
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        earliest(self.sender.poll_timeout(), self.session.poll_timeout())
    }

    /// It was suspended for so long, and has read what came meanwhile.
    pub fn handle_suspension(&mut self, gap: Duration) {
        self.sender.handle_suspension(gap);
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
                    let generation = self.wires.get(&link).map_or(0, |wire| wire.generation + 1);
                    self.wires.insert(link, Wire { worker, generation, is_open: true });
                    effects.push(Effect::Connect(worker, Line { link, generation }));
                }
                SenderOutput::Disconnect { link } => {
                    if let Some(wire) = self.wires.get_mut(&link) {
                        wire.is_open = false;
                    }
                }
                SenderOutput::Send { link, message, .. } => {
                    if let Some(&Wire { worker, generation, is_open: true }) = self.wires.get(&link)
                    {
                        let message = Message::ToWorker(Line { link, generation }, message);
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
