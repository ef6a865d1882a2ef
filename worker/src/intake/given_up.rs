//! Jobs that leave the queue without having been started, and those that run for nobody.

use std::collections::VecDeque;

use svcmap_proto::jobs::{AttemptId, Reason};
use svcmap_proto::names::SenderId;

use super::{Intake, Origin, Task};

impl Intake {
    /// The jobs that wait, in their order.
    pub fn queued(&self) -> impl Iterator<Item = &Task> {
        self.queue.iter()
    }

    /// Takes those of them out that `is_given_up` names, rejected for that reason.
    pub fn take_queued(
        &mut self,
        reason: Reason,
        is_given_up: impl Fn(&Task) -> bool,
    ) -> VecDeque<Task> {
        let taken = self.queue.take(is_given_up);
        for task in &taken {
            self.bytes -= task.payload.len();
            self.forget_deadline(task.terms.deadline, task.id);
        }
        self.count_rejected(reason, taken.len() as u64);
        taken
    }

    /// The jobs of that sender that run, but for those that are to be done even if it is gone.
    pub fn attached_of(&self, whose: SenderId) -> impl Iterator<Item = AttemptId> {
        self.running.iter().filter_map(move |running| match running.origin {
            Origin::Sender { sender, attempt } if sender == whose && !running.terms.detached => {
                Some(attempt)
            }
            _ => None,
        })
    }

    /// Nobody is to hear of what that sender has here: numbers begin anew if it comes back. Returns
    /// what it has given up, as it was known.
    pub fn disown(&mut self, whose: SenderId) -> Vec<Origin> {
        let queued = self.queue.origins_mut();
        let running = self.running.iter_mut();
        let running = running.map(|running| (&mut running.origin, running.terms.detached));
        let of_sender = queued.chain(running).filter_map(|(origin, detached)| match *origin {
            Origin::Sender { sender, attempt } if sender == whose => {
                if detached {
                    *origin = Origin::Released { sender, attempt };
                    return None;
                }
                Some(std::mem::replace(origin, Origin::Nobody))
            }
            _ => None,
        });
        of_sender.collect()
    }
}
