//! What the unit tests of this crate share.

use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::Welcome;
use svcmap_proto::jobs::{AttemptId, Claim, JobHeader, SenderHello};
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey, Name, SenderId};
use svcmap_proto::time::Timestamp;

use crate::intake::Origin;
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

pub fn attempt(job: u64) -> AttemptId {
    AttemptId { job, attempt: 1 }
}

/// That attempt, on its way without a claim.
pub fn unclaimed(id: AttemptId, deadline: Timestamp, payload_bytes: usize) -> Attempt {
    let (deadline, run_limit) = (Some(deadline), None);
    let (claim, claimed_until, submitted_at) = (Claim::Nothing, None, Timestamp::default());
    let (moves_left, share, detached) = (0, 0, false);
    Attempt {
        id,
        deadline,
        run_limit,
        payload_bytes,
        claim,
        claimed_until,
        moves_left,
        submitted_at,
        share,
        detached,
    }
}

/// What precedes the payload of an attempt without a claim.
pub fn header(number: u64, attempt: AttemptId, deadline_ms: u32) -> JobHeader {
    JobHeader {
        number,
        attempt,
        deadline_ms: Some(deadline_ms),
        run_limit_ms: None,
        received_outcomes: 0,
        claim: Claim::Nothing,
        moves_left: 0,
        waited_us: 0,
        share: 0,
        detached: false,
    }
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
    match origin {
        Origin::Sender { attempt, .. } => attempt,
        Origin::Client(_) | Origin::Nobody | Origin::Overdue => panic!("{origin:?} has no attempt"),
    }
}
