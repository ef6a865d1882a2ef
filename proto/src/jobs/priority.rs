//! Before which other jobs a job goes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Before which other jobs a job goes: wherever jobs wait, those of a higher class are all done first,
/// and those of the same take turns.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Priority {
    /// When nothing else waits.
    Low,
    /// As most.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// Not the name of a priority.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is no priority: low, normal or high", .0.escape_debug().take(80).collect::<String>())]
pub struct PriorityError(String);

impl FromStr for Priority {
    type Err = PriorityError;

    fn from_str(name: &str) -> Result<Self, PriorityError> {
        match name {
            "low" => Ok(Self::Low),
            "normal" => Ok(Self::Normal),
            "high" => Ok(Self::High),
            _ => Err(PriorityError(name.to_owned())),
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}
