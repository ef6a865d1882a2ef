//! The handle that sends jobs.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use svcmap_proto::codec::{self, ValueError};
use svcmap_proto::jobs::Priority;
use svcmap_proto::metadata::{Metadata, MetadataError};
use svcmap_proto::names::NameError;

use super::builder::ClientBuilder;
use super::notice::StartError;
use super::shared::{Command, NoRoom, Shared};
use super::ticket::Ticket;
use super::worker::Thread;
use crate::outbox::JobSpec;
use crate::statistics::Statistics;

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
    /// A process that only sends. It returns at once; mappers may come later.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn connect<I>(mappers: I) -> Result<Self, StartError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self::builder().mappers(mappers).start()
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
    pub fn submit(&self, service: &str, payload: impl Into<Bytes>) -> Result<Ticket, SubmitError> {
        self.job(service, payload).submit()
    }

    /// Submits a value, which the handler reads with [`Job::decode`](crate::Job::decode).
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_value<T: Serialize + ?Sized>(
        &self,
        service: &str,
        value: &T,
    ) -> Result<Ticket, SubmitError> {
        self.submit(service, codec::encode_value(value)?)
    }

    /// A job with settings of its own.
    pub fn job<'a>(&'a self, service: &'a str, payload: impl Into<Bytes>) -> JobBuilder<'a> {
        let config = &self.shared.config;
        JobBuilder {
            client: self,
            service,
            instance: None,
            payload: payload.into(),
            deadline: config.deadline,
            hold: config.hold,
            run_limit: config.run_limit,
            idempotent: false,
            detached: false,
            priority: Priority::default(),
            metadata: Vec::new(),
        }
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

    /// What this sender has counted; empty once it has stopped.
    pub fn statistics(&self) -> Statistics {
        let (reply, answer) = crossbeam_channel::bounded(1);
        self.shared.command(Command::Statistics(reply));
        answer.recv().unwrap_or_default()
    }
}

/// A job that is about to be submitted.
#[derive(Debug)]
pub struct JobBuilder<'a> {
    client: &'a Client,
    service: &'a str,
    instance: Option<&'a str>,
    payload: Bytes,
    deadline: Option<Duration>,
    hold: Option<Duration>,
    run_limit: Option<Duration>,
    idempotent: bool,
    detached: bool,
    priority: Priority,
    metadata: Vec<(String, String)>,
}

impl<'a> JobBuilder<'a> {
    /// Limits all of it: by when there is an outcome, from now. A job that runs by then is `Unknown`,
    /// and its worker ends it if it can. Default: no limit.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    /// Limits its wait for a worker with room, from now until it is sent there; zero: refuse at once.
    /// Default: no limit, as long as somebody serves its service.
    pub fn hold(mut self, hold: Duration) -> Self {
        self.hold = Some(hold);
        self
    }

    /// Limits how long it runs, from its start to its end, whenever that is: the worker tells its
    /// handler to stop and answers `Failed`. Default: no limit.
    pub fn run_limit(mut self, run_limit: Duration) -> Self {
        self.run_limit = Some(run_limit);
        self
    }

    /// It may run more than once: it is tried again when nobody knows whether it ran.
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    /// It is to be done even if this sender ends or is gone: a worker that has it keeps it, and
    /// nobody learns of its outcome. Otherwise workers drop what they have not started, and tell
    /// handlers that run. A job that no worker has yet ends with its sender all the same.
    ///
    /// That is another thing than to drop the [`Ticket`], which only means that the outcome is not
    /// delivered: while its sender lives, such a job is done in any case.
    pub fn detached(mut self) -> Self {
        self.detached = true;
        self
    }

    /// Before which other jobs it goes: wherever jobs wait, here and at workers, those of a higher class
    /// go first. Default: [`Priority::Normal`].
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Says something of it beside its payload, which handlers and programs can read: where it comes
    /// from, or how to trace it. Call it again for each further one: at most 16, and 1 KiB in all.
    pub fn metadata(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((name.into(), value.into()));
        self
    }

    /// Only this instance will do.
    pub fn instance(mut self, instance: &'a str) -> Self {
        self.instance = Some(instance);
        self
    }

    /// Submits it. Waits while too many jobs have no outcome yet.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit(self) -> Result<Ticket, SubmitError> {
        self.send(true)
    }

    /// Submits it, or says at once that too many jobs have no outcome yet.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn try_submit(self) -> Result<Ticket, SubmitError> {
        self.send(false)
    }

    fn send(self, wait: bool) -> Result<Ticket, SubmitError> {
        let shared = &self.client.shared;
        let service = shared.name(self.service)?;
        let instance = self.instance.map(|instance| instance.parse()).transpose()?;
        let (bytes, limit) = (self.payload.len(), shared.config.payload_bytes_max);
        if bytes > limit {
            return Err(SubmitError::TooLarge { bytes, limit });
        }
        let entries = self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let metadata = Metadata::new(entries)?;
        let spec = JobSpec {
            service,
            instance,
            payload: self.payload,
            deadline: self.deadline,
            hold: self.hold,
            run_limit: self.run_limit,
            idempotent: self.idempotent,
            detached: self.detached,
            priority: self.priority,
            metadata,
        };
        shared.submit(spec, wait).map_err(|error| match error {
            NoRoom::Full => SubmitError::OutboxFull,
            NoRoom::Closed => SubmitError::Stopped,
        })
    }
}
