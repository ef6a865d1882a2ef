//! The serving half at the outside: the listener and the handler pool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, Sender};
use svcmap_proto::io::{Clock, EventLoop, SendError, Waker};
use svcmap_proto::json::Envelope;
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::earliest;

use super::notice::StartError;
use super::pool::{self, Assignment, Completion, Handler, Job};
use super::sockets::Listener;
use crate::intake::{Task, TaskId};
use crate::process::Instance;

/// How often in a turn of the loop finished jobs are looked for beside its start: senders wait to be
/// heard.
const LOOKS_MAX: u32 = 256;

/// See the module.
pub(super) struct Serving {
    key: Arc<InstanceKey>,
    pub(super) listener: Listener,
    assignments: Sender<Assignment>,
    completions: Receiver<Completion>,
    looks_left: u32,
    /// The flags of the jobs that run.
    cancelled: BTreeMap<TaskId, Arc<AtomicBool>>,
}

impl Serving {
    pub(super) fn new(
        instance: &Instance,
        listener: Listener,
        handler: Arc<Handler>,
        waker: &Waker,
    ) -> Result<Self, StartError> {
        let (assignments, to_handlers) = crossbeam_channel::unbounded();
        let (from_handlers, completions) = crossbeam_channel::unbounded();
        let limit = instance.config.payload_bytes_max;
        let wanted = instance.config.concurrency;
        pool::start(wanted, handler, limit, &to_handlers, &from_handlers, waker)
            .map_err(|reason| StartError::Threads { wanted, reason })?;
        Ok(Self {
            key: Arc::new(instance.key.clone()),
            listener,
            assignments,
            completions,
            looks_left: LOOKS_MAX,
            cancelled: BTreeMap::new(),
        })
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.looks_left = LOOKS_MAX;
    }

    /// Whether a handler has ended, as often as that may be asked in a turn.
    pub(super) fn look(&mut self) -> bool {
        let has_ended = self.looks_left > 0 && !self.completions.is_empty();
        self.looks_left -= u32::from(has_ended);
        has_ended
    }

    /// What the next handler that has ended made of its job.
    pub(super) fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.completions.try_recv().ok()?;
        self.cancelled.remove(&completion.id);
        Some(completion)
    }

    /// Gives a job to a handler.
    pub(super) fn start(&mut self, task: Task) {
        let cancelled = Arc::<AtomicBool>::default();
        self.cancelled.insert(task.id, Arc::clone(&cancelled));
        let key = Arc::clone(&self.key);
        let Task { arrived_at, payload, .. } = task;
        let limit_at = task.run_limit.map(|limit| Clock.now() + limit);
        let deadline = earliest(task.deadline, limit_at);
        let job = Job { payload, key, arrived_at, deadline, cancelled };
        // The handlers live as long as this does, so somebody takes it.
        let _ = self.assignments.send(Assignment { id: task.id, job });
    }

    /// Tells a handler that nobody waits for its job any more.
    pub(super) fn cancel(&self, task: TaskId) {
        if let Some(flag) = self.cancelled.get(&task) {
            flag.store(true, Ordering::Relaxed);
        }
    }

    /// Sends this, its connection first.
    pub(super) fn send(
        &self,
        event_loop: &mut EventLoop,
        frames: &[&[u8]],
    ) -> Result<(), SendError> {
        event_loop.send(self.listener.socket, frames)
    }

    /// Replies to a client; nobody wants it if that is gone or reads nothing.
    pub(super) fn reply(&self, event_loop: &mut EventLoop, to: &Envelope, body: &[u8]) {
        let _ = self.send(event_loop, &to.around(body));
    }
}
