//! What a running `svcmap up` and other commands say to each other: one JSON object in a line each.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use svcmap_proto::names::{Endpoint, Name};

use super::CommandError;
use super::command::{Command, Target};

/// How a supervised worker's line begins that says that a mapper lists it.
pub const REGISTERED: &str = "registered with ";

/// Longest question.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// What can be asked; one question for each connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// Do that; events until it is done, then the answer.
    Do(Command),
    /// What there is.
    List,
    /// What counts of its file.
    File,
    /// How its mappers are reached.
    Access,
    /// What processes wrote: all, or of some.
    Logs {
        /// Of whom; nobody stands for everybody.
        targets: Vec<Target>,
        /// The last so many lines of each.
        lines: usize,
        /// And what they write from now on.
        follow: bool,
    },
}

/// What comes back; the last one is `Done` or `Failed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// A line: of a process, or of `up` itself.
    Line {
        /// Whose.
        from: String,
        /// What.
        line: String,
    },
    /// Lines were left out, as nobody took them.
    LeftOut(u64),
    /// One process.
    Process(Process),
    /// The topology that counts.
    Topology {
        /// What its file said.
        text: String,
        /// How many instances of each service there are to be, if an operator has said so since.
        instances: BTreeMap<Name, u32>,
        /// Services that go on by what the file said before, as what it says did not work.
        reverted: Vec<Name>,
        /// What it said before.
        former: String,
        /// The process that keeps it.
        pid: u32,
    },
    /// How its mappers are reached.
    Access {
        /// Where they are, unless a deployment file says it.
        mappers: Vec<Endpoint>,
        /// The deployment file.
        deployment: Option<PathBuf>,
        /// Whether plain text will do anywhere.
        insecure: bool,
    },
    /// It is done.
    Done(String),
    /// It is not done, and why.
    Failed(CommandError),
}

/// One process, as `svcmap ps` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// What it is called, such as `resize/1`, or a mapper's name.
    pub name: String,
    /// Whether it is a mapper.
    pub is_mapper: bool,
    /// `waiting`, `starting`, `ready`, `stopping`, `stopped`, `done` or `failed`.
    pub state: String,
    /// For how long it has been in that state.
    pub since_ms: u64,
    /// Its number, if it is there.
    pub pid: Option<u32>,
    /// How often it ended by itself.
    pub deaths: u32,
    /// How it last did, and what it said last.
    pub last: Option<String>,
}

impl Process {
    /// Whether it is not there, and nothing brings it back by itself.
    pub fn is_away(&self) -> bool {
        ["failed", "stopped", "done"].contains(&self.state.as_str())
    }
}
