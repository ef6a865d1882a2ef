//! How a command fails: what and where, the command that mends it, and the exit code.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};

use crate::io::within;
use crate::text::printable;

const ERROR: Style = AnsiColor::Red.on_default().bold();
const FIX: Style = AnsiColor::Green.on_default();

/// How long the first line of a process may take: longer, and nobody reads it.
const FIRST_LINE: Duration = Duration::from_secs(1);

/// Exit codes, as in sysexits.h; an unset one is 0. Of several jobs' the last of these counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exit {
    /// 64: the command line or the settings are wrong; repeating it is no use.
    Usage,
    /// 69: nobody is there: no mapper, or no worker of that service that can be reached.
    Unavailable,
    /// 75: refused; the same may succeed later.
    Refused,
    /// 1: anything else.
    Failed,
}

impl Exit {
    /// The number that the process exits with.
    pub const fn code(self) -> u8 {
        match self {
            Exit::Usage => 64,
            Exit::Unavailable => 69,
            Exit::Refused => 75,
            Exit::Failed => 1,
        }
    }

    /// The word for it in JSON.
    pub const fn word(self) -> &'static str {
        match self {
            Exit::Usage => "usage",
            Exit::Unavailable => "unavailable",
            Exit::Refused => "refused",
            Exit::Failed => "failed",
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The exit status of a process that a signal ended, as shells write it: 130 for SIGINT, 143 for
/// SIGTERM.
pub const fn signal_status(signal: i32) -> i32 {
    128 + signal
}

/// A failure as its reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// With which code the process exits.
    pub exit: Exit,
    /// What went wrong, and where. May have several lines.
    pub message: String,
    /// The command that mends it, or a few words if no command can.
    pub fix: Option<String>,
}

impl Failure {
    /// A failure without a remedy; add one with [`Failure::fix`].
    pub fn new(exit: Exit, message: impl ToString) -> Self {
        Self { exit, message: message.to_string(), fix: None }
    }

    /// The command line or the settings are wrong.
    pub fn usage(message: impl ToString) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// Nobody is there.
    pub fn unavailable(message: impl ToString) -> Self {
        Self::new(Exit::Unavailable, message)
    }

    /// Anything that has no code of its own.
    pub fn failed(message: impl ToString) -> Self {
        Self::new(Exit::Failed, message)
    }

    /// The same with one more line.
    pub fn note(mut self, line: &str) -> Self {
        self.message += "\n";
        self.message += line;
        self
    }

    /// The same with the command that mends it.
    pub fn fix(self, fix: impl Into<String>) -> Self {
        Self { fix: Some(fix.into()), ..self }
    }
}

/// Why a command ended early.
#[derive(Debug)]
pub enum Error {
    /// Nobody reads stdout any more, as in `svcmap status | head -1`. That alone is no failure: the
    /// exit code is 0, unless the command has something else to report.
    OutputClosed,
    /// Something that the user has to know.
    Failure(Failure),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        Error::Failure(failure)
    }
}

/// Writes to stdout; colours are left out where nobody could see them.
///
/// # Errors
/// [`Error::OutputClosed`] if the reader is gone, a failure if the disk is full or the like.
pub fn print_out(text: &str) -> Result<(), Error> {
    write_out(anstream::stdout(), text.as_bytes())
}

/// Writes to stdout the line by which people and scripts know that a process is there. One that
/// nobody reads is no reason to stop, or to wait for ever.
pub fn print_first_line(line: String) {
    let write = move || {
        let _ = print_out(&format!("{line}\n"));
    };
    within(FIRST_LINE, write);
}

/// Writes to stdout what is not ours: it stays as it is.
///
/// # Errors
/// As for [`print_out`].
pub fn print_out_bytes(bytes: &[u8]) -> Result<(), Error> {
    write_out(std::io::stdout(), bytes)
}

fn write_out(mut out: impl std::io::Write, bytes: &[u8]) -> Result<(), Error> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => Error::OutputClosed,
        _ => Failure::failed(format!("stdout cannot be written: {error}")).into(),
    })
}

/// Writes a failure to stderr. If stderr is closed there is nobody left to tell.
pub fn print(failure: &Failure, json: bool) {
    use std::io::Write;
    let text = if json { to_json(failure) } else { to_text(failure) };
    let _ = anstream::stderr().write_all(text.as_bytes());
}

/// Writes to stderr what is no failure.
pub fn print_note(note: &str) {
    use std::io::Write;
    let _ = writeln!(anstream::stderr(), "{note}");
}

/// `error: what, where`, then `  fix: command`.
pub fn to_text(failure: &Failure) -> String {
    // Both may quote what others wrote: further lines are indented, so that none looks like ours.
    let shown = |text: &str| printable(text.trim_end()).replace('\n', "\n  ");
    let mut text = format!("{ERROR}error:{ERROR:#} {}\n", shown(&failure.message));
    if let Some(fix) = &failure.fix {
        // Writing to a String does not fail.
        let _ = writeln!(text, "  {FIX}fix:{FIX:#} {}", shown(fix));
    }
    text
}

/// One line: `{"error":{"code","message","fix","exit"}}`.
pub fn to_json(failure: &Failure) -> String {
    let error = serde_json::json!({ "error": {
        "code": failure.exit.word(),
        "message": failure.message,
        "fix": failure.fix,
        "exit": failure.exit.code(),
    }});
    format!("{error}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_says_what_and_how_to_mend_it() {
        let failure = Failure::unavailable("no mapper answers at tcp://h:1 (tried 3s)")
            .fix("svcmap mapper --bind tcp://h:1");
        assert_eq!(
            anstream::adapter::strip_str(&to_text(&failure)).to_string(),
            "error: no mapper answers at tcp://h:1 (tried 3s)\n  \
             fix: svcmap mapper --bind tcp://h:1\n"
        );
        assert_eq!(failure.exit.code(), 69);
    }

    #[test]
    fn what_others_wrote_commands_no_terminal_and_fakes_no_error() {
        let failure = Failure::failed("f\u{1b}[2J: exit status 1: a\nerror: fake\r\n").fix("\u{7}");
        assert_eq!(
            anstream::adapter::strip_str(&to_text(&failure)).to_string(),
            "error: f\\u{1b}[2J: exit status 1: a\n  error: fake\n  fix: \\u{7}\n"
        );
    }

    #[test]
    fn json_is_one_object_on_one_line() {
        let text = to_json(&Failure::usage("a \"quoted\"\nmessage"));
        assert_eq!(text.lines().count(), 1);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value["error"],
            serde_json::json!({
                "code": "usage", "message": "a \"quoted\"\nmessage", "fix": null, "exit": 64,
            })
        );
    }

    #[test]
    fn a_second_signal_exits_as_shells_write_it() {
        assert_eq!((signal_status(2), signal_status(15)), (130, 143));
    }
}
