//! Jobs per second through one worker process, beside what libzmq alone does in the same shape:
//! a DEALER and a ROUTER that echoes, in two processes, 64 bytes, so many under way at a time.
//!
//! `cargo bench -p svcmap-tests --bench roundtrip`. The two are run in turn, several rounds, and
//! the ratio is what counts: absolute figures say more about the machine.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::collections::VecDeque;
use std::time::Instant;

use svcmap_tests::bench::{RawEcho, raw_echo, spread};
use svcmap_tests::{PATIENCE, dealer, deployment_of};
use svcmap_worker::{Client, Outcome};

const ROUNDS: usize = 5;
const PAYLOAD: [u8; 64] = [7; 64];

/// How many are under way, and how many there are in one round.
const WINDOWS: [(usize, usize); 3] = [(1, 5_000), (100, 100_000), (1000, 100_000)];

fn main() {
    if raw_echo() {
        return;
    }
    let raw = RawEcho::start(zmq::ROUTER);
    let socket = dealer(raw.endpoint());
    let deployment =
        deployment_of("echo", 1, &["--builtin", "echo", "--concurrency", "1", "--queue", "4000"]);
    let client = deployment.client().expect("a client starts");
    println!("round trips per second of 64 bytes, median of {ROUNDS} (lowest to highest)\n");
    println!("{:>6}  {:>28}  {:>28}  {:>6}", "WINDOW", "RAW LIBZMQ", "SVCMAP JOBS", "RATIO");
    for (window, count) in WINDOWS {
        let (mut raw_rates, mut job_rates) = (Vec::new(), Vec::new());
        // The first round warms up and does not count.
        for round in 0..=ROUNDS {
            let rates = (raw_rate(&socket, window, count), job_rate(&client, window, count));
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

/// Messages per second from our DEALER through a ROUTER in a process of its own.
fn raw_rate(socket: &zmq::Socket, window: usize, count: usize) -> f64 {
    let receive = || socket.recv_bytes(0).expect("an echo");
    let started = Instant::now();
    for sent in 0..count {
        if sent >= window {
            receive();
        }
        socket.send(&PAYLOAD[..], 0).expect("it takes messages");
    }
    for _ in 0..window.min(count) {
        receive();
    }
    count as f64 / started.elapsed().as_secs_f64()
}
