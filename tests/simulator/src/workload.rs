//! When jobs come, and how long they take. Each sender has a stream of its own, so that the same
//! jobs come whatever the policy does with them (common random numbers).

use std::time::Duration;

use svcmap::distribution::{Distribution, exponential};
use svcmap_proto::time::Timestamp;

use super::scenario::{ON_TO_OFF, Scenario};

/// How long a sender is on, or off, in service times.
const PERIOD: f64 = 10.0;

/// The rates of a sender that is off and on: their mean is 1, as it is both for the same time.
const OFF: f64 = 2.0 / (1.0 + ON_TO_OFF);
const ON: f64 = ON_TO_OFF * OFF;

/// See the module.
#[derive(Debug)]
pub struct Workload {
    streams: Vec<Stream>,
    /// How long a sender that is on or off stays so in the mean, in microseconds.
    period_us: f64,
    service_time: Duration,
    distribution: Distribution,
}

#[derive(Debug)]
struct Stream {
    random: fastrand::Rng,
    /// Mean time between two jobs, in microseconds.
    gap_us: f64,
    /// How much more jobs come now than in the mean, and until when.
    rate: f64,
    until_us: f64,
    /// When the next job comes, in microseconds: rounding must not add up.
    next_us: f64,
}

impl Workload {
    /// The load of a scenario, from that time on.
    pub fn new(scenario: &Scenario, from: Timestamp) -> Self {
        let gap_us = scenario.senders as f64 / scenario.rate() * 1e6;
        let next_us = from.as_micros() as f64;
        let stream = |sender: usize| {
            let seed = scenario.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let random = fastrand::Rng::with_seed(seed.wrapping_add(sender as u64));
            let gap_us = gap_us / scenario.pace(sender);
            let mut stream = Stream { random, gap_us, rate: 1.0, until_us: f64::INFINITY, next_us };
            if scenario.on_off {
                stream.rate = if stream.random.bool() { ON } else { OFF };
                stream.until_us = next_us;
            }
            stream
        };
        Self {
            streams: (0..scenario.senders).map(stream).collect(),
            period_us: PERIOD * scenario.service_time.as_secs_f64() * 1e6,
            service_time: scenario.service_time,
            distribution: scenario.distribution,
        }
    }

    /// When a sender's next job comes.
    pub fn next_arrival(&mut self, sender: usize) -> Timestamp {
        let stream = &mut self.streams[sender];
        let mut gap = exponential(&mut stream.random) * stream.gap_us;
        // What is left of the gap passes at another rate.
        while stream.next_us + gap / stream.rate > stream.until_us {
            gap -= (stream.until_us - stream.next_us) * stream.rate;
            stream.next_us = stream.until_us;
            stream.until_us += exponential(&mut stream.random) * self.period_us;
            stream.rate = if stream.rate == ON { OFF } else { ON };
        }
        stream.next_us += gap / stream.rate;
        Timestamp::from_micros(stream.next_us.round() as u64)
    }

    /// How long it takes at a worker of speed 1.
    pub fn service_time(&mut self, sender: usize) -> Duration {
        self.distribution.time(self.service_time, &mut self.streams[sender].random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Jobs of each sender in each of the first 2000 service times, as a scenario has them.
    fn counts(change: impl Fn(Scenario) -> Scenario) -> Vec<Vec<f64>> {
        let scenario = change(Scenario { senders: 8, ..Scenario::default() });
        let mut workload = Workload::new(&scenario, Timestamp::default());
        let window = scenario.service_time.as_micros() as u64;
        let mut jobs_of = |sender| {
            let mut jobs = vec![0.0; 2000];
            while let Some(jobs) =
                jobs.get_mut((workload.next_arrival(sender).as_micros() / window) as usize)
            {
                *jobs += 1.0;
            }
            jobs
        };
        (0..scenario.senders).map(&mut jobs_of).collect()
    }

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    /// Each sender's share of all jobs.
    fn shares(change: impl Fn(Scenario) -> Scenario) -> Vec<f64> {
        let means: Vec<f64> = counts(change).iter().map(|jobs| mean(jobs)).collect();
        means.iter().map(|share| share / means.iter().sum::<f64>()).collect()
    }

    #[test]
    fn shares_are_what_the_scenario_says() {
        let heavy = shares(|scenario| Scenario { heavy_share: Some(0.5), ..scenario });
        assert!((heavy[0] - 0.5).abs() < 0.02 && (heavy[7] - 0.5 / 7.0).abs() < 0.01, "{heavy:?}");
        let idle = shares(|scenario| Scenario { idle_half: true, ..scenario });
        let (busy, idle) = idle.split_at(4);
        assert!(busy.iter().all(|share| (share - 0.2475).abs() < 0.02), "{busy:?}");
        assert!((idle.iter().sum::<f64>() - 0.01).abs() < 0.004, "{idle:?}");
    }

    #[test]
    fn on_and_off_change_the_spread_but_not_the_mean() {
        let moments = |on_off| {
            let jobs = counts(|scenario| Scenario { on_off, ..scenario }).concat();
            let squares: Vec<f64> = jobs.iter().map(|jobs| jobs * jobs).collect();
            (mean(&jobs), mean(&squares) - mean(&jobs).powi(2))
        };
        // 0.9 x 16 / 8 jobs in each window. The rate is 2/3 off the mean to either side, so its
        // variance is 4/9 of the square of that; less what evens out in windows with a change.
        let (steady, on_off) = (moments(false), moments(true));
        assert!((steady.0 - 1.8).abs() < 0.05 && (on_off.0 - 1.8).abs() < 0.1, "{on_off:?}");
        let added = on_off.1 - on_off.0;
        assert!((added / (1.8 * 1.8 * 4.0 / 9.0) - 0.94).abs() < 0.15, "{added}");
        assert!((steady.1 - steady.0).abs() < 0.1, "{steady:?}");
    }
}
