//! Jobs that leave the queue without having been started, and those that run for nobody.

use std::collections::VecDeque;

use svcmap_proto::jobs::AttemptId;
use svcmap_proto::names::SenderId;

use super::{Intake, Origin, Task, TaskId};

impl Intake {
    /// The jobs that wait, in their order.
    pub fn queued(&self) -> impl Iterator<Item = &Task> {
        self.queue.iter()
    }

    /// Takes those of them out that `is_given_up` names.
    pub fn take_queued(&mut self, is_given_up: impl Fn(&Task) -> bool) -> VecDeque<Task> {
        if !self.queue.iter().any(&is_given_up) {
            return VecDeque::new();
        }
        let queue = std::mem::take(&mut self.queue);
        let (taken, kept): (VecDeque<_>, _) = queue.into_iter().partition(is_given_up);
        self.queue = kept;
        for task in &taken {
            self.bytes -= task.payload.len();
            self.forget_deadline(task.deadline, task.id);
        }
        self.load.rejected += taken.len() as u64;
        taken
    }

    /// The jobs of that sender that run, but for those that are to be done even if it is gone.
    pub fn attached_of(&self, whose: SenderId) -> impl Iterator<Item = (TaskId, AttemptId)> {
        self.running.iter().filter_map(move |(id, running)| match running.origin {
            Origin::Sender { sender, attempt } if sender == whose && !running.detached => {
                Some((*id, attempt))
            }
            _ => None,
        })
    }
}
