//! What is simulated: a system, its load, and what goes wrong.

use std::time::Duration;

use svcmap::distribution::Distribution;
use svcmap_worker::Policy;

use super::policies::Rule;

/// Share of the load of those that are nearly idle.
pub const IDLE_SHARE: f64 = 0.01;

/// How much more a sender sends while it is on than while it is off.
pub const ON_TO_OFF: f64 = 5.0;

/// How senders learn of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Feed {
    /// From a mapper, as it ships: workers report, it publishes each interval, and at once what
    /// crosses a level.
    Mapper,
    /// From a board that shows the true load of all workers, and is renewed each publish interval:
    /// the model of the theory (Mitzenmacher, IEEE TPDS 11(1)).
    Board,
    /// By asking the mapper for each job, as the original system does.
    Query,
}

impl Feed {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Feed::Mapper => "mapper",
            Feed::Board => "board",
            Feed::Query => "query",
        }
    }
}

/// A part of the time that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its start, after that of the measurement.
    pub from: Duration,
    /// How long it lasts.
    pub length: Duration,
}

/// The end of a worker's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crash {
    /// When, after the start of the measurement.
    pub at: Duration,
    /// A supervisor tells the mapper at once; otherwise its lease has to run out.
    pub is_told: bool,
    /// How long after that another life of it starts, if one does.
    pub back_after: Option<Duration>,
}

/// Jobs that come all at once as the measurement starts, in place of all that would come from then on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Burst {
    /// How many each sender has.
    pub jobs: u32,
    /// How many times as long each takes as those before.
    pub times_as_long: f64,
    /// How long there were none before.
    pub pause: Duration,
}

/// Workers that start late.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late {
    /// How many, the last ones.
    pub workers: usize,
    /// How long after the start of the measurement.
    pub after: Duration,
}

/// Workers whose jobs fail.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Failing {
    /// How many: the first ones.
    pub workers: usize,
    /// From when on, after the start of the measurement; `None`: always.
    pub from: Option<Duration>,
    /// Share of their jobs that fail: 1 for all. Bad input is a share at all workers.
    pub share: f64,
    /// How long such a job takes until it fails.
    pub takes: Duration,
}

/// What goes wrong.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Share of publications that a sender does not get.
    pub publication_loss: f64,
    /// There is no mapper.
    pub mapper_away: Option<Span>,
    /// The first worker's process stands still.
    pub worker_paused: Option<Span>,
    /// The first worker's process ends.
    pub worker_crash: Option<Crash>,
    /// The first sender's process stands still; what its user submits meanwhile waits.
    pub sender_paused: Option<Span>,
    /// Mean time until a connection of a sender to a worker breaks, with all that is under way on
    /// it.
    pub connection_loss: Option<Duration>,
    /// Share of the jobs that their user takes back, two service times after submission in the mean.
    pub cancelled: f64,
    /// Mean time between two ends of a sender's process, whichever it is; another one takes over
    /// what comes from then on.
    pub sender_crash: Option<Duration>,
    /// Workers whose jobs fail, while those of the others do not.
    pub failing: Option<Failing>,
}

/// See the module. Times are real ones; the theory counts in mean service times.
#[derive(Clone, Debug, PartialEq)]
pub struct Scenario {
    /// How many serve.
    pub workers: usize,
    /// How many send; each has the same share of the load, unless it is said otherwise.
    pub senders: usize,
    /// Share of the load that the first sender has, below 1; the others have the rest.
    pub heavy_share: Option<f64>,
    /// The second half of the senders has but [`IDLE_SHARE`] of the load.
    pub idle_half: bool,
    /// Each sender is on and off by turns, for ten service times in the mean. While it is on it sends
    /// [`ON_TO_OFF`] times as much as while it is off.
    pub on_off: bool,
    /// One of so many jobs is of high priority. What is measured is the others.
    pub high_every: Option<u64>,
    /// Jobs that come all at once.
    pub burst: Option<Burst>,
    /// Workers that start late.
    pub late: Option<Late>,
    /// Jobs that run at once at each worker.
    pub concurrency: u32,
    /// Jobs that wait beyond those.
    pub queue: u32,
    /// The same for workers that differ, which repeat; if empty, all have `queue`.
    pub queues: Vec<u32>,
    /// Offered load / capacity.
    pub utilisation: f64,
    /// Mean service time, at a worker of speed 1.
    pub service_time: Duration,
    /// How service times are distributed.
    pub distribution: Distribution,
    /// Speeds of workers, which repeat; scaled so that their mean is 1.
    pub speeds: Vec<f64>,
    /// One way between any two processes, at least.
    pub delay: Duration,
    /// Mean of what each message takes beyond that, memoryless; messages of one connection stay in
    /// order.
    pub jitter: Duration,
    /// Time for which each job occupies its handler beyond its own.
    pub handling: Duration,
    /// How senders learn of load.
    pub feed: Feed,
    /// Time between two publications of load.
    pub publish_interval: Duration,
    /// Longest silence of a worker, and time between two snapshots.
    pub beat: Duration,
    /// How workers are chosen.
    pub rule: Rule,
    /// How long a job waits for a worker with room; `None`: what a full queue takes, see
    /// [`Scenario::held_for`].
    pub hold: Option<Duration>,
    /// Tries of one job.
    pub tries: u32,
    /// Workers that one sender uses.
    pub peers_max: usize,
    /// What goes wrong.
    pub faults: Faults,
    /// Time before the measurement, in which queues find their usual length.
    pub warm_up: Duration,
    /// Time that is measured.
    pub duration: Duration,
    /// Where all random numbers come from.
    pub seed: u64,
}

/// Whether the job of that number is of high priority, if one of so many is.
pub fn is_high(high_every: Option<u64>, job: u64) -> bool {
    high_every.is_some_and(|every| job.is_multiple_of(every))
}

impl Default for Scenario {
    /// The base point: 16 workers of 11 slots, 32 senders, exponential jobs of 10 ms, utilisation
    /// 0.9, load published every 10 ms, a way of a quarter of a millisecond.
    fn default() -> Self {
        let service_time = Duration::from_millis(10);
        Self {
            workers: 16,
            senders: 32,
            heavy_share: None,
            idle_half: false,
            on_off: false,
            high_every: None,
            burst: None,
            late: None,
            concurrency: 1,
            queue: 10,
            queues: Vec::new(),
            utilisation: 0.9,
            service_time,
            distribution: Distribution::Exponential,
            speeds: vec![1.0],
            delay: service_time / 40,
            jitter: Duration::ZERO,
            handling: Duration::ZERO,
            feed: Feed::Mapper,
            publish_interval: service_time,
            beat: Duration::from_secs(1),
            rule: Rule::Shipped(Policy::Svcmap),
            hold: None,
            tries: 1,
            peers_max: 64,
            faults: Faults::default(),
            warm_up: 200 * service_time,
            duration: 2000 * service_time,
            seed: 1,
        }
        .with_rule(Rule::Shipped(Policy::Svcmap))
    }
}

/// Shortest hold of those that follow from the queues: far beyond what a sleepy process takes.
const HOLD_MIN: Duration = Duration::from_millis(250);

impl Scenario {
    /// How long a job waits for a worker with room. Unless that is said: for as long as a full queue
    /// takes, for at least four services and for at least 20 ways, so that it can ask around.
    pub fn held_for(&self) -> Duration {
        let depths = (0..self.workers).map(|worker| f64::from(self.slots(worker)));
        let depth = depths.sum::<f64>() / self.workers as f64 / f64::from(self.concurrency);
        let queue = self.service_time.mul_f64(depth.max(4.0));
        self.hold.unwrap_or_else(|| queue.max(20 * self.delay).max(HOLD_MIN))
    }

    /// The same with another policy: svcmap as it ships, others without a second try.
    pub fn with_rule(self, rule: Rule) -> Self {
        let (hold, tries) = match rule {
            Rule::Shipped(Policy::Svcmap | Policy::NoCredits) => (None, 5),
            _ => (Some(Duration::ZERO), 1),
        };
        Self { rule, hold, tries, ..self }
    }

    /// The same with load published every so many mean service times.
    pub fn with_interval(self, means: f64) -> Self {
        let publish_interval = self.service_time.mul_f64(means);
        let beat = Duration::from_secs(1).max(10 * publish_interval);
        Self { publish_interval, beat, ..self }
    }

    /// The same, measured until about so many jobs were submitted.
    pub fn with_jobs(self, jobs: u64) -> Self {
        let duration = Duration::from_secs_f64(jobs as f64 / self.rate());
        Self { duration, ..self }
    }

    /// The mean of one way.
    pub fn way(&self) -> Duration {
        self.delay + self.jitter
    }

    /// Jobs that wait at a worker.
    pub fn queue(&self, worker: usize) -> u32 {
        let differ = (!self.queues.is_empty()).then(|| self.queues[worker % self.queues.len()]);
        differ.unwrap_or(self.queue)
    }

    /// Room for jobs at a worker.
    pub fn slots(&self, worker: usize) -> u32 {
        self.concurrency + self.queue(worker)
    }

    /// How much a sender sends; the mean of all is 1.
    pub fn pace(&self, sender: usize) -> f64 {
        let busy = if self.idle_half { self.senders / 2 } else { self.senders };
        let idle = self.senders - busy;
        let weight = |sender| match sender < busy {
            true => 1.0,
            false => IDLE_SHARE / (1.0 - IDLE_SHARE) * busy as f64 / idle as f64,
        };
        let others: f64 = (1..self.senders).map(weight).sum();
        let first = self.heavy_share.map_or(weight(0), |share| share / (1.0 - share) * others);
        let own = if sender == 0 { first } else { weight(sender) };
        own * self.senders as f64 / (first + others)
    }

    /// The speed of a worker; the mean of all is 1.
    pub fn speed(&self, worker: usize) -> f64 {
        let speed = |worker: usize| self.speeds[worker % self.speeds.len()];
        let sum: f64 = (0..self.workers).map(speed).sum();
        speed(worker) * self.workers as f64 / sum
    }

    /// Jobs in each second, of all senders.
    pub fn rate(&self) -> f64 {
        let capacity = self.workers as f64 * f64::from(self.concurrency);
        self.utilisation * capacity / self.service_time.as_secs_f64()
    }
}
