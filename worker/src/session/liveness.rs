//! When a mapper is asked whether it is there, and when a connection to it is given up for a new
//! one.
//!
//! Two connections lead to a mapper, and either can die without a word: the peer's address has
//! changed, or a router on the way has forgotten them. Reports are not answered, so a mapper that
//! says nothing for half an expiry is asked, by HELLO; if nothing comes for as long again, a new
//! connection takes the place of the old one. On the other one a pulse comes each beat.

use std::time::Duration;

use svcmap_proto::time::{Timestamp, earliest};

use super::{Phase, Session, SessionOutput};
use svcmap_proto::backoff::Backoff;

/// Shorter than this no silence means anything, whatever the mapper dictates: a busy machine lets
/// a process wait as long.
const SILENCE_MIN: Duration = Duration::from_millis(200);

/// For each instance that the mapper lists, questions keep this distance: 10,000 a second, from all
/// together, are half of what it takes in reports.
const QUESTION_SHARE: Duration = Duration::from_micros(100);

/// What is heard on one connection.
#[derive(Debug)]
pub(super) struct Hearing {
    /// The last word, or when the connection was made.
    since: Timestamp,
    /// The last word on this connection or a former one.
    heard_at: Timestamp,
    asked_at: Option<Timestamp>,
    /// How long a silence this connection is granted, if not an expiry.
    pause: Option<Duration>,
    backoff: Backoff,
}

impl Hearing {
    pub(super) fn new(now: Timestamp) -> Self {
        let (asked_at, pause, backoff) = (None, None, Backoff::default());
        Self { since: now, heard_at: now, asked_at, pause, backoff }
    }

    /// From now on something is to be heard.
    pub(super) fn expect(&mut self, now: Timestamp) {
        (self.since, self.asked_at) = (now, None);
    }

    /// Something was.
    pub(super) fn handle_word(&mut self, now: Timestamp) {
        self.expect(now);
        (self.heard_at, self.pause) = (now, None);
        self.backoff.reset();
    }

    /// This process was suspended for so long: silence in that time means nothing.
    pub(super) fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.since = now.min(self.since + gap);
        self.heard_at = now.min(self.heard_at + gap);
        self.asked_at = self.asked_at.map(|at| now.min(at + gap));
    }

    /// When the connection is given up, if nothing is heard: after so long the first time.
    fn ends_at(&self, silence: Duration) -> Timestamp {
        self.since + self.pause.unwrap_or(silence)
    }

    /// The connection was given up. Returns for how long nothing was heard, if that is worth a line.
    fn give_up(
        &mut self,
        now: Timestamp,
        silence: Duration,
        random: &mut fastrand::Rng,
    ) -> Option<Duration> {
        self.expect(now);
        self.pause = Some(self.backoff.pause(silence, random));
        self.backoff.is_notable().then(|| now.since(self.heard_at))
    }
}

impl Session {
    /// This process was suspended for so long: silence in that time means nothing.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.answers.handle_suspension(now, gap);
        self.pulses.handle_suspension(now, gap);
        self.plan();
    }

    /// When [`Session::handle_silence`] is due.
    pub(super) fn silence_timeout(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Due(_) | Phase::Resting | Phase::Ended => None,
            Phase::Away | Phase::Greeting(_) => Some(self.answers.ends_at(self.silence())),
            _ => earliest(
                Some(self.question_at().unwrap_or_else(|| self.answer_until())),
                Some(self.pulses.ends_at(self.silence())),
            ),
        }
    }

    /// Asks, or gives a connection up, if that is due.
    pub(super) fn handle_silence(&mut self, now: Timestamp) {
        if self.silence_timeout().is_none_or(|at| at > now) {
            return;
        }
        if !self.is_welcomed() {
            return self.reconnect(now);
        }
        match self.question_at() {
            Some(at) if at <= now => {
                self.answers.asked_at = Some(now);
                self.say_hello();
            }
            None if self.answer_until() <= now => return self.reconnect(now),
            _ => {}
        }
        if self.pulses.ends_at(self.silence()) <= now {
            // How long that has been is the cache's to say: it asks meanwhile.
            self.pulses.give_up(now, self.silence(), &mut self.random);
            self.outputs.push_back(SessionOutput::Resubscribe);
        }
    }

    /// When to ask, unless that was done.
    fn question_at(&self) -> Option<Timestamp> {
        let share = QUESTION_SHARE.saturating_mul(self.known);
        let quiet = (self.silence() / 2).max(share);
        self.answers.asked_at.is_none().then(|| self.answers.since + quiet)
    }

    /// Until when the answer has to come.
    fn answer_until(&self) -> Timestamp {
        self.answers.asked_at.unwrap_or(self.answers.since) + self.silence() / 2
    }

    fn silence(&self) -> Duration {
        self.expiry.max(SILENCE_MIN)
    }

    fn reconnect(&mut self, now: Timestamp) {
        self.phase = Phase::Away;
        let silent_for = self.answers.give_up(now, self.silence(), &mut self.random);
        self.outputs.extend(silent_for.map(SessionOutput::Silent));
        self.outputs.push_back(SessionOutput::Reconnect);
    }
}
