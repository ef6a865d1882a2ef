//! `svcmap top`: services and instances on a screen that goes on, or sums as lines in a pipe.

mod events;
mod io;
mod model;
mod rates;
mod rows;
#[cfg(test)]
mod scene;
mod screen;
mod sums;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::TopArgs;
use crate::errors::Error;
use crate::io::stdout_columns;

/// Time between two questions to the mappers, if nothing else is said.
const INTERVAL_SCREEN: Duration = Duration::from_secs(1);
const INTERVAL_LINES: Duration = Duration::from_secs(2);

/// Shows what goes on until it is ended.
///
/// # Errors
/// If no mapper answers at first, or the terminal does not work.
pub fn run(args: &TopArgs) -> Result<ExitCode, Error> {
    let access = args.mapper.access()?;
    if stdout_columns().is_some() {
        io::show(access, args.interval.unwrap_or(INTERVAL_SCREEN))
    } else {
        io::print(&access, args.interval.unwrap_or(INTERVAL_LINES))
    }
}
