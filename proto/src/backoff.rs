//! Pauses between tries, each twice as long as the one before: what failed is tried again and
//! again, but never fast, and not by everybody at the same moment.

use std::time::Duration;

/// The longest pause, unless the first is longer.
pub const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How many tries failed in a row.
#[derive(Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    /// A try failed: how long to wait before the next one, if that is `first` after the first. A
    /// random part of up to a quarter is left out.
    pub fn pause(&mut self, first: Duration, random: &mut fastrand::Rng) -> Duration {
        let pause = pause(first, self.tries, random);
        self.tries = self.tries.saturating_add(1);
        pause
    }

    /// Whether the failure is worth a line in a log: the first, the second, the fourth, and so on.
    pub fn is_notable(&self) -> bool {
        self.tries.is_power_of_two()
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

/// A pause after that many others, if it is `first` after none. A random part of up to a quarter is left
/// out.
pub fn pause(first: Duration, others: u32, random: &mut fastrand::Rng) -> Duration {
    pause_up_to(PAUSE_MAX, first, others, random)
}

/// The same, and none is longer than `max`, unless the first is.
pub fn pause_up_to(
    max: Duration,
    first: Duration,
    others: u32,
    random: &mut fastrand::Rng,
) -> Duration {
    let doubled = first.saturating_mul(1 << others.min(20));
    doubled.min(max.max(first)).mul_f64(1.0 - random.f64() / 4.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn pauses_double_up_to_a_limit_and_differ() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        for longest in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
            let pause = backoff.pause(ms(1000), &mut random);
            assert!((ms(longest) * 3 / 4..=ms(longest)).contains(&pause), "{pause:?}");
        }
        let others: Vec<_> = (0..9).map(|_| backoff.pause(ms(1000), &mut random)).collect();
        assert!(others.iter().any(|pause| *pause != others[0]));
        backoff.reset();
        assert!(backoff.pause(ms(1000), &mut random) <= ms(1000));
        assert!(backoff.pause(ms(90_000), &mut random) > ms(60_000), "what is longer stays so");
    }

    #[test]
    fn ever_fewer_failures_are_worth_a_line() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut backoff = Backoff::default();
        let notable = (1..=20).filter(|_| {
            backoff.pause(ms(1), &mut random);
            backoff.is_notable()
        });
        assert_eq!(notable.collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
    }
}
