//! The program of an instance: which command it is, and whether there is such a thing.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use svcmap_proto::names::InstanceKey;

use super::{io, shell};
use crate::errors::Failure;

/// Time that a program has between SIGTERM and SIGKILL, unless told otherwise.
pub const KILL_AFTER: Duration = Duration::from_secs(2);

/// The program that an instance runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Who runs it.
    pub(super) key: InstanceKey,
    pub(super) argv: Vec<String>,
    pub(super) starter: PathBuf,
    pub(super) kill_after: Duration,
    pub(super) open_files: Option<u64>,
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
    /// A name without a slash is looked for in PATH only, as everywhere: name it with one.
    #[error("`{0}` lies here, but programs without a path are looked for in PATH")]
    Here(String),
    /// A file that may not be executed: let it, or name what it is to be read by.
    #[error("`{0}` is not executable")]
    NotExecutable(String),
}

impl ProgramError {
    /// What the user is told, and how to mend it; `flag` is what the command was given to, such as
    /// `--exec`.
    pub fn failure(self, flag: &str) -> Failure {
        let failure = Failure::usage(format!("{flag}: {self}"));
        let fix = match self {
            ProgramError::Empty => format!("{flag} 'PROGRAM ARGUMENT'"),
            ProgramError::Quote(_) => format!("{flag} 'PROGRAM \"one argument\"'"),
            ProgramError::Shell { command, .. } => {
                format!("{}, or quote it if it is meant as it is", shell::in_shell(flag, &command))
            }
            ProgramError::NotExecutable(file) => format!("chmod +x {file}"),
            ProgramError::Here(file) => format!("write ./{file}"),
            ProgramError::NotFound(_) => {
                format!("give its full path; shell words need a shell: {flag} 'sh -c \"a | b\"'")
            }
        };
        failure.fix(fix)
    }
}

impl Program {
    /// That command, run by that instance. It is split as a shell would; no shell runs.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub fn parse(command: &str, key: InstanceKey) -> Result<Self, ProgramError> {
        let (argv, starter) = (Self::words(command)?, own_executable());
        Ok(Self { key, argv, starter, kill_after: KILL_AFTER, open_files: None })
    }

    /// The program and its arguments, at least one word.
    ///
    /// # Errors
    /// If it is none, or one that only a shell understands.
    pub fn words(command: &str) -> Result<Vec<String>, ProgramError> {
        let argv = shlex::split(command).ok_or_else(|| ProgramError::Quote(command.to_owned()))?;
        match shell::first_operator(command) {
            Some(operator) => Err(ProgramError::Shell { operator, command: command.to_owned() }),
            None if argv.is_empty() => Err(ProgramError::Empty),
            None => Ok(argv),
        }
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

    /// How long ending it may take, and its keeper if that does not.
    pub(super) fn end_limit(&self) -> Duration {
        self.kill_after + io::ENDED_WITHIN
    }

    /// The same, started by another build of svcmap than the running one: for tests.
    pub fn started_by(self, starter: impl Into<PathBuf>) -> Self {
        Self { starter: starter.into(), ..self }
    }

    /// Looks for the program as the system will: as a path if its name has a slash, else in the
    /// directories of `path`. To be asked once, when the worker starts.
    ///
    /// # Errors
    /// [`ProgramError::NotFound`], [`ProgramError::Here`], [`ProgramError::NotExecutable`].
    pub fn find(&self, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
        find(&self.argv, Path::new(""), path)
    }
}

/// Looks for the program of that command as the system will that starts it in `dir`; see
/// [`Program::find`].
///
/// # Errors
/// As there.
pub fn find(argv: &[String], dir: &Path, path: Option<&OsStr>) -> Result<PathBuf, ProgramError> {
    let name = argv.first().ok_or(ProgramError::Empty)?;
    let here = dir.join(name);
    let found = if name.contains('/') {
        Some(here.clone()).filter(|file| io::is_executable(file))
    } else {
        let directories = std::env::split_paths(path.unwrap_or_default());
        directories.map(|entry| dir.join(entry).join(name)).find(|file| io::is_executable(file))
    };
    found.ok_or_else(|| match (io::is_file(&here), name.contains('/')) {
        (true, true) => ProgramError::NotExecutable(here.display().to_string()),
        (true, false) => ProgramError::Here(name.clone()),
        (false, _) => ProgramError::NotFound(name.clone()),
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(command: &str) -> Result<Program, ProgramError> {
        let [service, instance] = ["sum", "a"].map(|name| name.parse().unwrap());
        Program::parse(command, InstanceKey { service, instance })
    }

    #[test]
    fn commands_are_split_as_a_shell_does() {
        let argv = |command: &str| parsed(command).map(|program| program.argv);
        assert_eq!(argv("a 'b c' \"d\"").unwrap(), ["a", "b c", "d"]);
        assert_eq!(argv("  "), Err(ProgramError::Empty));
        assert_eq!(argv("a 'b"), Err(ProgramError::Quote("a 'b".to_owned())));
        assert!(
            matches!(argv("a | b"), Err(ProgramError::Shell { operator, .. }) if operator == "|")
        );
    }

    #[test]
    fn programs_are_found_by_path_or_in_path() {
        let find =
            |command: &str, path: &str| parsed(command).unwrap().find(Some(OsStr::new(path))).ok();
        assert_eq!(find("sh -c x", "/nowhere:/bin"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("/bin/sh", ""), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("sh", "/nowhere"), None);
        assert_eq!(find("/etc/passwd", ""), None);
        assert_eq!(find("/bin/", ""), None);
        // Tests run in the folder of the crate.
        let here = parsed("Cargo.toml").unwrap().find(Some(OsStr::new("/nowhere"))).unwrap_err();
        assert_eq!(here.failure("--exec").fix.as_deref(), Some("write ./Cargo.toml"));
    }
}
