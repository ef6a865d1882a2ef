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
            Phase::Ready if self.window.is_empty() => self.heard_at + self.timing.idle,
            Phase::Ready => self.next_ping_at(),
        };
        // Without a connection nothing can be acknowledged, and HELLO does it anyway.
        let receipts = self.receipts.due_at().filter(|_| self.phase == Phase::Ready);
        earliest(Some(liveness), earliest(self.ended_at, receipts))
    }

    fn next_ping_at(&self) -> Timestamp {
        let last = if self.pings == 0 { self.heard_at } else { self.pinged_at };
        last + self.timing.beat
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.ended_at.is_some_and(|at| at <= now) {
            self.close(Closing::Gone, Cause::PeerEnded);
        }
        match self.phase {
            Phase::Closed => return,
            Phase::Connecting(since) | Phase::Greeting(since) if since + CONNECT_LIMIT <= now => {
                self.handle_no_welcome(now);
            }
            Phase::Away if self.heard_at + self.timing.expiry <= now => {
                self.close(Closing::Unreachable, Cause::PeerSilent);
            }
            Phase::Ready => self.handle_silence(now),
            _ => {}
        }
        self.acknowledge(now);
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
        if self.window.is_empty() {
            if self.heard_at + self.timing.idle <= now {
                self.close(Closing::Idle, Cause::PeerSilent);
            }
        } else if self.next_ping_at() <= now {
            self.ping(now);
        }
    }

    fn ping(&mut self, now: Timestamp) {
        if self.pings >= 2 && self.heard_at + self.timing.expiry <= now {
            self.close(Closing::Unreachable, Cause::PeerSilent);
            return;
        }
        self.pings += 1;
        self.pinged_at = now;
        let received_outcomes = self.receipts.acknowledge();
        self.outputs.push_back(LinkOutput::Send(ToWorker::Ping { received_outcomes }));
    }
}
