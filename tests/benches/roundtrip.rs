//! Jobs through real processes, beside what libzmq alone does in the same shape.
//!
//! `cargo bench -p svcmap-tests --bench roundtrip [-- WHAT…]`, where WHAT is a size of payloads in
//! bytes or `many`; without, all of it.
//!
//! - A size: one sender and one worker, and a DEALER and a ROUTER that echoes, in two processes
//!   each, so many requests under way. CPU is the time of both processes for each request.
//! - `many`: several senders in this process, several workers, and handlers that sleep. AT WORK is
//!   what as many bare threads do that only sleep: the share of their time that handlers are at work.
//!
//! Everything is run in turn, several rounds, and the ratio is what counts: absolute figures say
//! more about the machine. docs/performance.md has some.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use svcmap::deployment::Deployment;
use svcmap_proto::io::Clock;
use svcmap_tests::bench::system_calls;
use svcmap_tests::bench::{Jobs, Pair, RawEcho, Round, Rounds, cpu_time, raw_echo, round};
use svcmap_tests::{deployment_of, encrypted_deployment_of};

const SIZES_BYTES: [usize; 4] = [64, 1024, 64 * 1024, 1024 * 1024];

/// Most bytes under way: what more of them shows is memory.
const UNDER_WAY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// See the file.
#[derive(Parser)]
struct Args {
    /// Sizes of payloads in bytes, and `many`.
    what: Vec<String>,
    /// Requests under way.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    windows: Vec<usize>,
    /// Rounds that count; one before them warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round.
    #[arg(long, default_value_t = 400)]
    round_ms: u64,
    /// Only jobs, nothing beside them: for a profile.
    #[arg(long)]
    alone: bool,
    /// Encrypt jobs; what is raw stays in plain text.
    #[arg(long)]
    encrypted: bool,
    /// Count system calls as well, in a round of its own. It needs `perf`, and rights.
    #[arg(long)]
    syscalls: bool,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn length(&self) -> Duration {
        Duration::from_millis(self.round_ms)
    }
}

fn main() -> ExitCode {
    if raw_echo() {
        return ExitCode::SUCCESS;
    }
    let mut args = Args::parse();
    if args.what.is_empty() {
        let sizes = SIZES_BYTES.iter().map(ToString::to_string);
        args.what = sizes.chain(["many".to_owned()]).collect();
    }
    println!("median of {} rounds of {} ms\n", args.rounds, args.round_ms);
    for what in &args.what {
        match (what.as_str(), what.parse()) {
            ("many", _) => many_to_many(&args),
            (_, Ok(size)) => one_to_one(&args, size),
            _ => {
                eprintln!("`{what}` is neither a size in bytes nor `many`");
                return ExitCode::from(64);
            }
        }
    }
    ExitCode::SUCCESS
}

/// One sender, one worker, payloads of that size, every window.
fn one_to_one(args: &Args, size: usize) {
    let payload = vec![7; size];
    let echo = RawEcho::start(zmq::ROUTER);
    let mut raw = Measured::new(echo.pair(payload.clone()), vec![echo.pid()]);
    let flags = ["--builtin", "echo", "--concurrency", "1", "--queue", "4000"];
    let deployment = match args.encrypted {
        true => encrypted_deployment_of("echo", 1, &flags),
        false => deployment_of("echo", 1, &flags),
    };
    let client = deployment.client().expect("a client starts");
    let worker = deployment.pid("w-1").expect("it runs");
    let mut jobs = Measured::new(Jobs::new(client, "echo", payload), vec![worker]);

    println!("{size} bytes");
    println!("{:>8}  {:<8}{}    RATIO", "WINDOW", "", Rounds::header());
    let mut windows: Vec<_> = args.windows.iter().map(|&w| within_bounds(w, size)).collect();
    windows.dedup();
    for window in windows {
        for number in 0..=args.rounds {
            if !args.alone {
                raw.run(window, args.length(), number > 0);
            }
            jobs.run(window, args.length(), number > 0);
        }
        let (own, calls) = jobs.take(args, window);
        if args.alone {
            println!("{window:>8}  {:<8}{}{calls}", "svcmap", own.row());
            continue;
        }
        let (raw, raw_calls) = raw.take(args, window);
        let ratio = own.rate() / raw.rate();
        println!("{window:>8}  {:<8}{}{raw_calls}", "raw", raw.row());
        println!("{:>8}  {:<8}{}  {ratio:>7.3}{calls}", "", "svcmap", own.row());
    }
    println!();
}

fn within_bounds(window: usize, size: usize) -> usize {
    window.min(UNDER_WAY_BYTES_MAX / size.max(1)).max(1)
}

/// A pair, the processes that take part, and its rounds so far.
struct Measured<P> {
    pair: P,
    pids: Vec<u32>,
    rounds: Rounds,
}

impl<P: Pair> Measured<P> {
    /// `others` are the processes beside this one.
    fn new(pair: P, mut others: Vec<u32>) -> Self {
        others.push(std::process::id());
        Self { pair, pids: others, rounds: Rounds::default() }
    }

    fn run(&mut self, window: usize, length: Duration, counts: bool) {
        let before = cpu_time(&self.pids);
        let done = round(&mut self.pair, window, length);
        if counts {
            self.rounds.push(&done.with_cpu(cpu_time(&self.pids) - before));
        }
    }

    /// The rounds, and the system calls of each request if they are wanted.
    fn take(&mut self, args: &Args, window: usize) -> (Rounds, String) {
        let mut calls = String::new();
        if args.syscalls {
            let counted = system_calls(&self.pids, || round(&mut self.pair, window, args.length()));
            calls = match counted {
                Ok((count, round)) => {
                    format!("   {:.1} system calls each", count as f64 / round.count() as f64)
                }
                Err(error) => format!("   system calls: {error}"),
            };
        }
        (std::mem::take(&mut self.rounds), calls)
    }
}

/// Senders, workers and handlers.
struct Shape {
    senders: usize,
    workers: usize,
    /// Handlers of each worker.
    concurrency: usize,
    /// What a handler does: it sleeps for so long.
    sleep_us: u64,
    /// Jobs that each sender has under way: enough that every handler finds one waiting.
    window: usize,
}

const SHAPES: [Shape; 4] = [
    Shape { senders: 4, workers: 4, concurrency: 4, sleep_us: 0, window: 100 },
    Shape { senders: 4, workers: 4, concurrency: 4, sleep_us: 100, window: 100 },
    Shape { senders: 4, workers: 4, concurrency: 4, sleep_us: 1000, window: 100 },
    Shape { senders: 1, workers: 1, concurrency: 16, sleep_us: 1000, window: 100 },
];

fn many_to_many(args: &Args) {
    println!("{:<22}{}  AT WORK", "handlers that sleep", Rounds::header());
    for shape in &SHAPES {
        let (rounds, bare_rates) = shape.measure(args);
        let Shape { senders, workers, concurrency, sleep_us, .. } = shape;
        let what = format!("{senders} to {workers} x {concurrency}, {sleep_us} us");
        let at_work = match sleep_us {
            0 => "-".to_owned(),
            _ => format!("{:.3}", rounds.rate() / bare_rates.rate()),
        };
        println!("{what:<22}{}  {at_work:>7}", rounds.row());
    }
}

impl Shape {
    /// The rounds, and those of bare threads in turn with them.
    fn measure(&self, args: &Args) -> (Rounds, Rounds) {
        let concurrency = self.concurrency.to_string();
        let flags = ["--builtin", "sleep", "--concurrency", &concurrency, "--queue", "4000"];
        let deployment = deployment_of("nap", self.workers, &flags);
        let mut pids = self.pids(&deployment);
        pids.push(std::process::id());
        let mut senders: Vec<_> = (0..self.senders).map(|_| self.sender(&deployment)).collect();
        let (mut rounds, mut bare) = (Rounds::default(), Rounds::default());
        for number in 0..=args.rounds {
            let before = cpu_time(&pids);
            let done = self.round(&mut senders, args.length());
            let cpu = cpu_time(&pids) - before;
            if number > 0 {
                rounds.push(&done.with_cpu(cpu));
                bare.push(&self.bare_round(args.length()));
            }
        }
        (rounds, bare)
    }

    fn pids(&self, deployment: &Deployment) -> Vec<u32> {
        let workers = (1..=self.workers).map(|number| format!("w-{number}"));
        workers.map(|name| deployment.pid(&name).expect("it runs")).collect()
    }

    fn sender(&self, deployment: &Deployment) -> Jobs {
        let client = deployment.client().expect("a client starts");
        Jobs::new(client, "nap", format!("{}us", self.sleep_us).into_bytes())
    }

    /// All senders at once.
    fn round(&self, senders: &mut [Jobs], length: Duration) -> Round {
        std::thread::scope(|scope| {
            let start = |jobs| scope.spawn(move || round(jobs, self.window, length));
            let threads: Vec<_> = senders.iter_mut().map(start).collect();
            let rounds = threads.into_iter().map(|thread| thread.join().expect("it ends"));
            rounds.reduce(|all, one| all.beside(&one)).expect("there are senders")
        })
    }

    /// As many threads as there are handlers, which do nothing but what those do.
    fn bare_round(&self, length: Duration) -> Round {
        let sleep = Duration::from_micros(self.sleep_us);
        let one = || {
            let started = Instant::now();
            let mut times = Vec::new();
            while sleep > Duration::ZERO && started.elapsed() < length {
                svcmap::io::pause_until(Clock.now() + sleep);
                times.push(sleep);
            }
            Round::new(started.elapsed(), times)
        };
        std::thread::scope(|scope| {
            let threads = (0..self.workers * self.concurrency).map(|_| scope.spawn(one));
            let threads: Vec<_> = threads.collect();
            let rounds = threads.into_iter().map(|thread| thread.join().expect("it ends"));
            rounds.reduce(|all, one| all.beside(&one)).expect("there are handlers")
        })
    }
}
