//! To look again for a moment before sleeping.
//!
//! To be woken takes a thread longer than many a job, and somewhere between two processes it happens for
//! each hop of a message. Who waits for something that is about to come yields the processor and looks
//! again instead, for a limited time, and ever more seldom where that is in vain.

use std::time::Duration;

use super::Clock;

/// For how long one looks before it sleeps: a round trip between two processes of one machine.
const LOOK: Duration = Duration::from_micros(100);

/// After a vain look the next wait sleeps at once, after another one the next three, then seven and so on, up
/// to so many: one wait in a thousand finds out whether times have changed.
const SKIP_MAX: u32 = 1023;

/// One who waits again and again for what comes soon, or does not.
#[derive(Debug, Default)]
pub struct Spin {
    /// How many waits from now on sleep at once.
    left_out: u32,
    /// How many there were after the last vain look.
    skip: u32,
}

impl Spin {
    /// Looks for what is to come while others may run. Returns whether it is there.
    pub fn wait(&mut self, mut is_there: impl FnMut() -> bool) -> bool {
        if self.left_out > 0 {
            self.left_out -= 1;
            return false;
        }
        let until = Clock.now() + LOOK;
        loop {
            if is_there() {
                self.skip = 0;
                return true;
            }
            if Clock.now() >= until {
                break;
            }
            std::thread::yield_now();
        }
        self.skip = SKIP_MAX.min(2 * self.skip + 1);
        self.left_out = self.skip;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_seen_and_what_does_not_is_looked_for_ever_more_seldom() {
        let mut spin = Spin::default();
        assert!(spin.wait(|| true));
        let mut tries = Vec::new();
        for wait in 0..5000 {
            let mut has_looked = false;
            assert!(!spin.wait(|| {
                has_looked = true;
                false
            }));
            tries.extend(has_looked.then_some(wait));
        }
        assert_eq!(tries[..5], [0, 2, 6, 14, 30]);
        assert_eq!(tries.last(), Some(&(tries[tries.len() - 2] + 1024)));
        // Once it comes again, it is looked for each time.
        while !spin.wait(|| true) {}
        assert!(spin.wait(|| true));
    }
}
