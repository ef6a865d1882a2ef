//! Failures that no sender is told of: people are.

use std::time::Duration;

use svcmap_proto::jobs::{AttemptId, Verdict};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::ServerOutput;
use crate::senders::Ended;

/// Time within which so many are told one by one; the others are only counted.
const INTERVAL: Duration = Duration::from_secs(1);
const TOLD_MAX: u32 = 10;

/// Jobs that nobody waits for and that were not done.
#[derive(Debug, Default)]
pub(super) struct Untold {
    began_at: Timestamp,
    told: u32,
    left_out: u64,
}

impl Untold {
    /// This is what became of a job that nobody waits for. What people are told of it, if anything.
    pub(super) fn handle_ended(
        &mut self,
        now: Timestamp,
        (sender, attempt): (SenderId, AttemptId),
        ended: &Ended,
    ) -> Option<ServerOutput> {
        let error = match &ended.verdict {
            Verdict::Failed { .. } => String::from_utf8_lossy(&ended.payload).into_owned(),
            Verdict::Rejected(reason) => format!("not begun: {reason}"),
            Verdict::Abandoned => "still ran when the worker stopped".to_owned(),
            Verdict::Done | Verdict::Accepted | Verdict::HandedOver(_) => return None,
        };
        if self.left_out == 0 && self.began_at + INTERVAL <= now {
            (self.began_at, self.told) = (now, 0);
        }
        if self.told == TOLD_MAX {
            self.left_out += 1;
            return None;
        }
        self.told += 1;
        Some(ServerOutput::Untold { sender, attempt, error })
    }

    /// When those are told that were only counted.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        (self.left_out > 0).then(|| self.began_at + INTERVAL)
    }

    /// Those are told now, if it is time, or if this worker `ends`.
    pub(super) fn poll(&mut self, now: Timestamp, ends: bool) -> Option<ServerOutput> {
        self.poll_timeout().filter(|at| ends || *at <= now)?;
        Some(ServerOutput::UntoldMore(std::mem::take(&mut self.left_out)))
    }
}
