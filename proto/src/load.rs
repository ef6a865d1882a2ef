//! What an instance says of itself: how much it does, and how it has done so far.

use serde::{Deserialize, Serialize};

/// Whether an instance takes jobs at all. Full is no state: it follows from the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Takes jobs while it has free slots.
    #[default]
    Ready,
    /// Finishes what it has and takes nothing new.
    Draining,
}

/// What an instance says of itself, on every report and every answer.
///
/// Newer is what has the higher `sequence` within one incarnation; wall clocks play no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Only grows within one incarnation; with it, load orders newer and older.
    pub sequence: u64,
    /// Whether it takes jobs.
    pub state: State,
    /// Jobs waiting for a handler.
    pub queued: u32,
    /// Jobs that a handler works on.
    pub running: u32,
    /// Slots promised to senders that have not sent yet.
    pub promised: u32,
    /// Room for jobs: concurrency + queue.
    pub slots: u32,
    /// Jobs that can run at once.
    pub concurrency: u32,
    /// Moving average of a handler's time per job, in microseconds; 0 until one has finished.
    pub mean_service_us: u64,
    /// Jobs taken since start.
    pub accepted: u64,
    /// Jobs whose handler returned a result.
    pub done: u64,
    /// Jobs whose handler returned an error or panicked.
    pub failed: u64,
    /// Attempts that were rejected.
    pub rejected: u64,
    /// How long the oldest queued job has waited, in milliseconds.
    pub oldest_queued_ms: u32,
    /// Time since a handler last finished a job, in milliseconds; `None` before the first.
    pub since_finish_ms: Option<u32>,
}

impl Load {
    /// Slots in use: running, queued and promised.
    pub fn busy(&self) -> u32 {
        self.running.saturating_add(self.queued).saturating_add(self.promised)
    }

    /// Slots that a new job could take.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.busy())
    }

    /// Share of the slots in use, 0.0 to 1.0. An instance without slots is full.
    pub fn ratio(&self) -> f64 {
        if self.slots == 0 {
            return 1.0;
        }
        (f64::from(self.busy()) / f64::from(self.slots)).min(1.0)
    }

    /// How full it is, in the steps at which senders are told at once.
    pub fn level(&self) -> Level {
        let (busy, slots) = (u64::from(self.busy()), u64::from(self.slots));
        match busy {
            _ if busy >= slots => Level::Full,
            0 => Level::Idle,
            _ if 4 * busy >= 3 * slots => Level::ThreeQuarters,
            _ if 2 * busy >= slots => Level::Half,
            _ => Level::Low,
        }
    }

    /// Whether a change from `earlier` to this is worth telling before the next regular report.
    pub fn crossed(&self, earlier: &Load) -> bool {
        self.state != earlier.state || self.level() != earlier.level()
    }
}

/// How full an instance is, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing to do.
    Idle,
    /// Less than half of the slots in use.
    Low,
    /// Half of the slots or more in use.
    Half,
    /// Three quarters of the slots or more in use.
    ThreeQuarters,
    /// No slot left.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: u32, slots: u32) -> Load {
        Load { queued: busy, slots, ..Load::default() }
    }

    #[test]
    fn levels_cover_every_share() {
        let levels: Vec<_> = (0..=8).map(|busy| load(busy, 8).level()).collect();
        use Level::*;
        assert_eq!(levels, [Idle, Low, Low, Low, Half, Half, ThreeQuarters, ThreeQuarters, Full]);
        assert_eq!(load(0, 1).level(), Idle);
        assert_eq!(load(1, 1).level(), Full);
    }

    #[test]
    fn an_instance_without_slots_is_full() {
        assert_eq!(load(0, 0).level(), Level::Full);
        assert_eq!(load(0, 0).ratio(), 1.0);
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let load = Load {
            queued: u32::MAX,
            running: u32::MAX,
            promised: u32::MAX,
            slots: u32::MAX,
            ..Load::default()
        };
        assert_eq!(load.free(), 0);
        assert_eq!(load.level(), Level::Full);
    }
}
