//! One process that there should be: where it is in its life, and what comes next.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use crate::topology::{Backoff, Flap};

/// Which process.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The mapper of that name.
    Mapper(Name),
    /// An instance.
    Worker(InstanceKey),
}

impl Who {
    /// The mapper's name, or the service's.
    pub fn name(&self) -> &Name {
        match self {
            Self::Mapper(name) => name,
            Self::Worker(key) => &key.service,
        }
    }

    /// The service that it is of.
    pub fn service(&self) -> Option<&Name> {
        self.key().map(|key| &key.service)
    }

    /// Which instance it is, if it is one.
    pub fn key(&self) -> Option<&InstanceKey> {
        match self {
            Self::Mapper(_) => None,
            Self::Worker(key) => Some(key),
        }
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mapper(name) => name.fmt(f),
            Self::Worker(key) => key.fmt(f),
        }
    }
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It is not there, and is started then.
    Pausing {
        /// When.
        until: Timestamp,
    },
    /// It was started and does not answer yet.
    Starting {
        /// When it was started.
        since: Timestamp,
    },
    /// It answers.
    Ready {
        /// Since when.
        since: Timestamp,
    },
    /// It was asked to end.
    Stopping {
        /// When it is killed, if it has not.
        kill_at: Timestamp,
        /// What comes then.
        then: Then,
    },
    /// It is not there, as somebody wanted it.
    Stopped,
    /// It is not there, as it ended by itself and was done.
    Done,
    /// It is not there, as it ended too often.
    Failed,
}

/// What comes after a process was asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It stays known, and can be started again.
    Stopped,
    /// It is forgotten.
    Gone,
    /// It is started again at once.
    Again,
}

impl State {
    /// Whether there is a process.
    pub fn is_alive(self) -> bool {
        matches!(self, Self::Starting { .. } | Self::Ready { .. } | Self::Stopping { .. })
    }

    /// Whether it answers.
    pub fn is_ready(self) -> bool {
        matches!(self, Self::Ready { .. })
    }

    /// Whether nothing comes next by itself.
    pub fn is_settled(self) -> bool {
        matches!(self, Self::Ready { .. } | Self::Stopped | Self::Done | Self::Failed)
    }

    /// Whether it is not there, and that is as it should be.
    pub fn is_at_rest(self) -> bool {
        matches!(self, Self::Stopped | Self::Done)
    }

    /// Whether it is about to be forgotten.
    pub fn is_leaving(self) -> bool {
        matches!(self, Self::Stopping { then: Then::Gone, .. })
    }

    /// As people read it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pausing { .. } => "waiting",
            Self::Starting { .. } => "starting",
            Self::Ready { .. } => "ready",
            Self::Stopping { .. } => "stopping",
            Self::Stopped => "stopped",
            Self::Done => "done",
            Self::Failed => "failed",
        }
    }
}

/// One process that there should be.
#[derive(Clone, Debug)]
pub struct Member {
    /// Where it is in its life.
    pub state: State,
    /// Since when.
    pub since: Timestamp,
    /// How often it ended by itself.
    pub deaths: Deaths,
    /// How it last ended by itself, and what it said last.
    pub last: Option<String>,
    /// How long it may take to end, as it was started.
    pub grace: Duration,
}

impl Member {
    /// One that is to be started now.
    pub fn new(now: Timestamp) -> Self {
        let state = State::Pausing { until: now };
        let (deaths, last, grace) = Default::default();
        Self { state, since: now, deaths, last, grace }
    }

    /// From now on it is in that state.
    pub fn enter(&mut self, state: State, now: Timestamp) {
        (self.state, self.since) = (state, now);
    }
}

/// The ends of a process that nobody wanted.
#[derive(Clone, Debug, Default)]
pub struct Deaths {
    /// All.
    pub total: u32,
    /// Since it was last healthy.
    in_a_row: u32,
    /// The last ones.
    recent: VecDeque<Timestamp>,
}

/// What follows from such an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is started again after that pause. It was so many ends of the most that there may be.
    Again(Duration, u32),
    /// It is left alone.
    TooOften,
}

impl Deaths {
    /// It ended, after it had been ready for so long.
    pub fn died(
        &mut self,
        now: Timestamp,
        healthy_for: Duration,
        (backoff, flap): (&Backoff, &Flap),
        random: &mut fastrand::Rng,
    ) -> Verdict {
        if healthy_for >= backoff.reset_after {
            self.in_a_row = 0;
        }
        self.recent.retain(|at| now.since(*at) < flap.within);
        self.recent.push_back(now);
        self.total = self.total.saturating_add(1);
        let recent = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        if recent >= flap.exits {
            return Verdict::TooOften;
        }
        let pause =
            svcmap_proto::backoff::pause_up_to(backoff.max, backoff.first, self.in_a_row, random);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Verdict::Again(pause, recent)
    }

    /// Somebody starts it: it has another chance.
    pub fn forgive(&mut self) {
        self.in_a_row = 0;
        self.recent.clear();
    }
}
