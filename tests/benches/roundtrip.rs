//! Jobs per second through one worker process, beside what libzmq alone does in the same shape:
//! a DEALER and a ROUTER that echoes, in two processes, 64 bytes, so many under way at a time.
//!
//! `cargo bench -p svcmap-tests --bench roundtrip`. The two are run in turn, several rounds, and
//! the ratio is what counts: absolute figures say more about the machine.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use svcmap_tests::{PATIENCE, deployment_of};
use svcmap_worker::{Client, Outcome};

const ROUNDS: usize = 5;
const PAYLOAD: [u8; 64] = [7; 64];

/// How many are under way, and how many there are in one round.
const WINDOWS: [(usize, usize); 3] = [(1, 5_000), (100, 100_000), (1000, 100_000)];

/// What the second process of the raw pair is started with.
const ECHO: &str = "--raw-echo";

fn main() {
    if std::env::args().any(|arg| arg == ECHO) {
        return raw_echo();
    }
    let mut raw = Raw::start();
    let deployment =
        deployment_of("echo", 1, &["--builtin", "echo", "--concurrency", "1", "--queue", "4000"]);
    let client = deployment.client().expect("a client starts");
    println!("round trips per second of 64 bytes, median of {ROUNDS} (lowest to highest)\n");
    println!("{:>6}  {:>28}  {:>28}  {:>6}", "WINDOW", "RAW LIBZMQ", "SVCMAP JOBS", "RATIO");
    for (window, count) in WINDOWS {
        let (mut raw_rates, mut job_rates) = (Vec::new(), Vec::new());
        // The first round warms up and does not count.
        for round in 0..=ROUNDS {
            let rates = (raw.rate(window, count), job_rate(&client, window, count));
            if round > 0 {
                raw_rates.push(rates.0);
                job_rates.push(rates.1);
            }
        }
        let (raw_text, raw_median) = spread(raw_rates);
        let (job_text, job_median) = spread(job_rates);
        println!("{window:>6}  {raw_text:>28}  {job_text:>28}  {:>6.3}", job_median / raw_median);
    }
}

fn spread(mut rates: Vec<f64>) -> (String, f64) {
    rates.sort_by(f64::total_cmp);
    let (median, low, high) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    (format!("{median:.0} ({low:.0} to {high:.0})"), median)
}

/// Jobs per second with so many tickets open at a time.
fn job_rate(client: &Client, window: usize, count: usize) -> f64 {
    let submit = || {
        let job = client.job("echo", PAYLOAD.to_vec()).hold(PATIENCE);
        job.submit().expect("the outbox is large enough")
    };
    let started = Instant::now();
    let mut tickets = VecDeque::new();
    for _ in 0..count {
        if tickets.len() == window {
            take(&mut tickets);
        }
        tickets.push_back(submit());
    }
    while !tickets.is_empty() {
        take(&mut tickets);
    }
    count as f64 / started.elapsed().as_secs_f64()
}

fn take(tickets: &mut VecDeque<svcmap_worker::Ticket>) {
    let outcome = tickets.pop_front().expect("one is open").wait();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
}

/// The raw pair: our DEALER, and a ROUTER in a process of its own.
struct Raw {
    socket: zmq::Socket,
    echo: Child,
}

impl Raw {
    fn start() -> Self {
        let own = std::env::current_exe().expect("a bench knows where it lies");
        let mut echo =
            Command::new(own).arg(ECHO).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut endpoint = String::new();
        let stdout = echo.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut endpoint).expect("it says where it listens");
        Self { socket: svcmap_tests::dealer(endpoint.trim()), echo }
    }

    fn rate(&mut self, window: usize, count: usize) -> f64 {
        let receive = || self.socket.recv_bytes(0).expect("an echo");
        let started = Instant::now();
        for sent in 0..count {
            if sent >= window {
                receive();
            }
            self.socket.send(&PAYLOAD[..], 0).expect("it takes messages");
        }
        for _ in 0..window.min(count) {
            receive();
        }
        count as f64 / started.elapsed().as_secs_f64()
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Its own child; whatever fails here, it has ended already.
        let _ = self.echo.kill();
        let _ = self.echo.wait();
    }
}

/// The second process: sends back what comes, until it is killed or left alone.
fn raw_echo() {
    let socket = zmq::Context::new().socket(zmq::ROUTER).expect("a socket");
    // A ROUTER drops what exceeds its queue.
    socket.set_sndhwm(0).expect("it is a setting");
    socket.bind("tcp://127.0.0.1:*").expect("a port");
    socket.set_rcvtimeo(120_000).expect("a time limit");
    println!("{}", socket.get_last_endpoint().expect("it is bound").expect("it is text"));
    while let Ok(frames) = socket.recv_multipart(0) {
        socket.send_multipart(frames, 0).expect("the peer is there");
    }
}
