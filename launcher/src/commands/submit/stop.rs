//! The end of a batch before its time: what was not begun is taken back at once, what runs is awaited
//! for a while, then cancelled, then given up.

use std::time::Duration;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use svcmap_proto::time::{Timestamp, earliest};

use crate::cli::SubmitArgs;
use crate::errors::Failure;
use crate::text::time;

/// How long a job that was cancelled may take to say how it ended: programs have some time between
/// SIGTERM and SIGKILL.
const CANCEL_PATIENCE: Duration = Duration::from_secs(5);

/// Why no more jobs are sent.
#[derive(Debug)]
pub enum Why {
    /// A signal.
    Signal(i32),
    /// Nobody reads stdout any more.
    OutputClosed,
    /// Too many jobs are not done.
    Enough,
    /// Something failed that all jobs depend on.
    Failure(Failure),
}

/// See the module.
#[derive(Debug)]
pub struct Stop {
    /// Why.
    pub why: Why,
    /// When what still runs is cancelled.
    cancel_at: Option<Timestamp>,
    /// When nothing is awaited any more.
    leave_at: Option<Timestamp>,
}

impl Stop {
    /// From now on.
    pub fn new(why: Why, now: Timestamp, grace: Duration) -> Self {
        // Who only wants no more failures wants what runs to end well.
        let is_hurried = !matches!(why, Why::Enough);
        Self { why, cancel_at: is_hurried.then_some(now + grace), leave_at: None }
    }

    /// This one, and then another: the exit code is a signal's, else that of what was first, and time
    /// is what either leaves.
    pub fn and(self, later: Self) -> Self {
        let cancel_at = match self.has_cancelled() {
            true => None,
            false => earliest(self.cancel_at, later.cancel_at),
        };
        let why = if later.is_by_signal() { later.why } else { self.why };
        Self { why, cancel_at, leave_at: self.leave_at }
    }

    /// Whether a signal is the reason.
    pub fn is_by_signal(&self) -> bool {
        matches!(self.why, Why::Signal(_))
    }

    /// Whether that signal is one too many: it ends everything at once. One closed terminal sends
    /// several SIGHUP.
    pub fn is_ended_by(&mut self, signal: i32) -> bool {
        let is_last = signal != SIGHUP && matches!(self.why, Why::Signal(_) | Why::OutputClosed);
        if is_last {
            self.why = Why::Signal(signal);
        }
        is_last
    }

    /// What people are told. `is_idle`: nothing is under way.
    pub fn note(&self, args: &SubmitArgs, is_idle: bool) -> Option<String> {
        let signal = match self.why {
            Why::Signal(SIGINT) => "SIGINT",
            Why::Signal(SIGTERM) => "SIGTERM",
            Why::Signal(SIGHUP) => "SIGHUP",
            Why::Signal(_) => "a signal",
            Why::Enough => {
                let count = args.stop_after.map_or(0, |count| count.get());
                return Some(format!(
                    "{count} not done, so no more jobs are begun (--stop-after); those that run go on"
                ));
            }
            Why::OutputClosed | Why::Failure(_) => return None,
        };
        if args.detach {
            return Some(format!(
                "{signal}: no more jobs are sent; workers do those that they have; Ctrl-C again: at once"
            ));
        }
        (!is_idle).then(|| {
            format!(
                "{signal}: no more jobs are begun, and those that run have {}; Ctrl-C again: at once",
                time(args.grace)
            )
        })
    }

    /// When [`Stop::poll_cancel`] or [`Stop::is_over`] changes.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        earliest(self.cancel_at, self.leave_at)
    }

    /// Whether what still runs is to be cancelled now. It is told once.
    pub fn poll_cancel(&mut self, now: Timestamp) -> bool {
        let is_due = self.cancel_at.is_some_and(|at| at <= now);
        if is_due {
            self.cancel_at = None;
            self.leave_at = Some(now + CANCEL_PATIENCE);
        }
        is_due
    }

    /// Whether what still runs was cancelled.
    pub fn has_cancelled(&self) -> bool {
        self.leave_at.is_some()
    }

    /// Whether nothing is awaited any more.
    pub fn is_over(&self, now: Timestamp) -> bool {
        self.leave_at.is_some_and(|at| at <= now)
    }
}
