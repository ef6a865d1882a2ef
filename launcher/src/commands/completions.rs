//! `svcmap completions`: what completes commands and flags in a shell.

use std::process::ExitCode;

use crate::cli::{CompletionsArgs, shown};
use crate::errors::{Error, print_out_bytes};

/// Prints it.
///
/// # Errors
/// If stdout cannot be written.
pub fn run(args: &CompletionsArgs) -> Result<ExitCode, Error> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut shown(), "svcmap", &mut script);
    print_out_bytes(&script)?;
    Ok(ExitCode::SUCCESS)
}
