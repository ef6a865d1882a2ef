//! Why a command to `svcmap up` is not done, and what to do about it.

use serde::{Deserialize, Serialize};
use svcmap_proto::names::Name;

use crate::errors::{Exit, Failure};
use crate::topology::INSTANCES_MAX;

/// Why a command is not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "lowercase")]
pub enum CommandError {
    /// Nobody is called so: look at the names.
    #[error("there is no `{name}`; {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// Who there is, in words.
        known: String,
    },
    /// It was not even begun; the same may be done later.
    #[error("{0}")]
    Refused(String),
    /// Services start once the mappers answer: say it again then.
    #[error("svcmap up is still starting its mappers")]
    TooEarly,
    /// Nothing becomes ready that no mapper lists: start one.
    #[error("no mapper runs, so nothing becomes ready")]
    NoMapper {
        /// One of them.
        name: Name,
    },
    /// It has been told to end: start it again.
    #[error("everything is being stopped")]
    Closing,
    /// A mapper is no service: name one.
    #[error("`{mapper}` is a mapper, and there is one of each")]
    OneOnly {
        /// Which one.
        mapper: Name,
    },
    /// That many are not kept: have fewer.
    #[error("at most {INSTANCES_MAX} instances of a service")]
    TooMany,
    /// One that was waited for has ended: its log says why.
    #[error("{who} is {state}")]
    Ended {
        /// Who.
        who: String,
        /// What it is now, and what it said last.
        state: String,
    },
    /// It takes longer than anybody waits.
    #[error("not all are ready yet")]
    Late,
    /// A replacement stopped half-way.
    #[error("{0}")]
    NotReplaced(String),
    /// The question makes no sense here: ask with the svcmap that `svcmap up` is of.
    #[error("not understood, perhaps of another version: {0}")]
    NotUnderstood(String),
}

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        match &error {
            CommandError::Unknown { .. } | CommandError::OneOnly { .. } => {
                Failure::usage(&error).fix("svcmap ps")
            }
            CommandError::TooMany => Failure::usage(&error).fix("scale it to fewer"),
            CommandError::Refused(_) | CommandError::TooEarly => {
                Failure::new(Exit::Refused, &error).fix("say it again in a moment")
            }
            CommandError::NoMapper { name } => {
                Failure::unavailable(&error).fix(format!("svcmap start {name}"))
            }
            CommandError::Closing => Failure::failed(&error).fix("svcmap up, once it has ended"),
            CommandError::Ended { who, .. } => {
                Failure::failed(&error).fix(format!("svcmap logs {who}"))
            }
            CommandError::Late | CommandError::NotReplaced(_) => {
                Failure::failed(&error).fix("svcmap ps")
            }
            CommandError::NotUnderstood(_) => {
                Failure::failed(&error).fix("run the svcmap here that svcmap up is of")
            }
        }
    }
}
