//! How often something happens: a mean over the last beats.

use std::collections::VecDeque;
use std::time::Duration;

/// Beats that are looked back on.
const BEATS: usize = 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Events since the last beat.
    events: u64,
    earlier: VecDeque<(u64, Duration)>,
}

impl Rate {
    /// So many more happened.
    pub(super) fn count(&mut self, events: u64) {
        self.events = self.events.saturating_add(events);
    }

    /// A beat is over, which lasted so long.
    pub(super) fn handle_beat(&mut self, lasted: Duration) {
        self.earlier.truncate(BEATS - 1);
        self.earlier.push_front((std::mem::take(&mut self.events), lasted));
    }

    /// Events in a second; 0 in the first beat.
    pub(super) fn per_s(&self) -> f32 {
        let events: f64 = self.earlier.iter().map(|(events, _)| *events as f64).sum();
        let lasted: Duration = self.earlier.iter().map(|(_, lasted)| *lasted).sum();
        if lasted.is_zero() { 0.0 } else { (events / lasted.as_secs_f64()) as f32 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_mean_over_the_last_beats_and_nothing_in_the_end() {
        let mut rate = Rate::default();
        rate.count(20);
        assert!(rate.per_s() == 0.0);
        rate.handle_beat(Duration::from_secs(2));
        assert!(rate.per_s() == 10.0);
        rate.count(u64::MAX);
        rate.count(40);
        (0..BEATS + 1).for_each(|_| rate.handle_beat(Duration::from_secs(2)));
        assert!(rate.per_s() == 0.0 && rate.earlier.len() == BEATS);
    }
}
