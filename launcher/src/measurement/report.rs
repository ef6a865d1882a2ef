//! The figures of a measurement, as `--json` writes them.

use serde::{Deserialize, Serialize};

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Setting {
    /// How workers were chosen.
    pub policy: String,
    /// Offered load / capacity.
    pub utilisation: f64,
    /// How many sent.
    pub senders: usize,
    /// How many served.
    pub workers: usize,
    /// Room for jobs at each worker.
    pub slots: u32,
    /// Jobs that run at once at each worker.
    pub concurrency: u32,
    /// Mean time of a handler, in milliseconds.
    pub service_time_ms: f64,
    /// How such times are distributed.
    pub distribution: String,
    /// Time between two publications of load, in milliseconds; `None` if the mapper decides about
    /// that.
    pub publish_interval_ms: Option<f64>,
    /// Time that was measured, in seconds.
    pub seconds: f64,
}

/// Jobs by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcomes {
    /// With a result.
    pub done: u64,
    /// With an error.
    pub failed: u64,
    /// No handler started them.
    pub refused: u64,
    /// Nobody knows.
    pub unknown: u64,
    /// With workers that report no more.
    pub accepted: u64,
}

impl Outcomes {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.done + self.failed + self.refused + self.unknown + self.accepted
    }
}

/// Tries of jobs at workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempts {
    /// All.
    pub sent: u64,
    /// Of those, the ones that found the worker full.
    pub rejected_full: u64,
}

/// Some times, in milliseconds; those for a share of all are what so many did not exceed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Percentiles {
    /// The mean.
    pub mean: f64,
    /// For a half.
    pub p50: f64,
    /// For 99 %.
    pub p99: f64,
    /// For 99.9 %.
    pub p999: f64,
}

/// How jobs were spread over workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Balance {
    /// Standard deviation / mean of the jobs for each worker: 0 if all got as many.
    pub cv: f64,
    /// Jain's index: 1 if all got as many, 1/n if one of n got all (Jain, Chiu and Hawe, DEC
    /// TR-301).
    pub jain: f64,
    /// Variance / mean of the jobs for one worker within one publish interval, or one mean service
    /// time if none is set.
    pub herd_index: f64,
}

/// See [`Measurement`](super::Measurement) for what the figures mean.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What was measured.
    #[serde(flatten)]
    pub setting: Setting,
    /// Jobs submitted.
    pub submitted: u64,
    /// What became of them.
    pub outcomes: Outcomes,
    /// First attempts.
    pub sent: u64,
    /// Of those, the ones that found the worker full.
    pub rejected_full: u64,
    /// The second / the first.
    pub far: f64,
    /// Half of the width of its confidence interval (95 %).
    pub far_ci95: f64,
    /// The share where the worker was full when it was chosen.
    pub far_stale: f64,
    /// The share where it was not.
    pub far_race: f64,
    /// First attempts and all others.
    pub attempts: Attempts,
    /// Jobs that were refused while a worker had room.
    pub refused_with_room: u64,
    /// Those / jobs submitted.
    pub frr: f64,
    /// Jobs done in each second.
    pub goodput_per_s: f64,
    /// From when a job was due until its start, without the way.
    pub wait_ms: Percentiles,
    /// From when a job was due until its result.
    pub response_ms: Percentiles,
    /// Age of what was known of a worker when it was chosen.
    pub age_ms: Percentiles,
    /// How jobs were spread.
    #[serde(flatten)]
    pub balance: Balance,
    /// Mean time from the choice of a worker until the job is there, in milliseconds.
    pub way_ms: f64,
    /// Mean time that a job occupies a handler beyond what it is meant to take, in milliseconds.
    pub handling_ms: f64,
    /// Messages between senders and workers, for each job.
    pub messages_per_job: f64,
    /// Their bytes, for each job.
    pub bytes_per_job: f64,
}
