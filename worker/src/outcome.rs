//! How a job ended, as its sender is told: exactly one of these for every job.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
pub use svcmap_proto::jobs::Reason;
use svcmap_proto::names::InstanceKey;

use crate::value::{self, ValueError};

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A handler returned this result. An idempotent job may have run more than once.
    Done(Reply),
    /// A handler returned an error, or panicked.
    Failed(Failure),
    /// No handler started it: it can safely be submitted again.
    Refused(Refusal),
    /// It may have run, may be running, or may still run.
    Unknown(Cause),
    /// A worker has it and reports no more: that was wanted
    /// ([`JobBuilder::fire_and_forget`](crate::JobBuilder::fire_and_forget)), or is the way of most workers
    /// of the JSON dialect.
    Accepted,
}

impl Outcome {
    /// The result, or the whole outcome as an error.
    ///
    /// # Errors
    /// If the outcome is anything but [`Outcome::Done`].
    pub fn done(self) -> Result<Reply, NotDone> {
        match self {
            Outcome::Done(reply) => Ok(reply),
            other => Err(NotDone(Box::new(other))),
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Outcome::Done(_) => f.write_str("done"),
            Outcome::Failed(failure) => write!(f, "failed: {failure}"),
            Outcome::Refused(refusal) => write!(f, "refused: {refusal}"),
            Outcome::Unknown(cause) => write!(f, "unknown: {cause}"),
            Outcome::Accepted => f.write_str("accepted"),
        }
    }
}

/// An outcome that is no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotDone(pub Box<Outcome>);

/// A result, and who computed it. Reads as its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The bytes that the handler returned.
    pub payload: Bytes,
    /// Who ran the job.
    pub by: InstanceKey,
    /// How often it was sent to a worker, this time included.
    pub attempts: u32,
    /// How long it was on its way and waited for its turn: all of its time but that in which it ran.
    pub waited: Duration,
    /// How long it ran, as its worker says; zero if that does not.
    pub ran: Duration,
}

impl Reply {
    /// The value whose JSON the handler returned.
    ///
    /// # Errors
    /// If the payload is no JSON, or no such value.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        value::from_json(&self.payload)
    }

    /// The value that the handler returned as postcard: see [`value::from_postcard`].
    ///
    /// # Errors
    /// If the payload is no postcard, or no such value.
    pub fn postcard<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        value::from_postcard(&self.payload)
    }
}

impl Deref for Reply {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.payload
    }
}

/// A handler's error, and whose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What the handler said.
    pub error: String,
    /// A number that it gave the error, such as the exit status of a program.
    pub code: Option<i32>,
    /// Who ran the job.
    pub by: InstanceKey,
    /// How often it was sent to a worker, this time included.
    pub attempts: u32,
    /// How long it was on its way and waited for its turn: all of its time but that in which it ran.
    pub waited: Duration,
    /// How long it ran, as its worker says; zero if that does not.
    pub ran: Duration,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.error, self.by)
    }
}

/// Why no handler started a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The last reason.
    pub reason: Reason,
    /// How many workers were tried.
    pub attempts: u32,
    /// How long it was in the sender's hands.
    pub waited: Duration,
}

/// A wait that is worth telling: less is 0.0 s.
const WAITED_SHOWN: Duration = Duration::from_millis(50);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.reason)?;
        if self.reason == Reason::NoCredit && self.waited >= WAITED_SHOWN {
            write!(f, " for {:.1} s", self.waited.as_secs_f64())?;
        }
        if self.attempts > 0 {
            let plural = if self.attempts == 1 { "try" } else { "tries" };
            write!(f, " ({} {plural})", self.attempts)?;
        }
        Ok(())
    }
}

/// Why nobody knows how a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Cause {
    /// It was sent, and its deadline passed without an answer.
    #[error("no answer by the deadline")]
    Deadline,
    /// The worker ended, or another life of it began, before it answered.
    #[error("the worker ended before it answered")]
    PeerEnded,
    /// The worker has not been heard for longer than the mapper's expiry.
    #[error("the worker fell silent")]
    PeerSilent,
    /// It was running when the grace of the worker's drain ended.
    #[error("the worker stopped while it ran")]
    Drain,
    /// The worker had it, and had to drop the outcome for lack of room.
    #[error("the worker no longer knows")]
    Forgotten,
    /// This process stopped sending while it was under way.
    #[error("this sender stopped")]
    Stopped,
}
