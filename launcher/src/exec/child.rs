//! The step between a worker and its program: this executable, about to become that program.

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use crate::cli::ExecChildArgs;
use crate::io::end_with_parent;

/// What a shell exits with when it cannot start a program.
const CANNOT_START: u8 = 127;

/// Becomes the program. It returns only if that failed.
pub fn become_program(args: &ExecChildArgs) -> ExitCode {
    // A worker that is gone reads no error either.
    if end_with_parent(args.parent).is_err() {
        return ExitCode::from(CANNOT_START);
    }
    let Some((program, rest)) = args.argv.split_first() else {
        return ExitCode::from(CANNOT_START);
    };
    let error = Command::new(program).args(rest).exec();
    // Only the worker and this process know the token, so no program can say that of itself.
    let (token, program) = (&args.token, program.display());
    let _ = writeln!(std::io::stderr(), "{token}cannot start {program}: {error}");
    ExitCode::from(CANNOT_START)
}
