//! What the handles that users hold share with the I/O thread.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crossbeam_channel::Sender;
use svcmap_proto::io::Waker;
use svcmap_proto::names::Name;

use super::ticket::Settler;
use crate::config::OutboxConfig;
use crate::outbox::{JobId, JobSpec};
use crate::statistics::Statistics;

/// What a handle asks of the I/O thread.
#[derive(Debug)]
pub(super) enum Command {
    /// Send this job.
    Submit(JobId, JobSpec, Settler),
    /// Take this job back.
    Cancel(JobId),
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
    commands: Sender<Command>,
    waker: Waker,
    next_job: AtomicU64,
    pub(super) config: OutboxConfig,
    pub(super) permits: Arc<Permits>,
    pub(super) status: Watch<Status>,
}

impl Shared {
    pub(super) fn new(commands: Sender<Command>, waker: Waker, config: OutboxConfig) -> Self {
        Self {
            commands,
            waker,
            next_job: AtomicU64::new(1),
            permits: Arc::new(Permits::new(config.jobs_max, config.jobs_bytes_max)),
            config,
            status: Watch::default(),
        }
    }

    /// Hands a command to the I/O thread. `false` if that has ended.
    pub(super) fn command(&self, command: Command) -> bool {
        let sent = self.commands.send(command).is_ok();
        self.waker.wake();
        sent
    }

    pub(super) fn next_job(&self) -> JobId {
        JobId(self.next_job.fetch_add(1, Ordering::Relaxed))
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

/// Room for jobs without an outcome, in number and in bytes.
#[derive(Debug)]
pub(super) struct Permits {
    free: Mutex<Free>,
    freed: Condvar,
}

#[derive(Clone, Copy, Debug)]
struct Free {
    jobs: usize,
    bytes: usize,
    closed: bool,
}

/// Room that one job takes, given back when this is dropped.
#[derive(Debug)]
pub(super) struct Permit {
    permits: Arc<Permits>,
    bytes: usize,
}

/// There is no room, or there will never be any again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoPermit {
    Full,
    Closed,
}

impl Permits {
    fn new(jobs: usize, bytes: usize) -> Self {
        let free = Mutex::new(Free { jobs, bytes, closed: false });
        Self { free, freed: Condvar::new() }
    }

    /// Takes room for a job, waiting for it if `wait` says so.
    pub(super) fn take(self: &Arc<Self>, bytes: usize, wait: bool) -> Result<Permit, NoPermit> {
        let mut free = lock(&self.free);
        loop {
            if free.closed {
                return Err(NoPermit::Closed);
            }
            if free.jobs > 0 && free.bytes >= bytes {
                free.jobs -= 1;
                free.bytes -= bytes;
                return Ok(Permit { permits: Arc::clone(self), bytes });
            }
            if !wait {
                return Err(NoPermit::Full);
            }
            free = self.freed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Nobody gets room any more, and nobody waits for it.
    pub(super) fn close(&self) {
        lock(&self.free).closed = true;
        self.freed.notify_all();
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut free = lock(&self.permits.free);
        free.jobs += 1;
        free.bytes += self.bytes;
        drop(free);
        self.permits.freed.notify_all();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic elsewhere cannot leave these values half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
