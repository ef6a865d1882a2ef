//! What carries the messages of a process of the library, and the connections that its links have.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::control::Welcome;
use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;
use svcmap_worker::JobId;
use svcmap_worker::pure::{Process, ProcessOutput, SenderOutput, ServerOutput};

use super::{Effect, Line, Message, Node, service};

/// See the module.
pub struct Carrier {
    pub(super) process: Process,
    service: Name,
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

impl Carrier {
    /// Without connections.
    pub fn new(process: Process) -> Self {
        Self { process, service: service(), wires: BTreeMap::new() }
    }

    /// The connection to the mapper is there, or gone.
    pub fn handle_connection(&mut self, now: Timestamp, is_there: bool) {
        match is_there {
            true => self.process.handle_mapper_connected(now, 0),
            false => self.process.handle_mapper_lost(now, 0),
        }
    }

    /// There is no mapper, but this timing and a board.
    pub fn handle_welcome(&mut self, now: Timestamp, welcome: &Welcome) {
        self.process.handle_welcome(now, 0, welcome);
    }

    /// Something came from the mapper or from a worker.
    pub fn handle_message(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::FromMapper(message) => {
                self.process.handle_mapper_message(now, now.as_micros(), 0, message);
            }
            Message::Publication(publication) => {
                self.process.handle_publication(now, 0, Some(&self.service), &publication);
            }
            Message::Connected(line) if self.is_open(line) => {
                self.process.sender().handle_link_writable(now, line.link);
            }
            Message::Gone(line) if self.is_open(line) => {
                self.process.sender().handle_link_unwritable(now, line.link);
            }
            Message::FromWorker(line, message) if self.is_open(line) => {
                self.process.sender().handle_link_message(now, line.link, message);
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
        self.process.sender().handle_link_unwritable(now, line.link);
        Some((worker, Line { generation, ..line }))
    }

    /// A user takes a job back.
    pub fn cancel(&mut self, now: Timestamp, job: JobId) {
        self.process.sender().handle_cancel(now, job);
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.process.poll_timeout()
    }

    /// It was suspended for so long, and has read what came meanwhile.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.process.handle_suspension(now, gap);
    }

    /// Does what the process wants done; what its serving half wants is for `serve`. Returns when
    /// something is due next.
    pub(super) fn act(
        &mut self,
        now: Timestamp,
        effects: &mut Vec<Effect>,
        mut serve: impl FnMut(&mut Process, ServerOutput, &mut Vec<Effect>),
    ) -> Option<Timestamp> {
        self.process.handle_timeout(now);
        while let Some(output) = self.process.poll_output(now) {
            match output {
                ProcessOutput::Server(output) => serve(&mut self.process, output, effects),
                ProcessOutput::Sender(output) => self.send(output, effects),
                ProcessOutput::ToMapper { message, .. } => {
                    let message = Message::ToMapper(message);
                    effects.push(Effect::Send(Node::Mapper, Box::new(message)));
                }
                // Everybody hears the mapper as long as it is there, and nobody reads.
                ProcessOutput::Welcomed { .. }
                | ProcessOutput::Dial { .. }
                | ProcessOutput::HangUp { .. }
                | ProcessOutput::LookUp(_)
                | ProcessOutput::Relisten { .. }
                | ProcessOutput::Admit(_)
                | ProcessOutput::Event(_) => {}
            }
        }
        self.process.poll_timeout()
    }

    fn send(&mut self, output: SenderOutput, effects: &mut Vec<Effect>) {
        match output {
            SenderOutput::Connect { link, endpoint, .. } => {
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
                if let Some(&Wire { worker, generation, is_open: true }) = self.wires.get(&link) {
                    let message = Message::ToWorker(Line { link, generation }, message);
                    effects.push(Effect::Send(Node::Worker(worker), Box::new(message)));
                }
            }
            SenderOutput::Observed(observation) => effects.push(Effect::Observed(observation)),
            SenderOutput::Settled { job, outcome } => effects.push(Effect::Settled(job, outcome)),
            // Everybody subscribes to the one service; none is of the JSON dialect.
            _ => {}
        }
    }
}
