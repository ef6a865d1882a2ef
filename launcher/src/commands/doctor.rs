//! `svcmap doctor`: what goes wrong in practice, looked for from here.
//!
//! `io` observes, `findings`, `workers` and `kept` judge, `render` shows.

mod findings;
mod io;
mod kept;
mod observed;
mod render;
mod workers;

use std::process::ExitCode;

use serde::Serialize;

use crate::cli::DoctorArgs;
use crate::errors::{Error, Exit, print_out};

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// It is well.
    Ok,
    /// It may be meant so.
    Warn,
    /// Jobs do not get through because of it, or will not.
    Fail,
}

/// What came of looking at one thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at: a mapper, the workers, this host.
    pub group: String,
    /// How bad it is.
    pub level: Level,
    /// Which finding it is, such as `D04`; `null` if all is well.
    pub id: Option<&'static str>,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<Remedy>,
}

/// What to do about a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Remedy {
    /// In words.
    pub text: String,
    /// What to type, if it can be said.
    pub commands: Vec<String>,
}

impl Remedy {
    fn new(text: impl Into<String>) -> Self {
        Self { text: text.into(), commands: Vec::new() }
    }

    fn command(mut self, command: impl Into<String>) -> Self {
        self.commands.push(command.into());
        self
    }
}

impl Check {
    fn ok(group: &str, message: impl Into<String>) -> Self {
        let (group, message) = (group.to_owned(), message.into());
        Self { group, level: Level::Ok, id: None, message, remedy: None }
    }

    fn found(
        group: &str,
        (level, id): (Level, &'static str),
        message: impl Into<String>,
        remedy: Remedy,
    ) -> Self {
        let (group, message) = (group.to_owned(), message.into());
        Self { group, level, id: Some(id), message, remedy: Some(remedy) }
    }
}

/// Looks at everything and prints what was found.
///
/// # Errors
/// If stdout cannot be written. What is wrong with the mappers is a finding.
pub fn run(args: &DoctorArgs) -> Result<ExitCode, Error> {
    let observed = io::observe(&args.mapper);
    let mut checks = findings::all(&observed);
    let has_failed = checks.iter().any(|check| check.level == Level::Fail);
    let text = match args.json {
        true => render::json(&checks, args.short),
        false => {
            checks.iter_mut().for_each(render::make_printable);
            render::screen(&checks, args.short)
        }
    };
    print_out(&text)?;
    Ok(if has_failed { Exit::Failed.into() } else { ExitCode::SUCCESS })
}

#[cfg(test)]
#[path = "doctor_tests.rs"]
mod tests;
