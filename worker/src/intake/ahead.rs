//! Jobs that are handed to the handlers before one is free, so that a handler that ends a short job
//! finds the next one at once.
//!
//! The handlers take what they are handed in its order, so of what they have those that came first run
//! and the others wait. What waits there still counts as queued, and can be taken back: as soon as the
//! work turns out to be longer than it was, when a drain begins, and when jobs fail here.

use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::Reason;
use svcmap_proto::time::{Timestamp, wire_us};

use super::{Intake, Origin, Running, Task, TaskId};

/// The handlers are handed work for so long, in microseconds: the time in which the I/O thread, which
/// has other things to do as well, certainly looks at them again.
const AHEAD_US: u64 = 200;

/// Most jobs that they are handed ahead, however short these are: they belong to one instance then, and
/// no other can take them over.
const AHEAD_MAX: u64 = 64;

/// When none of what they have has ended for so long, jobs are longer than they were.
const STUCK: Duration = Duration::from_millis(5);

impl Intake {
    /// How many jobs the handlers may have at once, those that run included.
    pub(super) fn handed_max(&self, now: Timestamp) -> usize {
        let concurrency = self.config.concurrency;
        let may_wait = !self.is_stuck && !self.draining && !self.is_cautious;
        let mean = self.mean_service(now).filter(|_| may_wait);
        let ahead = mean.map_or(0, |mean| {
            let in_time = u64::from(concurrency) * AHEAD_US / wire_us(mean).max(1);
            in_time.min(AHEAD_MAX) as u32
        });
        (concurrency + ahead) as usize
    }

    /// As long as this is so, nothing waits at the handlers: it may have to go elsewhere.
    pub fn set_cautious(&mut self, is_cautious: bool) {
        self.is_cautious = is_cautious;
    }

    /// Whether anything waits at the handlers.
    pub fn is_ahead(&self) -> bool {
        self.handed().1 > 0
    }

    /// How many of what the handlers have run, and how many wait.
    pub(super) fn handed(&self) -> (usize, usize) {
        let running = self.running.len().min(self.config.concurrency as usize);
        (running, self.running.len() - running)
    }

    /// Where a job is among those that the handlers have: mostly it is the first that ends first.
    pub(super) fn place(&self, id: TaskId) -> Option<usize> {
        self.running.iter().position(|running| running.id == id)
    }

    /// Whose job that is, if the handlers have it.
    pub fn origin(&self, id: TaskId) -> Option<Origin> {
        Some(self.running.get(self.place(id)?)?.origin)
    }

    /// Takes a job out of those that the handlers have, and its time out of the deadlines.
    pub(super) fn take_running(&mut self, id: TaskId) -> Option<Running> {
        let running = self.running.remove(self.place(id)?)?;
        self.forget_deadline(running.ends_at(), id);
        Some(running)
    }

    /// When what waits at the handlers is to be taken back, if none of them ends a job before.
    pub(super) fn stuck_at(&self) -> Option<Timestamp> {
        let (_, ahead) = self.handed();
        let newest = self.running.back().filter(|_| ahead > 0 && !self.is_stuck)?;
        // The newest was handed out because the handlers were quick until then.
        Some(newest.started_at.max(self.finished_at.unwrap_or_default()) + STUCK)
    }

    /// Whether what waits at the handlers is to be taken back now. It is told once.
    pub fn poll_stuck(&mut self, now: Timestamp) -> bool {
        let (_, ahead) = self.handed();
        let is_stuck = self.stuck_at().is_some_and(|at| at <= now);
        let is_wanted = self.draining || self.is_cautious || is_stuck;
        ahead > 0 && is_wanted && !std::mem::replace(&mut self.is_stuck, true)
    }

    /// What waited at the handlers waits here again, before all others. Returns whose jobs nobody wants
    /// any more, and why.
    pub fn handle_taken_back(
        &mut self,
        now: Timestamp,
        jobs: impl DoubleEndedIterator<Item = (TaskId, Bytes)>,
    ) -> Vec<(Origin, Reason)> {
        let mut unwanted = Vec::new();
        for (id, payload) in jobs.rev() {
            let Some(running) = self.take_running(id) else { continue };
            // Its handler was to be told, but none had it.
            if running.was_stopped {
                unwanted.push(self.give_up(now, &running));
                continue;
            }
            let Running { origin, arrived_at, terms, .. } = running;
            terms.deadline.map(|deadline| self.deadlines.insert((deadline, id)));
            let task = Task { id, origin, payload, arrived_at, terms };
            self.queue.push_front(task);
        }
        if self.draining {
            self.queue.sort_for_drain();
        }
        unwanted
    }

    fn give_up(&mut self, now: Timestamp, running: &Running) -> (Origin, Reason) {
        self.bytes -= running.bytes;
        let is_late = running.terms.deadline.is_some_and(|deadline| deadline <= now);
        let reason = if is_late { Reason::Expired } else { Reason::Cancelled };
        self.count_rejected(reason, 1);
        (running.origin, reason)
    }

    /// A handler began and ended that job at these times: it may have waited before.
    pub fn handle_ran(&mut self, id: TaskId, began_at: Timestamp, ended_at: Timestamp) {
        if let Some(running) = self.place(id).and_then(|place| self.running.get_mut(place)) {
            running.started_at = began_at;
            running.ended_at = Some(ended_at);
        }
    }

    /// A job that waited at the handlers was taken from them, as nobody wants it. Returns whose it was,
    /// and why.
    pub fn handle_withdrawn(&mut self, now: Timestamp, id: TaskId) -> Option<(Origin, Reason)> {
        let running = self.take_running(id)?;
        Some(self.give_up(now, &running))
    }
}
