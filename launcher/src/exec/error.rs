//! Why a job has no result.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use super::frames::FrameError;
use crate::errors::signal_status;

/// How the error of a program that stays begins if it ended.
const AMID: &str = "the program ended amid the job: ";

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
    /// A program that stays was not there, or died before it had read anything of the job. This one
    /// was not begun.
    #[error("{0}")]
    NotBegun(String),
    /// The program said that it failed, or a signal ended it.
    #[error("{}", with_words(&ended(.status), .stderr))]
    Ended {
        /// How it ended.
        status: ExitStatus,
        /// The last that it wrote to stderr.
        stderr: String,
    },
    /// A program that stays ended amid the job.
    #[error("{}", with_words(&format!("{AMID}{}", ended(.status)), .stderr))]
    Died {
        /// How it ended.
        status: ExitStatus,
        /// The last that it wrote to stderr.
        stderr: String,
    },
    /// A program that stays could not be understood; it was ended.
    #[error("{}", with_words(&format!("the program was ended: {why}"), .stderr))]
    Broken {
        /// What it did.
        why: FrameError,
        /// The last that it wrote to stderr.
        stderr: String,
    },
    /// A program that stays said that the job failed.
    #[error("{error}")]
    Said {
        /// In its words.
        error: String,
        /// How it numbers that.
        code: Option<i32>,
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

impl ExecError {
    /// Whether the job was begun: if not, it may be tried elsewhere.
    pub fn was_begun(&self) -> bool {
        !matches!(self, ExecError::Start(_) | ExecError::NotBegun(_))
    }

    /// The program's exit status as shells number it, or what the program says instead.
    pub fn code(&self) -> Option<i32> {
        match self {
            ExecError::Ended { status, .. } | ExecError::Died { status, .. } => {
                status.code().or_else(|| status.signal().map(signal_status))
            }
            ExecError::Said { code, .. } => *code,
            _ => None,
        }
    }
}

const EXITED: &str = "exit status ";
const KILLED: &str = "killed by signal ";

/// `exit status 3`.
pub(super) fn ended(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("{EXITED}{code}"),
        (None, Some(signal)) => format!("{KILLED}{signal}"),
        (None, None) => status.to_string(),
    }
}

/// What a program wrote to stderr before it ended, as the error of its job with that code tells; `None`
/// if it is no such error.
pub fn last_words(error: &str, code: i32) -> Option<&str> {
    let error = error.strip_prefix(AMID).unwrap_or(error);
    let (what, number) = match error.strip_prefix(EXITED) {
        Some(rest) => (rest, code),
        None => (error.strip_prefix(KILLED)?, code.checked_sub(signal_status(0))?),
    };
    let words = what.strip_prefix(&number.to_string())?;
    if words.is_empty() { Some("") } else { words.strip_prefix(": ") }
}

/// `exit status 3: no such model`.
pub(super) fn with_words(what: &str, stderr: &str) -> String {
    match stderr.trim() {
        "" => what.to_owned(),
        last_words => format!("{what}: {last_words}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(status: i32, stderr: &str) -> ExecError {
        ExecError::Ended { status: ExitStatus::from_raw(status), stderr: stderr.to_owned() }
    }

    #[test]
    fn an_end_is_told_with_the_last_words_and_a_number() {
        let exited = failed(3 << 8, " no such model\n");
        assert_eq!(exited.to_string(), "exit status 3: no such model");
        assert_eq!(exited.code(), Some(3));
        let killed = failed(9, "");
        assert_eq!((killed.to_string().as_str(), killed.code()), ("killed by signal 9", Some(137)));
        let died = ExecError::Died { status: ExitStatus::from_raw(0), stderr: "bye".to_owned() };
        assert_eq!(died.to_string(), "the program ended amid the job: exit status 0: bye");
        for error in [exited, killed, died] {
            let (ExecError::Ended { stderr, .. } | ExecError::Died { stderr, .. }) = &error else {
                panic!("{error:?}");
            };
            let words = last_words(&error.to_string(), error.code().unwrap()).map(str::to_owned);
            assert_eq!(words.as_deref(), Some(stderr.trim()));
        }
        // What merely looks alike.
        for (error, code) in [("no such thing", 3), ("exit status 31", 3), ("exit status 4", 3)] {
            assert_eq!(last_words(error, code), None, "{error}");
        }
    }

    #[test]
    fn what_was_not_begun_is_told_from_what_failed() {
        let start = ExecError::Start(std::io::ErrorKind::NotFound.into());
        let not_begun = ExecError::NotBegun("it is down".to_owned());
        assert!(!start.was_begun() && !not_begun.was_begun());
        let said = ExecError::Said { error: "no".to_owned(), code: Some(4) };
        assert!(said.was_begun() && ExecError::Deadline.was_begun());
        assert_eq!((said.code(), not_begun.code()), (Some(4), None));
    }
}
