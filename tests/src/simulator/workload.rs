//! When jobs come, and how long they take. Each sender has a stream of its own, so that the same
//! jobs come whatever the policy does with them (common random numbers).

use std::time::Duration;

use svcmap::distribution::{Distribution, exponential};
use svcmap_proto::time::Timestamp;

use super::scenario::Scenario;

/// See the module.
#[derive(Debug)]
pub struct Workload {
    streams: Vec<Stream>,
    /// Mean time between two jobs of one sender, in microseconds.
    gap_us: f64,
    service_time: Duration,
    distribution: Distribution,
}

#[derive(Debug)]
struct Stream {
    random: fastrand::Rng,
    /// When the next job comes, in microseconds: rounding must not add up.
    next_us: f64,
}

impl Workload {
    /// The load of a scenario, from that time on.
    pub fn new(scenario: &Scenario, from: Timestamp) -> Self {
        let stream = |sender: u64| {
            let seed = scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(sender);
            Stream { random: fastrand::Rng::with_seed(seed), next_us: from.as_micros() as f64 }
        };
        Self {
            streams: (0..scenario.senders as u64).map(stream).collect(),
            gap_us: scenario.senders as f64 / scenario.rate() * 1e6,
            service_time: scenario.service_time,
            distribution: scenario.distribution,
        }
    }

    /// When a sender's next job comes.
    pub fn next_arrival(&mut self, sender: usize) -> Timestamp {
        let stream = &mut self.streams[sender];
        stream.next_us += exponential(&mut stream.random) * self.gap_us;
        Timestamp::from_micros(stream.next_us.round() as u64)
    }

    /// How long it takes at a worker of speed 1.
    pub fn service_time(&mut self, sender: usize) -> Duration {
        self.distribution.time(self.service_time, &mut self.streams[sender].random)
    }
}
