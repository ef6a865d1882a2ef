//! Jobs through a program that stays, beside what the same program does over its pipes alone.
//!
//! `cargo bench -p svcmap-tests --bench programs [-- --program 'python3 …']`. Raw is one thread that
//! writes a job and reads its answer; svcmap is one client with many jobs under way, and a worker
//! with `--exec-loop`. Both are run in turn, several rounds, and the ratio is what counts.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use clap::Parser;
use svcmap_tests::bench::{Jobs, Pair, Rounds, cpu_time, round};
use svcmap_tests::deployment_of;

/// The program of the page, which sends the payload back in capitals.
const PAGE: &str = include_str!("../../docs/programs.md");

/// See the file.
#[derive(Parser)]
struct Args {
    /// Jobs under way.
    #[arg(long, value_delimiter = ',', default_value = "1,100,1000")]
    windows: Vec<usize>,
    /// Rounds that count; one before them warms up.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Length of a round.
    #[arg(long, default_value_t = 1000)]
    round_ms: u64,
    /// Bytes of a payload.
    #[arg(long, default_value_t = 64)]
    bytes: usize,
    /// What cargo says to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The program, and one job at a time.
struct Raw {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    job: Vec<u8>,
    answer: Vec<u8>,
}

impl Raw {
    fn start(program: &str, payload: &[u8]) -> Self {
        let mut command = Command::new("python3");
        command.arg(program).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 starts");
        let stdin = child.stdin.take().expect("it is a pipe");
        let mut stdout = child.stdout.take().expect("it is a pipe");
        let mut answer = vec![0; 64 * 1024];
        let count = stdout.read(&mut answer).expect("it can be read");
        assert!(count > 0, "it is ready");
        let line = format!(
            "{{\"job\":17,\"attempt\":1,\"service\":\"shout\",\"instance\":\"w-1\",\"bytes\":{},\
             \"seconds_left\":null,\"metadata\":{{}}}}\n",
            payload.len()
        );
        let job = [line.as_bytes(), payload].concat();
        Self { child, stdin, stdout, job, answer }
    }
}

impl Pair for Raw {
    fn send(&mut self) {
        self.stdin.write_all(&self.job).expect("it can be written");
    }

    fn receive(&mut self) {
        let count = self.stdout.read(&mut self.answer).expect("it can be read");
        assert!(count > 0, "it answers");
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn main() {
    let args = Args::parse();
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("shout.py").display().to_string();
    let (_, program) = PAGE.split_once("```python shout.py\n").expect("the page has it");
    let (program, _) = program.split_once("```").expect("it has an end");
    std::fs::write(&path, program).expect("it can be written");
    let payload = vec![b'x'; args.bytes];
    let length = Duration::from_millis(args.round_ms);

    let mut raw = Raw::start(&path, &payload);
    let command = format!("python3 {path}");
    let flags = ["--exec-loop", &command, "--queue", "2000"];
    let deployment = deployment_of("shout", 1, &flags);
    let mut jobs = Jobs::new(deployment.client().expect("a client starts"), "shout", payload);
    let worker = deployment.pid("w-1").expect("it runs");
    println!("{} bytes, median of {} rounds of {} ms\n", args.bytes, args.rounds, args.round_ms);
    println!("{:>8}  {:<8}{}    RATIO", "WINDOW", "", Rounds::header());
    for window in args.windows {
        let (mut alone, mut through) = (Rounds::default(), Rounds::default());
        for number in 0..=args.rounds {
            let of_raw = round(&mut raw, 1, length);
            let before = cpu_time(&[worker]);
            let of_jobs = round(&mut jobs, window, length);
            let of_jobs = of_jobs.with_cpu(cpu_time(&[worker]).saturating_sub(before));
            if number > 0 {
                alone.push(&of_raw);
                through.push(&of_jobs);
            }
        }
        println!("{:>8}  {:<8}{}", 1, "pipes", alone.row());
        let ratio = through.rate() / alone.rate();
        println!("{window:>8}  {:<8}{}  {ratio:>7.3}", "svcmap", through.row());
    }
}
