//! What goes into a link besides messages, and what comes out of it.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, OfferId, OfferedSlot, ProgressReport, ToWorker, Verdict};
use svcmap_proto::load::Load;
use svcmap_proto::names::SenderId;

use crate::outcome::Cause;

/// How often liveness is looked at, as the mapper dictates it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Silence after which a worker that owes an answer is asked.
    pub beat: Duration,
    /// Silence after which it is given up.
    pub expiry: Duration,
    /// Silence, with nothing open, after which the connection is closed.
    pub idle: Duration,
}

/// Who sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The sender's random number.
    pub sender: SenderId,
    /// Largest result that it takes, in bytes.
    pub result_bytes_max: u32,
    /// Whether it has use for credits.
    pub takes_credits: bool,
}

/// What the link wants done, or has found out.
#[derive(Clone, Debug, PartialEq)]
pub enum LinkOutput {
    /// Send this.
    Send(ToWorker),
    /// These attempts ended at the worker.
    Ended(Vec<Ended>),
    /// How far these attempts are, which are open.
    Progress(Vec<ProgressReport>),
    /// The worker never saw the attempt: it can be tried elsewhere.
    NeverSeen(AttemptId),
    /// The attempt may have run, and nobody will tell.
    Lost {
        /// Which one.
        attempt: AttemptId,
        /// Why not.
        cause: Cause,
    },
    /// The worker said how loaded it is.
    Load {
        /// How much.
        load: Load,
        /// The highest number of a job that this counts.
        received_jobs: u64,
    },
    /// The worker granted credits.
    Granted {
        /// How many.
        credits: u32,
    },
    /// The worker passed on that another one has a slot.
    Offered(OfferedSlot),
    /// The worker has no use for what it was offered.
    Declined(OfferId),
    /// The link is of no use any more.
    Closed(Closing),
}

/// An attempt that ended at the worker.
#[derive(Clone, Debug, PartialEq)]
pub struct Ended {
    /// Which one.
    pub attempt: AttemptId,
    /// How.
    pub verdict: Verdict,
    /// Result or error.
    pub payload: Bytes,
    /// How long it ran, as far as the worker tells.
    pub ran: Duration,
    /// How long it was under way, there and back.
    pub journey: Duration,
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Nothing was sent for long.
    Idle,
    /// The worker's life is over, or another one sits behind its address.
    Gone,
    /// Its connection was lost, or it does not answer any more.
    Lost,
    /// Nobody answers at its address.
    Unreachable,
    /// The worker has no room for one more sender.
    TurnedAway,
    /// It speaks other versions of the protocol.
    WrongVersion,
}
