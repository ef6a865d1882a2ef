//! So many jobs through a pure sender and a pure server in one thread, a hundred under way:
//! [`Pure`] says what that is. Nothing here depends on the machine's other work, so the instructions
//! of a job can be counted exactly: `.ci/instructions` does that, and compares.
//!
//! `cargo bench -p svcmap-simulator --bench instructions -- 100000` takes their time instead.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use svcmap_simulator::Pure;

const WINDOW: u64 = 100;

fn main() {
    let count = std::env::args().find_map(|arg| arg.parse().ok()).unwrap_or(10_000);
    let mut pure = Pure::new(1, 4000, vec![7; 64]);
    let started = Instant::now();
    while pure.done() < count {
        pure.submit(WINDOW);
        pure.act_sender();
        pure.act_servers();
    }
    let each_ns = started.elapsed().as_nanos() / u128::from(pure.done());
    println!("{} jobs, {each_ns} ns each", pure.done());
}
