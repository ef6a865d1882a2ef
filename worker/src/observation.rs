//! What those who measure are told of a sender's decisions, one by one.
//!
//! [`Statistics`](crate::statistics::Statistics) has the sums.

use std::time::Duration;

use svcmap_proto::jobs::{AttemptId, Reason};
use svcmap_proto::names::InstanceKey;

use crate::outbox::JobId;

/// Something that a sender did, or met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// It chose a worker for a job.
    Chosen {
        /// Which try of which job.
        attempt: AttemptId,
        /// Whom it chose.
        key: InstanceKey,
        /// How old its knowledge of that worker's load was; `None` if it had none.
        age: Option<Duration>,
    },
    /// The worker rejected it.
    Rejected {
        /// Which try of which job.
        attempt: AttemptId,
        /// Who.
        key: InstanceKey,
        /// Why.
        reason: Reason,
    },
    /// A job has its outcome, as its ticket says.
    Settled(JobId),
}
