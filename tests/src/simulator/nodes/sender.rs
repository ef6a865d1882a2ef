//! A sender's process.

use std::time::Duration;

use svcmap_proto::control::{FromMapper, Welcome};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::{Timestamp, earliest};
use svcmap_worker::choice::Choice;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::outbox::{JobId, JobSpec};
use svcmap_worker::sender::Sender;
use svcmap_worker::session::{Session, SessionOutput};

use super::{Effect, HOST, Message, Node, Outgoing, pulse, service};
use crate::simulator::Scenario;

/// See the module.
pub struct SenderNode {
    number: usize,
    /// Its sending half.
    pub outgoing: Outgoing,
    session: Session,
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
        Self {
            number,
            outgoing: Outgoing::new(sender),
            session: Session::new(Timestamp::default(), None, seed),
        }
    }

    /// The connection to the mapper is there, or gone.
    pub fn handle_connection(&mut self, now: Timestamp, is_there: bool) {
        match is_there {
            true => self.session.handle_connected(now),
            false => self.session.handle_disconnected(now),
        }
        self.outgoing.sender.follow(now, &service());
    }

    /// There is no mapper, but this timing and a board.
    pub fn handle_welcome(&mut self, now: Timestamp, welcome: &Welcome) {
        self.outgoing.sender.handle_welcome(now, 0, welcome);
    }

    /// Its user wants a job done.
    pub fn submit(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        self.outgoing.sender.handle_submit(now, id, spec);
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, message: Message) {
        match message {
            Message::FromMapper(FromMapper::Snapshot { service, part }) => {
                self.outgoing.sender.handle_snapshot(now, 0, &service, &part);
                self.session.handle_message(now, FromMapper::Snapshot { service, part });
            }
            Message::FromMapper(message) => self.session.handle_message(now, message),
            message => {
                if let Message::Publication(publication) = &message {
                    pulse(&mut self.session, now, publication, self.number);
                }
                self.outgoing.handle_message(now, message);
            }
        }
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        earliest(self.outgoing.sender.poll_timeout(), self.session.poll_timeout())
    }

    /// It was suspended for so long, and has read what came meanwhile.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.session.handle_suspension(now, gap);
        self.outgoing.sender.handle_suspension(now, gap);
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        self.session.handle_timeout(now);
        loop {
            self.poll(now, effects);
            let due_at = self.outgoing.sender.poll_timeout();
            if due_at.is_none_or(|at| at > now) {
                return earliest(due_at, self.session.poll_timeout());
            }
            self.outgoing.sender.handle_timeout(now);
        }
    }

    fn poll(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while let Some(output) = self.session.poll_output() {
            match output {
                SessionOutput::Send(message) => {
                    let message = Message::ToMapper(message);
                    effects.push(Effect::Send(Node::Mapper, Box::new(message)));
                }
                SessionOutput::Welcomed(welcome) => {
                    self.outgoing.sender.handle_welcome(now, 0, &welcome)
                }
                _ => {}
            }
        }
        self.outgoing.poll(now, effects);
    }
}
