//! The one binary of svcmap: every command, and the supervisor that starts this very binary again.
//!
//! | module | holds |
//! | --- | --- |
//! | [`access`] | where the mappers are, and the deployment file |
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
//! | [`fleet`] | all processes of a topology: kept, replaced, stopped |
//! | [`processes`] | who descends from whom, and ending all that descends from us |
//! | [`soak`] | what its senders write down, and what follows from that |
//! | [`supervisor`] | children of this executable: start, watch, stop |
//! | [`systemd`] | what a service manager is told |
//! | [`table`] | text in columns |
//! | [`topology`] | a file that says what all processes are |
//! | [`text`] | values as people read them: text from elsewhere, times, figures |
//! | [`http`] | pages by HTTP, for `--http` |
//! | [`metrics`] | what was counted, as Prometheus reads it |
//! | [`io`] | files to poll, the parent process, the terminal |
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod access;
pub mod cli;
pub mod commands;
pub mod control;
pub mod deployment;
pub mod distribution;
pub mod errors;
pub mod exec;
pub mod fleet;
pub mod http;
pub mod io;
pub mod logging;
pub mod measurement;
pub mod metrics;
pub mod page;
pub mod parse;
pub mod processes;
pub mod progress;
pub mod soak;
pub mod supervisor;
pub mod systemd;
pub mod table;
pub mod text;
pub mod topology;

use std::process::ExitCode;
use std::time::Duration;

use cli::{Cli, Command};
use errors::Error;

/// The README's examples, compiled and run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
pub struct Readme;

/// How long the last error may wait for whoever reads it. The exit code says it as well.
const LAST_WORDS: Duration = Duration::from_secs(1);

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
            let exit = failure.exit;
            // Its reader may be gone, or asleep behind a pipe that is full.
            io::within(LAST_WORDS, move || errors::print(&failure, json));
            exit.into()
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
        Command::Top(args) => commands::top::run(&args),
        Command::Init(args) => commands::init::run(&args),
        Command::Plan(args) => commands::plan::run(&args),
        Command::Up(args) => commands::up::run(&args, &cli.log),
        Command::Ps(args) => commands::steer::list(&args),
        Command::Logs(args) => commands::steer::logs(&args),
        Command::Start(args) => commands::steer::start(&args),
        Command::Stop(args) => commands::steer::stop(&args),
        Command::Restart(args) => commands::steer::restart(&args),
        Command::Scale(args) => commands::steer::scale(&args),
        Command::Drain(args) => commands::drain::run(&args),
        Command::Doctor(args) => commands::doctor::run(&args),
        Command::Why(args) => commands::why::run(&args),
        Command::Key(args) => commands::key::run(&args),
        Command::Soak(args) => commands::soak::run(&args),
        Command::Completions(args) => commands::completions::run(&args),
        Command::Man(args) => commands::man::run(&args),
        Command::SoakSender(args) => commands::soak::sender::run(&args),
        Command::ExecChild => Ok(exec::child::keep()),
    }
}
