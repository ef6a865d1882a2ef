//! No work for nobody: what becomes of the jobs of a sender that is gone, says goodbye, or has
//! given them up.
//!
//! A live sender says something each beat while it has attempts open. What waits for one that was
//! silent for an expiry is dropped; what runs goes on, as its sender may come back. That one is
//! then told that nobody started what was dropped, so it can be tried elsewhere. A sender's own
//! word counts more: what it says goodbye to, or names no more in HELLO, is dropped at once, and
//! handlers that have it are told so. Detached jobs are done in any case.

use std::collections::BTreeSet;
use std::time::Duration;

use svcmap_proto::jobs::{AttemptId, Reason, SenderHello};
use svcmap_proto::names::SenderId;
use svcmap_proto::time::Timestamp;

use super::Server;
use crate::intake::{Origin, Task};
use crate::senders::Senders;

/// Until a mapper dictates another one: three of its default beats.
pub(super) const EXPIRY_FIRST: Duration = Duration::from_secs(3);

/// When to look next for jobs whose senders are gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Absence {
    /// For how long a sender may be silent.
    pub(super) expiry: Duration,
    look_at: Option<Timestamp>,
}

impl Default for Absence {
    fn default() -> Self {
        Self { expiry: EXPIRY_FIRST, look_at: None }
    }
}

impl Absence {
    /// When to look.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.look_at
    }

    /// A job came, so its sender was there.
    pub(super) fn handle_job(&mut self, now: Timestamp) {
        self.look_at.get_or_insert(now + self.expiry);
    }
}

impl Server {
    /// A mapper dictates for how long a peer may be silent until it is given up.
    pub fn set_expiry(&mut self, now: Timestamp, expiry: Duration) {
        self.absence.expiry = expiry;
        self.absence.look_at = self.absence.look_at.map(|at| at.min(now + expiry));
    }

    /// Drops what waits for senders that are gone.
    pub(super) fn drop_unattended(&mut self, now: Timestamp) {
        if self.absence.look_at.is_none_or(|at| at > now) {
            return;
        }
        let (senders, expiry) = (&self.senders, self.absence.expiry);
        let given_up_at = |task: &Task| given_up_at(senders, task, expiry);
        let is_given_up = |task: &Task| given_up_at(task).is_some_and(|at| at <= now);
        let unattended = self.intake.take_queued(Reason::Unreachable, is_given_up);
        self.absence.look_at = self.intake.queued().filter_map(given_up_at).min();
        self.hand_back(now, Reason::Unreachable, unattended);
    }

    /// HELLO names the attempts that are open at its sender: nobody waits for any other.
    pub(super) fn drop_omitted(&mut self, now: Timestamp, hello: &SenderHello) {
        let open: BTreeSet<_> = hello.open.iter().map(|open| open.attempt).collect();
        self.drop_others(now, hello.sender, &open);
    }

    /// A sender has no use for anything here any more.
    pub(super) fn handle_goodbye(&mut self, now: Timestamp, sender: SenderId) {
        self.drop_others(now, sender, &BTreeSet::new());
        for origin in self.intake.disown(sender) {
            self.leave(origin);
        }
        self.senders.remove(sender);
        self.void(now, sender);
    }

    /// Drops what a sender has here beside that. It waits for no outcome.
    fn drop_others(&mut self, now: Timestamp, whose: SenderId, open: &BTreeSet<AttemptId>) {
        let is_other = |task: &Task| match task.origin {
            Origin::Sender { sender, attempt } => {
                sender == whose && !task.terms.detached && !open.contains(&attempt)
            }
            Origin::Client(_) | Origin::Nobody | Origin::Released { .. } | Origin::Overdue => false,
        };
        for task in self.intake.take_queued(Reason::Cancelled, is_other) {
            self.leave(task.origin);
            self.senders.handle_dropped(whose);
        }
        let running = self.intake.attached_of(whose);
        let running: Vec<_> = running.filter(|attempt| !open.contains(attempt)).collect();
        for attempt in running {
            self.handle_cancel(now, Origin::Sender { sender: whose, attempt });
        }
    }
}

/// When a job that waits is given up, unless its sender is heard before.
fn given_up_at(senders: &Senders, task: &Task, expiry: Duration) -> Option<Timestamp> {
    match task.origin {
        Origin::Sender { sender, .. } if !task.terms.detached => {
            Some(senders.heard_at(sender).map_or(task.arrived_at, |at| at + expiry))
        }
        // A REQ socket that waits cannot say so.
        Origin::Sender { .. }
        | Origin::Client(_)
        | Origin::Nobody
        | Origin::Released { .. }
        | Origin::Overdue => None,
    }
}
