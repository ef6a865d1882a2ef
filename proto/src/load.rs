//! What an instance says of itself: how much it does, and how it has done so far.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

/// From this share of its room on, an instance that says no more than that gets no new job: the
/// threshold of the system whose JSON dialect svcmap speaks.
pub const SHARE_FULL: f64 = 0.9;

/// Whether an instance takes jobs at all. Full is no state: it follows from the slots.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Takes jobs while it has free slots.
    #[default]
    Ready,
    /// Finishes what it has and takes nothing new.
    Draining,
    /// Takes nothing for now: its jobs fail while those of its peers do not, or cannot be started.
    Failing,
}

/// What an instance says of itself, on every report and every answer.
///
/// Newer is what has the higher `sequence` within one incarnation; wall clocks play no part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Load {
    /// Only grows within one incarnation; with it, load orders newer and older.
    pub sequence: u64,
    /// Whether it takes jobs.
    pub state: State,
    /// Jobs waiting for a handler.
    pub queued: u32,
    /// Of these, those of high priority, and those of low.
    pub queued_high: u32,
    /// See there.
    pub queued_low: u32,
    /// Jobs that a handler works on.
    pub running: u32,
    /// Slots promised to senders that have not sent yet.
    pub promised: u32,
    /// Room for jobs: concurrency + queue.
    pub slots: u32,
    /// Jobs that can run at once.
    pub concurrency: u32,
    /// Moving average of a handler's time per job, in microseconds; 0 until one has finished.
    pub mean_service_us: u64,
    /// Jobs taken since start.
    pub accepted: u64,
    /// Jobs whose handler returned a result.
    pub done: u64,
    /// Jobs whose handler returned an error or panicked.
    pub failed: u64,
    /// Attempts that were rejected.
    pub rejected: u64,
    /// HELLOs of senders for which there was no room.
    pub turned_away: u64,
    /// How long the oldest queued job has waited, in milliseconds.
    pub oldest_queued_ms: u32,
    /// Time since a handler last finished a job, in milliseconds; `None` before the first.
    pub since_finish_ms: Option<u32>,
    /// What a worker of the JSON dialect says of itself, in place of all counts; `None` for a
    /// native one, so that this also tells them apart.
    pub share: Option<Share>,
    /// Of its last jobs, so many in a thousand failed or could not be started; 0 if nothing is known.
    pub failing: u16,
}

/// What a worker of the JSON dialect says: which share of its room is taken, 0.0 to 1.0, and whether it
/// answers a job when that is taken or when it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Share {
    taken: f64,
    gives_results: bool,
}

// It is never NaN.
impl Eq for Share {}

impl Share {
    /// The share; `None` if that is none.
    pub fn new(share: f64) -> Option<Self> {
        (0.0..=1.0).contains(&share).then_some(Self { taken: share, gives_results: false })
    }

    /// The same of a worker that answers a job when it has ended, or does not.
    pub fn giving_results(self, gives_results: bool) -> Self {
        Self { gives_results, ..self }
    }

    /// As a number.
    pub fn get(self) -> f64 {
        self.taken
    }

    /// Whether the worker answers a job when it has ended, with its result.
    pub fn gives_results(self) -> bool {
        self.gives_results
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (share, gives_results) = Deserialize::deserialize(deserializer)?;
        let share = Self::new(share).map(|share| share.giving_results(gives_results));
        share.ok_or_else(|| serde::de::Error::custom("a share is 0.0 to 1.0"))
    }
}

impl Load {
    /// Mean service time; `None` until a job has finished, which says nothing of how long jobs take.
    pub fn mean_service(&self) -> Option<Duration> {
        (self.mean_service_us > 0).then(|| Duration::from_micros(self.mean_service_us))
    }

    /// Slots in use: running, queued and promised.
    pub fn busy(&self) -> u32 {
        self.running.saturating_add(self.queued).saturating_add(self.promised)
    }

    /// Slots that a new job could take.
    pub fn free(&self) -> u32 {
        self.slots.saturating_sub(self.busy())
    }

    /// Share of the slots in use, 0.0 to 1.0. An instance without slots is full.
    pub fn ratio(&self) -> f64 {
        match self.share {
            Some(share) => share.get(),
            None if self.slots == 0 => 1.0,
            None => (f64::from(self.busy()) / f64::from(self.slots)).min(1.0),
        }
    }

    /// Whether there is no room for a new job.
    pub fn is_full(&self) -> bool {
        self.share.map_or(self.free() == 0, |share| share.get() >= SHARE_FULL)
    }

    /// Whether it can be given a new job.
    pub fn is_eligible(&self) -> bool {
        self.state == State::Ready && !self.is_full()
    }

    /// Jobs there, as far as it says: a share is taken for that of its slots, or of one.
    pub fn jobs(&self) -> f64 {
        match self.share {
            Some(share) => share.get() * f64::from(self.slots.max(1)),
            None => f64::from(self.busy()),
        }
    }

    /// Most jobs that one sender may have at once at a worker of the JSON dialect: as many as that has
    /// room for if it answers with results and says so, else one.
    pub fn open_max(&self) -> u32 {
        match self.share {
            Some(share) if share.gives_results() && self.slots > 0 => self.slots,
            Some(share) if share.gives_results() => self.concurrency.max(1),
            _ => 1,
        }
    }

    /// How long a new job waits where there are so many, in service times.
    pub fn expected_wait(&self, jobs: f64) -> f64 {
        jobs / f64::from(self.concurrency.max(1))
    }

    /// How full it is, in the steps at which senders are told at once.
    pub fn level(&self) -> Level {
        match self.ratio() {
            _ if self.is_full() => Level::Full,
            ratio if ratio <= 0.0 => Level::Idle,
            ratio if ratio >= 0.75 => Level::ThreeQuarters,
            ratio if ratio >= 0.5 => Level::Half,
            _ => Level::Low,
        }
    }

    /// Whether a change from `earlier` to this is worth telling before the next regular report.
    pub fn crossed(&self, earlier: &Load) -> bool {
        self.state != earlier.state || self.level() != earlier.level()
    }
}

/// Of so many candidates, the better of two random eligible ones (Mitzenmacher, IEEE TPDS 12(10),
/// 2001): nearly as good as knowing the shortest queue, and no herd follows one stale number.
///
/// `expected_wait` tells by index how long a job waits there, less being better, or that the
/// candidate is not eligible. Few are asked unless few are eligible. `None` only if none is.
pub fn better_of_two(
    candidates: usize,
    random: &mut fastrand::Rng,
    mut expected_wait: impl FnMut(usize) -> Option<f64>,
) -> Option<usize> {
    let (first, wait) = any_eligible(candidates, random, &mut expected_wait)?;
    // Any of the others, each with the same chance.
    let mut others = |index: usize| (index != first).then(|| expected_wait(index))?;
    match any_eligible(candidates, random, &mut others) {
        Some((second, less)) if less < wait => Some(second),
        _ => Some(first),
    }
}

/// Any eligible candidate, each with the same chance, and its expected wait.
fn any_eligible(
    candidates: usize,
    random: &mut fastrand::Rng,
    expected_wait: &mut impl FnMut(usize) -> Option<f64>,
) -> Option<(usize, f64)> {
    for _ in 0..candidates.min(DRAWS) {
        let index = random.usize(..candidates);
        if let Some(wait) = expected_wait(index) {
            return Some((index, wait));
        }
    }
    let eligible = (0..candidates).filter_map(|index| Some((index, expected_wait(index)?)));
    let eligible: Vec<_> = eligible.collect();
    random.choice(eligible)
}

/// So often a candidate is drawn blindly before all are looked at.
const DRAWS: usize = 8;

/// How full an instance is, in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing to do.
    Idle,
    /// Less than half of the slots in use.
    Low,
    /// Half of the slots or more in use.
    Half,
    /// Three quarters of the slots or more in use.
    ThreeQuarters,
    /// No slot left.
    Full,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(busy: u32, slots: u32) -> Load {
        Load { queued: busy, slots, ..Load::default() }
    }

    #[test]
    fn levels_cover_every_share() {
        let levels: Vec<_> = (0..=8).map(|busy| load(busy, 8).level()).collect();
        use Level::*;
        assert_eq!(levels, [Idle, Low, Low, Low, Half, Half, ThreeQuarters, ThreeQuarters, Full]);
        assert_eq!(load(0, 1).level(), Idle);
        assert_eq!(load(1, 1).level(), Full);
    }

    #[test]
    fn an_instance_without_slots_is_full() {
        assert_eq!(load(0, 0).level(), Level::Full);
        assert_eq!(load(0, 0).ratio(), 1.0);
    }

    #[test]
    fn a_share_says_how_full_a_worker_is() {
        let with = |share| Load { share: Share::new(share), ..Load::default() };
        let levels: Vec<_> = [0.0, 0.3, 0.5, 0.8, 0.9, 1.0].map(|s| with(s).level()).into();
        use Level::*;
        assert_eq!(levels, [Idle, Low, Half, ThreeQuarters, Full, Full]);
        assert_eq!((with(0.3).ratio(), with(0.3).jobs()), (0.3, 0.3));
        assert!(with(0.89).is_eligible() && !with(0.9).is_eligible());
        let stated = Load { slots: 10, concurrency: 2, ..with(0.4) };
        assert_eq!(stated.expected_wait(stated.jobs()), 2.0);
        assert_eq!((with(0.4).open_max(), stated.open_max()), (1, 1));
        let share = stated.share.map(|share| share.giving_results(true));
        assert_eq!(Load { share, ..stated }.open_max(), 10);
        assert_eq!(Load { share, ..Load::default() }.open_max(), 1);
        for none in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert_eq!(Share::new(none), None);
        }
    }

    #[test]
    fn absurd_numbers_do_not_overflow() {
        let load = Load {
            queued: u32::MAX,
            running: u32::MAX,
            promised: u32::MAX,
            slots: u32::MAX,
            ..Load::default()
        };
        assert_eq!(load.free(), 0);
        assert_eq!(load.level(), Level::Full);
    }
}
