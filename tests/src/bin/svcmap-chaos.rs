//! The command of the chaos test: `svcmap-chaos --seconds 1800 --seed 7`. It starts itself again as
//! mappers and workers, for which it is `svcmap`, and as handlers and senders that write down what
//! happens. Exit status 1: a promise was broken; its story is on stdout, and the history is kept.

use std::error::Error;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use svcmap::errors::print_out;
use svcmap_tests::chaos::run::{Findings, Settings, run};
use svcmap_tests::chaos::{send, serve};

/// Kills, stops, ends and starts mappers, workers and senders, and checks what became of each job.
#[derive(Parser)]
#[command(name = "svcmap-chaos", max_term_width = 100, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    chaos: Chaos,
    #[command(subcommand)]
    role: Option<Role>,
}

#[derive(clap::Args)]
struct Chaos {
    /// How long
    #[arg(long, default_value = "60")]
    seconds: u64,
    /// What is done, and which jobs there are, follow from it as far as time allows
    #[arg(long, default_value = "1")]
    seed: u64,
    /// After so many seconds all jobs are to end, the history is checked, and all begins anew with
    /// the next seed
    #[arg(long, default_value = "60")]
    round: u64,
    /// How many mappers; one and two in turn unless it is said
    #[arg(long)]
    mappers: Option<usize>,
    /// How many workers; every fourth runs a program for each job
    #[arg(long, default_value = "8")]
    workers: usize,
    /// How many senders
    #[arg(long, default_value = "4")]
    senders: usize,
    /// Jobs in a second, of all senders together
    #[arg(long, default_value = "300")]
    rate: f64,
}

#[derive(Subcommand)]
enum Role {
    /// A worker
    #[command(hide = true)]
    Serve(serve::ServeArgs),
    /// A program for one job
    #[command(hide = true)]
    Program(serve::ProgramArgs),
    /// What a program leaves behind
    #[command(hide = true)]
    Linger,
    /// A sender
    #[command(hide = true)]
    Send(send::SendArgs),
}

/// For which commands it is `svcmap`.
const SVCMAP: [&str; 3] = ["mapper", "worker", "exec-child"];

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let command = std::env::args().nth(1).unwrap_or_default();
    if SVCMAP.contains(&command.as_str()) {
        return Ok(svcmap::main());
    }
    let cli = Cli::parse();
    match cli.role {
        Some(Role::Serve(args)) => serve::serve(&args),
        Some(Role::Program(args)) => serve::program(&args),
        Some(Role::Linger) => Ok(serve::linger()),
        Some(Role::Send(args)) => send::send(&args),
        None => rounds(&cli.chaos),
    }
}

fn rounds(chaos: &Chaos) -> Result<ExitCode, Box<dyn Error>> {
    let mut left = chaos.seconds;
    for number in 0.. {
        let seconds = left.min(chaos.round);
        let settings = Settings {
            length: Duration::from_secs(seconds),
            seed: chaos.seed + number,
            mappers: chaos.mappers.unwrap_or(1 + number as usize % 2),
            workers: chaos.workers,
            senders: chaos.senders,
            rate: chaos.rate,
        };
        let folder = tempfile::tempdir()?;
        let findings = run(&settings, &folder.path().canonicalize()?)?;
        // Or it cannot be removed where that matters to a system.
        std::env::set_current_dir("/")?;
        print_out(&summary(&settings, &findings)).map_err(|_| "nobody reads what was found")?;
        if !findings.wrong.is_empty() {
            let kept = folder.keep();
            print_out(&format!("{}\nkept: {}\n", findings.wrong.join("\n"), kept.display()))
                .map_err(|_| "nobody reads what was found")?;
            return Ok(ExitCode::FAILURE);
        }
        left -= seconds;
        if left == 0 {
            break;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn summary(settings: &Settings, findings: &Findings) -> String {
    let Settings { length, seed, mappers, .. } = settings;
    let Findings { jobs, outcomes, left, runs, faults, wrong } = findings;
    let told: Vec<String> =
        outcomes.iter().map(|(what, count)| format!("{count} {what}")).collect();
    format!(
        "seed {seed}: {} s, {mappers} mappers, {faults} faults, {jobs} jobs ({}, {left} without a \
         sender), {runs} runs, {} broken promises\n",
        length.as_secs(),
        told.join(", "),
        wrong.len()
    )
}
