//! Whether an instance sets itself aside, as its jobs fail while those of its peers do not: who
//! fails at once is free again at once, and would get most jobs.
//!
//! All instances go by the same rule ([`judge`]) and by what each says of itself in its load, so
//! that two who look at the same loads agree, and nobody has to decide for all. Who is set aside
//! promises nothing, gives back what waits, and after a while lets one job through, which tells
//! whether it is mended.

use std::time::Duration;

use svcmap_proto::limits::ERROR_BYTES_MAX;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::Name;
use svcmap_proto::time::{Timestamp, earliest};

use crate::intake::Ending;

/// The share of failures is that of so many of the last jobs (a moving average): eleven failures in a
/// row are half of it, which happens by chance once in fifty million jobs even where a fifth of all
/// fail.
const WINDOW: u32 = 16;

/// An instance begins as if it had done so many jobs: if its first ones fail, as many are half of all.
const CREDIT: u32 = 4;

/// Shares are in thousandths.
const ALL: u32 = 1000;

/// An instance is set aside if its share of failures is higher than that of its peers by this.
const FAR: u32 = ALL / 2;

/// Shortest time for which an instance is set aside, and the longest: it doubles with each job that
/// was let through and failed.
const ASIDE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// The same while nobody knows how the peers fare, or where nobody is better off.
const PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// These times are longer or shorter by such a share, by chance: those who were set aside together
/// do not come back together.
const JITTER: f64 = 0.25;

/// How often the peers' loads are looked at while they matter and nothing happens.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// The same while an instance waits for the one job that it lets through: there may never be one.
const PROBE_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the loads of the peers say of an instance's failures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It fares as they do, or enough of them are set aside already.
    Alike,
    /// It fails, and they have finished nothing yet, so nobody knows whose fault it is.
    Unknown,
    /// It fails far more often than they do.
    Apart,
}

/// What the loads of a service say of one of its instances. The peers are all others that are
/// listed; of those, some drain or speak JSON and say nothing of use.
///
/// Its share of failures is compared with what the better quarter of its peers has. At most half
/// of the instances are set aside, the worst, so never the last; of two that are alike, the one
/// with the greater name.
pub fn judge<'a>(
    own: (&Name, &Load),
    peers: impl Iterator<Item = (&'a Name, &'a Load)>,
) -> Verdict {
    let failing = u32::from(own.1.failing);
    if failing < FAR {
        return Verdict::Alike;
    }
    // What an instance that is aside already says comes first, or two would take turns.
    let is_worse = |(name, load): (&Name, &Load)| {
        let place = |name, load: &Load| (load.state == State::Failing, load.failing, name);
        place(name, load) > place(own.0, own.1)
    };
    let (mut instances, mut worse, mut work, mut are_unknown) = (1, 0, false, false);
    let mut shares = Vec::new();
    for (name, load) in peers.filter(|(_, load)| load.state != State::Draining) {
        instances += 1;
        worse += usize::from(is_worse((name, load)));
        if load.done + load.failed > 0 || load.failing > 0 {
            work |= load.done > 0 && u32::from(load.failing) < FAR;
            shares.push(u32::from(load.failing));
        } else {
            are_unknown |= load.share.is_none();
        }
    }
    shares.sort_unstable();
    let usual = shares.get(shares.len().saturating_sub(1) / 4);
    match usual {
        _ if are_unknown && !work => Verdict::Unknown,
        Some(usual) if failing >= usual + FAR && worse < instances / 2 => Verdict::Apart,
        _ => Verdict::Alike,
    }
}

/// How far an instance is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It takes jobs.
    Full,
    /// It takes one beside those that were here then, to see.
    Probe {
        /// From when on: how a job ends that began before says nothing new.
        since: Timestamp,
        beside: u32,
    },
    /// It takes none until then.
    Aside(Timestamp),
}

/// How a job has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Trouble {
    /// By an error, which may be the job's own fault.
    Failed,
    /// It was not started, which is never the job's fault.
    NotStarted,
}

/// An instance's own: see the module.
#[derive(Debug)]
pub struct Health {
    /// Share of failures, in thousandths, among so many jobs, at most [`WINDOW`].
    share: f64,
    jobs: u32,
    trust: Trust,
    /// For how long it was last set aside.
    pause: Duration,
    /// What has just happened, before anybody looked at the peers.
    trouble: Option<Trouble>,
    looked_at: Timestamp,
    /// What the last job failed of, and what the one failed of that set it aside.
    error: String,
    aside_error: String,
    /// Whether it was said that jobs fail here as they do elsewhere.
    is_told: bool,
    random: fastrand::Rng,
}

impl Health {
    /// An instance of which nothing is known. `seed` is any number that its peers do not have.
    pub fn new(seed: u64) -> Self {
        Self {
            share: 0.0,
            jobs: CREDIT,
            trust: Trust::Full,
            pause: Duration::ZERO,
            trouble: None,
            looked_at: Timestamp::default(),
            error: String::new(),
            aside_error: String::new(),
            is_told: false,
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// A job that was started then ended by itself; `error` says why it did not end well. Returns
    /// whether the instance is trusted again.
    pub fn handle_ended(&mut self, started_at: Timestamp, ending: Ending, error: &[u8]) -> bool {
        let is_probe = matches!(self.trust, Trust::Probe { since, .. } if since <= started_at);
        let trouble = match ending {
            Ending::Done if is_probe => {
                // It is mended, and what was before says nothing any more.
                (self.share, self.jobs, self.trust) = (0.0, CREDIT, Trust::Full);
                return true;
            }
            Ending::Done => {
                self.learn(0.0);
                return false;
            }
            Ending::Failed { .. } => Trouble::Failed,
            Ending::NotStarted => Trouble::NotStarted,
        };
        self.learn(f64::from(ALL));
        self.error = shortened(error);
        let is_taken_for_bad = self.is_bad() && !matches!(self.trust, Trust::Probe { .. });
        if is_taken_for_bad || is_probe || trouble == Trouble::NotStarted {
            self.trouble = self.trouble.max(Some(trouble));
        }
        false
    }

    fn learn(&mut self, sample: f64) {
        self.jobs = WINDOW.min(self.jobs + 1);
        self.share += (sample - self.share) / f64::from(self.jobs);
        if self.jobs == WINDOW && !self.is_bad() {
            self.pause = Duration::ZERO;
        }
        // Where half of all fail for good, it is not said again and again.
        self.is_told &= self.share() > 0;
    }

    /// Whether what the peers say matters now: then [`Health::handle_verdict`] is due. `is_idle`: no
    /// job is here.
    pub fn wants_verdict(&self, now: Timestamp, is_idle: bool) -> bool {
        self.trouble.is_some() || self.look_timeout(is_idle).is_some_and(|at| at <= now)
    }

    /// What the peers say. Returns whether the instance is set aside by that.
    pub fn handle_verdict(&mut self, now: Timestamp, verdict: Verdict) -> bool {
        self.looked_at = now;
        let trouble = self.trouble.take();
        let is_to_blame = match verdict {
            // Who is on trial has had its sentence.
            Verdict::Apart => trouble.is_some() || self.trust == Trust::Full,
            Verdict::Unknown => trouble.is_some(),
            Verdict::Alike => trouble == Some(Trouble::NotStarted),
        };
        match self.trust {
            Trust::Full | Trust::Probe { .. } if is_to_blame => {
                self.set_aside(now, verdict);
                return true;
            }
            // Jobs fail everywhere.
            Trust::Probe { .. } if trouble.is_some() || self.is_like(verdict) => {
                self.trust = Trust::Full;
            }
            // Those who were better are gone: better a chance than none.
            Trust::Aside(until) if verdict == Verdict::Alike => {
                self.trust = Trust::Aside(until.min(now + PAUSE.1));
            }
            _ => {}
        }
        false
    }

    fn set_aside(&mut self, now: Timestamp, verdict: Verdict) {
        let (shortest, longest) = if verdict == Verdict::Apart { ASIDE } else { PAUSE };
        self.pause = (2 * self.pause).clamp(shortest, longest);
        self.pause = self.pause.mul_f64(1.0 + JITTER * (2.0 * self.random.f64() - 1.0));
        self.trust = Trust::Aside(now + self.pause);
        self.aside_error.clone_from(&self.error);
    }

    /// How many jobs there may be at most; `None`: as many as there are slots.
    pub fn slots_max(&self) -> Option<u32> {
        match (self.trust, self.trouble) {
            (Trust::Full, None) => None,
            (Trust::Probe { beside, .. }, None) => Some(beside.saturating_add(1)),
            // Nobody has said yet whether anything may go on.
            _ => Some(0),
        }
    }

    /// Whether it takes no jobs.
    pub fn is_aside(&self) -> bool {
        matches!(self.trust, Trust::Aside(_))
    }

    /// Whether it takes as many jobs as it has slots.
    pub fn is_trusted(&self) -> bool {
        self.slots_max().is_none()
    }

    /// What jobs fail of here while nobody does better, so that it takes them all the same: once,
    /// until nearly all are done again.
    pub fn poll_alike(&mut self) -> Option<&str> {
        let is_news = self.trust == Trust::Full && self.is_bad() && !self.is_told;
        self.is_told |= is_news;
        is_news.then_some(&self.error)
    }

    /// For how long it was last set aside.
    pub fn pause(&self) -> Duration {
        self.pause
    }

    /// What the job failed of that set it aside, unless it is trusted.
    pub fn error(&self) -> Option<&str> {
        (self.trust != Trust::Full).then_some(self.aside_error.as_str())
    }

    /// Tells the others of it.
    pub fn tell(&self, load: &mut Load) {
        load.failing = self.share();
        if self.is_aside() && load.state == State::Ready {
            load.state = State::Failing;
        }
    }

    /// When [`Health::handle_timeout`] or a look at the peers is due.
    pub fn poll_timeout(&self, is_idle: bool) -> Option<Timestamp> {
        let back_at = match self.trust {
            Trust::Aside(until) => Some(until),
            Trust::Full | Trust::Probe { .. } => None,
        };
        earliest(back_at, self.look_timeout(is_idle))
    }

    /// Lets one job through beside so many that are here, if it is time. Returns whether it is.
    pub fn handle_timeout(&mut self, now: Timestamp, here: u32) -> bool {
        let is_due = matches!(self.trust, Trust::Aside(until) if until <= now);
        if is_due {
            (self.trust, self.looked_at) = (Trust::Probe { since: now, beside: here }, now);
        }
        is_due
    }

    /// What others do may set this instance aside, if it has jobs that could go to them, or bring it
    /// back.
    fn look_timeout(&self, is_idle: bool) -> Option<Timestamp> {
        let interval = match self.trust {
            Trust::Aside(_) => LOOK_INTERVAL,
            Trust::Full if self.is_bad() && !is_idle => LOOK_INTERVAL,
            Trust::Probe { .. } if self.is_bad() => PROBE_LOOK_INTERVAL,
            Trust::Full | Trust::Probe { .. } => return None,
        };
        Some(self.looked_at + interval)
    }

    /// Whether it is bad and its peers are by now no better.
    fn is_like(&self, verdict: Verdict) -> bool {
        verdict == Verdict::Alike && self.is_bad()
    }

    fn is_bad(&self) -> bool {
        u32::from(self.share()) >= FAR
    }

    /// Its share of failures, as others are told it.
    fn share(&self) -> u16 {
        // At most a thousand. `f64::round` is a call where the processor need not know how.
        (self.share + 0.5) as u16
    }
}

/// The first of what an error says, as text.
fn shortened(error: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&error[..error.len().min(ERROR_BYTES_MAX)]).into_owned();
    // What was no UTF-8 has become longer.
    while text.len() > ERROR_BYTES_MAX {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests;
