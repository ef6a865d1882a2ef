//! When a link asks its worker whether it is there, and when it gives it up.

use std::time::Duration;

use svcmap_proto::jobs::ToWorker;
use svcmap_proto::time::{Timestamp, earliest};

use super::{Closing, Link, LinkOutput, Phase};
use crate::outcome::Cause;

/// How long a connection may take until the worker's WELCOME, before another address or another
/// worker is tried.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);

impl Link {
    /// When [`Link::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let liveness = match self.phase {
            Phase::Closed => return None,
            Phase::Connecting(since) | Phase::Greeting(since) => since + CONNECT_LIMIT,
            Phase::Away => self.heard_at + self.timing.expiry,
            Phase::Ready if !self.window.is_empty() => self.next_ping_at().min(self.next_word_at()),
            Phase::Ready if self.is_owed() => self.next_ping_at(),
            Phase::Ready => self.heard_at + self.timing.idle,
        };
        // Without a connection nothing can be acknowledged, and HELLO does it anyway.
        let receipts = self.receipts.due_at().filter(|_| self.phase == Phase::Ready);
        let claims = self.pending.iter().filter_map(|attempt| attempt.claimed_until).min();
        earliest(earliest(Some(liveness), claims), earliest(self.ended_at, receipts))
    }

    /// Whether the worker owes an answer: an outcome, or the credits that were asked for.
    pub(super) fn is_owed(&self) -> bool {
        !self.window.is_empty() || self.promises.are_asked_for()
    }

    /// An answer will be owed: if none was until now, silence begins here.
    pub(super) fn expect_answer(&mut self, now: Timestamp) {
        if !self.is_owed() {
            self.heard_at = now;
        }
    }

    fn next_ping_at(&self) -> Timestamp {
        let last = if self.pings == 0 { self.heard_at } else { self.pinged_at };
        last + self.timing.beat
    }

    /// When the worker is to hear something again, be it that this sender waits: else it takes it
    /// for gone, and drops what it has not started.
    fn next_word_at(&self) -> Timestamp {
        self.spoke_at + self.timing.beat
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.now = now;
        self.flush();
        if self.ended_at.is_some_and(|at| at <= now) {
            self.close(Closing::Gone, Cause::PeerEnded);
        }
        self.release_lapsed(now);
        match self.phase {
            Phase::Closed => return,
            Phase::Connecting(since) | Phase::Greeting(since) if since + CONNECT_LIMIT <= now => {
                self.handle_no_welcome(now);
            }
            Phase::Away if self.heard_at + self.timing.expiry <= now => {
                self.close(Closing::Lost, Cause::PeerSilent);
            }
            Phase::Ready => self.handle_silence(now),
            _ => {}
        }
        self.acknowledge(now);
    }

    /// What was passed on to this sender can be claimed no longer: its jobs go elsewhere.
    fn release_lapsed(&mut self, now: Timestamp) {
        let outputs = &mut self.outputs;
        self.pending.retain(|attempt| {
            let lapsed = attempt.claimed_until.is_some_and(|until| until <= now);
            if lapsed {
                outputs.push_back(LinkOutput::NeverSeen(attempt.id));
            }
            !lapsed
        });
    }

    /// No WELCOME came in time: what was not sent goes elsewhere, what was is asked for again.
    fn handle_no_welcome(&mut self, now: Timestamp) {
        self.release_pending();
        if self.window.is_empty() || self.heard_at + self.timing.expiry <= now {
            self.close(Closing::Unreachable, Cause::PeerSilent);
        } else {
            self.greet(now);
        }
    }

    /// Only who owes an answer is asked: idle workers cost nothing.
    fn handle_silence(&mut self, now: Timestamp) {
        if !self.is_owed() {
            if self.heard_at + self.timing.idle <= now {
                self.part();
            }
        } else if self.next_ping_at() <= now {
            self.ping(now);
        } else if !self.window.is_empty() && self.next_word_at() <= now {
            self.receipts.hurry(now);
        }
    }

    /// Ends the connection in good order: the next job makes another one.
    fn part(&mut self) {
        self.say_goodbye();
        self.close(Closing::Idle, Cause::PeerSilent);
    }

    /// The worker is somewhere else now. What is open may still end here, or is given up like any
    /// other; without that, the next job goes where the worker is.
    pub fn handle_moved(&mut self) {
        if self.window.is_empty() {
            self.part();
        }
    }

    fn ping(&mut self, now: Timestamp) {
        if self.pings >= 2 && self.heard_at + self.timing.expiry <= now {
            self.close(Closing::Lost, Cause::PeerSilent);
            return;
        }
        self.pings += 1;
        (self.pinged_at, self.spoke_at) = (now, now);
        let received_outcomes = self.receipts.acknowledge();
        self.say(ToWorker::Ping { received_outcomes });
    }
}

#[cfg(test)]
mod tests {
    use svcmap_proto::jobs::{Demand, FromWorker, Grant};
    use svcmap_proto::load::{Load, State};
    use svcmap_proto::names::Incarnation;

    use super::super::{Identity, Timing};
    use super::*;
    use crate::testing::*;

    /// A link that was welcomed at 1.
    fn welcomed() -> Link {
        let (identity, timing) = (
            Identity { sender: SENDER, result_bytes_max: 100, takes_credits: true },
            Timing { beat: ms(100), expiry: ms(300), idle: ms(60_000) },
        );
        let mut link = Link::new(at(0), identity, key(), Incarnation(1), timing);
        link.handle_writable(at(0));
        let load = Load::default();
        let welcome = FromWorker::Welcome {
            connection: 1,
            received_jobs: 0,
            payload_bytes_max: 100,
            load,
            forgotten: Vec::new(),
        };
        link.handle_message(at(1), welcome);
        link
    }

    #[test]
    fn silence_counts_from_when_something_is_owed() {
        let mut link = welcomed();
        // Long after: nothing was owed meanwhile, so nobody is asked at once.
        link.assign(at(5000), unclaimed(attempt(1), at(9000), 0));
        while link.poll_output().is_some() {}
        assert_eq!(link.poll_timeout(), Some(at(5100)));
        link.handle_timeout(at(5050));
        assert_eq!(link.poll_output(), None);
        link.handle_timeout(at(5100));
        let ping = LinkOutput::Send(ToWorker::Ping { received_outcomes: 0 });
        assert_eq!(link.poll_output(), Some(ping));
    }

    #[test]
    fn who_was_asked_for_credits_owes_an_answer_as_well() {
        let mut link = welcomed();
        let demand = Demand { share: 1, ..Demand::default() };
        while link.poll_output().is_some() {}
        // Long after, so the silence begins here.
        link.ask(at(5000), demand);
        let mut said = Vec::new();
        while let Some(due) = link.poll_timeout().filter(|due| *due < at(60_000)) {
            link.handle_timeout(due);
            while let Some(output) = link.poll_output() {
                said.push((due, output));
            }
        }
        let ping = || LinkOutput::Send(ToWorker::Ping { received_outcomes: 0 });
        let expected = [
            (at(5100), LinkOutput::Send(ToWorker::Ask(demand))),
            (at(5100), ping()),
            (at(5200), ping()),
            (at(5300), LinkOutput::Closed(Closing::Lost)),
        ];
        assert_eq!(said, expected);
        // Who answers is asked again and again; what it has granted it does not owe.
        let mut link = welcomed();
        link.ask(at(2), demand);
        link.handle_timeout(at(102));
        link.handle_message(at(103), FromWorker::Pong { received_jobs: 0, load: Load::default() });
        assert_eq!(link.poll_timeout(), Some(at(203)));
        let grant = Grant { credits: 1, lifetime_ms: 1000, payload_bytes_max: 100 };
        let load = Load::default();
        link.handle_message(at(150), FromWorker::Grant { grant, received_jobs: 0, load });
        assert_eq!(link.poll_timeout(), Some(at(60_150)));
    }

    #[test]
    fn who_is_turned_away_goes_elsewhere_as_nothing_of_it_can_be_there() {
        let mut link = welcomed();
        link.assign(at(2), unclaimed(attempt(1), at(9000), 0));
        link.handle_message(at(3), FromWorker::HelloWanted);
        link.assign(at(3), unclaimed(attempt(2), at(9000), 0));
        while link.poll_output().is_some() {}
        link.handle_message(at(4), FromWorker::TurnedAway);
        let outputs: Vec<_> = std::iter::from_fn(|| link.poll_output()).collect();
        let expected = [
            LinkOutput::NeverSeen(attempt(1)),
            LinkOutput::NeverSeen(attempt(2)),
            LinkOutput::Closed(Closing::TurnedAway),
        ];
        assert_eq!(outputs, expected);
        assert!(link.is_closed());
    }

    #[test]
    fn a_worker_hears_each_beat_from_a_sender_that_waits_however_much_it_says_itself() {
        let mut link = welcomed();
        link.assign(at(0), unclaimed(attempt(1), at(90_000), 0));
        while link.poll_output().is_some() {}
        let mut heard = Vec::new();
        for now in 1..=350 {
            // Grants, say, for jobs that wait at this sender.
            if now % 30 == 0 {
                let pong = FromWorker::Pong { received_jobs: 1, load: Load::default() };
                link.handle_message(at(now), pong);
            }
            if link.poll_timeout().is_some_and(|due| due <= at(now)) {
                link.handle_timeout(at(now));
            }
            while let Some(output) = link.poll_output() {
                if output == LinkOutput::Send(ToWorker::Received { outcomes: 0 }) {
                    heard.push(now);
                }
            }
        }
        assert_eq!(heard, [100, 200, 300]);
    }

    #[test]
    fn a_worker_that_drains_gets_no_more_jobs_in_this_life() {
        let mut link = welcomed();
        assert!(link.is_usable());
        let draining = Load { state: State::Draining, ..Load::default() };
        link.handle_message(at(2), FromWorker::Pong { received_jobs: 0, load: draining });
        assert!(!link.is_usable() && link.is_draining());
        link.close(Closing::Idle, Cause::PeerSilent);
        link.reopen(at(3));
        assert!(!link.is_usable());
    }

    #[test]
    fn who_has_nothing_open_says_goodbye_and_nothing_else() {
        let mut link = welcomed();
        while link.poll_output().is_some() {}
        assert_eq!(link.poll_timeout(), Some(at(60_001)));
        link.handle_timeout(at(60_001));
        let said: Vec<_> = std::iter::from_fn(|| link.poll_output()).collect();
        let closed = LinkOutput::Closed(Closing::Idle);
        assert_eq!(said, [LinkOutput::Send(ToWorker::Goodbye), closed]);
    }

    #[test]
    fn what_was_heard_after_a_suspension_is_not_in_the_future() {
        let mut link = welcomed();
        link.assign(at(2), unclaimed(attempt(1), at(90_000), 0));
        // Suspended from 2 to 50000, and the worker's Pong waited: the order of `catch_up`.
        link.handle_message(
            at(50_000),
            FromWorker::Pong { received_jobs: 1, load: Load::default() },
        );
        link.handle_suspension(at(50_000), ms(49_900));
        // The worker has not heard it for so long.
        link.handle_timeout(at(50_000));
        assert_eq!(link.poll_timeout(), Some(at(50_100)));
    }
}
