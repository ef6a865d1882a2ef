//! One thread that keeps so many requests under way, and what a few rounds of that come to.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

/// One end of a pair that answers in the order of the requests.
pub trait Pair {
    /// Sends one request.
    fn send(&mut self);

    /// Takes the answer to the oldest.
    fn receive(&mut self);
}

/// What was measured in one go.
#[derive(Debug)]
pub struct Round {
    count: u64,
    elapsed: Duration,
    latencies_ns: Histogram<u64>,
    cpu: Duration,
}

/// Requests for so long, `window` of them under way. A latency runs from before a request is sent
/// until its answer is in hand, so it has the wait behind those before it.
pub fn round(pair: &mut impl Pair, window: usize, length: Duration) -> Round {
    let mut latencies_ns = no_latencies();
    let mut take = |pair: &mut dyn Pair, sent_at: Instant| {
        pair.receive();
        let now = Instant::now();
        latencies_ns.saturating_record(nanoseconds(now - sent_at));
        now
    };
    let mut under_way = VecDeque::with_capacity(window);
    let started = Instant::now();
    let mut now = started;
    while now - started < length {
        match under_way.len() == window {
            true => now = take(pair, under_way.pop_front().expect("no window is empty")),
            false => now = Instant::now(),
        }
        pair.send();
        under_way.push_back(now);
    }
    for sent_at in under_way {
        now = take(pair, sent_at);
    }
    let count = latencies_ns.len();
    Round { count, elapsed: now - started, latencies_ns, cpu: Duration::ZERO }
}

impl Round {
    /// What was measured by other means.
    ///
    /// # Panics
    /// Never: there is room for any latency.
    pub fn new(elapsed: Duration, latencies: impl IntoIterator<Item = Duration>) -> Self {
        let mut latencies_ns = no_latencies();
        for latency in latencies {
            latencies_ns.saturating_record(nanoseconds(latency));
        }
        Self { count: latencies_ns.len(), elapsed, latencies_ns, cpu: Duration::ZERO }
    }

    /// The same, in which the processes that took part used so much CPU time.
    pub fn with_cpu(self, cpu: Duration) -> Self {
        Self { cpu, ..self }
    }

    /// How many requests it had.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// This one and one of another sender at the same time.
    ///
    /// # Panics
    /// Never: all histograms here are alike.
    pub fn beside(mut self, other: &Round) -> Self {
        self.count += other.count;
        self.elapsed = self.elapsed.max(other.elapsed);
        self.latencies_ns.add(&other.latencies_ns).expect("all histograms here are alike");
        self
    }
}

/// Rounds of the same.
#[derive(Debug)]
pub struct Rounds {
    rates: Vec<f64>,
    count: u64,
    latencies_ns: Histogram<u64>,
    cpu: Duration,
}

impl Default for Rounds {
    fn default() -> Self {
        Self { rates: Vec::new(), count: 0, latencies_ns: no_latencies(), cpu: Duration::ZERO }
    }
}

impl Rounds {
    /// What heads a table of [`Rounds::row`]s.
    pub fn header() -> String {
        columns("PER SECOND (LOWEST TO HIGHEST)", ["P50 US", "P99 US", "CPU US"])
    }

    /// Adds one.
    ///
    /// # Panics
    /// Never: all histograms here are alike.
    pub fn push(&mut self, round: &Round) {
        self.rates.push(round.count as f64 / round.elapsed.as_secs_f64());
        self.count += round.count;
        self.latencies_ns.add(&round.latencies_ns).expect("all histograms here are alike");
        self.cpu += round.cpu;
    }

    /// Requests per second in the median round.
    pub fn rate(&self) -> f64 {
        spread(self.rates.clone()).1
    }

    /// The median rate and its spread, percentiles of the latencies of all rounds, and the CPU time
    /// of each request, if that is known.
    pub fn row(&self) -> String {
        let (rates, _) = spread(self.rates.clone());
        let latency = |q| format!("{:.0}", self.latencies_ns.value_at_quantile(q) as f64 / 1000.0);
        let cpu_us = self.cpu.as_secs_f64() * 1e6 / self.count.max(1) as f64;
        let cpu = if cpu_us > 0.0 { format!("{cpu_us:.1}") } else { "-".to_owned() };
        columns(&rates, [&latency(0.5), &latency(0.99), &cpu])
    }
}

fn columns(rates: &str, others: [&str; 3]) -> String {
    let [p50, p99, cpu] = others;
    format!("{rates:>32}  {p50:>7}  {p99:>7}  {cpu:>7}")
}

/// `MEDIAN (LOWEST to HIGHEST)`, and the median.
///
/// # Panics
/// If there are none.
pub fn spread(mut rates: Vec<f64>) -> (String, f64) {
    rates.sort_by(f64::total_cmp);
    let (median, low, high) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    (format!("{median:.0} ({low:.0} to {high:.0})"), median)
}

/// From 100 ns to 100 s, to three digits.
fn no_latencies() -> Histogram<u64> {
    Histogram::new_with_bounds(100, 100_000_000_000, 3).expect("these bounds are in order")
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
