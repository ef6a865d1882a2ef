//! Programs that do a worker's jobs.
//!
//! A worker does not start programs itself. For each job that runs at a time it has a *keeper*, a
//! child that is this very executable (`svcmap exec-child`), and hands it the three files of a
//! program. The keeper runs it and reports how it ended, once everything has ended that the program
//! had started, whatever process group or session that was in. When the program is to end, all of that
//! gets a SIGTERM, and after a while a SIGKILL; when the worker itself is gone, SIGKILL at once.
//!
//! - Under `--exec` a [`Runner`] runs the program once for each job: payload on stdin, result on
//!   stdout, exit status 0 is success. A keeper serves one job after another, so this costs less than
//!   a new process for each.
//! - Under `--exec-loop` [`Residents`] keep the program running, once for each job that runs at a
//!   time. The thread of a handler writes to its stdin and reads from its stdout ([`frames`]);
//!   another one for each program starts it, reads its stderr, and starts it again when it died.
//!
//! What can get away: a process of somebody else (`sudo`), which the keeper may not kill; and if a
//! keeper is itself ended by SIGKILL, what has left its session.

pub mod child;
mod environment;
mod error;
pub mod frames;
mod io;
mod program;
mod progress;
mod restarts;
mod shell;
mod stderr;
mod words;

pub use error::{ExecError, last_words};
pub use io::{Residents, Runner, StderrLog};
pub use program::{KILL_AFTER, Program, ProgramError, find};

use slog::Logger;
use svcmap_proto::metadata::Metadata;
use svcmap_proto::time::Timestamp;

/// A job as it is given to a program.
pub struct Task<'a> {
    /// Its number at its sender.
    pub number: u64,
    /// Which try of the job this is, from 1.
    pub attempt: u32,
    /// Where what the program says to people goes.
    pub log: &'a Logger,
    /// What its sender says of it.
    pub metadata: &'a Metadata,
    /// What the program gets.
    pub payload: &'a [u8],
    /// When it has to be over, if it has to be.
    pub deadline: Option<Timestamp>,
    /// Whether it is to end now; asked every 50 ms.
    pub is_cancelled: &'a dyn Fn() -> bool,
    /// Told how far it is, in the program's words.
    pub report: &'a dyn Fn(String),
}

impl Task<'_> {
    /// Time until it has to be over, in seconds, to the millisecond.
    fn seconds_left(&self, now: Timestamp) -> Option<f64> {
        self.deadline.map(|deadline| deadline.since(now).as_millis() as f64 / 1e3)
    }

    /// Whether it has to end now, and why.
    fn check(&self, now: Timestamp) -> Result<(), ExecError> {
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            Err(ExecError::Deadline)
        } else if (self.is_cancelled)() {
            Err(ExecError::Cancelled)
        } else {
            Ok(())
        }
    }
}
