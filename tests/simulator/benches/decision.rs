//! Time for one choice of a worker, by how many there are to choose from.
//!
//! `cargo bench -p svcmap-simulator --bench decision`
//!
//! - POLICY is the better of two by what is known, alone: [`Choice::choose`] among candidates with random
//!   loads.
//! - SENDER is all that a pure sender does for a job, with the encoding and decoding of its messages:
//!   to take it, to ask for promises, to choose, to hand it to a link, to settle its outcome. It has
//!   two jobs under way for each worker that it uses, of which there are 64 at most.
//! - CHOICE is how much more of that it does than where there is only one worker.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use svcmap_proto::load::Load;
use svcmap_proto::time::Timestamp;
use svcmap_simulator::Pure;
use svcmap_tests::bench::spread;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::pure::{Candidate, Choice, PowerOfTwo};

const ROUNDS: usize = 5;
const CHOICES: u32 = 1_000_000;
const JOBS: u64 = 20_000;

fn main() {
    println!("nanoseconds for each, median of {ROUNDS} (lowest to highest)\n");
    println!("INSTANCES           POLICY                     SENDER    CHOICE");
    let mut alone = 0.0;
    for instances in [1, 3, 100, 10_000] {
        let (policy, _) = spread((0..ROUNDS).map(|_| choice_ns(instances)).collect());
        let mut pure = Pure::new(instances, 10, vec![7; 64]);
        // Connections are made before it counts.
        job_ns(&mut pure, instances);
        let jobs = (0..ROUNDS).map(|_| job_ns(&mut pure, instances)).collect();
        let (sender, median) = spread(jobs);
        if instances == 1 {
            alone = median;
        }
        println!("{instances:>9}  {policy:>15}  {sender:>25}  {:>8.0}", median - alone);
    }
}

/// The policy alone that workers without promises are chosen by.
fn choice_ns(instances: usize) -> f64 {
    let (mut random, now) = (fastrand::Rng::with_seed(1), Timestamp::default());
    let mut candidate = || {
        let queued = random.u32(0..8);
        let load = Load { queued, slots: 11, concurrency: 1, ..Load::default() };
        Candidate { load: Some(load), ..Candidate::default() }
    };
    let mut candidates: Vec<_> = (0..instances).map(|_| candidate()).collect();
    let mut choice = PowerOfTwo::default();
    let started = Instant::now();
    for _ in 0..CHOICES {
        black_box(choice.choose(now, &mut candidates, &mut random));
    }
    started.elapsed().as_secs_f64() * 1e9 / f64::from(CHOICES)
}

/// All that the sender does for a job.
fn job_ns(pure: &mut Pure, instances: usize) -> f64 {
    let used = instances.min(OutboxConfig::default().active_peers_max);
    let window = 2 * used as u64;
    let before = pure.done();
    let mut time = Duration::ZERO;
    while pure.done() < before + JOBS {
        let started = Instant::now();
        pure.submit(window);
        pure.act_sender();
        time += started.elapsed();
        pure.act_servers();
    }
    time.as_secs_f64() * 1e9 / (pure.done() - before) as f64
}
