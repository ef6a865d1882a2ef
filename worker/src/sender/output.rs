//! What comes out of a sender.

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, OfferId, ToWorker};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::names::{Endpoint, InstanceKey, Name};

use super::Trouble;
use crate::observation::Observation;
use crate::outbox::JobId;
use crate::outcome::Outcome;

/// What the sender wants done.
#[derive(Debug)]
pub enum SenderOutput {
    /// Make a connection for this link.
    Connect {
        /// Its number.
        link: u64,
        /// Where to.
        endpoint: Endpoint,
        /// Who is to answer there, if it is known by a key.
        key: Option<PublicKey>,
    },
    /// Close the connection of this link.
    Disconnect {
        /// Its number.
        link: u64,
    },
    /// Send this; if it cannot be sent, the link finds out.
    Send {
        /// Over which link.
        link: u64,
        /// What.
        message: ToWorker,
    },
    /// Send this job to a worker of the JSON dialect; if it cannot be sent, say so:
    /// [`Sender::handle_unsent`].
    ///
    /// [`Sender::handle_unsent`]: super::Sender::handle_unsent
    Request {
        /// Over which link.
        link: u64,
        /// Which attempt of a job.
        attempt: AttemptId,
        /// What its reply is to be known by: a frame of its own, in front.
        tag: Option<String>,
        /// The job.
        body: Bytes,
    },
    /// Subscribe to this service at every mapper.
    Subscribe(Name),
    /// That is of no use any more.
    Unsubscribe(Name),
    /// Ask that mapper for a snapshot of the service.
    Sync {
        /// Which mapper.
        mapper: usize,
        /// Of what.
        service: Name,
    },
    /// Nothing comes on PUB from that mapper: worth a warning.
    Silent {
        /// Which mapper.
        mapper: usize,
    },
    /// Jobs for this service wait, as no mapper has told who serves it: worth a warning.
    Unheard(Name),
    /// Jobs for this service wait, as nobody serves it any more: worth a warning.
    Unserved(Name),
    /// A worker cannot be reached: worth a warning. Told seldomer and seldomer.
    Unreachable {
        /// Which worker.
        key: InstanceKey,
        /// At which address.
        endpoint: Endpoint,
        /// How often in a row.
        failures: u32,
        /// What is wrong, as far as is known here.
        trouble: Trouble,
    },
    /// Those who measure want to know this; only after
    /// [`Sender::observe`](super::Sender::observe).
    Observed(Observation),
    /// A peer has no use for a slot that was offered to it: [`Server::handle_no_taker`].
    ///
    /// [`Server::handle_no_taker`]: crate::server::Server::handle_no_taker
    Declined(OfferId),
    /// A job is that far.
    Progress {
        /// Which job.
        job: JobId,
        /// In the words of its handler; `None`: it begins anew.
        text: Option<String>,
    },
    /// A job has its outcome.
    Settled {
        /// Which job.
        job: JobId,
        /// How it ended.
        outcome: Outcome,
    },
}
