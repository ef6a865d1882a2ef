//! Children of this executable: started, watched, stopped. Nothing is started again here.
//!
//! A supervisor stays in the thread that made it. The system ends a child when the *thread* that
//! started it ends, so that thread has to live as long as its children should: the main one.

mod io;

pub use io::Supervisor;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;

use svcmap_proto::names::Incarnation;

/// Names a child of a supervisor. Never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChildId(u64);

/// What to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChildSpec {
    /// What to call it in reports, such as `resize/1`.
    pub name: String,
    /// The command and its flags, such as `worker --service resize`. The supervisor adds its own.
    pub args: Vec<OsString>,
    /// What is added to its environment.
    pub env: BTreeMap<String, String>,
    /// What it does not inherit of the environment.
    pub without_env: Vec<&'static str>,
    /// Where it is started, if not here.
    pub dir: Option<PathBuf>,
    /// What becomes of its stdout.
    pub stdout: Output,
    /// What becomes of its stderr.
    pub stderr: Output,
}

impl ChildSpec {
    /// A child whose stdout nobody reads, and whose stderr is ours.
    pub fn new(
        name: impl Into<String>,
        args: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Self {
        Self {
            name: name.into(),
            args: args.into_iter().map(Into::into).collect(),
            env: BTreeMap::new(),
            without_env: Vec::new(),
            dir: None,
            stdout: Output::Nobody,
            stderr: Output::Ours,
        }
    }

    /// The same with a stdout whose first line [`Supervisor::first_line`] reads.
    pub fn with_first_line(self) -> Self {
        Self { stdout: Output::FirstLine, ..self }
    }
}

/// What becomes of a child's stdout or stderr.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// It goes where the supervisor's goes.
    Ours,
    /// It is thrown away.
    Nobody,
    /// Its first line can be read; a child that writes much more than that stands still.
    FirstLine,
    /// Whoever asks for it reads it: [`Supervisor::take_pipes`].
    Piped,
}

/// A child that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Which one.
    pub child: ChildId,
    /// What it was called.
    pub name: String,
    /// Its process id. Another process may have it by now.
    pub pid: u32,
    /// Which life of its instance it was: what mappers have to be told.
    pub incarnation: Incarnation,
    /// How it ended.
    pub status: ExitStatus,
}

impl Exit {
    /// How it ended, such as `exited with status 3`.
    pub fn how(&self) -> String {
        use std::os::unix::process::ExitStatusExt;
        match (self.status.code(), self.status.signal()) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => format!("ended: {}", self.status),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {}) {}", self.name, self.pid, self.how())
    }
}

/// Why a child is of no use.
#[derive(Debug, thiserror::Error)]
pub enum SupervisorError {
    /// The system could not start another process, or this executable is gone.
    #[error("{name} could not be started: {reason}")]
    Start {
        /// What it was to be called.
        name: String,
        /// In the system's words.
        reason: std::io::Error,
    },
    /// It ended or closed its stdout without writing a line: its stderr says why.
    #[error("{name} ended before it was ready")]
    NoLine {
        /// What it is called.
        name: String,
    },
    /// It may become ready later: wait longer, or end it.
    #[error("{name} was not ready in time")]
    Late {
        /// What it is called.
        name: String,
    },
    /// There is no child of that id any more.
    #[error("no such child")]
    Unknown,
}

/// The incarnation of the next child: Unix time in microseconds, but always more than the last.
fn next_incarnation(last: Incarnation, unix_us: u64) -> Incarnation {
    Incarnation(unix_us.max(last.0.saturating_add(1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn incarnations_grow_even_if_the_clock_does_not() {
        assert_eq!(next_incarnation(Incarnation(0), 50), Incarnation(50));
        assert_eq!(next_incarnation(Incarnation(50), 50), Incarnation(51));
        assert_eq!(next_incarnation(Incarnation(60), 50), Incarnation(61));
    }

    #[test]
    fn an_exit_says_who_and_how() {
        use std::os::unix::process::ExitStatusExt;
        let mut exit = Exit {
            child: ChildId(1),
            name: "resize/1".to_owned(),
            pid: 7,
            incarnation: Incarnation(1),
            status: ExitStatus::from_raw(3 << 8),
        };
        assert_eq!(exit.to_string(), "resize/1 (pid 7) exited with status 3");
        exit.status = ExitStatus::from_raw(9);
        assert_eq!(exit.to_string(), "resize/1 (pid 7) was ended by signal 9");
    }
}
