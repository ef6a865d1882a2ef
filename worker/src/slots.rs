//! The slots of a worker, and the one rule for when one is free: what is here and what is promised to
//! others never takes more than there is, in jobs and in bytes of their payloads.

use std::time::Duration;

/// What is here already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Occupancy {
    /// Jobs, queued and running.
    pub jobs: u32,
    /// Bytes of their payloads.
    pub bytes: usize,
    /// Mean service time; `None` if nobody knows it, which does not make jobs short: none has finished,
    /// or none since a long pause.
    pub mean_service: Option<Duration>,
}

/// What is promised to jobs that have not come yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Promised {
    /// Slots.
    pub slots: u32,
    /// Bytes of payloads.
    pub bytes: usize,
}

/// How much there may be of both together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    /// Jobs and promises.
    pub slots: u32,
    /// Bytes of payloads, and of those that are promised.
    pub bytes: usize,
}

impl Capacity {
    /// Whether there is a slot for one more payload of so many bytes.
    pub fn has_room(self, here: Occupancy, promised: Promised, bytes: usize) -> bool {
        here.jobs.saturating_add(promised.slots) < self.slots
            && here.bytes.saturating_add(promised.bytes).saturating_add(bytes) <= self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_slot_and_the_last_byte_are_free_until_somebody_has_them() {
        let all = Capacity { slots: 3, bytes: 100 };
        let free = |jobs, bytes, slots, promised_bytes, more| {
            let here = Occupancy { jobs, bytes, mean_service: None };
            all.has_room(here, Promised { slots, bytes: promised_bytes }, more)
        };
        assert!(free(1, 40, 1, 30, 30) && !free(1, 40, 1, 30, 31));
        assert!(!free(2, 0, 1, 0, 0) && !free(0, 0, 3, 0, 0) && !free(3, 0, 0, 0, 0));
        assert!(!free(u32::MAX, 0, 1, 0, 0) && !free(0, usize::MAX, 0, 1, 0));
    }
}
