//! When to say something again that happens again and again: at a falling rate.

use std::time::Duration;

use crate::time::Timestamp;

/// Least time between the first two times that something is said.
const SHORTEST: Duration = Duration::from_secs(1);

/// Longest time that something goes unsaid while it goes on.
const LONGEST: Duration = Duration::from_secs(60);

/// Says at first, and then each time after twice the pause, up to a minute. After as long a silence
/// it begins anew.
#[derive(Clone, Copy, Debug)]
pub struct Rarely {
    pause: Duration,
    said_at: Option<Timestamp>,
    happened_at: Timestamp,
    unsaid: u64,
}

impl Default for Rarely {
    fn default() -> Self {
        Self { pause: SHORTEST, said_at: None, happened_at: Timestamp::default(), unsaid: 0 }
    }
}

impl Rarely {
    /// It happened. `Some` if that is to be said: how often it did since it was said last.
    pub fn admit(&mut self, now: Timestamp) -> Option<u64> {
        if now.since(self.happened_at) > self.pause.max(SHORTEST * 2) {
            *self = Self::default();
        }
        self.happened_at = now;
        self.unsaid += 1;
        if let Some(said_at) = self.said_at {
            if now.since(said_at) < self.pause {
                return None;
            }
            self.pause = (self.pause * 2).min(LONGEST);
        }
        self.said_at = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_on_is_said_at_a_falling_rate() {
        let mut rarely = Rarely::default();
        // Ten times a second, for ten minutes.
        let at = |tenths: u64| Timestamp::from_micros(100_000_000 + tenths * 100_000);
        let said: Vec<_> = (0..6000).filter_map(|n| Some((n / 10, rarely.admit(at(n))?))).collect();
        assert_eq!(said[..5], [(0, 1), (1, 10), (3, 20), (7, 40), (15, 80)]);
        assert_eq!(said.len(), 6 + 10 - 1, "{said:?}");
        // After a silence the first time is news.
        assert_eq!(rarely.admit(at(9000)), Some(1));
        assert_eq!(rarely.admit(at(9001)), None);
    }
}
