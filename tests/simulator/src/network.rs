//! Between the nodes: how long messages take, and which get lost.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap::distribution::exponential;
use svcmap_proto::time::Timestamp;

use super::nodes::Node;
use super::scenario::Scenario;

/// See the module.
#[derive(Debug)]
pub struct Network {
    delay: Duration,
    jitter: Duration,
    publication_loss: f64,
    random: fastrand::Rng,
    /// When the last message of each stream arrives: none overtakes another. What is published has
    /// a connection of its own, so the two may overtake each other.
    last: BTreeMap<(Node, Node, bool), Timestamp>,
}

impl Network {
    /// The network of a scenario.
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            delay: scenario.delay,
            jitter: scenario.jitter,
            publication_loss: scenario.faults.publication_loss,
            random: fastrand::Rng::with_seed(scenario.seed ^ 0x6e65_7477_6f72_6b00),
            last: BTreeMap::new(),
        }
    }

    /// When what is sent now arrives.
    pub fn arrival(&mut self, now: Timestamp, from: Node, to: Node) -> Timestamp {
        self.in_order(now, (from, to, false))
    }

    /// When what the mapper publishes now arrives at whom: together, unless each way differs.
    pub fn published(&mut self, now: Timestamp, to: Vec<Node>) -> Vec<(Timestamp, Vec<Node>)> {
        if self.jitter.is_zero() {
            return vec![(now + self.delay, to)];
        }
        let each =
            to.into_iter().map(|to| (self.in_order(now, (Node::Mapper, to, true)), vec![to]));
        each.collect()
    }

    /// When a connection that is asked for now can be used: one message there, one back.
    pub fn connected(&mut self, now: Timestamp) -> Timestamp {
        now + self.way() + self.way()
    }

    /// Whether a publication does not get to one of its subscribers.
    pub fn loses_publication(&mut self) -> bool {
        self.publication_loss > 0.0 && self.random.f64() < self.publication_loss
    }

    fn in_order(&mut self, now: Timestamp, stream: (Node, Node, bool)) -> Timestamp {
        let at = now + self.way();
        if self.jitter.is_zero() {
            return at;
        }
        let last = self.last.entry(stream).or_default();
        *last = at.max(*last);
        *last
    }

    fn way(&mut self) -> Duration {
        if self.jitter.is_zero() {
            return self.delay;
        }
        self.delay + self.jitter.mul_f64(exponential(&mut self.random))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_differ_but_nothing_overtakes_on_one_connection() {
        let ms = Duration::from_millis;
        let scenario = Scenario { delay: ms(1), jitter: ms(4), ..Scenario::default() };
        let mut network = Network::new(&scenario);
        let (mut last, mut sum, mut overtaken) = (Timestamp::default(), Duration::ZERO, 0);
        for second in 0..2000 {
            let now = Timestamp::from_micros(second * 1_000_000);
            let alone = network.arrival(now, Node::Sender(0), Node::Worker(0));
            sum += alone.since(now);
            for soon in [now, now + ms(1)] {
                let at = network.arrival(soon, Node::Sender(0), Node::Worker(0));
                assert!(at >= last && at >= soon + ms(1));
                last = at;
                overtaken +=
                    u32::from(network.arrival(soon, Node::Sender(0), Node::Worker(1)) < at);
            }
        }
        let mean = sum.as_secs_f64() / 2000.0;
        assert!((0.0047..0.0053).contains(&mean), "{mean}");
        assert!(overtaken > 1000, "other connections do not wait: {overtaken}");
    }
}
