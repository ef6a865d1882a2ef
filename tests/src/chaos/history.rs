//! What happened, as everybody wrote it down, one line for each event.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use svcmap_proto::time::Timestamp;

/// One event: when, and to whom. Times are those of the clock that all processes share.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// Microseconds of that clock.
    pub at_us: u64,
    /// A process: its place, such as `w-3`, whatever life of it.
    pub who: String,
    /// Which life.
    pub life: u64,
    /// What.
    #[serde(flatten)]
    pub event: Event,
}

impl Line {
    pub(super) fn at(&self) -> Timestamp {
        Timestamp::from_micros(self.at_us)
    }
}

/// What happened. Jobs are named by who sent them, in which life, and a number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// This life began.
    Started,
    /// It is to be killed now (SIGKILL).
    Killed,
    /// It is to stand still from now on (SIGSTOP).
    Stopped,
    /// It may go on (SIGCONT).
    Continued,
    /// It was asked to end (SIGTERM).
    Asked,
    /// It has ended.
    Ended,
    /// It had no processor since then, though nobody had stopped it. Of whoever looks after all it
    /// means everybody.
    Late {
        /// Since when.
        from_us: u64,
    },
    /// It is about to submit a job.
    Submit {
        /// Its name.
        job: String,
        /// How it is meant.
        #[serde(flatten)]
        spec: Spec,
    },
    /// It is about to take a job back.
    Cancel {
        /// Which.
        job: String,
    },
    /// It chose a worker for a job.
    Sent {
        /// Which.
        job: String,
        /// Whom.
        to: String,
    },
    /// A job was settled at its sender.
    Settled {
        /// Which.
        job: String,
    },
    /// A job's ticket has its outcome.
    Outcome {
        /// Which.
        job: String,
        /// What it was told.
        #[serde(flatten)]
        told: Told,
    },
    /// A handler starts a job.
    Start {
        /// Which.
        job: String,
    },
    /// A handler is about to return its result.
    End {
        /// Which.
        job: String,
        /// Whether it did all of it.
        is_done: bool,
    },
}

impl Event {
    /// The job that it is about.
    pub fn job(&self) -> Option<&str> {
        match self {
            Event::Submit { job, .. }
            | Event::Cancel { job }
            | Event::Sent { job, .. }
            | Event::Settled { job }
            | Event::Outcome { job, .. }
            | Event::Start { job }
            | Event::End { job, .. } => Some(job),
            _ => None,
        }
    }
}

/// How a job is meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// How long it takes, in microseconds.
    pub time_us: u64,
    /// Only there.
    pub instance: Option<String>,
    /// See `JobBuilder`; in microseconds, like those that follow.
    pub deadline_us: Option<u64>,
    /// See `JobBuilder`.
    pub hold_us: Option<u64>,
    /// See `JobBuilder`.
    pub run_limit_us: Option<u64>,
    /// It may run more than once.
    pub idempotent: bool,
    /// It is to be done even if its sender is gone.
    pub detached: bool,
}

/// An outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Told {
    /// With the right result.
    Done {
        /// Whose.
        by: String,
    },
    /// With a result that is that of another job.
    Mistaken {
        /// Whose.
        by: String,
    },
    /// With what the handler said.
    Failed {
        /// That.
        error: String,
    },
    /// Why.
    Refused {
        /// A `Reason`.
        reason: String,
    },
    /// Why.
    Unknown {
        /// A `Cause`.
        cause: String,
    },
    /// As by workers of the JSON dialect, of which there are none.
    Accepted,
}

/// A time in which a process did less than others may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub from: Timestamp,
    pub to: Timestamp,
    /// It stood still, and went on as the same life.
    pub is_pause: bool,
}

/// Whom `Late` of everybody is written by.
pub const EVERYBODY: &str = "everybody";

/// When each process was disturbed, in the order of time.
#[derive(Debug, Default)]
pub(super) struct Disturbances {
    of: BTreeMap<String, Vec<Span>>,
    everybody: Vec<Span>,
}

impl Disturbances {
    /// From lines in the order of time. What has no end lasts until the last line.
    pub(super) fn of(lines: &[Line]) -> Self {
        let mut found = Self::default();
        let end = lines.last().map_or_else(Timestamp::default, Line::at);
        for line in lines {
            let spans = if line.who == EVERYBODY {
                &mut found.everybody
            } else {
                found.of.entry(line.who.clone()).or_default()
            };
            let open = |is_pause| Span { from: line.at(), to: end, is_pause };
            match &line.event {
                Event::Killed | Event::Asked | Event::Ended => spans.push(open(false)),
                Event::Stopped => spans.push(open(true)),
                Event::Late { from_us } => {
                    let from = Timestamp::from_micros(*from_us);
                    spans.push(Span { from, to: line.at(), is_pause: true });
                }
                Event::Continued => close(spans, line.at(), true),
                Event::Started => close(spans, line.at(), false),
                _ => {}
            }
        }
        found
    }

    /// Those of a process, and those of everybody.
    pub(super) fn by<'a>(&'a self, who: &str) -> impl Iterator<Item = Span> + 'a {
        self.of.get(who).into_iter().flatten().chain(&self.everybody).copied()
    }

    /// When something is over that begins at `from` and takes so long, if whoever does it stands
    /// still in between: then it may take that long from when it goes on.
    pub(super) fn over(&self, who: &str, from: Timestamp, takes: Duration) -> Timestamp {
        let mut pauses: Vec<_> = self.by(who).filter(|span| span.is_pause).collect();
        pauses.sort_by_key(|span| span.from);
        pauses.iter().fold(from + takes, |over, pause| {
            let amid = pause.to >= from && pause.from <= over;
            if amid { over.max(pause.to + takes) } else { over }
        })
    }
}

/// Ends what is open: a pause, or everything, as a new life begins.
fn close(spans: &mut [Span], at: Timestamp, only_pauses: bool) {
    for span in spans.iter_mut().filter(|span| span.to > at) {
        if span.is_pause || !only_pauses {
            span.to = at;
        }
    }
}
