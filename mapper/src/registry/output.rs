//! What comes out of the registry, and where it goes.

use svcmap_proto::control::{FromMapper, Publication, RegistrationError};
use svcmap_proto::json::Envelope;
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};

/// Where an answer goes: the routing id of a connection, which ends with it. It says nothing about
/// who is there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(Vec<u8>);

impl Connection {
    /// The connection with that routing id.
    pub fn new(routing_id: &[u8]) -> Self {
        Self(routing_id.to_vec())
    }

    /// Its routing id.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the registry wants done, or tells.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this to one.
    Reply {
        /// To whom.
        to: Connection,
        /// What.
        message: FromMapper,
    },
    /// Send this to a client of the JSON dialect.
    JsonReply {
        /// To whom, and what goes before it.
        to: Envelope,
        /// What.
        body: Vec<u8>,
    },
    /// Send this to everybody who subscribed.
    Publish {
        /// On which topic.
        topic: Vec<u8>,
        /// What.
        message: Publication,
    },
    /// Something that people want to know. Nothing needs to be done.
    Event(Event),
}

/// Something that happened in the registry and that people want to know.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// An instance is listed, or is now reached elsewhere.
    Registered {
        /// Which one.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// Where it is reached first; it has at least one endpoint.
        endpoint: Endpoint,
    },
    /// A later life of an instance took its place.
    Replaced {
        /// Which one.
        key: InstanceKey,
        /// Which life ended.
        incarnation: Incarnation,
        /// Which life is listed now.
        by: Incarnation,
    },
    /// An instance is not listed any more, by its own or its supervisor's word.
    Left {
        /// Which one.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// An instance is not listed any more, as it fell silent.
    Expired {
        /// Which one.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// A registration was refused.
    Refused(RegistrationError),
}
