//! One program run for each job: payload on stdin, result on stdout, exit status 0 is success.
//!
//! A worker does not start programs itself. For each job that runs at a time it has a *keeper*, a
//! child that is this very executable (`svcmap exec-child`), and hands it the three files of the
//! job. The keeper runs the program and reports how it ended, once everything has ended that the
//! program had started, whatever process group or session that was in. At a job's deadline, and when
//! it is cancelled, all of that gets a SIGTERM, and after a while a SIGKILL; when the worker itself
//! is gone, SIGKILL at once. A keeper serves one job after another, so this costs less than a new
//! process for each.
//!
//! What can get away: a process of somebody else (`sudo`), which the keeper may not kill; and if a
//! keeper is itself ended by SIGKILL, what has left its session.

pub mod child;
mod io;
mod shell;
mod words;

pub use io::Runner;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use crate::errors::Failure;

/// How much of a program's stderr is kept for the error text: the last words matter.
pub const STDERR_BYTES_KEPT: usize = 4096;

/// Time that a program has between SIGTERM and SIGKILL, unless told otherwise.
pub const KILL_AFTER: Duration = Duration::from_secs(2);

/// The program that an instance runs for each job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    argv: Vec<String>,
    starter: PathBuf,
    kill_after: Duration,
    open_files: Option<u64>,
}

/// Why a command line names no program.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProgramError {
    /// Nothing but spaces: name a program.
    #[error("the command is empty")]
    Empty,
    /// A quote that is never closed, or a backslash at the end: close it.
    #[error("`{0}` has a quote that is not closed")]
    Quote(String),
    /// Something that only a shell understands: quote it, or run a shell.
    #[error("`{operator}` in `{command}` means something to a shell, but no shell runs")]
    Shell {
        /// What a shell would act on.
        operator: String,
        /// All of it.
        command: String,
    },
    /// No such executable file: install it, or name it with its path.
    #[error("`{0}` is no program here, neither as a path nor in PATH")]
    NotFound(String),
    /// A file that may not be executed: let it, or name what it is to be read by.
    #[error("`{0}` is not executable")]
    NotExecutable(String),
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        let failure = Failure::usage(format!("--exec: {error}"));
        match error {
            ProgramError::Empty => failure.fix("--exec 'sha256sum'"),
            ProgramError::Quote(_) => failure.fix("--exec 'convert - \"-resize 50%\" -'"),
            ProgramError::Shell { command, .. } => failure
                .fix(format!("{}, or quote it if it is meant as it is", shell::in_shell(&command))),
            ProgramError::NotExecutable(file) => failure.fix(format!("chmod +x {file}")),
            ProgramError::NotFound(_) => failure
                .fix("give its full path; shell words need a shell: --exec 'sh -c \"a | b\"'"),
        }
    }
}

impl Program {
    /// Splits a command as a shell would; no shell runs.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn parse(command: &str) -> Result<Self, ProgramError> {
        let argv = shlex::split(command).ok_or_else(|| ProgramError::Quote(command.to_owned()))?;
        if let Some(operator) = shell::first_operator(command) {
            return Err(ProgramError::Shell { operator, command: command.to_owned() });
        }
        if argv.is_empty() {
            return Err(ProgramError::Empty);
        }
        Ok(Self { argv, starter: own_executable(), kill_after: KILL_AFTER, open_files: None })
    }

    /// The same, with so much time between SIGTERM and SIGKILL.
    #[must_use]
    pub fn killed_after(self, kill_after: Duration) -> Self {
        Self { kill_after, ..self }
    }

    /// The same, which may open so many files (the soft limit) where the worker itself may open
    /// more; `None` leaves it what the worker has.
    #[must_use]
    pub fn with_open_files(self, open_files: Option<u64>) -> Self {
        Self { open_files, ..self }
    }

    /// The same, started by another build of svcmap than the running one: for tests.
    pub fn started_by(self, starter: impl Into<PathBuf>) -> Self {
        Self { starter: starter.into(), ..self }
    }

    /// Looks for the program as the system will: as a path if its name has a slash, else in the
    /// directories of `path`. To be asked once, when the worker starts.
    ///
    /// # Errors
    /// [`ProgramError::NotFound`], [`ProgramError::NotExecutable`].
    pub fn find(&self, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
        let name = self.argv.first().ok_or(ProgramError::Empty)?;
        let found = if name.contains('/') {
            Some(PathBuf::from(name)).filter(|file| io::is_executable(file))
        } else {
            let directories = std::env::split_paths(path.unwrap_or_default());
            directories.map(|dir| dir.join(name)).find(|file| io::is_executable(file))
        };
        found.ok_or_else(|| match name.contains('/') && io::is_file(name.as_ref()) {
            true => ProgramError::NotExecutable(name.clone()),
            false => ProgramError::NotFound(name.clone()),
        })
    }
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.argv.join(" "))
    }
}

/// This executable, for starting it again as a child. On Linux by a name that stays right when
/// the file is replaced or deleted by an upgrade.
fn own_executable() -> PathBuf {
    if cfg!(target_os = "linux") {
        PathBuf::from("/proc/self/exe")
    } else {
        // Where even that is unknown, PATH may know.
        std::env::current_exe().unwrap_or_else(|_| PathBuf::from("svcmap"))
    }
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The system could not start the program: it is gone, or there are too many processes or files.
    /// The next job may fare better. This one was not begun.
    #[error("the program could not be started: {0}")]
    Start(std::io::Error),
    /// The pipes to the program failed, or its keeper was killed; so was the program.
    #[error("the program could not be talked to: {0}")]
    Pipe(std::io::Error),
    /// The program said that it failed, or a signal ended it.
    #[error("{}", ended(.status, .stderr))]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last that it wrote to stderr.
        stderr: String,
    },
    /// It wrote more than the limit; it was killed.
    #[error("the result exceeds {limit_bytes} bytes; raise --payload-max, or return less")]
    ResultTooLarge {
        /// The limit.
        limit_bytes: usize,
    },
    /// It ran at the job's deadline or run limit; it was ended.
    #[error("the program was ended as the job's time was over")]
    Deadline,
    /// The sender took the job back, or the worker ends; the program was ended.
    #[error("cancelled; the program was ended")]
    Cancelled,
}

/// `exit status 3: no such model`.
fn ended(status: &ExitStatus, stderr: &str) -> String {
    use std::os::unix::process::ExitStatusExt;
    let what = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => status.to_string(),
    };
    match stderr.trim() {
        "" => what,
        last_words => format!("{what}: {last_words}"),
    }
}

/// The end of what was written, however much that is.
#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(STDERR_BYTES_KEPT);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// As text; what is no UTF-8 is replaced, and `…` stands for what is missing.
    fn text(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        let text = String::from_utf8_lossy(&[front, back].concat()).into_owned();
        if self.cut { format!("…{text}") } else { text }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_split_as_a_shell_does() {
        let argv = |command: &str| Program::parse(command).map(|program| program.argv);
        assert_eq!(argv("a 'b c' \"d\"").unwrap(), ["a", "b c", "d"]);
        assert_eq!(argv("  "), Err(ProgramError::Empty));
        assert_eq!(argv("a 'b"), Err(ProgramError::Quote("a 'b".to_owned())));
        assert!(
            matches!(argv("a | b"), Err(ProgramError::Shell { operator, .. }) if operator == "|")
        );
    }

    #[test]
    fn programs_are_found_by_path_or_in_path() {
        let find = |command: &str, path: &str| {
            Program::parse(command).unwrap().find(Some(OsStr::new(path))).ok()
        };
        assert_eq!(find("sh -c x", "/nowhere:/bin"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("/bin/sh", ""), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("sh", "/nowhere"), None);
        assert_eq!(find("/etc/passwd", ""), None);
        assert_eq!(find("/bin/", ""), None);
    }

    #[test]
    fn the_last_words_are_kept() {
        let mut tail = Tail::default();
        tail.push(b"first ");
        assert_eq!(tail.text(), "first ");
        for _ in 0..100 {
            tail.push(&[b'x'; 1000]);
        }
        tail.push(b"last\xff");
        assert!(tail.text().starts_with("…x") && tail.text().ends_with("xlast\u{fffd}"));
        assert_eq!(tail.bytes.len(), STDERR_BYTES_KEPT);
    }

    #[test]
    fn an_end_is_told_with_the_last_words() {
        use std::os::unix::process::ExitStatusExt;
        let exited = ExitStatus::from_raw(3 << 8);
        assert_eq!(ended(&exited, " no such model\n"), "exit status 3: no such model");
        assert_eq!(ended(&ExitStatus::from_raw(9), ""), "killed by signal 9");
    }
}
