//! The attempts that were sent over a link and have no outcome yet.

use std::collections::VecDeque;
use std::time::Duration;

use rustc_hash::FxHashMap;
use svcmap_proto::jobs::{AttemptId, OpenAttempt};
use svcmap_proto::limits;
use svcmap_proto::time::Timestamp;

use super::Link;

/// A job that was sent so long before the worker reported has arrived by then; one that was sent
/// later may have to be counted on top. Too long only means to wait for the worker's next answer.
const ARRIVAL_MARGIN: Duration = Duration::from_millis(20);

/// So many that are over may lie among the others beside as many as these: to look through all for a few
/// would cost more than they do.
const SPARE: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    attempt: AttemptId,
    sent_at: Timestamp,
    /// Whether the worker is to know that nobody waits for it.
    cancelled: bool,
    /// It has its outcome, and stays in its place until those before it have theirs or it is in the way.
    is_over: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Window {
    /// The number of the last job that was sent.
    last_number: u64,
    /// The highest number of a job that the newest load counts.
    reflected: u64,
    /// In the order of their numbers, with some that are over. The first is not.
    sent: VecDeque<Open>,
    numbers: FxHashMap<AttemptId, u64>,
}

impl Window {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.numbers.is_empty()
    }

    /// Whether that attempt is one of them.
    pub(super) fn contains(&self, attempt: AttemptId) -> bool {
        self.numbers.contains_key(&attempt)
    }

    /// An attempt is sent. Returns the number that it goes under.
    pub(super) fn send(&mut self, now: Timestamp, attempt: AttemptId) -> u64 {
        self.last_number += 1;
        let (number, sent_at) = (self.last_number, now);
        self.sent.push_back(Open { number, attempt, sent_at, cancelled: false, is_over: false });
        self.numbers.insert(attempt, number);
        number
    }

    /// An attempt has its outcome. Returns when it was sent, if it was still open.
    pub(super) fn settle(&mut self, attempt: AttemptId) -> Option<Timestamp> {
        let number = self.numbers.remove(&attempt)?;
        let place = self.place(number)?;
        let open = self.sent.get_mut(place)?;
        open.is_over = true;
        let sent_at = open.sent_at;
        while self.sent.front().is_some_and(|first| first.is_over) {
            self.sent.pop_front();
        }
        // One that takes long does not keep the places of all that came after it.
        if self.sent.len() > 2 * self.numbers.len() + SPARE {
            self.sent.retain(|open| !open.is_over);
        }
        Some(sent_at)
    }

    /// Nobody waits for an attempt any more: each HELLO says so until it has its outcome.
    pub(super) fn cancel(&mut self, attempt: AttemptId) {
        let place = self.numbers.get(&attempt).and_then(|number| self.place(*number));
        if let Some(open) = place.and_then(|place| self.sent.get_mut(place)) {
            open.cancelled = true;
        }
    }

    fn place(&self, number: u64) -> Option<usize> {
        // Most follow one another without a gap.
        let ahead = number.checked_sub(self.sent.front()?.number)?;
        let place = usize::try_from(ahead).ok()?;
        if self.sent.get(place).is_some_and(|open| open.number == number) {
            return Some(place);
        }
        self.sent.binary_search_by_key(&number, |open| open.number).ok()
    }

    /// Those that have no outcome, in the order of their numbers.
    fn open(&self) -> impl Iterator<Item = &Open> {
        self.sent.iter().filter(|open| !open.is_over)
    }

    /// Takes out the attempts that never arrived, as the worker has jobs up to that number only.
    pub(super) fn take_after(&mut self, received_jobs: u64) -> Vec<AttemptId> {
        let first = self.sent.partition_point(|open| open.number <= received_jobs);
        let lost = self.sent.split_off(first).into_iter().filter(|open| !open.is_over);
        let attempts: Vec<_> = lost.map(|open| open.attempt).collect();
        for attempt in &attempts {
            self.numbers.remove(attempt);
        }
        attempts
    }

    /// The worker has jobs up to that number, maybe of a link that was forgotten here: whatever is
    /// sent goes under a higher one.
    pub(super) fn continue_after(&mut self, received_jobs: u64) {
        self.last_number = self.last_number.max(received_jobs.min(limits::NUMBER_MAX));
    }

    /// What HELLO tells of them.
    pub(super) fn attempts(&self) -> Vec<OpenAttempt> {
        let open = self.open().map(|open| {
            let Open { number, attempt, cancelled, .. } = *open;
            OpenAttempt { number, attempt, cancelled }
        });
        open.collect()
    }

    /// How many of them the worker's newest load does not count. What has ended since takes no
    /// slot, whether that load counts it or not.
    pub(super) fn unreflected(&self) -> usize {
        let sent = usize::try_from(self.last_number - self.reflected).unwrap_or(usize::MAX);
        sent.min(self.len())
    }

    /// The newest load counts the jobs up to that number.
    pub(super) fn reflect(&mut self, received_jobs: u64) {
        self.reflected = self.reflected.max(received_jobs.min(self.last_number));
    }

    /// The newest load counts every job.
    pub(super) fn reflect_all(&mut self) {
        self.reflected = self.last_number;
    }

    /// The newest load was true at `at`, and counts what had arrived by then.
    pub(super) fn reflect_until(&mut self, at: Timestamp) {
        let at = at.before(ARRIVAL_MARGIN);
        let later = self.sent.partition_point(|open| open.number <= self.reflected);
        let later = self.sent.range(later..).filter(|open| !open.is_over);
        let counted = later.take_while(|open| open.sent_at <= at).map(|open| open.number);
        self.reflected = counted.last().unwrap_or(self.reflected);
    }
}

impl Link {
    /// Jobs that went or are about to go there, and that have no outcome yet.
    pub fn open(&self) -> u32 {
        u32::try_from(self.window.len() + self.pending.len()).unwrap_or(u32::MAX)
    }

    /// Jobs that went or are about to go there, and that the worker's newest load does not count.
    pub fn unreflected(&self) -> u32 {
        u32::try_from(self.window.unreflected() + self.pending.len()).unwrap_or(u32::MAX)
    }

    /// The worker's own word on its load counts the jobs up to that number.
    pub fn reflect(&mut self, received_jobs: u64) {
        self.window.reflect(received_jobs);
    }

    /// A mapper's word on the worker's load, true at `at`, counts what had arrived by then.
    pub fn reflect_until(&mut self, at: Timestamp) {
        self.window.reflect_until(at);
    }
}
