//! The mapper's process.

use svcmap_mapper::pure::{Connection, Identity, Output, Registry};
use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, topic_service};
use svcmap_proto::names::Epoch;
use svcmap_proto::time::Timestamp;

use super::{Effect, HOST, Message, Node, endpoint};
use crate::Scenario;

/// See the module.
#[derive(Debug)]
pub struct MapperNode {
    registry: Registry,
}

impl MapperNode {
    /// That life of the mapper, which knows nobody yet.
    pub fn new(scenario: &Scenario, now: Timestamp, epoch: Epoch) -> Self {
        let config = svcmap_mapper::Config {
            beat: scenario.beat,
            publish_interval: Some(scenario.publish_interval),
            ..svcmap_mapper::Config::default()
        };
        let (mapper, publish) = (endpoint(0), endpoint(1));
        let identity = Identity { epoch, host: HOST, endpoint: mapper, publish };
        Self { registry: Registry::new(config, identity, now) }
    }

    /// Something came.
    pub fn handle_message(&mut self, now: Timestamp, from: Node, message: Message) {
        if let Message::ToMapper(message) = message {
            let from = Connection::new(&node_bytes(from));
            self.registry.handle_message(now, now.as_micros(), &from, "", message);
        }
    }

    /// Acts on what is due, and says what to do. Returns when something is due next.
    pub fn act(&mut self, now: Timestamp, effects: &mut Vec<Effect>) -> Option<Timestamp> {
        if self.registry.poll_timeout().is_some_and(|at| at <= now) {
            self.registry.handle_timeout(now);
        }
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Reply { to, message } => effects.push(send(&to, message)),
                Output::Send { to, frame } => {
                    effects.extend(codec::decode(&frame).map(|message| send(&to, message)));
                }
                Output::Publish { topic, frame } => {
                    let message = codec::decode(&frame);
                    effects.extend(message.map(|m| Effect::Publish(topic_service(&topic), m)));
                }
                Output::JsonReply { .. } | Output::Keys { .. } | Output::Event(_) => {}
            }
        }
        self.registry.poll_timeout()
    }
}

fn send(to: &Connection, message: FromMapper) -> Effect {
    Effect::Send(node_of(to.as_bytes()), Box::new(Message::FromMapper(message)))
}

fn node_bytes(node: Node) -> [u8; 9] {
    let (kind, number) = match node {
        Node::Mapper => (0, 0),
        Node::Worker(number) => (1, number),
        Node::Sender(number) => (2, number),
    };
    let mut bytes = [kind; 9];
    bytes[1..].copy_from_slice(&(number as u64).to_le_bytes());
    bytes
}

fn node_of(bytes: &[u8]) -> Node {
    let number = bytes[1..].try_into().map_or(0, u64::from_le_bytes) as usize;
    match bytes[0] {
        0 => Node::Mapper,
        1 => Node::Worker(number),
        _ => Node::Sender(number),
    }
}
