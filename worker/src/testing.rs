//! What the unit tests of this crate share.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::Wake;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::codec;
use svcmap_proto::control::Welcome;
use svcmap_proto::jobs::{
    AttemptId, Claim, Detachment, JobBatch, JobHeader, Priority, SenderHello, ToWorker, Verdict,
};
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey, Name, SenderId};
use svcmap_proto::payload::{self, Payloads};
use svcmap_proto::time::Timestamp;

use crate::intake::{Ending, Origin};
use crate::link::Attempt;

/// The point so many milliseconds after the start of a test.
pub fn at(ms: u64) -> Timestamp {
    // Not at the clock's zero, before which there is nothing.
    Timestamp::from_micros(1_000_000_000 + ms * 1000)
}

pub const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

pub fn name(text: &str) -> Name {
    text.parse().unwrap()
}

pub fn key() -> InstanceKey {
    InstanceKey { service: name("resize"), instance: name("a-1") }
}

/// How a handler ends that fails.
pub const FAILING: Ending = Ending::Failed { code: None };

/// How its job ends.
pub const FAILED: Verdict = Verdict::Failed { code: None };

pub fn attempt(job: u64) -> AttemptId {
    AttemptId { job, attempt: 1 }
}

/// That attempt, on its way without a claim.
pub fn unclaimed(id: AttemptId, deadline: Timestamp, payload_bytes: usize) -> Attempt {
    Attempt {
        id,
        deadline: Some(deadline),
        run_limit: None,
        payload_bytes,
        claim: Claim::Nothing,
        claimed_until: None,
        redirects_left: 0,
        submitted_at: Timestamp::default(),
        detachment: Detachment::Attached,
        priority: Priority::Normal,
        metadata_bytes: 0,
    }
}

/// A job in a batch, with what that says of all.
#[derive(Clone, Debug)]
pub struct Sent {
    pub number: u64,
    pub share: u32,
    pub received_outcomes: u64,
    pub job: JobHeader,
    pub payload: Bytes,
}

impl Deref for Sent {
    type Target = JobHeader;

    fn deref(&self) -> &JobHeader {
        &self.job
    }
}

impl DerefMut for Sent {
    fn deref_mut(&mut self) -> &mut JobHeader {
        &mut self.job
    }
}

impl Sent {
    /// Those of a message.
    pub fn all(message: ToWorker) -> Vec<Self> {
        let ToWorker::Jobs(batch) = message else { return Vec::new() };
        let JobBatch { first_number, received_outcomes, share, jobs, mut payloads, .. } = batch;
        let sent = |(number, job): (u64, JobHeader)| {
            let payload = payloads.take(job.payload_bytes);
            Self { number, share, received_outcomes, job, payload }
        };
        (first_number..).zip(jobs).map(sent).collect()
    }

    /// It goes alone.
    pub fn batch(self) -> JobBatch {
        let Self { number: first_number, share, received_outcomes, mut job, payload } = self;
        let payloads = Payloads::new([&payload]);
        job.payload_bytes = payload::len(&payload);
        let share_priority = Priority::default();
        let jobs = vec![job];
        JobBatch { first_number, received_outcomes, share, share_priority, jobs, payloads }
    }

    /// The same.
    pub fn message(self) -> ToWorker {
        ToWorker::Jobs(self.batch())
    }
}

/// A job without a claim.
pub fn job(number: u64, attempt: AttemptId, deadline_ms: u32) -> Sent {
    let job = JobHeader {
        attempt,
        deadline_ms: Some(deadline_ms),
        run_limit_ms: None,
        claim: Claim::Nothing,
        redirects_left: 0,
        waited_us: 0,
        detachment: Detachment::Attached,
        priority: Priority::Normal,
        metadata_bytes: 0,
        payload_bytes: 0,
    };
    Sent { number, share: 0, received_outcomes: 0, job, payload: Bytes::new() }
}

/// What a mapper that is not warming says first.
pub fn welcome() -> Welcome {
    Welcome {
        epoch: Epoch(1),
        warming: false,
        beat_ms: 1000,
        expiry_ms: 3000,
        publish_ms: 100,
        publish: "tcp://10.0.0.1:1".parse().unwrap(),
        observed: String::new(),
        highest: None,
    }
}

pub const SENDER: SenderId = SenderId(7);

/// How a sender opens its first connection to a worker.
pub fn hello() -> SenderHello {
    SenderHello {
        oldest: codec::VERSION_OLDEST,
        newest: codec::VERSION,
        sender: SENDER,
        connection: 1,
        key: key(),
        incarnation: Incarnation(1),
        received_outcomes: 0,
        payload_bytes_max: 1000,
        takes_credits: true,
        open: Vec::new(),
    }
}

pub fn attempt_of(origin: Origin) -> AttemptId {
    let (_, attempt) = origin.sent().unwrap_or_else(|| panic!("{origin:?} has no attempt"));
    attempt
}

/// A task that counts how often it is woken.
#[derive(Default)]
pub struct Counting(AtomicU32);

impl Counting {
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::SeqCst)
    }
}

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
