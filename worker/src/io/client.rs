//! The handle that sends jobs.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use svcmap_proto::deployment::Deployment;
use svcmap_proto::metadata::MetadataError;
use svcmap_proto::names::NameError;

use super::builder::ClientBuilder;
use super::job_builder::JobBuilder;
use super::monitor::Monitor;
use super::notice::StartError;
use super::shared::{Command, Shared};
use super::ticket::Ticket;
use super::worker::Thread;
use crate::addresses::IntoAddresses;
use crate::payload::IntoPayload;
use crate::statistics::Statistics;
use crate::value::{self, ValueError};

/// Why a job was not taken. It was not sent to anybody.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The service or instance has no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Send less, send a path, or raise the limit on both sides.
    #[error("a payload of {bytes} bytes, but the limit is {limit}")]
    TooLarge {
        /// How large it is.
        bytes: usize,
        /// How large it may be.
        limit: usize,
    },
    /// What is said of it beside its payload is not taken.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// So many jobs have no outcome yet that no more fit; only `try_submit` says so.
    #[error("too many jobs have no outcome yet")]
    OutboxFull,
    /// The value cannot be made a payload.
    #[error(transparent)]
    Value(#[from] ValueError),
    /// The client, or the worker that it belongs to, has stopped.
    #[error("this sender has stopped")]
    Stopped,
}

/// Sends jobs. Cheap to clone; all clones are one sender. When the last is dropped it stops, and takes
/// back what was not started; handlers that run for it see [`Job::is_cancelled`](crate::Job::is_cancelled).
/// [`JobBuilder::detached`] makes an exception.
#[derive(Clone, Debug)]
pub struct Client {
    pub(super) shared: Arc<Shared>,
    /// The thread of a client of its own; a worker's client leaves that to the worker.
    pub(super) _thread: Option<Arc<Thread>>,
}

impl Client {
    /// A process that only sends, with the address of a mapper or those of several. It returns at once;
    /// mappers may come later.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn connect(mappers: impl IntoAddresses) -> Result<Self, StartError> {
        Self::builder().mapper(mappers).start()
    }

    /// A process that only sends, with what stands in a deployment file: see [`Deployment::load`].
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn from_deployment(deployment: Deployment) -> Result<Self, StartError> {
        Self::builder().deployment(deployment).start()
    }

    /// A client with settings.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// Submits a job to any instance of a service, with the default settings. Waits while too many
    /// jobs have no outcome yet.
    ///
    /// The job waits as long as somebody serves its service, so a handler that waits for a job of its
    /// own, full, service waits for ever: give that a [`hold`](JobBuilder::hold) or a
    /// [`deadline`](JobBuilder::deadline).
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(&self, service: &str, payload: impl IntoPayload) -> Result<Ticket, SubmitError> {
        self.job(service, payload).submit()
    }

    /// Submits a value as JSON, which handlers in every language can read; those in Rust with
    /// [`Job::json`](crate::Job::json) or [`serve_json`](crate::WorkerBuilder::serve_json).
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_json<T: Serialize + ?Sized>(
        &self,
        service: &str,
        value: &T,
    ) -> Result<Ticket, SubmitError> {
        self.job(service, value::to_json(value)?).submit()
    }

    /// Submits a value as postcard, for handlers in Rust that are built with the same type and read it
    /// with [`Job::postcard`](crate::Job::postcard).
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_postcard<T: Serialize + ?Sized>(
        &self,
        service: &str,
        value: &T,
    ) -> Result<Ticket, SubmitError> {
        self.job(service, value::to_postcard(value)?).submit()
    }

    /// A job with settings of its own. A value becomes its payload by
    /// [`value::to_json`] or [`value::to_postcard`].
    pub fn job<'a>(&'a self, service: &'a str, payload: impl IntoPayload) -> JobBuilder<'a> {
        JobBuilder::new(self, service, payload.into_payload())
    }

    /// Keeps the cache of a service warm from now on, instead of from the first job on. Of more than
    /// 1,024 those make room that no job waits for; if there is none, the log says so.
    ///
    /// # Errors
    /// If that is no name.
    pub fn follow(&self, service: &str) -> Result<(), SubmitError> {
        self.shared.command(Command::Follow(service.parse()?));
        Ok(())
    }

    /// Waits until a mapper has answered, at most so long. Returns whether one has.
    pub fn wait_connected(&self, limit: Duration) -> bool {
        self.shared.status.wait(limit, |status| status.mappers > 0)
    }

    /// What it counts, for any thread, for as long as it runs; with what its worker counts, if it is a worker's.
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: Arc::clone(&self.shared) }
    }

    /// What this sender has counted; empty once it has stopped.
    pub fn statistics(&self) -> Statistics {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.shared.command(Command::Statistics(reply));
        answer.recv().unwrap_or_default()
    }
}
