//! The handler threads, and what a handler sees.

use std::collections::VecDeque;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use svcmap_proto::codec::{self, ValueError};
use svcmap_proto::io::{Clock, Waker};
use svcmap_proto::jobs::Priority;
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::{InstanceKey, SenderId};
use svcmap_proto::time::Timestamp;

use super::progress::{Board, Reporter};
use super::shared::lock;
use crate::intake::{Ending, Origin, TaskId, Terms};

/// Longest error text that goes back to a sender, in bytes; the rest is cut.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// What user code is called as: once for each job, from `concurrency` threads.
pub(super) type Handler = dyn Fn(&Job) -> Result<Vec<u8>, HandlerError> + Send + Sync;

/// A job as its handler sees it.
#[derive(Debug)]
pub struct Job {
    pub(super) id: TaskId,
    pub(super) origin: Origin,
    pub(super) payload: Bytes,
    pub(super) key: Arc<InstanceKey>,
    pub(super) arrived_at: Timestamp,
    /// Its deadline is here that or its run limit, whichever comes first.
    pub(super) terms: Terms,
    /// The flag of the handler that runs it.
    pub(super) cancelled: Arc<AtomicBool>,
    pub(super) reporter: Reporter,
}

impl Job {
    /// What the sender sent.
    pub fn payload(&self) -> &[u8] {
        &self.payload
    }

    /// The value that the sender submitted as a typed one.
    ///
    /// # Errors
    /// If the payload holds no such value.
    pub fn decode<T: DeserializeOwned>(&self) -> Result<T, ValueError> {
        codec::decode_value(&self.payload)
    }

    /// The instance that runs it.
    pub fn instance(&self) -> &InstanceKey {
        &self.key
    }

    /// Its number at its sender; for one that came over the JSON dialect, its number here.
    pub fn number(&self) -> u64 {
        match self.origin {
            Origin::Sender { attempt, .. } => attempt.job,
            _ => self.id.0,
        }
    }

    /// How often its sender has sent it to a worker, this time included.
    pub fn attempt(&self) -> u32 {
        match self.origin {
            Origin::Sender { attempt, .. } => attempt.attempt,
            _ => 1,
        }
    }

    /// The random number of the process that sent it; `None` if it came over the JSON dialect.
    pub fn sender(&self) -> Option<SenderId> {
        match self.origin {
            Origin::Sender { sender, .. } => Some(sender),
            _ => None,
        }
    }

    /// What its sender says of it beside its payload.
    pub fn metadata(&self) -> &Metadata {
        &self.terms.metadata
    }

    /// Before which other jobs it went.
    pub fn priority(&self) -> Priority {
        self.terms.priority
    }

    /// Time since it came to this worker.
    pub fn age(&self) -> Duration {
        Clock.now().since(self.arrived_at)
    }

    /// Time until its deadline or its run limit, whichever comes first; zero if that has passed,
    /// `None` if it has neither.
    pub fn time_left(&self) -> Option<Duration> {
        self.terms.deadline.map(|deadline| deadline.since(Clock.now()))
    }

    /// Tells its sender how far it is, in a short text for people, such as `40 %`: at most 256 bytes, the
    /// rest is cut. Of what is said more often than ten times a second the newest is told. The sender
    /// reads it in [`Ticket::progress`](crate::Ticket::progress), unless it gets lost on the way, or speaks
    /// JSON.
    pub fn progress(&self, text: impl Into<String>) {
        self.reporter.report(text.into());
    }

    /// Whether nobody waits for it any more: it was cancelled, its deadline or its run limit passed,
    /// its sender has ended in order or has given it up, the grace of a drain is over, or its worker was
    /// dropped. A long-running handler looks here from time to time and returns early.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A handler's error, as its sender will read it. Made from any error by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    text: String,
    code: Option<i32>,
    was_started: bool,
}

impl HandlerError {
    /// An error with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), code: None, was_started: true }
    }

    /// The same with a number for programs to go by, such as an exit status: its sender reads it in
    /// [`Failure::code`](crate::Failure::code).
    #[must_use]
    pub fn with_code(self, code: i32) -> Self {
        Self { code: Some(code), ..self }
    }

    /// What would run the job could not be started, and nothing of it has run: a program that is
    /// gone, a device that is busy. The job is tried at another instance, and this one's log and
    /// `svcmap status` show the text.
    pub fn cannot_start(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), code: None, was_started: false }
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(error)
    }
}

/// A job on its way to a handler.
pub(super) struct Assignment {
    pub(super) id: TaskId,
    pub(super) origin: Origin,
    pub(super) payload: Bytes,
    pub(super) arrived_at: Timestamp,
    /// Its deadline is here that or its run limit, whichever comes first.
    pub(super) terms: Terms,
}

/// What a handler made of a job, and when it began and ended it.
pub(super) struct Completion {
    pub(super) id: TaskId,
    pub(super) began_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) ending: Ending,
    pub(super) payload: Bytes,
}

/// The handler threads. They end when this is dropped and what they run is done.
pub(super) struct Pool {
    bench: Arc<Bench>,
    /// For each handler, whether anybody waits for what it does.
    cancelled: Vec<Arc<AtomicBool>>,
}

/// Where the handlers find their work, and put what they have made of it.
struct Bench {
    work: Mutex<Work>,
    has_work: Condvar,
    done: Mutex<Vec<Completion>>,
    progress: Arc<Board>,
    waker: Waker,
}

#[derive(Default)]
struct Work {
    /// What no handler has begun.
    queue: VecDeque<Assignment>,
    /// What each handler runs.
    running: Vec<Option<TaskId>>,
    /// Handlers that sleep, and those of them that were woken and have not noticed yet.
    asleep: u32,
    woken: u32,
    is_over: bool,
}

impl Pool {
    /// Starts so many threads of that instance.
    pub(super) fn start(
        concurrency: u32,
        handler: &Arc<Handler>,
        key: &Arc<InstanceKey>,
        payload_bytes_max: usize,
        waker: Waker,
    ) -> std::io::Result<Self> {
        let running = vec![None; concurrency as usize];
        let (work, has_work) = (Mutex::new(Work { running, ..Work::default() }), Condvar::new());
        let progress = Arc::new(Board::new(waker.clone()));
        let bench = Arc::new(Bench { work, has_work, done: Mutex::default(), progress, waker });
        let cancelled: Vec<_> = (0..concurrency).map(|_| Arc::<AtomicBool>::default()).collect();
        let pool = Self { bench, cancelled };
        for (number, cancelled) in pool.cancelled.iter().enumerate() {
            let (bench, handler) = (Arc::clone(&pool.bench), Arc::clone(handler));
            let (key, cancelled) = (Arc::clone(key), Arc::clone(cancelled));
            let thread = std::thread::Builder::new().name(format!("svcmap-job-{}", number + 1));
            thread.spawn(move || {
                let place = Place { number, key, cancelled };
                bench.serve(place, &*handler, payload_bytes_max);
            })?;
        }
        Ok(pool)
    }

    /// Hands the handlers these jobs.
    pub(super) fn assign(&self, assignments: impl ExactSizeIterator<Item = Assignment>) {
        let jobs = u32::try_from(assignments.len()).unwrap_or(u32::MAX);
        let mut work = lock(&self.bench.work);
        work.queue.extend(assignments);
        // One that was woken looks for more before it sleeps again.
        let woken = jobs.min(work.asleep - work.woken);
        work.woken += woken;
        drop(work);
        (0..woken).for_each(|_| self.bench.has_work.notify_one());
    }

    /// Takes back all that no handler has begun.
    pub(super) fn take_back(&self) -> VecDeque<Assignment> {
        std::mem::take(&mut lock(&self.bench.work).queue)
    }

    /// Takes back that job. `false` if a handler has begun it: that is told then.
    pub(super) fn cancel(&self, id: TaskId) -> bool {
        let mut work = lock(&self.bench.work);
        let place = work.queue.iter().position(|assignment| assignment.id == id);
        if place.and_then(|place| work.queue.remove(place)).is_some() {
            return true;
        }
        // Under the lock, as the next job of that handler is not meant.
        if let Some(number) = work.running.iter().position(|running| *running == Some(id)) {
            self.cancelled[number].store(true, Ordering::Relaxed);
        }
        false
    }

    /// What handlers say of how far their jobs are.
    pub(super) fn progress(&self) -> &Board {
        &self.bench.progress
    }

    /// Whether any job has ended that was not taken yet.
    pub(super) fn has_done(&self) -> bool {
        !lock(&self.bench.done).is_empty()
    }

    /// Exchanges the jobs that have ended for an empty list.
    pub(super) fn take_done(&self, done: &mut Vec<Completion>) {
        std::mem::swap(&mut *lock(&self.bench.done), done);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut work = lock(&self.bench.work);
        work.is_over = true;
        work.queue.clear();
        // What still runs is of use to nobody.
        self.cancelled.iter().for_each(|cancelled| cancelled.store(true, Ordering::Relaxed));
        drop(work);
        self.bench.has_work.notify_all();
    }
}

/// Where one handler sits.
struct Place {
    number: usize,
    key: Arc<InstanceKey>,
    cancelled: Arc<AtomicBool>,
}

impl Bench {
    /// Runs one job after the other.
    fn serve(&self, place: Place, handler: &Handler, payload_bytes_max: usize) {
        while let Some(assignment) = self.next(&place) {
            let Assignment { id, origin, payload, arrived_at, terms } = assignment;
            let (key, cancelled) = (Arc::clone(&place.key), Arc::clone(&place.cancelled));
            let reporter = Reporter::new(id, &self.progress);
            let job = Job { id, origin, payload, key, arrived_at, terms, cancelled, reporter };
            let began_at = Clock.now();
            let (ending, payload) = run(handler, &job, payload_bytes_max);
            let ended_at = Clock.now();
            lock(&self.done).push(Completion { id, began_at, ended_at, ending, payload });
            self.waker.wake();
        }
    }

    fn next(&self, place: &Place) -> Option<Assignment> {
        let mut work = lock(&self.work);
        work.running[place.number] = None;
        loop {
            if work.is_over {
                return None;
            }
            if let Some(assignment) = work.queue.pop_front() {
                work.running[place.number] = Some(assignment.id);
                place.cancelled.store(false, Ordering::Relaxed);
                return Some(assignment);
            }
            work.asleep += 1;
            work = self.has_work.wait(work).unwrap_or_else(PoisonError::into_inner);
            work.asleep -= 1;
            work.woken = work.woken.saturating_sub(1);
        }
    }
}

fn run(handler: &Handler, job: &Job, payload_bytes_max: usize) -> (Ending, Bytes) {
    let result = catch_unwind(AssertUnwindSafe(|| handler(job))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(HandlerError::new(format!("the handler panicked: {}", text.unwrap_or("no message"))))
    });
    match result {
        Ok(result) if result.len() <= payload_bytes_max => (Ending::Done, result.into()),
        Ok(result) => {
            let bytes = result.len();
            let error = format!("the result has {bytes} bytes, the limit is {payload_bytes_max}");
            (Ending::Failed { code: None }, error.into())
        }
        Err(HandlerError { text, code, was_started }) => {
            let mut error = text.into_bytes();
            error.truncate(ERROR_BYTES_MAX);
            (if was_started { Ending::Failed { code } } else { Ending::NotStarted }, error.into())
        }
    }
}

#[cfg(test)]
mod tests;
