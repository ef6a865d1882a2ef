//! The sending half of a process, and the connections that its links have.

use std::collections::BTreeMap;

use svcmap_proto::control::{Publication, ToMapper};
use svcmap_proto::jobs::OfferId;
use svcmap_proto::time::Timestamp;
use svcmap_worker::outbox::JobId;
use svcmap_worker::sender::{Sender, SenderOutput};

use super::{Effect, Line, Message, Node, service};

/// See the module.
pub struct Outgoing {
    pub(super) sender: Sender,
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

impl Outgoing {
    /// Without connections.
    pub fn new(sender: Sender) -> Self {
        Self { sender, wires: BTreeMap::new() }
    }

    /// Something came that concerns connections or the cache.
    pub fn handle_message(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::Publication(publication) => match &*publication {
                Publication::Pulse { .. } => self.sender.handle_pulse(0),
                _ => self.sender.handle_publication(now, 0, &service(), &publication),
            },
            Message::Connected(line) if self.is_open(line) => {
                self.sender.handle_link_writable(now, line.link);
            }
            Message::Gone(line) if self.is_open(line) => {
                self.sender.handle_link_unwritable(now, line.link);
            }
            Message::FromWorker(line, message) if self.is_open(line) => {
                self.sender.handle_link_message(now, line.link, message);
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

    /// A user takes a job back.
    pub fn cancel(&mut self, now: Timestamp, job: JobId) {
        self.sender.handle_cancel(now, job);
    }

    /// Does what the sender wants done. Returns the offers for which there is no taker.
    pub fn poll(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Vec<OfferId> {
        let mut declined = Vec::new();
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
                SenderOutput::Send { link, message } => {
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
                SenderOutput::Declined(offer) => declined.push(offer),
                // Everybody subscribes to the one service; none is of the JSON dialect.
                SenderOutput::Subscribe(_)
                | SenderOutput::Unsubscribe(_)
                | SenderOutput::Silent { .. }
                | SenderOutput::Unheard(_)
                | SenderOutput::Unserved(_)
                | SenderOutput::Unreachable { .. }
                | SenderOutput::Request { .. } => {}
            }
        }
        declined
    }
}
