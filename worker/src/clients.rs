//! The clients of the JSON dialect that wait for the outcome of a job.
//!
//! Each has a job in the intake, so there are never more of them than slots.

use std::collections::BTreeMap;

use svcmap_proto::json::Envelope;

use crate::intake::{Origin, RequestId};
use crate::json::Style;

/// A client that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Where it is, and what goes before the reply.
    pub envelope: Envelope,
    /// How it wants to be answered.
    pub style: Style,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Clients {
    waiting: BTreeMap<RequestId, Client>,
    next: u64,
}

impl Clients {
    /// Whose the next job of a client that waits is.
    pub fn next_origin(&mut self) -> Origin {
        self.next += 1;
        Origin::Client(RequestId(self.next))
    }

    /// That job was taken: its client waits.
    pub fn insert(&mut self, origin: Origin, client: Client) {
        if let Origin::Client(request) = origin {
            self.waiting.insert(request, client);
        }
    }

    /// The client to be told about that job, once.
    pub fn take(&mut self, origin: Origin) -> Option<Client> {
        let Origin::Client(request) = origin else { return None };
        self.waiting.remove(&request)
    }

    /// Every client, to be told that it waits in vain.
    pub fn take_all(&mut self) -> impl Iterator<Item = Client> + use<> {
        std::mem::take(&mut self.waiting).into_values()
    }
}
