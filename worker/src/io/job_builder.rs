//! A job and its settings, until it is submitted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{Detachment, Priority};
use svcmap_proto::metadata::Metadata;

use super::client::{Client, SubmitError};
use super::shared::Taking;
use super::ticket::Ticket;
use crate::outbox::JobSpec;

/// A job that is about to be submitted.
#[derive(Clone)]
#[must_use = "it is sent when it is submitted"]
pub struct JobBuilder<'a> {
    client: &'a Client,
    service: &'a str,
    instance: Option<&'a str>,
    payload: Bytes,
    deadline: Option<Duration>,
    hold: Option<Duration>,
    run_limit: Option<Duration>,
    idempotent: bool,
    detachment: Detachment,
    priority: Priority,
    metadata: Vec<(String, String)>,
}

impl<'a> JobBuilder<'a> {
    pub(super) fn new(client: &'a Client, service: &'a str, payload: Bytes) -> Self {
        let config = &client.shared.config;
        Self {
            client,
            service,
            instance: None,
            payload,
            deadline: config.deadline,
            hold: config.hold,
            run_limit: config.run_limit,
            idempotent: false,
            detachment: Detachment::default(),
            priority: Priority::default(),
            metadata: Vec::new(),
        }
    }

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
        self.detachment = Detachment::Detached;
        self
    }

    /// To whoever submits it it is enough that a worker has it: the outcome is
    /// [`Outcome::Accepted`](crate::Outcome::Accepted) as soon as one does, and that one then does it in
    /// any case, as if it were [`detached`](Self::detached). If it fails there, cannot be started, runs into a
    /// limit or into the end of a drain, the worker's log says so, and nobody else; nobody tries it again, and
    /// it can no longer be cancelled.
    /// Until a worker has it, it is a job like any other.
    ///
    /// A worker of the JSON dialect that gives results does not say that it has a job: there the outcome
    /// is what it replies.
    pub fn fire_and_forget(mut self) -> Self {
        self.detachment = Detachment::Released;
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
    pub fn submit(mut self) -> Result<Ticket, SubmitError> {
        let spec = self.spec()?;
        self.client.shared.submit(spec, true).map_err(|untaken| untaken.error)
    }

    /// Submits it, or gives it back at once if too many jobs have no outcome yet.
    ///
    /// # Errors
    /// See [`SubmitError`]. The job comes with it.
    pub fn try_submit(mut self) -> Result<Ticket, NotTaken<'a>> {
        let shared = &self.client.shared;
        let taken = match self.spec() {
            Ok(spec) => shared.submit(spec, false).map_err(|untaken| {
                self.payload = untaken.payload;
                untaken.error
            }),
            Err(error) => Err(error),
        };
        taken.map_err(|error| NotTaken { error, job: Box::new(self) })
    }

    /// Submits it, for tasks: waits without blocking the thread while too many jobs have no outcome
    /// yet, on any runtime. In which order those go that wait is no promise.
    ///
    /// # Errors
    /// See [`SubmitError`].
    pub fn submit_async(
        mut self,
    ) -> impl Future<Output = Result<Ticket, SubmitError>> + Send + use<> {
        let (spec, shared) = (self.spec(), Arc::clone(&self.client.shared));
        async move { Taking::new(shared, spec?).await }
    }

    /// What it comes to. It has no payload any more then.
    fn spec(&mut self) -> Result<JobSpec, SubmitError> {
        let shared = &self.client.shared;
        let service = shared.name(self.service)?;
        let instance = self.instance.map(|instance| instance.parse()).transpose()?;
        let (bytes, limit) = (self.payload.len(), shared.config.payload_bytes_max);
        if bytes > limit {
            return Err(SubmitError::TooLarge { bytes, limit });
        }
        let entries = self.metadata.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let metadata = Metadata::new(entries)?;
        Ok(JobSpec {
            service,
            instance,
            payload: std::mem::take(&mut self.payload),
            deadline: self.deadline,
            hold: self.hold,
            run_limit: self.run_limit,
            idempotent: self.idempotent,
            detachment: self.detachment,
            priority: self.priority,
            metadata,
        })
    }
}

/// Without its payload.
impl fmt::Debug for JobBuilder<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (service, bytes) = (self.service, self.payload.len());
        f.debug_struct("JobBuilder")
            .field("service", &service)
            .field("payload_bytes", &bytes)
            .finish_non_exhaustive()
    }
}

impl From<NotTaken<'_>> for SubmitError {
    fn from(not_taken: NotTaken<'_>) -> Self {
        not_taken.error
    }
}

/// A job that was not taken, and why.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotTaken<'a> {
    /// Why.
    pub error: SubmitError,
    /// To be submitted again, if that is [`SubmitError::OutboxFull`].
    pub job: Box<JobBuilder<'a>>,
}
