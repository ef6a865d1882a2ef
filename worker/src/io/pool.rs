//! The handler threads, and what a handler sees.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use serde::de::DeserializeOwned;
use svcmap_proto::codec::{self, ValueError};
use svcmap_proto::io::{Clock, Waker};
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use crate::intake::{Ending, TaskId};

/// Longest error text that goes back to a sender, in bytes; the rest is cut.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// What user code is called as: once for each job, from `concurrency` threads.
pub(super) type Handler = dyn Fn(&Job) -> Result<Vec<u8>, HandlerError> + Send + Sync;

/// A job as its handler sees it.
#[derive(Debug)]
pub struct Job {
    pub(super) payload: Bytes,
    pub(super) key: Arc<InstanceKey>,
    pub(super) arrived_at: Timestamp,
    pub(super) deadline: Option<Timestamp>,
    pub(super) cancelled: Arc<AtomicBool>,
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

    /// Time since it came to this worker.
    pub fn age(&self) -> Duration {
        Clock.now().since(self.arrived_at)
    }

    /// Time until its deadline or its run limit, whichever comes first; zero if that has passed,
    /// `None` if it has neither.
    pub fn time_left(&self) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(Clock.now()))
    }

    /// Whether nobody waits for it any more: it was cancelled, its deadline or its run limit passed,
    /// its sender has ended in order or has given it up, or the grace of a drain is over. A
    /// long-running handler looks here from time to time and returns early.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// A handler's error, as its sender will read it. Made from any error by `?`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    text: String,
    was_started: bool,
}

impl HandlerError {
    /// An error with this text.
    pub fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), was_started: true }
    }

    /// What would run the job could not be started, and nothing of it has run: a program that is
    /// gone, a device that is busy. The job is tried at another instance, and this one's log and
    /// `svcmap status` show the text.
    pub fn cannot_start(text: impl fmt::Display) -> Self {
        Self { text: text.to_string(), was_started: false }
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
    pub(super) job: Job,
}

/// What a handler made of a job.
pub(super) struct Completion {
    pub(super) id: TaskId,
    pub(super) ending: Ending,
    pub(super) payload: Vec<u8>,
}

/// Starts the handler threads. They end when `assignments` is closed and what they run is done.
pub(super) fn start(
    concurrency: u32,
    handler: Arc<Handler>,
    payload_bytes_max: usize,
    assignments: &Receiver<Assignment>,
    completions: &Sender<Completion>,
    waker: &Waker,
) -> std::io::Result<()> {
    for number in 1..=concurrency {
        let (assignments, completions) = (assignments.clone(), completions.clone());
        let (handler, waker) = (Arc::clone(&handler), waker.clone());
        std::thread::Builder::new().name(format!("svcmap-job-{number}")).spawn(move || {
            for Assignment { id, job } in assignments {
                let (ending, payload) = run(&*handler, &job, payload_bytes_max);
                // Nobody listens once the worker has stopped.
                if completions.send(Completion { id, ending, payload }).is_err() {
                    return;
                }
                waker.wake();
            }
        })?;
    }
    Ok(())
}

fn run(handler: &Handler, job: &Job, payload_bytes_max: usize) -> (Ending, Vec<u8>) {
    let result = catch_unwind(AssertUnwindSafe(|| handler(job))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        Err(HandlerError::new(format!("the handler panicked: {}", text.unwrap_or("no message"))))
    });
    match result {
        Ok(result) if result.len() <= payload_bytes_max => (Ending::Done, result),
        Ok(result) => {
            let bytes = result.len();
            let error = format!("the result has {bytes} bytes, the limit is {payload_bytes_max}");
            (Ending::Failed, error.into())
        }
        Err(HandlerError { text, was_started }) => {
            let mut error = text.into_bytes();
            error.truncate(ERROR_BYTES_MAX);
            (if was_started { Ending::Failed } else { Ending::NotStarted }, error)
        }
    }
}
