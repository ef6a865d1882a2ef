//! How a worker stops: it takes nothing new, hands back what others can do, finishes what is here
//! within a grace, hands back the rest, and waits until its senders have their outcomes.

use std::time::Duration;

use svcmap_proto::jobs::{FromWorker, Reason, Verdict};
use svcmap_proto::time::Timestamp;

use super::{Server, ServerOutput};
use crate::senders::Ended;

/// Once no job is left, senders get this long to say that they have their last outcomes.
pub(super) const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Drain {
    No,
    /// Until when jobs that are here may finish.
    Until(Timestamp),
    /// No job is left; until when senders may acknowledge their outcomes.
    Flushing(Timestamp),
    /// That time is over, too.
    Over,
}

/// Jobs that a drain met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Finished within the grace, whatever the result.
    pub finished: u64,
    /// Had not been started, and went back to their senders.
    pub handed_back: u64,
    /// Had not been started, and are lost: nobody waits for their outcome.
    pub dropped: u64,
    /// Still running when the grace ended: `Unknown` for their senders, if these wait.
    pub abandoned: u64,
}

impl Server {
    /// Stops taking jobs, says so to every sender, and lets what is here finish within `grace`.
    pub fn drain(&mut self, now: Timestamp, grace: Duration) {
        if self.is_draining() {
            return;
        }
        self.intake.drain();
        self.credits.drain();
        self.offers.clear();
        self.drain = Drain::Until(now + grace);
        let load = self.load(now);
        let everybody: Vec<_> = self
            .senders
            .connections()
            .map(|(to, id)| (to.clone(), self.senders.received_jobs(id)))
            .collect();
        for (to, received_jobs) in everybody {
            self.unheard.insert(to.clone());
            self.answer(to, FromWorker::Pong { received_jobs, load });
        }
    }

    /// Another instance of the service takes jobs: what waits here goes back to its senders at once,
    /// for them to try it there. What can go nowhere else is finished here: what is pinned or
    /// detached, and the jobs of clients of the JSON dialect.
    pub fn handle_peer_ready(&mut self, now: Timestamp) {
        if !matches!(self.drain, Drain::Until(_)) {
            return;
        }
        let others =
            self.intake.take_queued(Reason::Draining, |task| task.terms.redirects_left > 0);
        self.drained.handed_back += others.len() as u64;
        self.hand_back(now, Reason::Draining, others);
    }

    /// What a drain met, once no job is here or on its way, and every sender has its outcomes.
    ///
    /// A connection delivers in order, so whoever answers the announcement has sent its last job
    /// before.
    pub fn drained(&self) -> Option<DrainReport> {
        let settled =
            || self.answers.is_empty() && self.unheard.is_empty() && self.senders.is_flushed();
        match self.drain {
            Drain::No | Drain::Until(_) => None,
            Drain::Flushing(_) => settled().then_some(self.drained),
            Drain::Over => Some(self.drained),
        }
    }

    /// Whether it has stopped taking jobs.
    pub fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// When the drain goes on.
    pub(super) fn drain_timeout(&self) -> Option<Timestamp> {
        match self.drain {
            Drain::Until(until) | Drain::Flushing(until) => Some(until),
            Drain::No | Drain::Over => None,
        }
    }

    /// Goes on with the drain, if it is time.
    pub(super) fn advance_drain(&mut self, now: Timestamp) {
        match self.drain {
            // What waits at the handlers is taken back first: none has begun it.
            Drain::Until(until) if until <= now && !self.intake.is_ahead() => self.abandon(now),
            Drain::Until(_) if self.intake.is_empty() => {
                self.drain = Drain::Flushing(now + FLUSH_LIMIT);
            }
            Drain::Flushing(until) if until <= now => self.drain = Drain::Over,
            _ => {}
        }
    }

    /// The grace is over: what waits goes back, what runs is given up.
    fn abandon(&mut self, now: Timestamp) {
        let (queued, running) = self.intake.abandon();
        let awaited = queued.iter().filter(|origin| origin.is_awaited()).count();
        self.drained.handed_back += awaited as u64;
        self.drained.dropped += (queued.len() - awaited) as u64;
        self.drained.abandoned += running.len() as u64;
        for origin in queued {
            self.end_queued(now, origin, Reason::Draining);
        }
        for (task, origin) in running {
            self.answers.push_back(ServerOutput::Cancel(task));
            self.leave(origin);
            let ended =
                Ended { verdict: Verdict::Abandoned, ..Ended::rejected(Reason::Draining, now) };
            self.end(now, origin, ended);
        }
        self.drain = Drain::Flushing(now + FLUSH_LIMIT);
    }
}
