//! What a process wants done, and what it has to say to people.

use std::collections::BTreeSet;
use std::time::Duration;

use svcmap_proto::control::{RegistrationError, ToMapper, Welcome};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{Endpoint, Incarnation, MapperAddress};

use crate::sender::SenderOutput;
use crate::server::ServerOutput;
use crate::session::OutageOutput;

/// What the process wants done. A mapper is meant by its index.
#[derive(Debug)]
pub enum ProcessOutput {
    /// The serving half wants this. [`ServerOutput::Offer`] never comes: it is for the other half.
    Server(ServerOutput),
    /// The sending half wants this. [`SenderOutput::Declined`] never comes: it is for the other half;
    /// [`SenderOutput::Sync`] comes as a message to a mapper.
    Sender(SenderOutput),
    /// Send this; a mapper that is away is told at the next beat after its return.
    ToMapper {
        /// Which mapper.
        mapper: usize,
        /// What.
        message: ToMapper,
    },
    /// The mapper says where it publishes: listen there.
    Welcomed {
        /// Which mapper.
        mapper: usize,
        /// What it says.
        welcome: Welcome,
        /// Whether it had been missed, which was said.
        is_back: bool,
    },
    /// Make new connections in place of those there are, or were. A mapper that is not known yet is one
    /// more.
    Dial {
        /// To which mapper.
        mapper: usize,
        /// Where it is.
        at: MapperAddress,
    },
    /// End the connections to a mapper, until it is dialled again.
    HangUp {
        /// To which mapper.
        mapper: usize,
    },
    /// Look this name up, and tell by [`Process::handle_addresses`](super::Process::handle_addresses). No
    /// other comes before that.
    LookUp(Endpoint),
    /// Make a new subscription in place of the one there is, or should be.
    Relisten {
        /// To which mapper.
        mapper: usize,
    },
    /// Take connections from these from now on, and from nobody else.
    Admit(BTreeSet<PublicKey>),
    /// People want to know this.
    Event(ProcessEvent),
}

/// What people want to know of the mappers.
#[derive(Clone, Debug, PartialEq)]
pub enum ProcessEvent {
    /// A mapper lists this instance.
    Registered {
        /// Which mapper.
        mapper: usize,
    },
    /// The connection to a mapper is gone. Work goes on.
    MapperLost {
        /// Which mapper.
        mapper: usize,
    },
    /// Nothing is heard from a mapper, so it is dialled again. Work goes on.
    MapperSilent {
        /// Which mapper.
        mapper: usize,
        /// For how long.
        lasts: Duration,
        /// Whether any other answers. That none does is an outage, and said as such.
        others_answer: bool,
    },
    /// No mapper answers, or one does again.
    Outage(OutageOutput),
    /// A mapper is the same as another one: it is told all there.
    MapperTwin {
        /// Which mapper.
        mapper: usize,
    },
    /// A mapper has no address any more and does not answer, so it is left alone.
    MapperGone {
        /// Which mapper.
        mapper: usize,
    },
    /// A name of mappers leads nowhere, in the system's words. It is looked up again.
    Unresolved(Endpoint, String),
    /// A name has so many addresses, and no mapper is dialled at some of them.
    TooManyAddresses(Endpoint, usize),
    /// A mapper does not list this instance. That is tried again.
    RegistrationRefused {
        /// Which mapper.
        mapper: usize,
        /// Why.
        error: RegistrationError,
    },
    /// A mapper speaks other versions of the protocol.
    WrongVersion {
        /// Which mapper.
        mapper: usize,
        /// The oldest that it speaks.
        oldest: u8,
        /// The newest that it speaks.
        newest: u8,
    },
    /// Another process took this instance's name, with this incarnation.
    Replaced(Incarnation),
    /// An operator wants this instance to finish its jobs and to end.
    DrainWanted,
}
