//! How good the choices of senders were. The soak feeds this with what real processes did, the
//! simulator with what it computed, so their figures mean the same.
//!
//! | figure | means |
//! | --- | --- |
//! | FAR | first attempts rejected as full / first attempts: how often the cache was wrong |
//! | stale, race | of those: the worker was full when it was chosen, or filled on the way |
//! | FRR | jobs refused while a worker had room / jobs |
//! | goodput | jobs done, for each second |
//! | wait | from when the job was due to be sent until a handler started, without the way there |
//! | herd index | variance / mean of the jobs for one worker within one publish interval, or one mean service time if none is set: 1 if they come at random, more if senders run after the same worker |

mod report;

use std::time::Duration;

use hdrhistogram::Histogram;
use svcmap_proto::time::Timestamp;

pub use report::{Attempts, Balance, Outcomes, Percentiles, Report, Setting};

/// Parts of the time measured that are compared with each other: with twenty, errors that come in
/// clusters still show in the confidence interval (the method of batch means; Law, Simulation
/// Modeling and Analysis, 9.5.3).
const BATCHES: usize = 20;

/// Student's t for 95 % and 19 degrees of freedom.
const STUDENT_T: f64 = 2.093;

/// Longest time that is told apart, in microseconds: an hour.
const LONGEST_US: u64 = 3_600_000_000;

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With a result.
    Done,
    /// With an error.
    Failed,
    /// No handler started it.
    Refused {
        /// While a worker had room.
        with_room: bool,
    },
    /// Nobody knows.
    Unknown,
    /// With a worker that reports no more.
    Accepted,
}

/// Why a worker was full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// It was when it was chosen.
    Stale,
    /// It was not: others came first, or it had room and said otherwise.
    Race,
}

/// What was measured so far. Only jobs that were due between `starts_at` and the end count: leave
/// out the others.
#[derive(Debug)]
pub struct Measurement {
    starts_at: Timestamp,
    duration: Duration,
    outcomes: Outcomes,
    submitted: u64,
    refused_with_room: u64,
    first: Attempts,
    all: Attempts,
    stale: u64,
    batches: Vec<Attempts>,
    waits: Times,
    responses: Times,
    ages: Times,
    herd: Herd,
    way: Duration,
    handling: Duration,
    messages: u64,
    bytes: u64,
}

impl Measurement {
    /// Nothing yet; jobs count that are due within `duration` from `starts_at`. `window` is that of
    /// the herd index.
    pub fn new(starts_at: Timestamp, duration: Duration, workers: usize, window: Duration) -> Self {
        Self {
            starts_at,
            duration,
            outcomes: Outcomes::default(),
            submitted: 0,
            refused_with_room: 0,
            first: Attempts::default(),
            all: Attempts::default(),
            stale: 0,
            batches: vec![Attempts::default(); BATCHES],
            waits: Times::default(),
            responses: Times::default(),
            ages: Times::default(),
            herd: Herd::new(starts_at, workers, window),
            way: Duration::ZERO,
            handling: Duration::ZERO,
            messages: 0,
            bytes: 0,
        }
    }

    /// Whether a job that was due then counts.
    pub fn counts(&self, due_at: Timestamp) -> bool {
        self.starts_at <= due_at && due_at < self.starts_at + self.duration
    }

    /// A job was submitted.
    pub fn submit(&mut self) {
        self.submitted += 1;
    }

    /// A worker was chosen for a job, for the `first` time or again, by knowledge of that age. Call
    /// it in the order of time.
    pub fn choose(&mut self, at: Timestamp, worker: usize, first: bool, age: Option<Duration>) {
        self.all.sent += 1;
        self.herd.choose(at, worker);
        if first {
            self.first.sent += 1;
            self.batch(at).sent += 1;
            if let Some(age) = age {
                self.ages.add(age);
            }
        }
    }

    /// The worker that was chosen then rejected the job as full.
    pub fn reject(&mut self, chosen_at: Timestamp, first: bool, full: Full) {
        self.all.rejected_full += 1;
        if first {
            self.first.rejected_full += 1;
            self.batch(chosen_at).rejected_full += 1;
            self.stale += u64::from(full == Full::Stale);
        }
    }

    /// A handler started a job.
    pub fn start(&mut self, wait: Duration) {
        self.waits.add(wait);
    }

    /// A job ended, so long after it was due.
    pub fn end(&mut self, ending: Ending, response: Duration) {
        match ending {
            Ending::Done => {
                self.outcomes.done += 1;
                self.responses.add(response);
            }
            Ending::Failed => self.outcomes.failed += 1,
            Ending::Refused { with_room } => {
                self.outcomes.refused += 1;
                self.refused_with_room += u64::from(with_room);
            }
            Ending::Unknown => self.outcomes.unknown += 1,
            Ending::Accepted => self.outcomes.accepted += 1,
        }
    }

    /// The mean time of a job on its way to a worker, and the mean time for which it occupies a
    /// handler beyond what it is meant to take: what the machine adds.
    pub fn set_overheads(&mut self, way: Duration, handling: Duration) {
        (self.way, self.handling) = (way, handling);
    }

    /// So many messages went between senders and workers, with so many bytes.
    pub fn transfer(&mut self, messages: u64, bytes: u64) {
        self.messages += messages;
        self.bytes += bytes;
    }

    /// Mean wait and mean response, in seconds.
    pub fn means(&self) -> (f64, f64) {
        (self.waits.mean_ms() / 1e3, self.responses.mean_ms() / 1e3)
    }

    /// Which share of jobs waited longer than so many milliseconds, in falling shares.
    pub fn wait_tail(&self) -> Vec<(f64, f64)> {
        self.waits.tail()
    }

    /// The same for responses.
    pub fn response_tail(&self) -> Vec<(f64, f64)> {
        self.responses.tail()
    }

    /// The same for the age of what was known.
    pub fn age_tail(&self) -> Vec<(f64, f64)> {
        self.ages.tail()
    }

    /// The figures, for what was set.
    pub fn report(&self, setting: Setting) -> Report {
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let race = self.first.rejected_full - self.stale;
        Report {
            setting,
            submitted: self.submitted,
            outcomes: self.outcomes,
            sent: self.first.sent,
            rejected_full: self.first.rejected_full,
            far: share(self.first.rejected_full, self.first.sent),
            far_ci95: self.far_ci95(),
            far_stale: share(self.stale, self.first.sent),
            far_race: share(race, self.first.sent),
            attempts: self.all,
            refused_with_room: self.refused_with_room,
            frr: share(self.refused_with_room, self.submitted),
            goodput_per_s: self.outcomes.done as f64 / self.duration.as_secs_f64(),
            wait_ms: self.waits.percentiles(),
            response_ms: self.responses.percentiles(),
            age_ms: self.ages.percentiles(),
            balance: self.herd.balance(),
            way_ms: self.way.as_secs_f64() * 1e3,
            handling_ms: self.handling.as_secs_f64() * 1e3,
            messages_per_job: share(self.messages, self.submitted),
            bytes_per_job: share(self.bytes, self.submitted),
        }
    }

    /// Half of the width of FAR's confidence interval (95 %).
    fn far_ci95(&self) -> f64 {
        let of = |batch: &Attempts| batch.rejected_full as f64 / batch.sent.max(1) as f64;
        let shares: Vec<f64> = self.batches.iter().map(of).collect();
        half_width(&shares)
    }

    fn batch(&mut self, at: Timestamp) -> &mut Attempts {
        let share = at.since(self.starts_at).as_secs_f64() / self.duration.as_secs_f64();
        let index = (share * BATCHES as f64) as usize;
        &mut self.batches[index.min(BATCHES - 1)]
    }
}

/// Half of the width of the confidence interval (95 %) of the mean of twenty batches.
fn half_width(batches: &[f64]) -> f64 {
    let count = batches.len() as f64;
    let mean = batches.iter().sum::<f64>() / count;
    let variance = batches.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (count - 1.0);
    STUDENT_T * (variance / count).sqrt()
}

/// Times, with an exact mean.
#[derive(Debug)]
struct Times {
    histogram: Histogram<u64>,
    sum: Duration,
}

impl Default for Times {
    fn default() -> Self {
        // Three digits from a microsecond to an hour take 200 kB. These bounds are valid ones.
        #[allow(clippy::expect_used)]
        let histogram = Histogram::new_with_bounds(1, LONGEST_US, 3).expect("valid bounds");
        Self { histogram, sum: Duration::ZERO }
    }
}

impl Times {
    fn add(&mut self, time: Duration) {
        self.sum += time;
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(us.max(1));
    }

    fn mean_ms(&self) -> f64 {
        self.sum.as_secs_f64() * 1e3 / self.histogram.len().max(1) as f64
    }

    fn tail(&self) -> Vec<(f64, f64)> {
        let count = self.histogram.len() as f64;
        let mut longer = count;
        let values = self.histogram.iter_recorded().map(|value| {
            longer -= value.count_since_last_iteration() as f64;
            (value.value_iterated_to() as f64 / 1e3, longer / count)
        });
        values.collect()
    }

    fn percentiles(&self) -> Percentiles {
        let at = |quantile| self.histogram.value_at_quantile(quantile) as f64 / 1e3;
        Percentiles { mean: self.mean_ms(), p50: at(0.5), p99: at(0.99), p999: at(0.999) }
    }
}

/// Who was chosen how often, and how much at a time.
#[derive(Debug)]
struct Herd {
    window: Duration,
    window_ends_at: Timestamp,
    in_window: Vec<u32>,
    by_worker: Vec<u64>,
    /// Of all windows of all workers: how many, and the sums of jobs and of their squares.
    windows: f64,
    sum: f64,
    squares: f64,
}

impl Herd {
    fn new(starts_at: Timestamp, workers: usize, window: Duration) -> Self {
        let window_ends_at = starts_at + window;
        let (in_window, by_worker) = (vec![0; workers], vec![0; workers]);
        Self { window, window_ends_at, in_window, by_worker, windows: 0.0, sum: 0.0, squares: 0.0 }
    }

    fn choose(&mut self, at: Timestamp, worker: usize) {
        while at >= self.window_ends_at {
            for jobs in &mut self.in_window {
                let jobs = f64::from(std::mem::take(jobs));
                self.windows += 1.0;
                self.sum += jobs;
                self.squares += jobs * jobs;
            }
            self.window_ends_at = self.window_ends_at + self.window;
        }
        if let Some(jobs) = self.in_window.get_mut(worker) {
            *jobs += 1;
            self.by_worker[worker] += 1;
        }
    }

    fn balance(&self) -> Balance {
        let count = self.by_worker.len() as f64;
        let sum: f64 = self.by_worker.iter().map(|jobs| *jobs as f64).sum();
        let squares: f64 = self.by_worker.iter().map(|jobs| (*jobs as f64).powi(2)).sum();
        let mean = sum / count;
        let variance = (squares / count - mean * mean).max(0.0);
        let window_mean = self.sum / self.windows.max(1.0);
        let window_variance = self.squares / self.windows.max(1.0) - window_mean * window_mean;
        Balance {
            cv: if mean > 0.0 { variance.sqrt() / mean } else { 0.0 },
            jain: if squares > 0.0 { sum * sum / (count * squares) } else { 1.0 },
            herd_index: if window_mean > 0.0 { window_variance / window_mean } else { 0.0 },
        }
    }
}

#[cfg(test)]
mod tests;
