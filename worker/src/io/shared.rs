//! What the handles that users hold share with the I/O thread.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use rustc_hash::FxHashMap;
use svcmap_proto::io::{Spin, Waker};
use svcmap_proto::names::{Name, NameError};

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
    /// Serve no more, within this grace, and then stop.
    Drain(Duration),
    /// Stop now.
    Stop,
}

/// See the module.
#[derive(Debug)]
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

/// What waits for the I/O thread, and how much more may.
#[derive(Debug)]
struct Inbox {
    commands: Vec<Command>,
    last_job: u64,
    /// Room for jobs without an outcome.
    free: Room,
    /// Threads that wait for some.
    waiting: u32,
    /// The I/O thread has ended, or is about to.
    is_closed: bool,
}

/// Room for jobs, in number and in bytes of their payloads.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Room {
    pub(super) jobs: usize,
    pub(super) bytes: usize,
}

/// There is no room, or there will never be any again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    Full,
    Closed,
}

impl Shared {
    pub(super) fn new(waker: Waker, config: OutboxConfig) -> Self {
        let free = Room { jobs: config.jobs_max, bytes: config.jobs_bytes_max };
        let (commands, last_job, waiting, is_closed) = (Vec::new(), 0, 0, false);
        Self {
            inbox: Mutex::new(Inbox { commands, last_job, free, waiting, is_closed }),
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
    pub(super) fn submit(self: &Arc<Self>, spec: JobSpec, wait: bool) -> Result<Ticket, NoRoom> {
        let bytes = spec.payload.len();
        let mut inbox = lock(&self.inbox);
        loop {
            if inbox.is_closed {
                return Err(NoRoom::Closed);
            }
            if inbox.free.jobs > 0 && inbox.free.bytes >= bytes {
                break;
            }
            if !wait {
                return Err(NoRoom::Full);
            }
            inbox.waiting += 1;
            inbox = self.has_room.wait(inbox).unwrap_or_else(PoisonError::into_inner);
            inbox.waiting -= 1;
        }
        inbox.free.jobs -= 1;
        inbox.free.bytes -= bytes;
        inbox.last_job += 1;
        let (ticket, completer) = ticket(JobId(inbox.last_job), bytes, self);
        inbox.commands.push(Command::Submit(spec, completer));
        drop(inbox);
        self.waker.wake();
        Ok(ticket)
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
        let is_wanted = inbox.waiting > 0;
        drop(inbox);
        if is_wanted {
            self.has_room.notify_all();
        }
    }

    /// Nothing is taken any more, and nobody waits for it. Returns what was not looked at.
    pub(super) fn close(&self) -> Vec<Command> {
        let mut inbox = lock(&self.inbox);
        inbox.is_closed = true;
        self.has_room.notify_all();
        std::mem::take(&mut inbox.commands)
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
