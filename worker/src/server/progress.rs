//! When senders are told how far their jobs are, and what of it.
//!
//! The handlers' words stay where they put them until it is time: of each job the newest, so that a
//! handler which says much costs no more than one which says little.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::jobs::{FromWorker, ProgressReport};
use svcmap_proto::limits::PROGRESS_BATCH_MAX;
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::Server;
use crate::intake::{Origin, TaskId};

/// Least time between two words on the same job: people read no faster, and a hundred senders cost a
/// thousand short messages a second at most.
const INTERVAL: Duration = Duration::from_millis(100);

/// When to look for what handlers have said.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// When that was last done.
    looked_at: Option<Timestamp>,
    look_at: Option<Timestamp>,
}

impl Progress {
    /// A handler has said something.
    fn handle_news(&mut self, now: Timestamp) {
        let at = self.looked_at.map_or(now, |at| now.max(at + INTERVAL));
        self.look_at.get_or_insert(at);
    }

    /// When to look, if there is something.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.look_at
    }

    /// Whether to look now.
    pub(super) fn poll(&mut self, now: Timestamp) -> bool {
        let is_due = self.look_at.is_some_and(|at| at <= now);
        if is_due {
            (self.looked_at, self.look_at) = (Some(now), None);
        }
        is_due
    }
}

impl Server {
    /// A handler has said how far a job is, and nothing was there before:
    /// [`ServerOutput::TakeProgress`](super::ServerOutput::TakeProgress) comes when it is time.
    pub fn handle_progress_news(&mut self, now: Timestamp) {
        self.progress.handle_news(now);
    }

    /// What handlers have said of these jobs, each of which is here once. Who does not read, or is gone,
    /// is not told: what is told once need not be kept.
    pub fn handle_progress(
        &mut self,
        now: Timestamp,
        said: impl IntoIterator<Item = (TaskId, String)>,
    ) {
        let mut reports: BTreeMap<SenderId, Vec<ProgressReport>> = BTreeMap::new();
        for (task, text) in said {
            // What has ended meanwhile is of interest to nobody.
            if let Some(Origin::Sender { sender, attempt }) = self.intake.origin(task) {
                reports.entry(sender).or_default().push(ProgressReport { attempt, text });
            }
        }
        let since = now.before(self.absence.expiry);
        for (sender, reports) in reports {
            let Some(to) = self.senders.reader(sender, since).cloned() else { continue };
            for batch in reports.chunks(PROGRESS_BATCH_MAX) {
                self.answer(to.clone(), FromWorker::Progress(batch.to_vec()));
            }
        }
    }
}
