//! One program run for each job: payload on stdin, result on stdout, exit status 0 is success.
//!
//! The program is started through this very executable (`svcmap exec-child`), which first asks the
//! system to be killed when the worker ends, however it ends, and then becomes the program. It
//! leads a process group of its own, and whatever of that group is left at the end of the job is
//! killed. Only what a program puts into another session (`setsid`) outlives its job.

pub mod child;
mod io;

pub use io::run;

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitStatus;

use crate::errors::Failure;

/// How much of a program's stderr is kept for the error text: the last words matter.
pub const STDERR_BYTES_KEPT: usize = 4096;

/// The program that an instance runs for each job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    argv: Vec<String>,
    starter: PathBuf,
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
    /// No such executable file: install it, or name it with its path.
    #[error("`{0}` is no program here, neither as a path nor in PATH")]
    NotFound(String),
}

impl From<ProgramError> for Failure {
    fn from(error: ProgramError) -> Self {
        let failure = Failure::usage(format!("--exec: {error}"));
        match error {
            ProgramError::Empty => failure.fix("--exec 'sha256sum'"),
            ProgramError::Quote(_) => failure.fix("--exec 'convert - \"-resize 50%\" -'"),
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
        if argv.is_empty() {
            return Err(ProgramError::Empty);
        }
        Ok(Self { argv, starter: own_executable() })
    }

    /// The same, started by another build of svcmap than the running one: for tests.
    pub fn started_by(self, starter: impl Into<PathBuf>) -> Self {
        Self { starter: starter.into(), ..self }
    }

    /// Looks for the program as the system will: as a path if its name has a slash, else in the
    /// directories of `path`. To be asked once, when the worker starts.
    ///
    /// # Errors
    /// [`ProgramError::NotFound`].
    pub fn find(&self, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
        let name = self.argv.first().ok_or(ProgramError::Empty)?;
        let found = if name.contains('/') {
            Some(PathBuf::from(name)).filter(|file| io::is_executable(file))
        } else {
            let directories = std::env::split_paths(path.unwrap_or_default());
            directories.map(|dir| dir.join(name)).find(|file| io::is_executable(file))
        };
        found.ok_or_else(|| ProgramError::NotFound(name.clone()))
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
    /// The system could not start another process. The next job may fare better.
    #[error("the program could not be started: {0}")]
    Start(std::io::Error),
    /// The pipes to the program failed; it was killed.
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
    /// It ran at the job's deadline or run limit; it was killed.
    #[error("the program was killed as the job's time was over")]
    Deadline,
    /// The sender took the job back; the program was killed.
    #[error("cancelled; the program was killed")]
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
