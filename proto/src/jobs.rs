//! Messages of the data plane: between a sender and a worker.
//!
//! What waits for one peer travels together: a message holds all jobs, or all outcomes, that there
//! are when it is sent, see [`payload`](crate::payload) for its frames. Nothing waits for company.
//!
//! Each side numbers what must not be lost (a sender its jobs, a worker its outcomes) from 1 on,
//! across reconnections, and tells the other how far it has received. A connection delivers in
//! order, so one number says everything: after a reset both know exactly what got through. In a
//! batch the first has a number, and the others those that follow it.
//!
//! # Credits
//! A worker promises slots: on an outcome, by [`FromWorker::Grant`], or to another worker by
//! [`ToWorker::Offer`], which passes it on to a sender. A promise has a lifetime and is void once the
//! sender says HELLO. Nothing that concerns promises is numbered: what gets lost lapses.
//!
//! # What is told once
//! A message is lost only with its connection, and the next one begins with HELLO. So what is told
//! once is told again with HELLO, or mends itself:
//!
//! | message | if it gets lost |
//! | --- | --- |
//! | `Hello` | repeated each second until WELCOME |
//! | `Jobs`, `Outcomes` (hand-overs, too) | numbered: WELCOME and HELLO tell what is missing |
//! | `Cancel` | each HELLO repeats it while the attempt is open |
//! | `TakeBack` | the attempt runs in its turn |
//! | `Ping` | repeated each beat, and after the expiry the worker is given up |
//! | `Received` | every job, PING and HELLO says the same; the worker forgets an outcome 2 s after its deadline in any case |
//! | `Ask` | repeated with HELLO, and others are asked; a worker that is silent meanwhile is pinged |
//! | `Return`, `Recall` | HELLO voids the credit; who does not return one that was recalled has to say it within 1.1 s; else it lapses, within 60 s |
//! | `Offer`, `Offered`, `Declined` | the offer lapses, within 1.2 s or six ways and a margin |
//! | `Goodbye` | silence says it after an expiry |
//! | `Welcome`, `NotHere`, `WrongVersion` | each HELLO is answered |
//! | `HelloWanted` | the next message, a PING a beat later at the latest, is answered with it |
//! | `Pong` of a drain, or of who sets itself aside | WELCOME and every other answer carry the load, and a mapper tells |
//! | `Grant` | HELLO voids it, and asks again |
//! | `Progress` | the next one says more, if there is one; the outcome says all |
//!
//! New variants go to the end and none is ever reordered: the variant's index is the kind byte.

mod detachment;
mod priority;
mod progress;

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::codec::bounded_list;
use crate::load::Load;
use crate::names::{Incarnation, InstanceKey, Name, SenderId};
use crate::payload::Payloads;
pub use detachment::Detachment;
pub use priority::{Priority, PriorityError};
pub use progress::{ProgressReport, cut_progress};

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
    /// Opens each connection. Answered by [`FromWorker::Welcome`], [`FromWorker::NotHere`] or
    /// [`FromWorker::TurnedAway`].
    Hello(SenderHello),
    /// Jobs. Each is answered in some [`FromWorker::Outcomes`], once.
    Jobs(JobBatch),
    /// The sender no longer wants that attempt. Its outcome comes all the same. HELLO repeats it.
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
    /// A sender that has attempts open and nothing else to say says this each beat: who is silent
    /// for an expiry is taken for gone, and what it has waiting here is dropped.
    Received {
        /// The highest number of an outcome that came.
        outcomes: u64,
    },
    /// Jobs wait for a credit. It replaces the demand that the last job or the last ASK told.
    Ask(Demand),
    /// A promise that is not needed. Not answered.
    Return(Claim),
    /// A slot of another instance of the service, to be passed on to whoever has a job waiting.
    Offer(OfferedSlot),
    /// The sender ends, or has no use for this connection any more. What it has here and is not
    /// detached is dropped: jobs, outcomes, promises. The worker forgets it. Not answered.
    Goodbye,
    /// The sender would rather not have that attempt done: if no handler has begun it, it is dropped.
    /// Its outcome comes all the same.
    TakeBack {
        /// Which one.
        attempt: AttemptId,
    },
}

/// Jobs that wait at a sender, as far as it asks this worker for credits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demand {
    /// Credits that are wanted here: this worker's share of the jobs that wait. 0: none any more.
    pub share: u32,
    /// For how long the oldest of them, or of those of the highest priority, has waited, in
    /// microseconds.
    pub waited_us: u64,
    /// Size of the oldest one's payload, in bytes.
    pub payload_bytes: u32,
    /// Whether the oldest can go to no other instance: it may as well wait here as at its sender.
    pub pinned: bool,
    /// Its priority: the highest of those that wait.
    pub priority: Priority,
}

/// On what an attempt claims a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Claim {
    /// On nothing: it takes a slot that is promised to nobody, or is rejected.
    Nothing,
    /// On the oldest credit that the sender has there.
    Credit,
    /// On that offer of the worker.
    Offer(OfferId),
}

/// Names an offer of one life of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OfferId(pub u64);

/// A slot that an instance has promised to whoever brings this.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OfferedSlot {
    /// Where the slot is: an instance of the same service.
    pub instance: Name,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// What to claim it on.
    pub offer: OfferId,
    /// How long it can be claimed, in milliseconds. Time left, as clocks differ.
    pub lifetime_ms: u32,
    /// Largest payload that fits, in bytes.
    pub payload_bytes_max: u32,
}

/// Slots that a worker promises to one sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// How many.
    pub credits: u32,
    /// How long each can be claimed, in milliseconds.
    pub lifetime_ms: u32,
    /// Largest payload that each stands for, in bytes.
    pub payload_bytes_max: u32,
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
    /// Whether it has use for credits.
    pub takes_credits: bool,
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
    /// Whether the sender has cancelled it: a [`ToWorker::Cancel`] may have got lost.
    pub cancelled: bool,
}

/// Jobs that go to a worker together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobBatch {
    /// The sender's number for the first of them, one more than that of the job before.
    pub first_number: u64,
    /// The highest number of an outcome that came.
    pub received_outcomes: u64,
    /// Credits that the sender wants for jobs that wait on, as [`Demand::share`], and those beside
    /// that it has and does not use: what counts is how many it has after these. 0: none are wanted.
    pub share: u32,
    /// The priority of those that wait on, as [`Demand::priority`].
    pub share_priority: Priority,
    /// The jobs.
    #[serde(deserialize_with = "bounded_list")]
    pub jobs: Vec<JobHeader>,
    /// What their handlers get: of each job its metadata, and its payload.
    #[serde(skip)]
    pub payloads: Payloads,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobHeader {
    /// Which attempt of which job.
    pub attempt: AttemptId,
    /// Time left until the job's deadline, in milliseconds; `None` if it has none. Time left, as
    /// clocks differ.
    pub deadline_ms: Option<u32>,
    /// How long it may run, from its start to its end, in milliseconds; `None`: as long as it takes.
    pub run_limit_ms: Option<u32>,
    /// On what it claims a slot.
    pub claim: Claim,
    /// How often it may still be handed over to another instance.
    pub redirects_left: u8,
    /// For how long it waited at its sender, in microseconds.
    pub waited_us: u64,
    /// Whether it needs its sender.
    pub detachment: Detachment,
    /// Before which others it goes.
    pub priority: Priority,
    /// How long its metadata is, in bytes, which comes before its payload; 0: there is none.
    pub metadata_bytes: u16,
    /// How long what its handler gets is, in bytes.
    pub payload_bytes: u32,
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
    /// How attempts ended.
    Outcomes(OutcomeBatch),
    /// Answers [`ToWorker::Ping`]; also sent unasked when the worker starts to drain.
    Pong {
        /// The highest number of a job that came from this sender.
        received_jobs: u64,
        /// The worker's load now.
        load: Load,
    },
    /// Slots promised to the sender.
    Grant {
        /// Which.
        grant: Grant,
        /// The highest number of a job that came from this sender.
        received_jobs: u64,
        /// The worker's load now.
        load: Load,
    },
    /// A slot promised by another instance, for a job that waits at the sender.
    Offered(OfferedSlot),
    /// One of the sender's unused credits is wanted back. Answered by [`ToWorker::Return`], or not
    /// at all if there is none.
    Recall,
    /// What was offered to this worker is not needed.
    Declined(OfferId),
    /// Answers [`ToWorker::Hello`] of a sender that the worker does not know: too many others have
    /// something there, or this connection has spoken for too many. Go elsewhere, and come again later.
    TurnedAway,
    /// How far attempts are that run: of each the newest word, told once. Not answered.
    Progress(#[serde(deserialize_with = "bounded_list")] Vec<ProgressReport>),
}

/// Outcomes that go to a sender together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeBatch {
    /// The worker's number for the first of them, one more than that of the outcome before.
    pub first_number: u64,
    /// The highest number of a job that came from this sender.
    pub received_jobs: u64,
    /// The worker's load now.
    pub load: Load,
    /// Slots promised to the sender on this occasion.
    pub grant: Option<Grant>,
    /// The outcomes.
    #[serde(deserialize_with = "bounded_list")]
    pub outcomes: Vec<OutcomeHeader>,
    /// Their results and errors.
    #[serde(skip)]
    pub payloads: Payloads,
}

/// One outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutcomeHeader {
    /// Which attempt of which job.
    pub attempt: AttemptId,
    /// How it ended.
    pub verdict: Verdict,
    /// How long the attempt was there, in microseconds: the rest of what the sender waited for is
    /// the way.
    pub residence_us: u64,
    /// How long of that it ran, in microseconds.
    pub ran_us: u64,
    /// How long its result or error is, in bytes.
    pub payload_bytes: u32,
}

/// How an attempt ended at a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The handler returned the payload as its result.
    Done,
    /// The handler returned the payload as its error, or panicked.
    Failed {
        /// A number that the handler gave it, such as the exit status of a program.
        code: Option<i32>,
    },
    /// No handler started it, so it can be tried elsewhere.
    Rejected(Reason),
    /// It was running when the worker's grace for draining ended.
    Abandoned,
    /// The worker took it and tells no more: it is [released](Detachment::Released), or the worker
    /// speaks the JSON dialect.
    Accepted,
    /// It was not started, and has a slot at another instance that is free sooner.
    HandedOver(OfferedSlot),
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
    /// Workers are listed, but none can be reached from here: see `svcmap status`.
    #[error("unreachable")]
    Unreachable,
    /// No mapper has answered, so nobody knows who serves it. Start one, or name another.
    #[error("no mapper")]
    NoMapper,
    /// The worker could not start what runs the job: its program is gone, or the system is out of
    /// something.
    #[error("cannot start")]
    CannotStart,
    /// Its sender has jobs without an outcome for so many services that there is no room for one more.
    #[error("too many services")]
    TooManyServices,
    /// The sender's key may not use that service: `svcmap key list` has which it may.
    #[error("not allowed")]
    NotAllowed,
}

impl Reason {
    /// Whether another instance may take what one has rejected for this reason.
    pub fn is_of_one_instance(self) -> bool {
        match self {
            Reason::Full
            | Reason::NoCredit
            | Reason::Draining
            | Reason::NotHere
            | Reason::Unreachable
            | Reason::TooLarge
            | Reason::CannotStart => true,
            Reason::Expired
            | Reason::Cancelled
            | Reason::NoSuchService
            | Reason::NotJson
            | Reason::NoMapper
            | Reason::TooManyServices
            | Reason::NotAllowed => false,
        }
    }

    /// Whether the same job may fare better later though nobody changes anything: load passes, but
    /// what is too large stays so, and a service that nobody serves wants somebody to start one.
    pub fn may_pass(self) -> bool {
        match self {
            Reason::Full
            | Reason::NoCredit
            | Reason::Draining
            | Reason::Expired
            | Reason::Cancelled
            | Reason::NotHere
            | Reason::CannotStart
            | Reason::TooManyServices => true,
            Reason::TooLarge
            | Reason::NoSuchService
            | Reason::NotJson
            | Reason::Unreachable
            | Reason::NoMapper
            | Reason::NotAllowed => false,
        }
    }
}
