//! The handlers of a worker: what they are handed and cannot begin at once waits with them.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use svcmap_proto::time::Timestamp;
use svcmap_worker::pure::{Task, TaskId};

use super::Effect;

/// See the module.
pub(super) struct Handlers {
    concurrency: usize,
    waiting: VecDeque<Task>,
    /// When each that runs began.
    running: BTreeMap<TaskId, Timestamp>,
}

impl Handlers {
    /// So many, with nothing to do.
    pub(super) fn new(concurrency: u32) -> Self {
        let (waiting, running) = (VecDeque::new(), BTreeMap::new());
        Self { concurrency: concurrency as usize, waiting, running }
    }

    /// They are handed a job.
    pub(super) fn assign(&mut self, task: Task) {
        self.waiting.push_back(task);
    }

    /// Those that are free begin with what waits.
    pub(super) fn begin(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        while self.running.len() < self.concurrency
            && let Some(task) = self.waiting.pop_front()
        {
            self.running.insert(task.id, now);
            effects.push(Effect::Start(task));
        }
    }

    /// One has ended that job. Returns when it began.
    pub(super) fn finish(&mut self, now: Timestamp, task: TaskId) -> Timestamp {
        self.running.remove(&task).unwrap_or(now)
    }

    /// Nobody wants that job any more. Returns whether it was taken from them.
    pub(super) fn withdraw(&mut self, task: TaskId) -> bool {
        let place = self.waiting.iter().position(|waiting| waiting.id == task);
        place.and_then(|place| self.waiting.remove(place)).is_some()
    }

    /// All that waits is taken from them.
    pub(super) fn take_back(&mut self) -> impl DoubleEndedIterator<Item = (TaskId, Bytes)> {
        std::mem::take(&mut self.waiting).into_iter().map(|task| (task.id, task.payload))
    }
}
