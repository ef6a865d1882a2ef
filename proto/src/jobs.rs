//! Messages of the data plane: between a sender and a worker.
//!
//! A message is one frame; a job and an outcome have a second one, the payload, as it is.
//!
//! Each side numbers what must not be lost (a sender its jobs, a worker its outcomes) from 1 on,
//! across reconnections, and tells the other how far it has received. A connection delivers in
//! order, so one number says everything: after a reset both know exactly what got through.
//!
//! New variants go to the end and none is ever reordered: the variant's index is the kind byte.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::bounded_list;
use crate::load::Load;
use crate::names::{Incarnation, InstanceKey, SenderId};

/// One try of a job at one worker. Unique for a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The sender's number of the job.
    pub job: u64,
    /// Which try of it, from 1.
    pub attempt: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.job, self.attempt)
    }
}

/// What a sender says to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToWorker {
    /// Opens each connection. Answered by [`FromWorker::Welcome`] or [`FromWorker::NotHere`].
    Hello(SenderHello),
    /// A job; its payload is the second frame. Answered by [`FromWorker::Outcome`], once.
    Job(JobHeader),
    /// The sender no longer wants that attempt. Its outcome comes all the same.
    Cancel {
        /// Which one.
        attempt: AttemptId,
    },
    /// Are you there? Also tells how far outcomes have been received. Answered by
    /// [`FromWorker::Pong`].
    Ping {
        /// The highest number of an outcome that came.
        received_outcomes: u64,
    },
    /// Outcomes up to this number came; for a sender that has no job to say so with. Not answered.
    Received {
        /// The highest number of an outcome that came.
        outcomes: u64,
    },
}

/// The start of a connection to a worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SenderHello {
    /// Oldest protocol version that the sender speaks.
    pub oldest: u8,
    /// Newest protocol version that the sender speaks.
    pub newest: u8,
    /// Who sends.
    pub sender: SenderId,
    /// Counts the connections from that sender to this worker, from 1.
    pub connection: u32,
    /// Whom the sender means; another may sit behind the address by now.
    pub key: InstanceKey,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// The highest number of an outcome that came from this worker.
    pub received_outcomes: u64,
    /// Largest result that the sender takes, in bytes.
    pub payload_bytes_max: u32,
    /// The attempts that were sent to it and have no outcome yet.
    #[serde(deserialize_with = "bounded_list")]
    pub open: Vec<OpenAttempt>,
}

/// An attempt that has no outcome yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenAttempt {
    /// The number under which it was sent.
    pub number: u64,
    /// Which attempt.
    pub attempt: AttemptId,
}

/// What precedes a job's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHeader {
    /// The sender's number for this message, one more than that of the job before.
    pub number: u64,
    /// Which attempt of which job.
    pub attempt: AttemptId,
    /// Time left until the job's deadline, in milliseconds. Time left, as clocks differ.
    pub deadline_ms: u32,
    /// The highest number of an outcome that came.
    pub received_outcomes: u64,
}

/// What a worker answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromWorker {
    /// The message was of a protocol version that this worker does not speak.
    WrongVersion {
        /// Oldest version that it does speak.
        oldest: u8,
        /// Newest version that it does speak.
        newest: u8,
    },
    /// Answers [`ToWorker::Hello`].
    Welcome {
        /// Which connection of the sender this answers.
        connection: u32,
        /// The highest number of a job that came from this sender: later ones were never seen.
        received_jobs: u64,
        /// Largest payload that this worker takes, in bytes.
        payload_bytes_max: u32,
        /// Its load now.
        load: Load,
        /// Of the open attempts, those that came but whose fate is no longer known here.
        #[serde(deserialize_with = "bounded_list")]
        forgotten: Vec<AttemptId>,
    },
    /// Whom HELLO meant is not, or no longer, behind this address.
    NotHere {
        /// Who is here instead.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// Something came on a connection that has not said HELLO; it was dropped. Say HELLO.
    HelloWanted,
    /// How an attempt ended; the result or the error is the second frame.
    Outcome(OutcomeHeader),
    /// Answers [`ToWorker::Ping`]; also sent unasked when the worker starts to drain.
    Pong {
        /// The highest number of a job that came from this sender.
        received_jobs: u64,
        /// The worker's load now.
        load: Load,
    },
}

/// What precedes a result or an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeHeader {
    /// The worker's number for this message, one more than that of the outcome before.
    pub number: u64,
    /// Which attempt of which job.
    pub attempt: AttemptId,
    /// How it ended.
    pub verdict: Verdict,
    /// The highest number of a job that came from this sender.
    pub received_jobs: u64,
    /// The worker's load now.
    pub load: Load,
}

/// How an attempt ended at a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The handler returned the result in the second frame.
    Done,
    /// The handler returned the error in the second frame, or panicked.
    Failed,
    /// No handler started it, so it can be tried elsewhere.
    Rejected(Reason),
    /// It was running when the worker's grace for draining ended.
    Abandoned,
    /// The worker took it and tells no more. Only workers of the JSON dialect do.
    Accepted,
}

/// Why no handler started a job: the one list of reasons, on the wire and for users.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    thiserror::Error,
)]
pub enum Reason {
    /// Every slot is taken. Try again later, or start more instances.
    #[error("full")]
    Full,
    /// No worker promised a slot in time. Try again later, or start more instances.
    #[error("no credit")]
    NoCredit,
    /// The worker finishes what it has and takes nothing new.
    #[error("draining")]
    Draining,
    /// The deadline passed before it was started.
    #[error("expired")]
    Expired,
    /// The sender took it back.
    #[error("cancelled")]
    Cancelled,
    /// The payload exceeds what the worker takes. It never fits: send less.
    #[error("too large")]
    TooLarge,
    /// No instance serves it.
    #[error("no such service")]
    NoSuchService,
    /// Another instance sits behind the address, or the one asked for is gone.
    #[error("not here")]
    NotHere,
    /// Only workers of the JSON dialect serve it, and the payload is no JSON.
    #[error("not JSON")]
    NotJson,
}
