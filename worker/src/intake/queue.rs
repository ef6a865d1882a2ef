//! The jobs that wait at a worker, those of a higher class first, and within a class in the order in
//! which they came.

use std::collections::VecDeque;

use svcmap_proto::jobs::Priority;
use svcmap_proto::time::Timestamp;

use super::{Origin, Task};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Queue {
    tasks: VecDeque<Task>,
    /// How many of them are of each class.
    of_class: [u32; 3],
}

impl Queue {
    /// A job comes: behind all of its class.
    pub(super) fn push(&mut self, task: Task) {
        let priority = task.terms.priority;
        let lower = self.tasks.iter().rev().take_while(|other| other.terms.priority < priority);
        let place = self.tasks.len() - lower.count();
        self.insert(place, task);
    }

    /// A job comes back: before all of its class.
    pub(super) fn push_front(&mut self, task: Task) {
        let priority = task.terms.priority;
        let place = self.tasks.iter().position(|other| other.terms.priority <= priority);
        self.insert(place.unwrap_or(self.tasks.len()), task);
    }

    fn insert(&mut self, place: usize, task: Task) {
        self.of_class[task.terms.priority as usize] += 1;
        match self.tasks.len() {
            len if place == len => self.tasks.push_back(task),
            _ => self.tasks.insert(place, task),
        }
    }

    /// Jobs that nobody would send again come first from now on.
    pub(super) fn sort_for_drain(&mut self) {
        let is_sent_again = |task: &Task| task.origin.is_awaited() && !task.terms.detached;
        self.tasks.make_contiguous().sort_by_key(is_sent_again);
    }

    pub(super) fn len(&self) -> usize {
        self.tasks.len()
    }

    /// How many of that class wait.
    pub(super) fn of_class(&self, priority: Priority) -> u32 {
        self.of_class[priority as usize]
    }

    /// The next one.
    pub(super) fn first(&self) -> Option<&Task> {
        self.tasks.front()
    }

    /// When the one that has waited longest came.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        let (first, last) = (self.tasks.front()?, self.tasks.back()?);
        if first.terms.priority == last.terms.priority {
            return Some(first.arrived_at);
        }
        self.tasks.iter().map(|task| task.arrived_at).min()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Task> {
        self.tasks.iter()
    }

    pub(super) fn position(&self, is_it: impl Fn(&Task) -> bool) -> Option<usize> {
        self.tasks.iter().position(is_it)
    }

    /// Of each whose it is, and whether it is to be done even if that is gone.
    pub(super) fn origins_mut(&mut self) -> impl Iterator<Item = (&mut Origin, bool)> {
        self.tasks.iter_mut().map(|task| (&mut task.origin, task.terms.detached))
    }

    pub(super) fn take_first(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        self.of_class[task.terms.priority as usize] -= 1;
        Some(task)
    }

    pub(super) fn remove(&mut self, place: usize) -> Option<Task> {
        let task = self.tasks.remove(place)?;
        self.of_class[task.terms.priority as usize] -= 1;
        Some(task)
    }

    /// Takes out those that are meant.
    pub(super) fn take(&mut self, is_meant: impl Fn(&Task) -> bool) -> VecDeque<Task> {
        if !self.tasks.iter().any(&is_meant) {
            return VecDeque::new();
        }
        let (taken, kept) = std::mem::take(&mut self.tasks).into_iter().partition(is_meant);
        self.tasks = kept;
        let taken: VecDeque<Task> = taken;
        taken.iter().for_each(|task| self.of_class[task.terms.priority as usize] -= 1);
        taken
    }
}
