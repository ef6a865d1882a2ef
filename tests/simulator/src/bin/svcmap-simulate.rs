//! The command of the simulator: single scenarios, the gates that theory sets, the sweep behind
//! `docs/stale-caches.md`, and the soak beside it.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use svcmap::distribution::Distribution;
use svcmap::errors::print_out;
use svcmap::parse;
use svcmap::soak::render;
use svcmap::text::figure;
use svcmap_proto::io::Clock;
use svcmap_simulator::scenario::{Failing, Faults};
use svcmap_simulator::{Damage, Feed, Findings, Rule, Scenario, World};
use svcmap_simulator::{agreement, charts, gates, goals, starts, sweep, table, variants};

/// A simulator of svcmap, around the very types that ship.
#[derive(Parser)]
#[command(name = "svcmap-simulate", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Simulate one scenario: the base point, with what is said otherwise
    Run(Box<RunArgs>),
    /// Compare the simulator with queueing theory
    Gates,
    /// Measure what svcmap sets out to reach: a table in Markdown
    Goals {
        /// Jobs at each point
        #[arg(long, default_value = "1000000")]
        jobs: u64,
    },
    /// Measure the same with other services, workers, senders, ways and queues: a table in Markdown
    Variants {
        /// Jobs at each point
        #[arg(long, default_value = "300000")]
        jobs: u64,
    },
    /// Measure how it begins, with fresh workers, bursts and late ones: a table in Markdown
    Starts,
    /// Change one thing at a time around the base point: a table and pictures
    Sweep {
        /// Where they go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// Jobs at each point
        #[arg(long, default_value = "200000")]
        jobs: u64,
        /// Two things at once as well
        #[arg(long)]
        full: bool,
    },
    /// Draw the pictures of a table again
    Plot {
        /// Where it is, and where they go
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Run the soak and the simulator side by side: a table in Markdown
    Agree {
        /// The command to soak with
        #[arg(long, value_name = "FILE", default_value = "target/release/svcmap")]
        executable: PathBuf,
        /// How long each soak is measured
        #[arg(long, default_value = "20")]
        seconds: u32,
    },
}

#[derive(clap::Args)]
struct RunArgs {
    /// How workers are chosen
    #[arg(long, default_value = "svcmap", value_parser = rule)]
    policy: Rule,
    /// How senders learn of load: mapper, board or query
    #[arg(long, default_value = "mapper", value_parser = feed)]
    feed: Feed,
    #[arg(long, default_value = "16")]
    workers: usize,
    #[arg(long, default_value = "32")]
    senders: usize,
    /// Share of the load that the first sender has
    #[arg(long, value_parser = share)]
    heavy_share: Option<f64>,
    /// Half of the senders send next to nothing
    #[arg(long)]
    idle_half: bool,
    /// Senders send much and little by turns
    #[arg(long)]
    on_off: bool,
    /// One of so many jobs is of high priority; what is shown is the others
    #[arg(long)]
    high_every: Option<NonZeroU64>,
    /// Jobs that run at once at each worker
    #[arg(long, default_value = "1")]
    concurrency: u32,
    /// Jobs that may wait at each worker
    #[arg(long, default_value = "10")]
    queue: u32,
    /// The same for workers that differ, which repeat
    #[arg(long, value_delimiter = ',')]
    queues: Vec<u32>,
    /// Offered load / capacity
    #[arg(long, default_value = "0.9", value_parser = parse::utilisation)]
    utilisation: f64,
    /// Mean service time
    #[arg(long, default_value = "10ms", value_parser = parse::duration_nonzero)]
    service_time: Duration,
    /// How service times are distributed
    #[arg(long, default_value = "exponential")]
    distribution: Distribution,
    /// Time between two publications of load
    #[arg(long, default_value = "10ms", value_parser = parse::duration_nonzero)]
    publish_interval: Duration,
    /// One way between two processes
    #[arg(long, default_value = "250us", value_parser = parse::duration)]
    delay: Duration,
    /// Mean of what each message takes beyond that
    #[arg(long, default_value = "0", value_parser = parse::duration)]
    jitter: Duration,
    /// Share of publications that a sender does not get
    #[arg(long, default_value = "0", value_parser = share)]
    publication_loss: f64,
    /// Mean time until a connection of a sender to a worker breaks
    #[arg(long, value_parser = parse::duration_nonzero)]
    connection_loss: Option<Duration>,
    /// Mean time between two ends of a sender's process
    #[arg(long, value_parser = parse::duration_nonzero)]
    sender_crash: Option<Duration>,
    /// Workers whose jobs all fail within a millisecond
    #[arg(long, default_value = "0")]
    failing: usize,
    /// Time that a job occupies its handler beyond its own
    #[arg(long, default_value = "0", value_parser = parse::duration)]
    handling: Duration,
    /// Jobs to measure, about
    #[arg(long, default_value = "1000000")]
    jobs: u64,
    /// Time before the measurement, in mean service times
    #[arg(long, default_value = "200")]
    warm_up: u32,
    /// Where all random numbers come from
    #[arg(long, default_value = "1")]
    seed: u64,
    /// Write the figures to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn rule(name: &str) -> Result<Rule, String> {
    Rule::by_name(name).ok_or_else(|| {
        let others = Rule::OTHERS.map(Rule::as_str).join(", ");
        format!("no such policy: those of `svcmap soak --help`, {others} or p2c-fresh")
    })
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..1.0).contains(share));
    share.ok_or_else(|| "write a number from 0 on, below 1, such as 0.05".to_owned())
}

fn feed(name: &str) -> Result<Feed, String> {
    let feeds = [Feed::Mapper, Feed::Board, Feed::Query];
    let found = feeds.into_iter().find(|feed| feed.as_str() == name);
    found.ok_or_else(|| "mapper, board or query".to_owned())
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Gates => check_gates(),
        Command::Goals { jobs } => measure_goals(jobs),
        Command::Variants { jobs } => measure_variants(jobs),
        Command::Starts => measure_starts(),
        Command::Sweep { out, jobs, full } => run_sweep(&out, jobs, full),
        Command::Plot { out } => plot(&out),
        Command::Agree { executable, seconds } => agree(&executable, seconds),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure_starts() -> Result<(), String> {
    say("| what is special | last job done at best | median | worst | must | met |");
    say("| --- | --- | --- | --- | --- | --- |");
    for start in starts::measure() {
        let starts::Start { name, best_ms, median, worst, must } = start;
        let met = if start.is_met() { "yes" } else { "no" };
        say(&format!("| {name} | {best_ms} ms | {median:.3} | {worst:.3} | {must} | {met} |"));
    }
    Ok(())
}

fn measure_variants(jobs: u64) -> Result<(), String> {
    say(
        "| what is different | utilisation | FAR | refused, with room somewhere | goodput / oracle \
         | p99 wait / oracle | p99 response / oracle | messages |",
    );
    say("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for row in variants::measure(jobs) {
        let variants::Row { name, utilisation, far, frr, goodput, wait, response, messages } = row;
        let wait = wait.map_or_else(|| "-".to_owned(), |wait| format!("{wait:.2}"));
        say(&format!(
            "| {name} | {utilisation} | {} | {} | {goodput:.4} | {wait} | {response:.2} \
             | {messages:.2} |",
            figure(far),
            figure(frr)
        ));
    }
    Ok(())
}

fn measure_goals(jobs: u64) -> Result<(), String> {
    say("| goal | must | aim | measured | must met | aim met |");
    say("| --- | --- | --- | --- | --- | --- |");
    for goal in goals::all(jobs) {
        let sign = if goal.more { "≥" } else { "≤" };
        // Bounds are round: as they are, unless they have more noughts than digits.
        let bound = |bound: f64| if bound < 0.001 { figure(bound) } else { bound.to_string() };
        let (must, aim, value) = (bound(goal.must), bound(goal.aim), figure(goal.value));
        let name = goal.name;
        let met = |met| if met { "yes" } else { "no" };
        let (must_met, aim_met) = (met(goal.is_met()), met(goal.reaches_aim()));
        say(&format!(
            "| {name} | {sign} {must} | {sign} {aim} | {value} | {must_met} | {aim_met} |"
        ));
    }
    Ok(())
}

fn run(args: &RunArgs) -> Result<(), String> {
    let scenario = Scenario {
        workers: args.workers,
        senders: args.senders,
        concurrency: args.concurrency,
        heavy_share: args.heavy_share,
        idle_half: args.idle_half,
        on_off: args.on_off,
        high_every: args.high_every.map(NonZeroU64::get),
        queue: args.queue,
        queues: args.queues.clone(),
        utilisation: args.utilisation,
        service_time: args.service_time,
        distribution: args.distribution,
        publish_interval: args.publish_interval,
        beat: Duration::from_secs(1).max(10 * args.publish_interval),
        delay: args.delay,
        jitter: args.jitter,
        faults: Faults {
            publication_loss: args.publication_loss,
            connection_loss: args.connection_loss,
            sender_crash: args.sender_crash,
            failing: (args.failing > 0).then_some(Failing {
                workers: args.failing,
                from: None,
                share: 1.0,
                takes: Duration::from_millis(1),
            }),
            ..Faults::default()
        },
        handling: args.handling,
        feed: args.feed,
        warm_up: args.warm_up * args.service_time,
        seed: args.seed,
        ..Scenario::default()
    };
    let started_at = Clock.now();
    let findings = World::new(scenario.with_rule(args.policy).with_jobs(args.jobs)).run();
    let seconds = Clock.now().since(started_at).as_secs_f64();
    let report = &findings.report;
    say(&format!("{}\n{}", render::heading(report), render::text(report, &[])));
    let Findings { done_first, done_others, mean_wait, mean_wait_high, damage, .. } = findings;
    if args.high_every.is_some() {
        say(&format!(
            "wait      {mean_wait_high:.3} service times in the mean for jobs of high priority, \
             {mean_wait:.3} for the others"
        ));
    }
    if args.heavy_share.is_some() {
        say(&format!(
            "done      {done_first:.4} of the first sender's jobs, {done_others:.4} of the others'"
        ));
    }
    if damage != Damage::default() {
        say(&format!("{damage:?}"));
    }
    say(&format!(
        "{:.0} jobs and {:.0} events simulated per second",
        report.submitted as f64 / seconds,
        findings.events as f64 / seconds
    ));
    if let Some(path) = &args.json {
        let text = serde_json::to_string(report).map_err(|error| error.to_string())?;
        save(path, &text)?;
    }
    Ok(())
}

fn check_gates() -> Result<(), String> {
    say(&format!(
        "{:<42} {:>9} {:>9} {:>9} {:>12}",
        "GATE", "THEORY", "FOUND", "TOLERANCE", "WRONG MODEL"
    ));
    let mut missed = 0;
    for gate in gates::all() {
        let (right, wrong) = (gate.run(), gate.run_wrong(1));
        let ok = right.passed && !wrong.passed;
        missed += u32::from(!ok);
        say(&format!(
            "{:<42} {:>9.5} {:>9.5} {:>9.5} {:>12.5}  {}",
            gate.name,
            gate.expected,
            right.mean,
            right.tolerance,
            wrong.mean,
            if ok { "ok" } else { "MISSED" }
        ));
    }
    if missed > 0 { Err(format!("{missed} gates missed")) } else { Ok(()) }
}

fn run_sweep(out: &Path, jobs: u64, full: bool) -> Result<(), String> {
    // Before twenty minutes have passed.
    std::fs::create_dir_all(out).map_err(|error| format!("{}: {error}", out.display()))?;
    let points = sweep::points(jobs, full);
    let rows = sweep::run(&points, |done| {
        if done % 20 == 0 || done == points.len() {
            eprintln!("{done} of {} points", points.len());
        }
    });
    save(&out.join("sweep.csv"), &table::to_csv(&rows))?;
    plot(out)
}

fn plot(out: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(out.join("sweep.csv")).map_err(|error| error.to_string())?;
    for (name, svg) in charts::all(&table::from_csv(&text)?)? {
        save(&out.join(name), &svg)?;
    }
    Ok(())
}

fn agree(executable: &Path, seconds: u32) -> Result<(), String> {
    let mut pairs = Vec::new();
    for point in agreement::points() {
        eprintln!("{} with load every {:?}", point.policy, point.publish_interval);
        pairs.push(agreement::run(point, executable, seconds)?);
    }
    say(&agreement::table(&pairs));
    Ok(())
}

/// Prints a line. Whoever read enough may close the output.
fn say(line: &str) {
    let _ = print_out(&format!("{line}\n"));
}

fn save(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))
}
