//! A job at a worker: as it comes, waits, and ends.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, Priority};
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

/// Names a job inside one worker. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub u64);

/// Whose job it is: what the outcome is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A sender's.
    Sender {
        /// Who sent it.
        sender: SenderId,
        /// Under which attempt.
        attempt: AttemptId,
    },
    /// That of a client of the JSON dialect, which waits for the outcome.
    Client(RequestId),
    /// That of a client of the JSON dialect, which knows that it was taken and expects no more, or of a
    /// sender that has given it up.
    Nobody,
    /// A sender's that knows that it was taken and expects no more, or is gone and wants it done.
    Released {
        /// Who sent it.
        sender: SenderId,
        /// Under which attempt.
        attempt: AttemptId,
    },
    /// Whose it was has been told that its time to run is over, which its handler ignores.
    Overdue,
}

impl Origin {
    /// Whether somebody waits for its outcome, or may.
    pub fn is_awaited(self) -> bool {
        !matches!(self, Self::Nobody | Self::Released { .. })
    }

    /// Which sender sent it, and under which attempt.
    pub fn sent(self) -> Option<(SenderId, AttemptId)> {
        match self {
            Self::Sender { sender, attempt } | Self::Released { sender, attempt } => {
                Some((sender, attempt))
            }
            Self::Client(_) | Self::Nobody | Self::Overdue => None,
        }
    }
}

/// Names the request of a client that waits. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RequestId(pub u64);

/// What its sender says of a job beside its payload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// When its sender stops waiting, if it does.
    pub deadline: Option<Timestamp>,
    /// How long it may run.
    pub run_limit: Option<Duration>,
    /// How often it may still be handed over.
    pub redirects_left: u8,
    /// Whether it is to be done even if its sender is gone: then it stays here.
    pub detached: bool,
    /// Before which others it goes.
    pub priority: Priority,
    /// What its handler is told besides.
    pub metadata: Metadata,
}

/// A job that was admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    /// Its name here.
    pub id: TaskId,
    /// Whose it is.
    pub origin: Origin,
    /// What the handler gets.
    pub payload: Bytes,
    /// When it came.
    pub arrived_at: Timestamp,
    /// What its sender says of it.
    pub terms: Terms,
}

/// A job as it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Whose it is.
    pub origin: Origin,
    /// What the handler gets.
    pub payload: Bytes,
    /// What its sender says of it.
    pub terms: Terms,
}

/// A job that a handler has finished.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Whose it was.
    pub origin: Origin,
    /// When its sender stops waiting, if it does.
    pub deadline: Option<Timestamp>,
    /// How long it was here.
    pub here: Duration,
    /// When its handler got it, and how long it ran.
    pub started_at: Timestamp,
    /// See there.
    pub ran: Duration,
    /// Whether its handler was told to stop, or saw itself that its time was over: how it ended says
    /// nothing of the handler.
    pub was_stopped: bool,
    /// For how long it was to run at most, if it ran for longer.
    pub over_limit: Option<Duration>,
}

/// How a handler ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a result.
    Done,
    /// With an error or a panic, and a number that the handler gave it.
    Failed {
        /// See there.
        code: Option<i32>,
    },
    /// It could not even start on the job, which can be tried elsewhere.
    NotStarted,
}

impl Ending {
    /// For a log.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed { .. } => "failed",
            Self::NotStarted => "not started",
        }
    }
}

/// What became of a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It waited, and was taken from the queue.
    Removed,
    /// A handler has it: tell the handler.
    Running(TaskId),
    /// It is not here.
    NotFound,
}
