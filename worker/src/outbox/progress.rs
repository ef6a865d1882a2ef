//! How far jobs are, as their current attempts say.

use svcmap_proto::jobs::ProgressReport;

use super::{JobId, Outbox};

impl Outbox {
    /// An attempt is that far. Only what the current one of a job says counts.
    pub fn handle_progress(&mut self, report: ProgressReport) {
        let ProgressReport { attempt, text } = report;
        let Some((id, job)) = self.current(attempt) else { return };
        job.has_progress = true;
        self.progress.push_back((id, Some(text)));
    }

    /// How far a job is, each once; `None`: it begins anew, elsewhere.
    pub fn poll_progress(&mut self) -> Option<(JobId, Option<String>)> {
        self.progress.pop_front()
    }
}
