//! The goals' figures where one thing is not as at the base point: every point beside an oracle that
//! knows all queues, and to which messages take as long as to everybody.

use rayon::prelude::*;
use svcmap::distribution::Distribution;

use super::measured::{Pair, SERVICE_TIME, SHORT, base_of, loaded};
use super::{Rule, Scenario};

/// A scenario, and what is different in it.
#[derive(Clone, Debug)]
pub struct Variant {
    /// What is different.
    pub name: String,
    /// What is simulated.
    pub scenario: Scenario,
}

/// What came of one.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is different.
    pub name: String,
    /// Offered load / capacity.
    pub utilisation: f64,
    /// Share of attempts that found the worker full: of the first ones or of all, whichever is more.
    pub far: f64,
    /// Share of jobs that were refused while a worker had room.
    pub frr: f64,
    /// Jobs done, as a ratio to the oracle's.
    pub goodput: f64,
    /// 99th percentile of the wait, as a ratio to the oracle's; `None` if that one waits for nothing.
    pub wait: Option<f64>,
    /// The same of the response.
    pub response: f64,
    /// Messages for each job.
    pub messages: f64,
}

/// All of them, at each load.
pub fn all() -> Vec<Variant> {
    let mut all = Vec::new();
    let mut add = |name: &str, utilisations: &[f64], scenario: &Scenario| {
        all.extend(utilisations.iter().map(|&utilisation| Variant {
            name: name.to_owned(),
            scenario: loaded(scenario, utilisation),
        }));
    };
    let base = base_of(SERVICE_TIME);
    add("base point", &[0.9, 0.99, 1.2], &base);
    for distribution in [Distribution::Constant, Distribution::Pareto, Distribution::Bimodal] {
        let scenario = Scenario { distribution, ..base.clone() };
        add(&format!("{} services", distribution.as_str()), &[0.7, 0.9, 1.2], &scenario);
    }
    let speeds = Scenario { speeds: vec![1.0, 10.0], ..base.clone() };
    add("workers of 1:10", &[0.7, 0.9, 1.2], &speeds);
    for senders in [1, 4, 16, 64, 128] {
        let scenario = Scenario { senders, ..base.clone() };
        add(&of_senders(senders), &[0.9, 1.2], &scenario);
    }
    for (concurrency, queue) in [(1, 0), (1, 1), (1, 2), (4, 0), (4, 4)] {
        let scenario = Scenario { concurrency, queue, ..base.clone() };
        add(&format!("c = {concurrency}, K = {}", concurrency + queue), &[0.9, 1.2], &scenario);
    }
    for (tenths, concurrency, queue) in
        [(1, 1, 10), (3, 1, 10), (10, 1, 10), (20, 1, 10), (10, 4, 60), (20, 4, 60)]
    {
        let delay = SERVICE_TIME * tenths / 10;
        let scenario = Scenario { delay, concurrency, queue, ..base.clone() };
        let slots = concurrency + queue;
        let way = f64::from(tenths) / 10.0;
        add(&format!("d = {way}, c = {concurrency}, K = {slots}"), &[0.9, 1.1], &scenario);
    }
    for short in shorts() {
        add(&short.name, &[0.9, 0.95, 1.1], &short.scenario);
    }
    all
}

fn of_senders(senders: usize) -> String {
    format!("{senders} sender{}", if senders == 1 { "" } else { "s" })
}

/// Where the way takes longer than the job.
fn shorts() -> Vec<Variant> {
    let variant = |services: u32, concurrency, senders, workers, queue, warm_up: u32| {
        let (delay, warm_up) = (services * SHORT, warm_up * SHORT);
        let shape = Scenario { delay, warm_up, senders, workers, ..base_of(SHORT) };
        let slots = concurrency + queue;
        Variant {
            name: format!(
                "d = {services}, c = {concurrency}, K = {slots}, {}",
                of_senders(senders)
            ),
            scenario: Scenario { concurrency, queue, ..shape },
        }
    };
    let short = |services, senders, workers, queue, warm_up| {
        variant(services, 4, senders, workers, queue, warm_up)
    };
    vec![
        variant(3, 1, 32, 16, 10, 2_000),
        variant(10, 1, 32, 16, 10, 5_000),
        variant(10, 1, 32, 16, 63, 5_000),
        short(3, 32, 16, 60, 2_000),
        short(3, 1, 16, 60, 2_000),
        short(3, 128, 16, 60, 2_000),
        short(10, 32, 16, 60, 5_000),
        short(10, 32, 16, 252, 5_000),
        short(10, 1, 16, 60, 5_000),
        short(10, 1, 16, 252, 5_000),
        short(10, 128, 16, 60, 5_000),
        short(100, 8, 4, 1020, 20_000),
    ]
}

/// Measures them with about so many jobs each, as many at a time as there are processors.
pub fn measure(jobs: u64) -> Vec<Row> {
    all().par_iter().map(|variant| row(variant, jobs)).collect()
}

fn row(variant: &Variant, jobs: u64) -> Row {
    let scenario = variant.scenario.clone().with_jobs(jobs);
    let pair = Pair::of(scenario.clone(), scenario.with_rule(Rule::Oracle));
    Row {
        name: variant.name.clone(),
        utilisation: variant.scenario.utilisation,
        far: pair.far(),
        frr: pair.svcmap.report.frr,
        goodput: pair.goodput(),
        wait: Some(pair.wait()).filter(|_| pair.oracle.report.wait_ms.p99 >= 1.0),
        response: pair.response(),
        messages: pair.messages(),
    }
}
