//! How fast a service is, as its sender sees it: what its estimates and its patience are counted in.

use std::time::Duration;

use svcmap_proto::load::Load;

use crate::choice::Candidate;
use crate::handover;

/// Weight of the newest sample in each moving average: an eighth, as in RFC 6298.
const WEIGHT: f64 = 1.0 / 8.0;

/// Shortest time until another worker is asked for a credit.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// Longest mean service time that is believed: what is reckoned from it stays within reason.
const SERVICE_MAX: Duration = Duration::from_secs(24 * 3600);

/// A sample of the way counts for so many times what is known at most.
const WAY_GROWTH_MAX: f64 = 8.0;

/// From a way of so many services on, asking first costs more than the whole job.
const SHORT_WAYS: f64 = 2.0;

/// With fewer slots than so many for each that runs, a guess soon meets a full worker: it is worth it
/// only if promising all of them for a way there and back would still leave workers idle.
const SHORT_DEPTH: f64 = 12.0;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ServiceEstimates {
    /// Mean service time; zero if nothing is known.
    service: Duration,
    /// Mean time of one message.
    way: Duration,
    /// Mean number of jobs at a worker.
    jobs: f64,
    /// Mean time until one more job would be done at a worker, in service times.
    turn: f64,
    /// Mean number of slots for each job that can run at once.
    depth: f64,
}

impl ServiceEstimates {
    /// A worker told its load.
    pub(super) fn learn_load(&mut self, load: &Load) {
        if load.mean_service_us > 0 {
            let sample = Duration::from_micros(load.mean_service_us).min(SERVICE_MAX);
            let known = (!self.service.is_zero()).then_some(self.service.as_secs_f64());
            self.service = Duration::from_secs_f64(mix(known, sample.as_secs_f64()));
        }
        let known = |value: f64| (self.depth > 0.0).then_some(value);
        let jobs = f64::from(load.running) + f64::from(load.queued);
        self.jobs = mix(known(self.jobs), jobs);
        self.turn = mix(known(self.turn), load.expected_wait(jobs + 1.0));
        self.depth = mix(known(self.depth), load.expected_wait(f64::from(load.slots)));
    }

    /// An attempt was under way for so long, there and back. It may have found somebody standing
    /// still, which says little of the way.
    pub(super) fn learn_journey(&mut self, journey: Duration) {
        let known = (!self.way.is_zero()).then_some(self.way.as_secs_f64());
        let sample = journey.as_secs_f64() / 2.0;
        let sample = known.map_or(sample, |known| sample.min(WAY_GROWTH_MAX * known));
        self.way = Duration::from_secs_f64(mix(known, sample));
    }

    /// How long to wait for a credit before another worker is asked.
    pub(super) fn patience(&self) -> Duration {
        self.service.max(3 * self.way).max(PATIENCE_MIN)
    }

    /// Whether jobs are so much shorter than their way that to guess is better than to ask.
    pub(super) fn is_short(&self) -> bool {
        let ways = self.way.as_secs_f64() / self.service.as_secs_f64();
        let is_few = self.depth < SHORT_DEPTH && 2.0 * ways < self.depth;
        !self.service.is_zero() && ways > SHORT_WAYS && !is_few
    }

    /// Whether jobs take so much longer than their way that it does not matter, as far as is known.
    pub(super) fn is_long(&self) -> bool {
        let mean = (!self.service.is_zero()).then_some(self.service);
        handover::is_long(mean, self.way)
    }

    /// Whether workers have little room beside what they run: a credit that nobody uses is missed.
    pub(super) fn is_tight(&self) -> bool {
        self.depth <= 4.0
    }

    /// Jobs at a worker, as far as can be guessed: what it said grows stale at the pace at which jobs
    /// are done, and what was sent since comes on top. As long as nobody knows that pace, what it said holds.
    pub(super) fn jobs(&self, candidate: &Candidate) -> f64 {
        let own = f64::from(candidate.own);
        let Some(load) = &candidate.load else { return self.jobs.max(own) };
        let said = f64::from(load.running) + f64::from(load.queued);
        let pace = self.service(candidate).map(|service| service.as_secs_f64().max(1e-6));
        let age = pace.map_or(0.0, |pace| candidate.age.as_secs_f64() / (2.0 * pace));
        (self.jobs + (said - self.jobs) * (-age).exp() + f64::from(candidate.unreflected)).max(own)
    }

    /// Time until one more job there would be done, in seconds.
    pub(super) fn expected_finish(&self, candidate: &Candidate) -> f64 {
        let jobs = self.jobs(candidate) + 1.0;
        candidate.load.unwrap_or_default().expected_wait(jobs) * self.service_of(candidate)
    }

    /// The same at a worker like all others.
    pub(super) fn usual_finish(&self) -> f64 {
        self.turn * self.service.as_secs_f64()
    }

    /// The time of a message there and one back, in seconds.
    pub(super) fn round_trip(&self) -> f64 {
        2.0 * self.way.as_secs_f64()
    }

    /// A worker's mean service time: that of all if it has not said; `None` if nobody has. One that has
    /// finished nothing for longer than that, with all handlers busy, is slower than it says.
    pub(super) fn service(&self, candidate: &Candidate) -> Option<Duration> {
        let load = candidate.load.unwrap_or_default();
        let said = load.mean_service().or((!self.service.is_zero()).then_some(self.service))?;
        let is_busy = load.running > 0 && load.running == load.concurrency;
        let since_finish = load.since_finish_ms.filter(|_| is_busy);
        let stuck = since_finish.map(|ms| Duration::from_millis(ms.into()) + candidate.age);
        Some(said.max(stuck.unwrap_or_default()))
    }

    /// The same in seconds; where nobody knows it, all are alike.
    fn service_of(&self, candidate: &Candidate) -> f64 {
        self.service(candidate).map_or(1e-6, |service| service.as_secs_f64().max(1e-6))
    }
}

fn mix(known: Option<f64>, sample: f64) -> f64 {
    known.map_or(sample, |known| known + (sample - known) * WEIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn load(jobs: u32, concurrency: u32, slots: u32, mean: Duration) -> Load {
        Load {
            running: jobs.min(concurrency),
            queued: jobs.saturating_sub(concurrency),
            concurrency,
            slots,
            mean_service_us: mean.as_micros() as u64,
            ..Load::default()
        }
    }

    fn candidate(load: Load) -> Candidate {
        Candidate { load: Some(load), ..Candidate::default() }
    }

    /// Of workers like that one, over ways like that.
    fn estimates(load: Load, way: Duration) -> ServiceEstimates {
        let mut estimates = ServiceEstimates::default();
        estimates.learn_load(&load);
        estimates.learn_journey(2 * way);
        estimates
    }

    fn is_near(value: f64, expected: f64) -> bool {
        (value - expected).abs() < 1e-6 * expected.abs().max(1.0)
    }

    #[test]
    fn nothing_is_short_as_long_as_nobody_knows() {
        let mut estimates = ServiceEstimates::default();
        assert_eq!((estimates.is_short(), estimates.is_tight()), (false, true));
        assert_eq!(estimates.patience(), ms(1));
        estimates.learn_load(&load(0, 1, 11, Duration::ZERO));
        assert!(!estimates.is_tight());
    }

    #[test]
    fn what_a_worker_said_holds_until_somebody_knows_how_fast_jobs_are_done() {
        let aged = |mean| Candidate { age: ms(10_000), ..candidate(load(1, 1, 1, mean)) };
        let mut unknown = ServiceEstimates::default();
        unknown.learn_load(&load(0, 1, 11, Duration::ZERO));
        assert!(is_near(unknown.jobs(&aged(Duration::ZERO)), 1.0));
        assert!(unknown.jobs(&aged(ms(10))) < 0.1);
    }

    #[test]
    fn patience_lasts_for_a_service_or_three_ways() {
        let patience = |mean, way| estimates(load(0, 1, 11, mean), way).patience();
        assert_eq!(patience(ms(100), ms(1)), ms(100));
        assert_eq!(patience(ms(1), ms(10)), ms(30));
        assert_eq!(patience(Duration::from_micros(1), Duration::from_micros(9)), ms(1));
    }

    #[test]
    fn jobs_are_short_if_their_way_takes_more_than_two_of_them() {
        let is_short = |way, slots| estimates(load(0, 1, slots, ms(10)), way).is_short();
        assert!(!is_short(ms(20), 12));
        assert!(is_short(ms(21), 12));
        // With few slots: if a round trip takes as many of them as there are slots.
        assert!(!is_short(ms(54), 11));
        assert!(is_short(ms(55), 11));
        assert!(is_short(ms(21), 4));
    }

    #[test]
    fn up_to_four_slots_for_each_that_runs_are_few() {
        let is_tight = |slots| estimates(load(0, 2, slots, ms(10)), ms(1)).is_tight();
        assert!(is_tight(8) && !is_tight(9));
    }

    #[test]
    fn each_word_of_a_worker_moves_the_mean_by_an_eighth() {
        let mut estimates = estimates(load(0, 1, 11, ms(80)), ms(8));
        estimates.learn_load(&load(0, 1, 11, ms(160)));
        estimates.learn_journey(ms(0));
        // One that has finished nothing says nothing of it.
        estimates.learn_load(&load(0, 1, 11, Duration::ZERO));
        assert_eq!(estimates.patience(), ms(90));
        assert!(is_near(estimates.round_trip(), 0.014));
    }

    #[test]
    fn a_slow_worker_with_nothing_to_do_can_finish_later_than_a_fast_one_with_much() {
        let estimates = estimates(load(2, 1, 11, ms(100)), ms(1));
        let finish = |load| estimates.expected_finish(&candidate(load));
        assert!(is_near(finish(load(0, 1, 11, ms(1000))), 1.0));
        assert!(is_near(finish(load(8, 1, 11, ms(100))), 0.9));
        assert!(is_near(finish(load(8, 3, 11, ms(100))), 0.3));
        // It has not said how fast it is: as fast as all.
        assert!(is_near(finish(load(4, 1, 11, Duration::ZERO)), 0.5));
        assert!(is_near(estimates.usual_finish(), 0.3));
    }

    #[test]
    fn a_worker_whose_handlers_are_all_stuck_is_slower_than_it_says() {
        let estimates = estimates(load(2, 2, 11, ms(100)), ms(1));
        let stuck = |running, since_finish_ms, age| {
            let load = Load { running, since_finish_ms, ..load(2, 2, 11, ms(100)) };
            estimates.expected_finish(&Candidate { age, ..candidate(load) })
        };
        assert!(is_near(stuck(2, Some(3000), Duration::ZERO), 1.5 * 3.0));
        // Since it said so, it has said no more.
        assert!(is_near(stuck(2, Some(2000), ms(1000)), 1.5 * 3.0));
        assert!(is_near(stuck(1, Some(3000), Duration::ZERO), 0.1));
        assert!(is_near(stuck(2, None, Duration::ZERO), 0.15));
        assert!(is_near(stuck(2, Some(50), Duration::ZERO), 0.15));
    }

    #[test]
    fn what_a_worker_said_grows_stale_towards_what_is_usual() {
        let estimates = estimates(load(4, 1, 11, ms(100)), ms(1));
        let jobs =
            |jobs, age| estimates.jobs(&Candidate { age, ..candidate(load(jobs, 1, 11, ms(100))) });
        assert_eq!(jobs(10, Duration::ZERO), 10.0);
        assert!(is_near(jobs(10, ms(200)), 4.0 + 6.0 / std::f64::consts::E));
        assert!(is_near(jobs(0, ms(200)), 4.0 - 4.0 / std::f64::consts::E));
        assert!(is_near(jobs(10, ms(60_000)), 4.0));
    }

    #[test]
    fn own_jobs_are_there_whatever_the_worker_said() {
        let estimates = estimates(load(4, 1, 11, ms(100)), ms(1));
        let said = candidate(load(2, 1, 11, ms(100)));
        assert_eq!(estimates.jobs(&Candidate { unreflected: 3, own: 3, ..said }), 5.0);
        assert_eq!(estimates.jobs(&Candidate { own: 7, ..said }), 7.0);
        assert_eq!(estimates.jobs(&Candidate::default()), 4.0);
        assert_eq!(estimates.jobs(&Candidate { own: 6, ..Candidate::default() }), 6.0);
    }
}
