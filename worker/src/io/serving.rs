//! The serving half at the outside: the listener and the handler pool.

use bytes::Bytes;
use svcmap_proto::io::{Clock, EventLoop, SendError, Waker};
use svcmap_proto::json::Envelope;
use svcmap_proto::payload::Frame;
use svcmap_proto::time::earliest;

use super::handler::Handler;
use super::job::Home;
use super::notice::StartError;
use super::pool::{Assignment, Completion, Pool};
use super::progress::Board;
use super::sockets::Listener;
use crate::config::IntakeConfig;
use crate::intake::{Task, TaskId};

/// How often in a turn of the loop finished jobs are looked for beside its start: senders wait to be
/// heard.
const LOOKS_MAX: u32 = 256;

/// See the module.
pub(super) struct Serving {
    pub(super) listener: Listener,
    pool: Pool,
    /// Jobs that the handlers are about to get.
    starts: Vec<Assignment>,
    looks_left: u32,
}

impl Serving {
    pub(super) fn new(
        config: &IntakeConfig,
        listener: Listener,
        handler: Handler,
        home: Home,
        waker: Waker,
    ) -> Result<Self, StartError> {
        let (concurrency, wanted) = (config.concurrency, handler.threads(config.concurrency));
        let pool = Pool::start(concurrency, handler, home, config.payload_bytes_max, waker)
            .map_err(|reason| StartError::Threads { wanted, reason })?;
        Ok(Self { listener, pool, starts: Vec::new(), looks_left: LOOKS_MAX })
    }

    /// A turn begins.
    pub(super) fn begin_turn(&mut self) {
        self.looks_left = LOOKS_MAX;
    }

    /// Whether a handler has ended, as often as that may be asked in a turn.
    pub(super) fn look(&mut self) -> bool {
        let has_ended = self.looks_left > 0 && self.pool.has_done();
        self.looks_left -= u32::from(has_ended);
        has_ended
    }

    /// Puts what handlers have made of their jobs into an empty list.
    pub(super) fn take_done(&self, done: &mut Vec<Completion>) {
        self.pool.take_done(done);
    }

    /// What handlers say of how far their jobs are.
    pub(super) fn progress(&self) -> &Board {
        self.pool.progress()
    }

    /// A handler is to get this job, with the next [`Serving::hand_over`].
    pub(super) fn start(&mut self, task: Task) {
        let Task { id, origin, payload, arrived_at, mut terms } = task;
        let limit_at = terms.run_limit.map(|limit| Clock.now() + limit);
        terms.deadline = earliest(terms.deadline, limit_at);
        self.starts.push(Assignment { id, origin, payload, arrived_at, terms });
    }

    /// Gives the handlers what is to start.
    pub(super) fn hand_over(&mut self) {
        if !self.starts.is_empty() {
            self.pool.assign(self.starts.drain(..));
        }
    }

    /// Tells a handler that nobody waits for its job any more. If none has begun it, it is taken from
    /// them: then this is true.
    pub(super) fn cancel(&self, task: TaskId) -> bool {
        self.pool.cancel(task)
    }

    /// Takes back all that no handler has begun.
    pub(super) fn take_back(&self) -> impl DoubleEndedIterator<Item = (TaskId, Bytes)> {
        self.pool.take_back().into_iter().map(|assignment| (assignment.id, assignment.payload))
    }

    /// Sends this, its connection first.
    pub(super) fn send<'a>(
        &self,
        event_loop: &mut EventLoop,
        frames: impl IntoIterator<Item = impl Into<Frame<'a>>>,
    ) -> Result<(), SendError> {
        event_loop.send(self.listener.socket, frames)
    }

    /// Replies to a client; nobody wants it if that is gone or reads nothing.
    pub(super) fn reply(&self, event_loop: &mut EventLoop, to: &Envelope, body: &[u8]) {
        let _ = self.send(event_loop, to.around(body));
    }
}
