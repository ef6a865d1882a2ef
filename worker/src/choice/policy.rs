//! The policies that can be asked for by name.

use std::fmt;
use std::str::FromStr;

use super::{Basis, Choice, Least, PowerOfTwo, Random, RoundRobin, Threshold};

/// A policy by name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Policy {
    /// What senders do unless told otherwise: a job goes to a worker that has promised a slot for
    /// it, and is handed over to another one that is free sooner.
    #[default]
    Svcmap,
    /// The same without credits: the better of two by all that is known, and a job that finds no
    /// room is held and tried again.
    NoCredits,
    /// The better of two random ones, by what is published, own jobs and answers.
    TwoOwnAnswers,
    /// The better of two random ones, by what is published and own jobs.
    TwoOwn,
    /// The better of two random ones, by what is published.
    Two,
    /// The one with least to do, by what is published and own jobs.
    LeastOwn,
    /// The one with least to do, by what is published.
    Least,
    /// One after the other.
    RoundRobin,
    /// A random one.
    Random,
    /// A random one of those whose load is below 0.9, as the system does that svcmap succeeds.
    Threshold,
    /// A random one, if its load is below 0.9; else none.
    ThresholdNamed,
}

/// Not the name of a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{name}` is no policy; known: {}", names().join(", "))]
pub struct PolicyError {
    name: String,
}

fn names() -> [&'static str; Policy::ALL.len()] {
    Policy::ALL.map(Policy::as_str)
}

impl Policy {
    /// All of them, best first as far as is known.
    pub const ALL: [Policy; 11] = [
        Policy::Svcmap,
        Policy::NoCredits,
        Policy::TwoOwnAnswers,
        Policy::TwoOwn,
        Policy::Two,
        Policy::LeastOwn,
        Policy::Least,
        Policy::RoundRobin,
        Policy::Random,
        Policy::Threshold,
        Policy::ThresholdNamed,
    ];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Policy::Svcmap => "svcmap",
            Policy::NoCredits => "no-credits",
            Policy::TwoOwnAnswers => "p2c-own-piggyback",
            Policy::TwoOwn => "p2c-own",
            Policy::Two => "p2c",
            Policy::LeastOwn => "least-own",
            Policy::Least => "least",
            Policy::RoundRobin => "round-robin",
            Policy::Random => "random",
            Policy::Threshold => "threshold",
            Policy::ThresholdNamed => "threshold-named",
        }
    }

    /// What chooses in place of promises; `None`: these decide.
    pub fn choice(self) -> Option<Box<dyn Choice>> {
        Some(match self {
            Policy::Svcmap => return None,
            Policy::NoCredits | Policy::TwoOwnAnswers => Box::new(PowerOfTwo::default()),
            Policy::TwoOwn => Box::new(PowerOfTwo { basis: Basis::Own }),
            Policy::Two => Box::new(PowerOfTwo { basis: Basis::Published }),
            Policy::LeastOwn => Box::new(Least { basis: Basis::Own }),
            Policy::Least => Box::new(Least { basis: Basis::Published }),
            Policy::RoundRobin => Box::new(RoundRobin::default()),
            Policy::Random => Box::new(Random),
            Policy::Threshold => Box::new(Threshold { named: false }),
            Policy::ThresholdNamed => Box::new(Threshold { named: true }),
        })
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Policy {
    type Err = PolicyError;

    fn from_str(name: &str) -> Result<Self, PolicyError> {
        let found = Policy::ALL.into_iter().find(|policy| policy.as_str() == name);
        found.ok_or_else(|| PolicyError { name: name.escape_debug().take(80).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_to_policies_and_back() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        let error = "best".parse::<Policy>().unwrap_err().to_string();
        assert!(
            error.starts_with("`best` is no policy; known: svcmap, no-credits, p2c-own-piggyback")
        );
    }
}
