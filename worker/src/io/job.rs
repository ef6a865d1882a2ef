//! A job as its handler sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use slog::Logger;
use svcmap_proto::io::Clock;
use svcmap_proto::jobs::Priority;
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::{InstanceKey, SenderId};
use svcmap_proto::time::Timestamp;

use super::cancellation::{Cancellation, Cancelled};
use super::client::Client;
use super::context::JobContext;
use super::progress::Reporter;
use super::shared::Shared;
use crate::intake::{Origin, TaskId, Terms};
use crate::value::{self, ValueError};

/// A job as its handler sees it.
pub struct Job {
    pub(super) id: TaskId,
    pub(super) origin: Origin,
    pub(super) payload: Bytes,
    pub(super) arrived_at: Timestamp,
    /// Its deadline is here that or its run limit, whichever comes first.
    pub(super) terms: Terms,
    pub(super) cancellation: Arc<Cancellation>,
    pub(super) home: Arc<Home>,
    pub(super) reporter: Reporter,
}

/// Without its payload.
impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("number", &self.number())
            .field("instance", &self.home.key)
            .field("payload_bytes", &self.payload.len())
            .finish_non_exhaustive()
    }
}

/// The worker that a job is at.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) key: InstanceKey,
    pub(super) shared: Arc<Shared>,
    /// Where the end of each job is logged, if anybody wants to know that much.
    pub(super) log: Option<Logger>,
}

impl Job {
    /// What the sender sent.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The same to keep, without a copy.
    pub fn payload_bytes(&self) -> Bytes {
        self.payload.clone()
    }

    /// The value whose JSON the sender sent.
    ///
    /// # Errors
    /// If the payload is no JSON, or no such value.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        value::from_json(&self.payload)
    }

    /// The value that the sender sent as postcard: see [`value::from_postcard`].
    ///
    /// # Errors
    /// If the payload is no postcard, or no such value.
    pub fn postcard<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        value::from_postcard(&self.payload)
    }

    /// The instance that runs it.
    pub fn instance(&self) -> &InstanceKey {
        &self.home.key
    }

    /// A handle that sends jobs over this worker's connections. A handler that waits for a job of its own
    /// service gives that a deadline or a hold: see [`Client::submit`].
    pub fn client(&self) -> Client {
        Client { shared: Arc::clone(&self.home.shared), _thread: None }
    }

    /// Its number at its sender; for one that came over the JSON dialect, its number here.
    pub fn number(&self) -> u64 {
        self.origin.sent().map_or(self.id.0, |(_, attempt)| attempt.job)
    }

    /// How often its sender has sent it to a worker, this time included.
    pub fn attempt(&self) -> u32 {
        self.origin.sent().map_or(1, |(_, attempt)| attempt.attempt)
    }

    /// The random number of the process that sent it; `None` if it came over the JSON dialect.
    pub fn sender(&self) -> Option<SenderId> {
        self.origin.sent().map(|(sender, _)| sender)
    }

    /// What its sender says of it beside its payload.
    pub fn metadata(&self) -> &Metadata {
        &self.terms.metadata
    }

    /// What log lines about it say, so that they are found.
    pub fn context(&self) -> JobContext {
        JobContext::new(self.number(), self.attempt(), self.sender(), self.metadata())
    }

    /// Before which other jobs it went.
    pub fn priority(&self) -> Priority {
        self.terms.priority
    }

    /// Time since it came to this worker.
    pub fn age(&self) -> Duration {
        Clock.now().since(self.arrived_at)
    }

    /// Time until its deadline or its run limit, whichever comes first; zero if that has passed,
    /// `None` if it has neither.
    pub fn time_left(&self) -> Option<Duration> {
        self.terms.deadline.map(|deadline| deadline.since(Clock.now()))
    }

    /// Tells its sender how far it is, in a short text for people, such as `40 %`: at most 256 bytes, the
    /// rest is cut. Of what is said more often than ten times a second the newest is told. The sender
    /// reads it in [`Ticket::progress`](crate::Ticket::progress), unless it gets lost on the way, or speaks
    /// JSON.
    pub fn progress(&self, text: impl Into<String>) {
        self.reporter.report(text.into());
    }

    /// Whether nobody waits for it any more: it was cancelled, its deadline or its run limit passed,
    /// its sender has ended in order or has given it up, the grace of a drain is over, or its worker was
    /// dropped. A long-running handler looks here from time to time and returns early.
    pub fn is_cancelled(&self) -> bool {
        self.cancellation.is_set()
    }

    /// The same to be awaited, on any runtime.
    pub fn cancelled(&self) -> Cancelled {
        Cancelled(Arc::clone(&self.cancellation))
    }
}
