//! A job as it is submitted, waits, and goes to a worker.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, Detachment, Priority};
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

/// Names a job at its sender. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub u64);

/// A job as it was submitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Who shall run it.
    pub service: Name,
    /// Only this instance.
    pub instance: Option<Name>,
    /// What the handler gets.
    pub payload: Bytes,
    /// By when there is an outcome, from submission; `None`: when it ends.
    pub deadline: Option<Duration>,
    /// How long it may wait for a worker with room, from submission; zero: refuse at once. `None`: as
    /// long as somebody serves its service.
    pub hold: Option<Duration>,
    /// How long it may run, from its start to its end. The worker sees to that.
    pub run_limit: Option<Duration>,
    /// It may run more than once, so it is tried again when nobody knows whether it ran.
    pub idempotent: bool,
    /// Whether it needs its sender.
    pub detachment: Detachment,
    /// Before which others it goes.
    pub priority: Priority,
    /// What its handler is told besides.
    pub metadata: Metadata,
}

impl JobSpec {
    /// A job without limits.
    pub fn new(service: Name, payload: Bytes) -> Self {
        Self {
            service,
            instance: None,
            payload,
            deadline: None,
            hold: None,
            run_limit: None,
            idempotent: false,
            detachment: Detachment::default(),
            priority: Priority::default(),
            metadata: Metadata::default(),
        }
    }
}

/// Jobs that wait for the same: any instance of a service, or one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lane {
    /// The service.
    pub service: Name,
    /// The instance, if only that one will do.
    pub instance: Option<Name>,
}

impl Lane {
    /// Any instance of that service.
    pub fn any(service: &Name) -> Self {
        Self { service: service.clone(), instance: None }
    }
}

/// What decides where a job goes that is the next of its lane.
#[derive(Clone, Copy, Debug)]
pub struct Next {
    /// Which job.
    pub id: JobId,
    /// Size of its payload.
    pub payload_bytes: usize,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Before which others it goes.
    pub priority: Priority,
    /// How long it may wait for a worker with room, from submission; `None`: as long as somebody serves
    /// its service.
    pub hold: Option<Duration>,
    /// Whether an instance could not start it.
    pub met_unable: bool,
}

impl Next {
    /// Whether it is to be refused rather than held.
    pub fn is_urgent(&self) -> bool {
        self.hold == Some(Duration::ZERO)
    }

    /// How long it may still wait.
    pub fn hold_left(&self, now: Timestamp) -> Option<Duration> {
        self.hold.map(|hold| (self.submitted_at + hold).since(now))
    }
}

/// The first job of a lane, as it goes to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// Under which attempt.
    pub attempt: AttemptId,
    /// When its outcome is due.
    pub deadline: Option<Timestamp>,
    /// How long it may run.
    pub run_limit: Option<Duration>,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// How often it may be handed over.
    pub redirects_left: u8,
    /// How long what the handler gets is.
    pub payload_bytes: usize,
    /// How long its metadata is.
    pub metadata_bytes: u16,
    /// Whether it needs its sender.
    pub detachment: Detachment,
    /// Before which others it goes.
    pub priority: Priority,
}
