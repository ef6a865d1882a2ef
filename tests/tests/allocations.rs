//! How often a job allocates memory: a client and a worker in this process, which has nothing else to
//! do, so it is a test binary of its own.

use std::alloc::System;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use svcmap_mapper::Mapper;
use svcmap_tests::bench::{Jobs, Pair};
use svcmap_worker::{Client, HandlerError, Job, Worker};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WINDOW: usize = 1000;
const JOBS: usize = 20_000;

/// Allocations of a job at most, at its client and its worker together, and their bytes. Lower them
/// when it gets better; `docs/performance.md` says what was counted last.
const ALLOCATIONS_MAX: f64 = 8.0;
const BYTES_MAX: f64 = 2000.0;

#[test]
fn a_job_allocates_no_more_than_it_did() {
    let any = "tcp://127.0.0.1:0";
    let mapper = Mapper::builder().bind(any).publish(any).start().expect("a mapper starts");
    let address = mapper.endpoint().as_str();
    let echo = |job: &Job| -> Result<Vec<u8>, HandlerError> { Ok(job.payload().to_vec()) };
    let worker = Worker::builder("echo").mapper(address).queue(4000);
    let worker = worker.bind(any).serve(echo).expect("a worker starts");
    assert!(worker.wait_registered(Duration::from_secs(10)));
    let client = Client::connect(address).expect("a client starts");
    let mut jobs = Jobs::new(client, "echo", vec![7; 64]);
    // Connections and buffers are made before it counts.
    run(&mut jobs, JOBS / 4);
    let region = Region::new(ALLOCATOR);
    run(&mut jobs, JOBS);
    let change = region.change();
    let allocations = (change.allocations + change.reallocations) as f64 / JOBS as f64;
    let bytes = change.bytes_allocated as f64 / JOBS as f64;
    println!("{allocations:.1} allocations and {bytes:.0} bytes for each job");
    assert!(allocations < ALLOCATIONS_MAX && bytes < BYTES_MAX, "{allocations:.1} and {bytes:.0}");
}

/// So many jobs, [`WINDOW`] under way.
fn run(jobs: &mut Jobs, count: usize) {
    for number in 0..count {
        if number >= WINDOW {
            jobs.receive();
        }
        jobs.send();
    }
    (0..WINDOW).for_each(|_| jobs.receive());
}
