//! Failures that no sender is told of: people are, once for many.

use std::time::Duration;

use svcmap_proto::jobs::{AttemptId, Verdict};
use svcmap_proto::time::Timestamp;

use super::ServerOutput;
use crate::senders::Ended;

/// Least time between two words to people.
const INTERVAL: Duration = Duration::from_secs(1);

/// Jobs that nobody waits for and that were not done.
#[derive(Debug, Default)]
pub(super) struct Untold {
    /// How many were not since people were last told, the last of them, and why.
    jobs: u64,
    last: Option<(AttemptId, String)>,
    tell_at: Option<Timestamp>,
    told_at: Option<Timestamp>,
}

impl Untold {
    /// This is what became of a job that nobody waits for.
    pub(super) fn handle_ended(&mut self, now: Timestamp, attempt: AttemptId, ended: &Ended) {
        let error = match &ended.verdict {
            Verdict::Failed { .. } => String::from_utf8_lossy(&ended.payload).into_owned(),
            Verdict::Rejected(reason) => format!("not begun: {reason}"),
            Verdict::Abandoned => "still ran when the worker stopped".to_owned(),
            Verdict::Done | Verdict::Accepted | Verdict::HandedOver(_) => return,
        };
        self.jobs += 1;
        self.last = Some((attempt, error));
        let at = self.told_at.map_or(now, |at| now.max(at + INTERVAL));
        self.tell_at.get_or_insert(at);
    }

    /// This worker ends: what there is to tell is told now.
    pub(super) fn hurry(&mut self, now: Timestamp) {
        self.tell_at = self.tell_at.map(|at| at.min(now));
    }

    /// When people are told next, if there is something.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.tell_at
    }

    /// What they are told now.
    pub(super) fn poll(&mut self, now: Timestamp) -> Option<ServerOutput> {
        self.tell_at.take_if(|at| *at <= now)?;
        self.told_at = Some(now);
        let (attempt, error) = self.last.take()?;
        Some(ServerOutput::Untold { jobs: std::mem::take(&mut self.jobs), attempt, error })
    }
}
