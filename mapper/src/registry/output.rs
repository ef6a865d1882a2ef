//! What comes out of the registry, and where it goes.

use std::sync::Arc;

use svcmap_proto::control::{FromMapper, KeyRequest, RegistrationError};
use svcmap_proto::json::Envelope;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};

/// Where an answer goes: the routing id of a connection, which ends with it, and who has proven to be
/// there, if somebody had to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection {
    id: RoutingId,
    /// In a box, as mostly there is none, and of connections there are many.
    user: Option<Box<PublicKey>>,
}

/// libzmq's own have five bytes, and a message is not to cost an allocation for its sender's.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum RoutingId {
    Short { length: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

/// As many as a pointer to longer ones takes.
const SHORT_BYTES_MAX: usize = 14;

impl Connection {
    /// The connection with that routing id.
    pub fn new(routing_id: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        let Some(start) = bytes.get_mut(..routing_id.len()) else {
            return Self { id: RoutingId::Long(routing_id.into()), user: None };
        };
        start.copy_from_slice(routing_id);
        Self { id: RoutingId::Short { length: routing_id.len() as u8, bytes }, user: None }
    }

    /// The same, with who is there.
    #[must_use]
    pub fn of(self, user: Option<PublicKey>) -> Self {
        Self { user: user.map(Box::new), ..self }
    }

    /// Who is there.
    pub fn user(&self) -> Option<&PublicKey> {
        self.user.as_deref()
    }

    /// Its routing id.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.id {
            RoutingId::Short { length, bytes } => &bytes[..usize::from(*length)],
            RoutingId::Long(bytes) => bytes,
        }
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
    /// Send this to one.
    Send {
        /// To whom.
        to: Connection,
        /// A [`FromMapper`], encoded once for all who ask.
        frame: Arc<[u8]>,
    },
    /// Send this to a client of the JSON dialect.
    JsonReply {
        /// To whom, and what goes before it.
        to: Envelope,
        /// What.
        body: Arc<[u8]>,
    },
    /// Send this to everybody who subscribed.
    Publish {
        /// On which topic.
        topic: Vec<u8>,
        /// A [`Publication`](svcmap_proto::control::Publication), encoded.
        frame: Vec<u8>,
    },
    /// An operator wants this. What it comes to is to be kept before it counts: see
    /// [`Registry::handle_rights`](super::Registry::handle_rights) and
    /// [`Registry::answer_keys`](super::Registry::answer_keys).
    Keys {
        /// Who is to be answered.
        from: Connection,
        /// What he wants.
        request: KeyRequest,
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
    /// An operator wants an instance to finish its jobs and to end, and it was told so.
    AskedToDrain {
        /// Which one.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_its_routing_id_however_long() {
        let all = [0, 1, 5, 14, 15, 255].map(|length| vec![0; length]);
        for one in &all {
            assert_eq!(Connection::new(one).as_bytes(), one);
            let same = all.iter().filter(|other| Connection::new(other) == Connection::new(one));
            assert_eq!(same.count(), 1);
        }
    }
}
