//! Request and reply of 64 bytes through svcmap and through what others use, side by side:
//!
//! ```console
//! $ cargo run --release --manifest-path tests/peers/Cargo.toml
//! ```
//!
//! All have the same shape: one process that sends, one that answers, so many requests under way;
//! NATS has its broker beside them, which must be on the path as `nats-server` (`apt-get install
//! nats-server`). They are run in turn, several rounds. RATIO is svcmap's rate over the other's, and
//! CPU the time of all processes for each request. Each is driven as its users would: threads and
//! tickets for svcmap, a thread on the socket for libzmq, a runtime of tokio for the other two.
//! docs/performance.md has figures.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

mod awaited;
mod nats;
mod tarpc;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use svcmap_tests::bench::{Jobs, Pair, RawEcho, Round, Rounds, cpu_time, raw_echo, round};
use svcmap_tests::{deployment_by, with_workers};
use tokio::runtime::Runtime;

/// What is sent, and comes back.
const PAYLOAD: [u8; 64] = [7; 64];

/// See the file.
#[derive(Parser)]
struct Args {
    /// Requests under way.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    windows: Vec<usize>,
    /// Rounds that count; one before them warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round.
    #[arg(long, default_value_t = 500)]
    round_ms: u64,
    /// Answer with this instead: what the process on the other side is started with.
    #[arg(long, hide = true, num_args = 1..)]
    serve: Vec<String>,
}

/// A way to ask and to be answered.
trait Contender {
    /// Requests for so long, so many under way.
    fn round(&mut self, window: usize, length: Duration) -> Round;
}

/// One that a single thread drives.
struct Blocking<P>(P);

impl<P: Pair> Contender for Blocking<P> {
    fn round(&mut self, window: usize, length: Duration) -> Round {
        round(&mut self.0, window, length)
    }
}

/// A contender, its processes beside this one, and its rounds so far.
struct Entry {
    name: &'static str,
    contender: Box<dyn Contender>,
    pids: Vec<u32>,
    rounds: Rounds,
}

impl Entry {
    fn new(
        name: &'static str,
        contender: impl Contender + 'static,
        pids: impl Into<Vec<u32>>,
    ) -> Self {
        let contender = Box::new(contender);
        Self { name, contender, pids: pids.into(), rounds: Rounds::default() }
    }

    fn run(&mut self, window: usize, length: Duration, counts: bool) {
        let pids = [&self.pids[..], &[std::process::id()]].concat();
        let before = cpu_time(&pids);
        let done = self.contender.round(window, length);
        if counts {
            self.rounds.push(&done.with_cpu(cpu_time(&pids) - before));
        }
    }
}

fn main() -> ExitCode {
    // The supervisor of a deployment starts this very program as svcmap.
    if std::env::args().nth(1).is_some_and(|first| first == "--log-level") {
        return svcmap::main();
    }
    if raw_echo() {
        return ExitCode::SUCCESS;
    }
    let args = Args::parse();
    let runtime = Arc::new(Runtime::new().expect("a runtime starts"));
    match args.serve.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(&args, &runtime),
        ["nats", address] => runtime.block_on(nats::serve(address)),
        ["tarpc"] => runtime.block_on(tarpc::serve()),
        _ => return ExitCode::from(64),
    }
    ExitCode::SUCCESS
}

fn compare(args: &Args, runtime: &Arc<Runtime>) {
    let own = std::env::current_exe().expect("a bench knows where it lies");
    let flags = ["--builtin", "echo", "--concurrency", "1", "--queue", "4000"];
    let deployment = with_workers(deployment_by(own), "echo", 1, &flags);
    let client = deployment.client().expect("a client starts");
    let worker = deployment.pid("w-1").expect("it runs");
    let echo = RawEcho::start(zmq::ROUTER);
    let served = tarpc::Served::start();

    let payload = || PAYLOAD.to_vec();
    let mut entries = vec![
        Entry::new("svcmap", Blocking(Jobs::new(client, "echo", payload())), [worker]),
        Entry::new("libzmq", Blocking(echo.pair(payload())), [echo.pid()]),
        Entry::new("tarpc", served.contender(runtime), [served.pid()]),
    ];
    let broker = nats::Broker::start(runtime);
    match &broker {
        Ok(broker) => entries.push(Entry::new("NATS", broker.contender(runtime), broker.pids())),
        Err(error) => println!("NATS is left out, as nats-server does not start: {error}"),
    }
    println!("64 bytes, median of {} rounds of {} ms\n", args.rounds, args.round_ms);
    println!("{:>8}  {:<8}{}    RATIO", "WINDOW", "", Rounds::header());
    for &window in &args.windows {
        table(args, window, &mut entries);
    }
}

/// The rounds of one window, in turn, and their part of the table.
fn table(args: &Args, window: usize, entries: &mut [Entry]) {
    for number in 0..=args.rounds {
        for entry in &mut *entries {
            entry.run(window, Duration::from_millis(args.round_ms), number > 0);
        }
    }
    let own_rate = entries[0].rounds.rate();
    for (number, entry) in entries.iter_mut().enumerate() {
        let rounds = std::mem::take(&mut entry.rounds);
        let window = if number == 0 { window.to_string() } else { String::new() };
        let ratio = own_rate / rounds.rate();
        println!("{window:>8}  {:<8}{}  {ratio:>7.3}", entry.name, rounds.row());
    }
}
