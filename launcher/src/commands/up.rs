//! `svcmap up`: all processes of a topology, kept running.

use std::process::ExitCode;

use crate::cli::UpArgs;
use crate::errors::{Error, Failure};
use crate::fleet::io::keep;
use crate::logging::LogOptions;
use crate::processes::io::collect_orphans;
use crate::topology::io::load;

/// Keeps it until a signal ends it.
///
/// # Errors
/// If the file is wrong, or somebody keeps it already.
pub fn run(args: &UpArgs, log: &LogOptions) -> Result<ExitCode, Error> {
    let loaded = load(&args.file)?;
    collect_orphans().map_err(Failure::failed)?;
    Ok(keep(loaded, args.http.http, log)?)
}
