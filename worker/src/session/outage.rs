//! When to say that no mapper answers: soon, and then ever more seldom.

use std::time::Duration;

use svcmap_proto::time::Timestamp;

/// So long no mapper may answer before that is said: they may start together with this process.
const PATIENCE: Duration = Duration::from_secs(2);

/// The longest time between two lines about the same outage.
const SAID_EVERY_MAX: Duration = Duration::from_secs(600);

/// What there is to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageOutput {
    /// None has ever answered, for so long.
    NeverAnswered(Duration),
    /// None has answered for so long: what is known of the others is as old.
    Silent(Duration),
    /// One answers again, after that was said.
    Over(Duration),
}

/// See the module.
#[derive(Debug)]
pub struct Outage {
    /// Since when no mapper answers; `None` if one does.
    since: Option<Timestamp>,
    /// When to say so next, and how long after the last time that is.
    say_at: Timestamp,
    said_every: Duration,
    is_said: bool,
    ever_answered: bool,
}

impl Outage {
    /// From now on a mapper can answer.
    pub fn new(now: Timestamp) -> Self {
        Self {
            since: Some(now),
            say_at: now + PATIENCE,
            said_every: PATIENCE,
            is_said: false,
            ever_answered: false,
        }
    }

    /// Whether any mapper answers now.
    pub fn handle_answers(&mut self, now: Timestamp, any: bool) -> Option<OutageOutput> {
        let Some(since) = self.since else {
            if !any {
                let ever_answered = self.ever_answered;
                *self = Self { ever_answered, ..Self::new(now) };
            }
            return None;
        };
        if any {
            (self.since, self.ever_answered) = (None, true);
            return self.is_said.then(|| OutageOutput::Over(now.since(since)));
        }
        if now < self.say_at {
            return None;
        }
        if self.is_said {
            self.said_every = (2 * self.said_every).min(SAID_EVERY_MAX);
        }
        (self.is_said, self.say_at) = (true, now + self.said_every);
        let lasts = now.since(since);
        Some(match self.ever_answered {
            true => OutageOutput::Silent(lasts),
            false => OutageOutput::NeverAnswered(lasts),
        })
    }

    /// When to ask [`Outage::handle_answers`] again, if nothing happens.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.since.map(|_| self.say_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn it_is_said_after_two_seconds_and_then_ever_more_seldom() {
        let mut outage = Outage::new(at(0));
        let mut said = Vec::new();
        while let Some(due) = outage.poll_timeout().filter(|due| *due < at(3_600_000)) {
            assert_eq!(outage.handle_answers(due.before(ms(1)), false), None);
            match outage.handle_answers(due, false) {
                Some(OutageOutput::NeverAnswered(lasts)) => said.push(lasts.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(said[..7], [2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(said.len(), 14, "{said:?}");
        let over = outage.handle_answers(at(3_600_000), true);
        assert_eq!(over, Some(OutageOutput::Over(ms(3_600_000))));
    }

    #[test]
    fn who_is_back_in_time_is_not_missed() {
        let mut outage = Outage::new(at(0));
        assert_eq!(outage.handle_answers(at(1999), true), None);
        assert_eq!(outage.poll_timeout(), None);
        assert_eq!(outage.handle_answers(at(5000), false), None);
        assert_eq!(outage.handle_answers(at(6000), true), None);
        // Another outage counts from its own beginning.
        assert_eq!(outage.handle_answers(at(9000), false), None);
        assert_eq!(outage.poll_timeout(), Some(at(11_000)));
        let silent = outage.handle_answers(at(11_000), false);
        assert_eq!(silent, Some(OutageOutput::Silent(ms(2000))));
    }
}
