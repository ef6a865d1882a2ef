//! From the records of all senders to figures. Only all of them together tell how full a worker was
//! at some moment, and so whether a sender was wrong about it or merely late.

use std::time::Duration;

use svcmap_proto::time::Timestamp;

use super::records::{Job, Records};
use crate::measurement::{Full, Measurement};

/// How many jobs a worker had, over time.
#[derive(Clone, Debug, Default)]
struct Occupancy {
    /// The times when that changed, and how many it had from then on.
    changes: Vec<(u64, i64)>,
}

impl Occupancy {
    fn new(mut steps: Vec<(u64, i64)>) -> Self {
        // At one time, who leaves makes room first.
        steps.sort_unstable();
        let mut jobs = 0;
        for (_, step) in &mut steps {
            jobs += *step;
            *step = jobs;
        }
        Self { changes: steps }
    }

    fn jobs(&self, at_us: u64) -> i64 {
        let after = self.changes.partition_point(|(change_us, _)| *change_us <= at_us);
        after.checked_sub(1).map_or(0, |index| self.changes[index].1)
    }
}

/// Adds what the senders wrote down to a measurement. Each worker has so many `slots`.
pub fn join(senders: &[Records], workers: usize, slots: u32, measurement: &mut Measurement) {
    let jobs = || senders.iter().flat_map(|records| &records.jobs);
    let occupancies = occupancies(jobs(), workers);
    let is_full = |worker: u32, at_us: u64| {
        let occupancy = occupancies.get(worker as usize);
        occupancy.is_some_and(|occupancy| occupancy.jobs(at_us) >= i64::from(slots))
    };
    let all_full = |at_us: u64| (0..workers as u32).all(|worker| is_full(worker, at_us));

    let mut attempts = Vec::new();
    let (mut counted, mut all) = (0, 0);
    for job in jobs() {
        all += 1;
        if !measurement.counts(Timestamp::from_micros(job.due_us)) {
            continue;
        }
        counted += 1;
        measurement.submit();
        attempts.extend(job.attempts.iter().enumerate().map(|(n, attempt)| (attempt, n == 0)));
        if let Some(wait_us) = wait_us(job) {
            measurement.start(Duration::from_micros(wait_us));
        }
        let response = Duration::from_micros(job.ended_us.saturating_sub(job.due_us));
        measurement.end(job.outcome.ending(!all_full(job.ended_us)), response);
    }
    attempts.sort_unstable_by_key(|(attempt, _)| attempt.chosen_us);
    for (attempt, first) in attempts {
        let chosen_at = Timestamp::from_micros(attempt.chosen_us);
        let age = attempt.age_us.map(Duration::from_micros);
        measurement.choose(chosen_at, attempt.worker as usize, first, age);
        if attempt.rejected_full {
            let was_full = is_full(attempt.worker, attempt.chosen_us);
            let full = if was_full { Full::Stale } else { Full::Race };
            measurement.reject(chosen_at, first, full);
        }
    }
    let (way, handling) = overheads(jobs(), workers);
    measurement.set_overheads(way, handling);
    // A job of the warm-up takes as many messages as any other.
    let share = |total: u64| (total as f64 * f64::from(counted) / f64::from(all.max(1))) as u64;
    let messages = senders.iter().map(|records| records.messages).sum();
    let bytes = senders.iter().map(|records| records.bytes).sum();
    measurement.transfer(share(messages), share(bytes));
}

fn occupancies<'a>(jobs: impl Iterator<Item = &'a Job>, workers: usize) -> Vec<Occupancy> {
    let mut steps = vec![Vec::new(); workers];
    for served in jobs.filter_map(|job| job.served) {
        if let Some(steps) = steps.get_mut(served.worker as usize) {
            steps.push((served.arrived_us, 1));
            steps.push((served.finished_us, -1));
        }
    }
    steps.into_iter().map(Occupancy::new).collect()
}

/// What the machine adds to a job: on its way to a worker, and at its handler. A handler that has
/// work is free again only when the worker knows that it is.
fn overheads<'a>(jobs: impl Iterator<Item = &'a Job>, workers: usize) -> (Duration, Duration) {
    let mut way = Mean::default();
    let (mut longer, mut idle) = (Mean::default(), Mean::default());
    let mut starts = vec![Vec::new(); workers];
    for (job, served) in jobs.filter_map(|job| Some((job, job.served?))) {
        if let Some(last) = job.attempts.last() {
            way.add(served.arrived_us.saturating_sub(last.chosen_us));
        }
        let took_us = served.finished_us.saturating_sub(served.started_us);
        longer.add(took_us.saturating_sub(job.time_us));
        if let Some(starts) = starts.get_mut(served.worker as usize) {
            starts.push((served.started_us, served));
        }
    }
    for starts in &mut starts {
        starts.sort_unstable_by_key(|(started_us, _)| *started_us);
        for pair in starts.windows(2) {
            let (before, next) = (pair[0].1, pair[1].1);
            // One after the other at one handler, and the second was there in time.
            if next.arrived_us <= before.finished_us && before.finished_us <= next.started_us {
                idle.add(next.started_us - before.finished_us);
            }
        }
    }
    (way.get(), longer.get() + idle.get())
}

#[derive(Default)]
struct Mean {
    sum_us: u64,
    count: u64,
}

impl Mean {
    fn add(&mut self, us: u64) {
        self.sum_us += us;
        self.count += 1;
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.sum_us / self.count.max(1))
    }
}

/// From when a job was due until its start, without the way to its worker.
fn wait_us(job: &Job) -> Option<u64> {
    let (served, last) = (job.served?, job.attempts.last()?);
    let at_sender = last.chosen_us.saturating_sub(job.due_us);
    Some(at_sender + served.started_us.saturating_sub(served.arrived_us))
}

#[cfg(test)]
mod tests {
    use super::super::records::{Attempt, Outcome, Served};
    use super::*;
    use crate::measurement::Setting;

    const SLOTS: u32 = 2;

    fn attempt(worker: u32, chosen_us: u64, rejected_full: bool) -> Attempt {
        Attempt { worker, chosen_us, age_us: Some(500), rejected_full }
    }

    /// A job that a worker took at `arrived_us` and was done with at `finished_us`.
    fn done(worker: u32, due_us: u64, arrived_us: u64, finished_us: u64) -> Job {
        let started_us = arrived_us + 10;
        Job {
            due_us,
            time_us: finished_us - started_us - 2,
            ended_us: finished_us + 100,
            outcome: Outcome::Done,
            served: Some(Served { worker, arrived_us, started_us, finished_us }),
            attempts: vec![attempt(worker, due_us + 5, false)],
        }
    }

    fn refused(due_us: u64, worker: u32) -> Job {
        Job {
            due_us,
            time_us: 1000,
            ended_us: due_us + 200,
            outcome: Outcome::Refused,
            served: None,
            attempts: vec![attempt(worker, due_us, true)],
        }
    }

    fn measured(senders: &[Records]) -> crate::measurement::Report {
        let (start, length) = (Timestamp::from_micros(1000), Duration::from_millis(100));
        let mut measurement = Measurement::new(start, length, 2, Duration::from_millis(1));
        join(senders, 2, SLOTS, &mut measurement);
        measurement.report(Setting::default())
    }

    #[test]
    fn who_was_full_when_chosen_was_known_wrongly_and_who_was_not_was_lost_to_others() {
        let one = vec![done(0, 900, 950, 5000), done(0, 1000, 1100, 5000), refused(2000, 0)];
        // At 1050 the second job is still on its way.
        let two = vec![refused(1050, 0), refused(6000, 0)];
        let report = measured(&[
            Records { jobs: one, messages: 30, bytes: 300 },
            Records { jobs: two, messages: 20, bytes: 200 },
        ]);
        // The first job is of the warm-up: it takes a slot and does not count.
        assert_eq!((report.submitted, report.sent, report.rejected_full), (4, 4, 3));
        assert_eq!((report.far, report.far_stale, report.far_race), (0.75, 0.25, 0.5));
        assert_eq!(report.refused_with_room, 3, "the other worker had room");
        assert_eq!((report.messages_per_job, report.bytes_per_job), (10.0, 100.0));
        assert_eq!((report.wait_ms.p50, report.age_ms.p50), (0.015, 0.5));
    }

    #[test]
    fn the_machine_takes_time_on_the_way_and_at_the_handler() {
        // The second waits, and is started 3 us after the first is done.
        let (first, mut second) = (done(0, 1000, 1100, 2000), done(0, 1200, 1300, 3000));
        second.served.as_mut().unwrap().started_us = 2003;
        second.time_us = 3000 - 2003 - 2;
        let report = measured(&[Records { jobs: vec![first, second], ..Records::default() }]);
        assert_eq!((report.way_ms, report.handling_ms), (0.095, 0.005));
    }

    #[test]
    fn a_refusal_with_all_full_is_right() {
        let fill = |worker| (0..2).map(move |_| done(worker, 1000, 1100, 9000));
        let jobs = fill(0).chain(fill(1)).chain([refused(3000, 1), refused(9500, 1)]).collect();
        let report = measured(&[Records { jobs, ..Records::default() }]);
        assert_eq!((report.outcomes.refused, report.refused_with_room), (2, 1));
        assert_eq!(report.frr, 1.0 / 6.0);
    }
}
