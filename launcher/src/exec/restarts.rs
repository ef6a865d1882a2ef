//! When a program that stays is started again after it died: at once if it was of use, else after
//! pauses that grow, so that one that cannot live does not keep the machine busy.

use std::time::Duration;

use svcmap_proto::backoff;

/// The pause after the second death in a row; each further one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);

/// The longest pause that a job waits for, rather than being tried elsewhere.
const WORTH_WAITING: Duration = Duration::from_secs(1);

/// The deaths of one program.
#[derive(Debug, Default)]
pub struct Restarts {
    /// In a row, without an answer between them.
    deaths: u32,
    /// Whether it can be expected to be there soon.
    is_near: bool,
}

impl Restarts {
    /// It answered a job.
    pub fn answered(&mut self) {
        self.deaths = 0;
    }

    /// It died by itself, after it had been ready or before. How long to wait before it is started
    /// again; a random part of up to a quarter is left out, as others may have died at the same moment.
    pub fn died(&mut self, was_ready: bool, random: &mut fastrand::Rng) -> Duration {
        let pause = match self.deaths.checked_sub(1) {
            None => Duration::ZERO,
            Some(pauses) => backoff::pause(PAUSE_FIRST, pauses, random),
        };
        self.deaths = self.deaths.saturating_add(1);
        self.is_near = was_ready && pause <= WORTH_WAITING;
        pause
    }

    /// It was ended for what is not its fault, and is started again at once.
    pub fn was_ended(&mut self) {
        self.is_near = true;
    }

    /// Whether it can be expected to be there soon: then jobs wait for it.
    pub fn is_near(&self) -> bool {
        self.is_near
    }

    /// Whether its last death is worth a line in the log: the first, the second, the fourth, and so on.
    pub fn is_notable(&self) -> bool {
        self.deaths.is_power_of_two()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_was_of_use_is_started_at_once_and_others_ever_later() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut restarts = Restarts::default();
        assert_eq!(restarts.died(true, &mut random), Duration::ZERO);
        for longest_ms in [100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 30_000, 30_000] {
            let pause = restarts.died(true, &mut random).as_millis();
            assert!((longest_ms * 3 / 4..=longest_ms).contains(&pause), "{pause}");
        }
        let others: Vec<_> = (0..9).map(|_| restarts.died(true, &mut random)).collect();
        assert!(others.iter().any(|pause| *pause != others[0]));
        restarts.answered();
        assert_eq!(restarts.died(true, &mut random), Duration::ZERO);
    }

    #[test]
    fn jobs_wait_for_one_that_will_soon_be_there() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut restarts = Restarts::default();
        let mut near = |was_ready| {
            restarts.died(was_ready, &mut random);
            restarts.is_near()
        };
        // 0, 100, 200, 400, 800 and 1600 ms.
        assert_eq!([true; 6].map(&mut near), [true, true, true, true, true, false]);
        restarts.answered();
        restarts.died(false, &mut random);
        assert!(!restarts.is_near(), "it did not even start");
        restarts.was_ended();
        assert!(restarts.is_near());
    }

    #[test]
    fn ever_fewer_deaths_are_worth_a_line() {
        let mut random = fastrand::Rng::with_seed(1);
        let mut restarts = Restarts::default();
        let notable = (1..=20).filter(|_| {
            restarts.died(true, &mut random);
            restarts.is_notable()
        });
        assert_eq!(notable.collect::<Vec<_>>(), [1, 2, 4, 8, 16]);
    }
}
