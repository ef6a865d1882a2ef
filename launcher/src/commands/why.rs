//! `svcmap why`: which instance a sender would choose that starts here now, and why not the others.

mod render;
mod trial;
mod verdict;

use std::process::ExitCode;

use svcmap_proto::io::{host_id, random_u64};

pub use verdict::{Row, TurnRow, Verdict, Why, judge};

use crate::cli::WhyArgs;
use crate::commands::status::{self, reach, unknown_service};
use crate::control::{self, PATIENCE, Question, Scope};
use crate::errors::{Error, Failure, print_out};
use crate::fleet::io::client::with_what_is_kept;
use crate::io::stdout_columns;

/// Asks the mappers, tries whom one can reach, and says what a sender makes of it.
///
/// # Errors
/// If no mapper answers, nobody serves the service, or the key may not use it.
pub fn run(args: &WhyArgs) -> Result<ExitCode, Error> {
    let access = args.mapper.access()?;
    let service = args.of.name();
    let scope = Scope::Service(service.clone());
    let question = Question { scope, ..Question::default() };
    let view = control::ask(&access, &question, PATIENCE).map_err(Failure::from)?;
    let mut report = status::report(&view, Some(service));
    if report.instances.is_empty() {
        let failure = with_what_is_kept(unknown_service(service, &report), &args.of, &access);
        return Err(match verdict::was_served(service, &view) {
            true => failure.note("it was served until lately: nobody is registered any more"),
            false => failure,
        }
        .into());
    }
    status::expect(&args.of, &report)
        .map_err(|failure| with_what_is_kept(failure, &args.of, &access))?;
    reach::try_all(&mut report);
    // JSON readers may keep numbers as floats: 53 bits.
    let seed = random_u64() >> 11;
    let why = judge(service, &view, &report, host_id(), seed);
    print_out(&match args.json {
        true => why.to_json(),
        false => render::screen(&why, args.of.instance(), stdout_columns()),
    })?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
#[path = "why_tests.rs"]
mod tests;
