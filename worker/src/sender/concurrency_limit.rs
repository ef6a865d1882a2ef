//! How many jobs a sender lets be under way at once where it guesses rather than asks, as the way of
//! a job takes longer than the job.
//!
//! What a worker says is old by the time a job comes, and so are the choices of all others. So what
//! it says does not tell where the next job goes, but how many may be on their way: more, while
//! the outcomes come from workers with short queues; less, in proportion to those that do not. That
//! is what DCTCP (RFC 8257) does for packets; but the step of its increase doubles while all is well.

use svcmap_proto::load::Load;

/// Weight of the newest round in the share of outcomes from crowded workers (RFC 8257, section 4.2).
const WEIGHT: f64 = 1.0 / 16.0;

/// How many may be under way at least before anything is known.
const FIRST: f64 = 4.0;

/// Part of what may be under way that is added in the round after one that came from crowded workers:
/// as much in a sender that is alone as in so many together.
const STEP: f64 = 1.0 / 32.0;

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConcurrencyLimit {
    /// How many may be under way.
    most: f64,
    /// What a round adds if nothing in it comes from a crowded worker.
    step: f64,
    /// The share of outcomes from crowded workers, as a moving average.
    crowded: f64,
    /// Outcomes in this round, and how many of them came from crowded workers.
    round: (f64, f64),
    /// Whether jobs had to wait in this round as too many were under way.
    is_limited: bool,
}

impl ConcurrencyLimit {
    /// As many may be under way as there are now, on promises.
    pub(super) fn new(under_way: u32) -> Self {
        let most = FIRST.max(under_way.into());
        Self { most, step: FIRST, crowded: 0.0, round: (0.0, 0.0), is_limited: false }
    }

    /// Whether one more may go while so many are under way.
    pub(super) fn has_room(&mut self, under_way: u32) -> bool {
        let has_room = f64::from(under_way) + 1.0 <= self.most;
        self.is_limited |= !has_room;
        has_room
    }

    /// An outcome came, from a worker that is crowded or not.
    pub(super) fn handle_outcome(&mut self, is_crowded: bool) {
        self.round.0 += 1.0;
        self.round.1 += f64::from(u8::from(is_crowded));
        if self.round.0 >= self.most {
            self.end_round();
        }
    }

    fn end_round(&mut self) {
        let (all, crowded) = std::mem::take(&mut self.round);
        self.crowded += (crowded / all - self.crowded) * WEIGHT;
        if crowded > 0.0 {
            self.most = (self.most * (1.0 - self.crowded / 2.0)).max(1.0);
            self.step = (self.most * STEP).max(1.0);
        } else if self.is_limited {
            self.most += self.step;
            self.step = self.most.min(2.0 * self.step);
        }
        self.is_limited = false;
    }
}

/// Whether half of a worker's queue is taken, or it has no slot left.
pub(super) fn is_crowded(load: &Load) -> bool {
    let queue = load.slots.saturating_sub(load.concurrency);
    load.free() == 0 || load.queued > queue / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Outcomes of a round, so many of them from crowded workers, with jobs that wait meanwhile.
    fn round(limit: &mut ConcurrencyLimit, crowded: u32) {
        let all = limit.most.ceil() as u32;
        assert!(!limit.has_room(u32::MAX));
        (0..all).for_each(|number| limit.handle_outcome(number < crowded));
    }

    /// How many may be under way.
    fn most(limit: &ConcurrencyLimit) -> u32 {
        let mut limit = *limit;
        (0..).find(|&under_way| !limit.has_room(under_way)).unwrap()
    }

    #[test]
    fn while_no_worker_is_crowded_ever_more_may_be_under_way() {
        let mut limit = ConcurrencyLimit::new(0);
        let mut seen = vec![most(&limit)];
        (0..4).for_each(|_| {
            round(&mut limit, 0);
            seen.push(most(&limit));
        });
        assert_eq!(seen, [4, 8, 16, 32, 64]);
    }

    #[test]
    fn nothing_grows_while_nothing_waits() {
        let mut limit = ConcurrencyLimit::new(0);
        (0..100).for_each(|_| limit.handle_outcome(false));
        assert_eq!(most(&limit), 4);
    }

    #[test]
    fn a_crowded_worker_takes_back_in_proportion_to_how_often_one_was_met() {
        let mut often = ConcurrencyLimit { most: 1000.0, ..ConcurrencyLimit::new(0) };
        let mut seldom = often;
        for _ in 0..100 {
            (often.most, seldom.most) = (1000.0, 1000.0);
            round(&mut often, 1000);
            round(&mut seldom, 100);
        }
        assert_eq!(most(&often), 500);
        assert!((945..=950).contains(&most(&seldom)), "{}", most(&seldom));
    }

    #[test]
    fn the_step_starts_again_after_a_crowded_round() {
        let mut limit = ConcurrencyLimit { most: 100.0, crowded: 0.0, ..ConcurrencyLimit::new(0) };
        round(&mut limit, 1);
        let mut before = most(&limit);
        for step in [3, 6, 12] {
            round(&mut limit, 0);
            assert!(most(&limit).abs_diff(before + step) <= 1, "{before} {limit:?}");
            before = most(&limit);
        }
    }

    #[test]
    fn one_job_may_always_go() {
        let mut limit = ConcurrencyLimit::new(0);
        (0..1000).for_each(|_| round(&mut limit, u32::MAX));
        assert_eq!(most(&limit), 1);
        assert!(limit.has_room(0) && !limit.has_room(1));
    }

    #[test]
    fn a_worker_is_crowded_from_half_of_its_queue_on() {
        let load = |running, queued, promised, concurrency, slots| Load {
            running,
            queued,
            promised,
            concurrency,
            slots,
            ..Load::default()
        };
        assert!(!is_crowded(&load(2, 5, 0, 2, 12)));
        assert!(is_crowded(&load(2, 6, 0, 2, 12)));
        assert!(is_crowded(&load(0, 0, 12, 2, 12)));
        assert!(!is_crowded(&load(2, 0, 0, 3, 3)));
        assert!(is_crowded(&load(3, 0, 0, 3, 3)));
    }
}
