//! What the handles that users hold share with the I/O thread.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{self, Poll};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;
use svcmap_proto::io::{Spin, Waker};
use svcmap_proto::names::{Name, NameError};

use super::client::SubmitError;
use super::monitor::Reply;
use super::ticket::{Completer, Ticket, ticket};
use crate::config::{OutboxConfig, SERVICES_FOLLOWED_MAX};
use crate::outbox::{JobId, JobSpec};
use crate::statistics::Statistics;

/// With no more jobs than these, one is waited for by who has nothing else to do, and comes or ends soon if
/// it is short: who waits looks for it before sleeping. With more, others have use for the processor.
pub(super) const FEW_JOBS: usize = 2;

/// What a handle asks of the I/O thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Send this job.
    Submit(JobSpec, Completer),
    /// Take this job back.
    Cancel(JobId),
    /// Take this job back, unless a handler has begun it.
    TakeBack(JobId),
    /// Keep the cache of this service warm.
    Follow(Name),
    /// Answer with what was counted.
    Statistics(Sender<Statistics>),
    /// The same of all that it does.
    Metrics(Reply),
    /// Serve no more, within this grace, and then stop.
    Drain(Duration),
    /// Stop now.
    Stop,
}

/// See the module.
pub(super) struct Shared {
    inbox: Mutex<Inbox>,
    /// There is room for jobs again, or there will never be any.
    has_room: Condvar,
    /// Services that were used.
    names: Mutex<FxHashMap<String, Name>>,
    waker: Waker,
    /// How one who waits for an outcome does it.
    spin: Mutex<Spin>,
    pub(super) config: OutboxConfig,
    pub(super) status: Watch<Status>,
}

/// Without what others have submitted.
impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// What waits for the I/O thread, and how much more may.
#[derive(Debug)]
struct Inbox {
    commands: Vec<Command>,
    last_job: u64,
    /// Room for jobs without an outcome.
    free: Room,
    /// Threads that wait for some.
    waiting: u32,
    /// Tasks that do, by their turn.
    tasks: BTreeMap<u64, Waiting>,
    last_turn: u64,
    /// The I/O thread has ended, or is about to.
    is_closed: bool,
}

/// A task that waits for room for so many bytes.
#[derive(Debug)]
struct Waiting {
    bytes: usize,
    waker: task::Waker,
}

/// Room for jobs, in number and in bytes of their payloads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
}

/// There is no room, or there will never be any again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum NoRoom {
    Full,
    Closed,
}

impl From<NoRoom> for SubmitError {
    fn from(error: NoRoom) -> Self {
        match error {
            NoRoom::Full => Self::OutboxFull,
            NoRoom::Closed => Self::Stopped,
        }
    }
}

/// A job that was not taken.
pub(super) struct Untaken {
    pub(super) error: SubmitError,
    pub(super) payload: Bytes,
}

impl Shared {
    pub(super) fn new(waker: Waker, config: OutboxConfig) -> Self {
        let free = Room { jobs: config.jobs_max, bytes: config.jobs_bytes_max };
        let inbox = Inbox {
            commands: Vec::new(),
            last_job: 0,
            free,
            waiting: 0,
            tasks: BTreeMap::new(),
            last_turn: 0,
            is_closed: false,
        };
        Self {
            inbox: Mutex::new(inbox),
            has_room: Condvar::new(),
            names: Mutex::default(),
            waker,
            spin: Mutex::default(),
            config,
            status: Watch::default(),
        }
    }

    /// The name of a service: of one that was used before the same one, which takes no room and is soon
    /// compared.
    pub(super) fn name(&self, text: &str) -> Result<Name, NameError> {
        let mut names = lock(&self.names);
        if let Some(name) = names.get(text) {
            return Ok(name.clone());
        }
        let name: Name = text.parse()?;
        // As many as a sender keeps track of.
        if names.len() == SERVICES_FOLLOWED_MAX {
            names.clear();
        }
        names.insert(text.to_owned(), name.clone());
        Ok(name)
    }

    /// Hands a command to the I/O thread, or drops it if that has ended.
    pub(super) fn command(&self, command: Command) {
        let mut inbox = lock(&self.inbox);
        if !inbox.is_closed {
            inbox.commands.push(command);
            drop(inbox);
            self.waker.wake();
        }
    }

    /// Hands a job to the I/O thread, once there is room for it, if `wait` says so.
    pub(super) fn submit(self: &Arc<Self>, spec: JobSpec, wait: bool) -> Result<Ticket, Untaken> {
        let bytes = spec.payload.len();
        let mut inbox = lock(&self.inbox);
        while let Err(error) = inbox.check(bytes) {
            if !wait || error == NoRoom::Closed {
                return Err(Untaken { error: error.into(), payload: spec.payload });
            }
            inbox.waiting += 1;
            inbox = self.has_room.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            inbox.waiting -= 1;
        }
        Ok(self.take_in(inbox, spec))
    }

    /// There is room for this job.
    fn take_in(self: &Arc<Self>, mut inbox: MutexGuard<'_, Inbox>, spec: JobSpec) -> Ticket {
        let bytes = spec.payload.len();
        inbox.free.jobs -= 1;
        inbox.free.bytes -= bytes;
        inbox.last_job += 1;
        let (ticket, completer) = ticket(JobId(inbox.last_job), bytes, self);
        inbox.commands.push(Command::Submit(spec, completer));
        drop(inbox);
        self.waker.wake();
        ticket
    }

    /// Looks for an outcome for a moment, before whoever waits for it sleeps.
    pub(super) fn look_for(&self, is_there: impl FnMut() -> bool) {
        let free_jobs = lock(&self.inbox).free.jobs;
        let is_few = self.config.jobs_max - free_jobs <= FEW_JOBS;
        // Of several that wait, one does.
        if is_few && let Ok(mut spin) = self.spin.try_lock() {
            spin.wait(is_there);
        }
    }

    /// Exchanges what waits for an empty list.
    pub(super) fn take(&self, commands: &mut Vec<Command>) {
        std::mem::swap(&mut lock(&self.inbox).commands, commands);
    }

    /// So much room is free again.
    pub(super) fn give_back(&self, room: Room) {
        let mut inbox = lock(&self.inbox);
        inbox.free.jobs += room.jobs;
        inbox.free.bytes += room.bytes;
        let (is_wanted, tasks) = (inbox.waiting > 0, inbox.next_tasks());
        drop(inbox);
        if is_wanted {
            self.has_room.notify_all();
        }
        tasks.into_iter().for_each(task::Waker::wake);
    }

    /// Nothing is taken any more, and nobody waits for it. Returns what was not looked at.
    pub(super) fn close(&self) -> Vec<Command> {
        let mut inbox = lock(&self.inbox);
        inbox.is_closed = true;
        self.has_room.notify_all();
        let (tasks, commands) =
            (std::mem::take(&mut inbox.tasks), std::mem::take(&mut inbox.commands));
        drop(inbox);
        tasks.into_values().for_each(|task| task.waker.wake());
        commands
    }
}

impl Inbox {
    /// Whether there is room for a job with so many bytes.
    fn check(&self, bytes: usize) -> Result<(), NoRoom> {
        match self.free {
            _ if self.is_closed => Err(NoRoom::Closed),
            free if free.jobs == 0 || free.bytes < bytes => Err(NoRoom::Full),
            _ => Ok(()),
        }
    }

    /// As many of the tasks that wait as there is room for, those that came first.
    fn next_tasks(&mut self) -> Vec<task::Waker> {
        let (mut free, mut woken) = (self.free, Vec::new());
        while let Some(first) = self.tasks.first_entry()
            && free.jobs > 0
            && free.bytes >= first.get().bytes
        {
            let Waiting { bytes, waker } = first.remove();
            free.jobs -= 1;
            free.bytes -= bytes;
            woken.push(waker);
        }
        woken
    }
}

/// A job that waits for room without a thread.
pub(super) struct Taking {
    shared: Arc<Shared>,
    /// Until it is taken.
    spec: Option<JobSpec>,
    /// Its turn among those that wait.
    turn: Option<u64>,
}

impl Taking {
    pub(super) fn new(shared: Arc<Shared>, spec: JobSpec) -> Self {
        Self { shared, spec: Some(spec), turn: None }
    }
}

impl Future for Taking {
    type Output = Result<Ticket, SubmitError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(spec) = this.spec.take() else { return Poll::Pending };
        let mut inbox = lock(&this.shared.inbox);
        // Whoever asked it to look, it looks now.
        let before = this.turn.and_then(|turn| inbox.tasks.remove(&turn));
        let bytes = spec.payload.len();
        let polled = match inbox.check(bytes) {
            Ok(()) => Poll::Ready(Ok(this.shared.take_in(inbox, spec))),
            Err(NoRoom::Closed) => Poll::Ready(Err(NoRoom::Closed.into())),
            Err(NoRoom::Full) => {
                let turn = *this.turn.get_or_insert(inbox.last_turn + 1);
                inbox.last_turn = inbox.last_turn.max(turn);
                inbox.tasks.insert(turn, Waiting { bytes, waker: context.waker().clone() });
                this.spec = Some(spec);
                Poll::Pending
            }
        };
        // Not under the lock: its end may do anything.
        drop(before);
        polled
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let Some(turn) = self.turn.filter(|_| self.spec.is_some()) else { return };
        let mut inbox = lock(&self.shared.inbox);
        // It was woken, and the room is another's.
        let tasks =
            if inbox.tasks.remove(&turn).is_none() { inbox.next_tasks() } else { Vec::new() };
        drop(inbox);
        tasks.into_iter().for_each(task::Waker::wake);
    }
}

/// What the I/O thread tells everybody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Status {
    /// Mappers that have answered on their current connection.
    pub(super) mappers: usize,
    /// Mappers that list this instance.
    pub(super) registered: usize,
    /// The thread has ended.
    pub(super) ended: bool,
}

/// A value that can be waited for.
#[derive(Debug, Default)]
pub(super) struct Watch<T> {
    value: Mutex<T>,
    changed: Condvar,
}

impl<T: Copy + PartialEq> Watch<T> {
    pub(super) fn update(&self, change: impl FnOnce(&mut T)) {
        let mut value = lock(&self.value);
        let before = *value;
        change(&mut value);
        if *value != before {
            self.changed.notify_all();
        }
    }

    /// Waits until the value is as wanted, at most so long. Returns whether it is.
    pub(super) fn wait(&self, limit: Duration, wanted: impl Fn(&T) -> bool) -> bool {
        let value = lock(&self.value);
        let waited = self.changed.wait_timeout_while(value, limit, |value| !wanted(value));
        let (value, _) = waited.unwrap_or_else(PoisonError::into_inner);
        wanted(&value)
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave these values half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
