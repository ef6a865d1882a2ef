//! What the thread that looks after a program that stays, and those that give it jobs, know together.

use std::io::PipeReader;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::keeper::Ender;
use super::pipes::{CHUNK_BYTES, read_now};
use crate::exec::frames::FrameError;
use crate::exec::stderr::Tail;

/// One life of the program, from outside.
#[derive(Debug)]
pub(super) struct Watch {
    ender: Ender,
    pub(super) stderr: PipeReader,
    /// What it wrote to stderr in its last job, or since.
    words: Mutex<Tail>,
    /// How it ended; `None` within if nobody knows.
    end: Mutex<Option<Option<ExitStatus>>>,
    has_ended: Condvar,
    /// Whether it has answered a job.
    has_served: AtomicBool,
    /// Why it was ended, if it was.
    reason: Mutex<Option<Reason>>,
}

/// Why a program is ended.
#[derive(Clone, Debug)]
pub(super) enum Reason {
    /// It is not its fault: the time of a job was over, or that of the worker.
    Time,
    /// It is not understood.
    Broken(FrameError),
    /// It cannot be talked to.
    Pipe,
}

impl Watch {
    pub(super) fn new(ender: Ender, stderr: PipeReader) -> Self {
        Self {
            ender,
            stderr,
            words: Mutex::default(),
            end: Mutex::default(),
            has_ended: Condvar::new(),
            has_served: AtomicBool::new(false),
            reason: Mutex::default(),
        }
    }

    fn words(&self) -> MutexGuard<'_, Tail> {
        self.words.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_state(&self) -> MutexGuard<'_, Option<Option<ExitStatus>>> {
        self.end.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads what there is on stderr, at most so many chunks. Whether there may be more later.
    pub(super) fn read_stderr(&self, chunks: usize) -> bool {
        let mut buffer = [0; 4096];
        // Under the lock, so that nothing is on its way when somebody takes the words.
        let mut words = self.words();
        for _ in 0..chunks * CHUNK_BYTES / buffer.len() {
            match read_now(&self.stderr, &mut buffer) {
                Ok(Some(0)) | Err(_) => return false,
                Ok(Some(count)) => words.push(&buffer[..count]),
                Ok(None) => break,
            }
        }
        true
    }

    /// What was written until now and not taken.
    pub(super) fn take_words(&self) -> Tail {
        std::mem::take(&mut self.words())
    }

    /// Its last words.
    pub(super) fn last_words(&self) -> String {
        self.words().text()
    }

    /// Tells everybody that it has ended.
    pub(super) fn set_ended(&self, status: Option<ExitStatus>) {
        *self.end_state() = Some(status);
        self.has_ended.notify_all();
    }

    /// How it ended, if it has.
    pub(super) fn status(&self) -> Option<Option<ExitStatus>> {
        *self.end_state()
    }

    /// Has it ended: SIGTERM now, SIGKILL later.
    pub(super) fn end(&self, reason: Reason) {
        // Under the lock: what would run after it is not meant.
        let state = self.end_state();
        if state.is_none() {
            self.reason.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
            self.ender.end();
        }
    }

    /// Why it was ended, if it was and had not ended by itself.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.reason.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It has answered a job.
    pub(super) fn set_served(&self) {
        self.has_served.store(true, Ordering::Relaxed);
    }

    /// Whether it has.
    pub(super) fn has_served(&self) -> bool {
        self.has_served.load(Ordering::Relaxed)
    }

    /// Its keeper is of no use any more: it is ended with the program.
    pub(super) fn give_up(&self) {
        let state = self.end_state();
        if state.is_none() {
            self.ender.dismiss();
        }
    }

    /// Waits for its end. Whether it came.
    pub(super) fn wait_ended(&self, limit: Duration) -> bool {
        let state = self.end_state();
        let waited = self.has_ended.wait_timeout_while(state, limit, |end| end.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }
}
