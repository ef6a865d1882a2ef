//! Between the nodes: how long messages take, and which get lost.

use std::time::Duration;

use svcmap_proto::time::Timestamp;

use super::scenario::Scenario;

/// See the module.
#[derive(Debug)]
pub struct Network {
    delay: Duration,
    publication_loss: f64,
    random: fastrand::Rng,
}

impl Network {
    /// The network of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            delay: scenario.delay,
            publication_loss: scenario.faults.publication_loss,
            random: fastrand::Rng::with_seed(scenario.seed ^ 0x6e65_7477_6f72_6b00),
        }
    }

    /// When what is sent now arrives.
    pub fn arrival(&self, now: Timestamp) -> Timestamp {
        now + self.delay
    }

    /// When a connection that is asked for now can be used: one message there, one back.
    pub fn connected(&self, now: Timestamp) -> Timestamp {
        now + 2 * self.delay
    }

    /// Whether a publication does not get to one of its subscribers.
    pub fn loses_publication(&mut self) -> bool {
        self.publication_loss > 0.0 && self.random.f64() < self.publication_loss
    }
}
