//! What the unit tests of this crate share.

use std::time::Duration;

use svcmap_proto::jobs::AttemptId;
use svcmap_proto::names::{InstanceKey, Name, SenderId};
use svcmap_proto::time::Timestamp;

use crate::intake::Origin;

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

pub const SENDER: SenderId = SenderId(7);

pub fn attempt_of(origin: Origin) -> AttemptId {
    match origin {
        Origin::Sender { attempt, .. } => attempt,
        Origin::Client(_) | Origin::Nobody => panic!("{origin:?} has no attempt"),
    }
}
