//! A sender's process.

use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;
use svcmap_worker::JobId;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::pure::{Choice, JobSpec, Process, Sender};

use super::{Carrier, Effect, HOST, Message, endpoint, service};
use crate::Scenario;

/// See the module.
pub struct SenderNode {
    /// The process, and its connections.
    pub carrier: Carrier,
}

impl SenderNode {
    /// A sender that knows nobody yet.
    pub fn new(
        now: Timestamp,
        scenario: &Scenario,
        number: usize,
        choice: Option<Box<dyn Choice>>,
    ) -> Self {
        let config = OutboxConfig {
            attempts_max: scenario.tries,
            active_peers_max: scenario.peers_max,
            ..OutboxConfig::default()
        };
        let id = SenderId(number as u128 + 1);
        let seed = scenario.seed.wrapping_add(number as u64);
        let mut sender = Sender::new(id, HOST, 1, config, choice, seed);
        sender.observe();
        sender.follow(now, &service());
        Self { carrier: Carrier::new(Process::new(now, vec![endpoint(0)], sender, None, seed)) }
    }

    /// Its user wants a job done.
    pub fn submit(&mut self, now: Timestamp, id: JobId, spec: JobSpec) {
        self.carrier.process.sender().handle_submit(now, id, spec);
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, message: Message) {
        self.carrier.handle_message(now, message);
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        self.carrier.act(now, effects, |_, _, _| {})
    }
}
