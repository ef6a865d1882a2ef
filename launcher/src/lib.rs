//! The one binary of svcmap: every command, and the supervisor that starts this very binary again.
//!
//! | module | holds |
//! | --- | --- |
//! | [`cli`] | what may stand on the command line, and its help |
//! | [`parse`] | single values: durations, sizes, endpoints, conditions |
//! | [`errors`] | how a command fails: exit codes, text, JSON |
//! | [`logging`] | the log on stderr |
//! | [`commands`] | one module for each command |
//! | [`control`] | asking mappers, and telling them who left |
//! | [`deployment`] | a mapper and workers as processes of this executable |
//! | [`measurement`] | how good the choices of senders were, for the soak and the simulator |
//! | [`distribution`] | how long jobs take, for the soak and the simulator |
//! | [`exec`] | one program run for each job |
//! | [`processes`] | who descends from whom, and ending all that descends from us |
//! | [`soak`] | what its senders write down, and what follows from that |
//! | [`supervisor`] | children of this executable: start, watch, stop |
//! | [`table`] | text in columns |
//! | [`io`] | files to poll, the parent process, the terminal |
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod cli;
pub mod commands;
pub mod control;
pub mod deployment;
pub mod distribution;
pub mod errors;
pub mod exec;
pub mod io;
pub mod logging;
pub mod measurement;
pub mod parse;
pub mod processes;
pub mod progress;
pub mod soak;
pub mod supervisor;
pub mod table;

use std::process::ExitCode;

use cli::{Cli, Command};
use errors::Error;

/// The README's examples, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;

/// Runs the command that this process was started with, and returns its exit status.
pub fn main() -> ExitCode {
    let cli = match cli::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(exit) => return exit,
    };
    let json = cli.json();
    match run(cli) {
        // Whoever read our output has seen enough: no failure.
        Err(Error::OutputClosed) => ExitCode::SUCCESS,
        Ok(exit) => exit,
        Err(Error::Failure(failure)) => {
            errors::print(&failure, json);
            failure.exit.into()
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode, Error> {
    match cli.command {
        Command::Demo => commands::demo::run(),
        Command::Mapper(args) => logging::with(&cli.log, |log| commands::mapper::run(&args, log)),
        Command::Worker(args) => logging::with(&cli.log, |log| commands::worker::run(&args, log)),
        Command::Submit(args) => logging::with(&cli.log, |log| commands::submit::run(&args, log)),
        Command::Status(args) => commands::status::run(&args),
        Command::Soak(args) => commands::soak::run(&args),
        Command::SoakSender(args) => commands::soak::sender::run(&args),
        Command::ExecChild => Ok(exec::child::keep()),
    }
}
