//! What the soak's senders and workers write down. All run on one machine, so all times are of one
//! clock: microseconds of [`Timestamp`](svcmap_proto::time::Timestamp).

use serde::{Deserialize, Serialize};

use crate::measurement::Ending;

/// What a worker of the soak returns as the result of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Served {
    /// The worker's number.
    pub worker: u32,
    /// When the job came.
    pub arrived_us: u64,
    /// When a handler started it.
    pub started_us: u64,
    /// When the handler was done.
    pub finished_us: u64,
}

/// One try of a job at one worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The worker's number.
    pub worker: u32,
    /// When it was chosen.
    pub chosen_us: u64,
    /// How old what was known of it was, if anything was.
    pub age_us: Option<u64>,
    /// It had no room.
    pub rejected_full: bool,
}

/// One job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// When it was to be submitted, whenever that came to be.
    pub due_us: u64,
    /// How long it was to take.
    pub time_us: u64,
    /// When its sender knew how it had ended.
    pub ended_us: u64,
    /// How.
    pub outcome: Outcome,
    /// What its worker said, if it was done.
    pub served: Option<Served>,
    /// Its tries.
    pub attempts: Vec<Attempt>,
}

/// How a job ended, as its sender knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// With a result.
    Done,
    /// With an error.
    Failed,
    /// No handler started it.
    Refused,
    /// Nobody knows.
    Unknown,
    /// With a worker that reports no more.
    Accepted,
}

impl Outcome {
    /// The same, with what only all records together tell.
    pub fn ending(self, with_room: bool) -> Ending {
        match self {
            Outcome::Done => Ending::Done,
            Outcome::Failed => Ending::Failed,
            Outcome::Refused => Ending::Refused { with_room },
            Outcome::Unknown => Ending::Unknown,
            Outcome::Accepted => Ending::Accepted,
        }
    }
}

/// All that one sender wrote down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Records {
    /// Its jobs, those of the warm-up included.
    pub jobs: Vec<Job>,
    /// Messages to and from workers.
    pub messages: u64,
    /// Their bytes.
    pub bytes: u64,
}
