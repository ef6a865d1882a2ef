//! `svcmap up`: all processes of a topology, kept running.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::cli::UpArgs;
use crate::errors::{Error, Failure};
use crate::fleet::io::keep;
use crate::logging::LogOptions;
use crate::processes::io::collect_orphans;
use crate::topology::{self, Topology};

/// Keeps it until a signal ends it.
///
/// # Errors
/// If the file is wrong, or somebody keeps it already.
pub fn run(args: &UpArgs, log: &LogOptions) -> Result<ExitCode, Error> {
    let (path, topology, text) = load(&args.file)?;
    collect_orphans().map_err(Failure::failed)?;
    Ok(keep(&path, (topology, text), log)?)
}

/// What the file says, and its full path. Errors name it as the user does.
///
/// # Errors
/// If it cannot be read, or is wrong.
pub fn load(file: &Path) -> Result<(PathBuf, Topology, String), Failure> {
    let (topology, text) = topology::io::load(file)?;
    let path = std::fs::canonicalize(file).map_err(Failure::failed)?;
    Ok((path, topology, text))
}
