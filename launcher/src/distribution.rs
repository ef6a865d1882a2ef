//! How long jobs take: distributions of service times with a given mean.

use std::time::Duration;

use clap::ValueEnum;

/// Shape of the bounded Pareto distribution: the heavy tail that many systems show (Harchol-Balter
/// and Downey, ACM TOCS 15(3)).
const PARETO_SHAPE: f64 = 1.5;

/// Its longest time / its shortest time.
const PARETO_RANGE: f64 = 1000.0;

/// A bimodal job is long with this chance.
const LONG_CHANCE: f64 = 0.1;

/// A long job / a short job.
const LONG_RATIO: f64 = 10.0;

/// A distribution of service times.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Distribution {
    /// Every job takes the mean
    Constant,
    /// Memoryless: most are shorter than the mean, few are several times as long
    #[default]
    Exponential,
    /// Bounded Pareto of shape 1.5, from a third of the mean to 350 times the mean
    Pareto,
    /// One job in ten takes ten times as long as the others
    Bimodal,
}

impl Distribution {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Distribution::Constant => "constant",
            Distribution::Exponential => "exponential",
            Distribution::Pareto => "pareto",
            Distribution::Bimodal => "bimodal",
        }
    }

    /// A time, in means.
    pub fn sample(self, random: &mut fastrand::Rng) -> f64 {
        match self {
            Distribution::Constant => 1.0,
            Distribution::Exponential => exponential(random),
            Distribution::Pareto => {
                let (shape, range) = (PARETO_SHAPE, PARETO_RANGE);
                // The mean of that from 1 to `range`; then by inversion.
                let cut = 1.0 - range.powf(-shape);
                let mean = shape / (shape - 1.0) * (1.0 - range.powf(1.0 - shape)) / cut;
                (1.0 - random.f64() * cut).powf(-1.0 / shape) / mean
            }
            Distribution::Bimodal => {
                let short = 1.0 / (1.0 - LONG_CHANCE + LONG_CHANCE * LONG_RATIO);
                if random.f64() < LONG_CHANCE { short * LONG_RATIO } else { short }
            }
        }
    }

    /// A time, for that mean.
    pub fn time(self, mean: Duration, random: &mut fastrand::Rng) -> Duration {
        mean.mul_f64(self.sample(random))
    }
}

/// A memoryless time with mean 1: also the gap between arrivals of a Poisson process.
pub fn exponential(random: &mut fastrand::Rng) -> f64 {
    // 1 - u lies in (0, 1], so the logarithm exists.
    -(1.0 - random.f64()).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_mean_one_and_the_spread_of_its_name() {
        let moments = |distribution: Distribution| {
            let mut random = fastrand::Rng::with_seed(7);
            let times: Vec<f64> = (0..400_000).map(|_| distribution.sample(&mut random)).collect();
            let mean = times.iter().sum::<f64>() / times.len() as f64;
            let squares = times.iter().map(|x| x * x).sum::<f64>() / times.len() as f64;
            (mean, squares - mean * mean)
        };
        // Variances: 0; 1; (0.9 + 0.1 * 100) / 1.9^2 - 1; and for Pareto, from its second moment.
        for (distribution, variance, tolerance) in [
            (Distribution::Constant, 0.0, 1e-9),
            (Distribution::Exponential, 1.0, 0.02),
            (Distribution::Bimodal, 10.9 / 3.61 - 1.0, 0.02),
            (Distribution::Pareto, 9.8, 2.0),
        ] {
            let (mean, found) = moments(distribution);
            assert!((mean - 1.0).abs() < 0.015, "{distribution:?}: mean {mean}");
            assert!((found - variance).abs() <= tolerance, "{distribution:?}: variance {found}");
        }
    }
}
