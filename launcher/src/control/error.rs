//! Why mappers tell nothing, and what to do about it.

use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::names::{Endpoint, MapperAddress};

use crate::errors::Failure;
use crate::parse::MAPPER_DEFAULT;
use crate::text::time;

/// Why there is no [`View`](super::View).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Nobody listens there, or a firewall drops what is sent. Start a mapper, or name another.
    #[error("no mapper answers at {} (tried {})", join(.mappers), time(*.tried))]
    NoMapper {
        /// Who was asked.
        mappers: Vec<MapperAddress>,
        /// For how long.
        tried: Duration,
        /// Which topology of this folder they may be of.
        topology: Here,
    },
    /// The name of mappers has no address, or nobody says which. Correct it, or name them by their addresses.
    #[error("the mappers' name {} leads nowhere: {reason}", .mapper.host())]
    Unresolved {
        /// With that name.
        mapper: Endpoint,
        /// In the system's words.
        reason: String,
    },
    /// Its system took the connection, and it did not: it is out of files, which its log says, or it
    /// was stopped.
    #[error(
        "who listens at {mapper} says nothing (tried {}): a mapper that is out of files or stopped, \
         or none at all",
        time(*.tried)
    )]
    NotAccepting {
        /// Which mapper.
        mapper: MapperAddress,
        /// For how long.
        tried: Duration,
    },
    /// It speaks only with who has its deployment file.
    #[error("the mapper at {mapper} speaks only with who has its deployment file")]
    WantsKeys {
        /// Which mapper.
        mapper: MapperAddress,
    },
    /// It does not know the keys of this deployment file, or has others itself.
    #[error("the mapper at {mapper} does not take this deployment file")]
    KeyRefused {
        /// Which mapper.
        mapper: MapperAddress,
    },
    /// It was started without keys, or another one listens there.
    #[error("who listens at {mapper} does not encrypt, and the deployment file says that it does")]
    NotEncrypted {
        /// Which mapper.
        mapper: MapperAddress,
    },
    /// One of the two builds has to be replaced.
    #[error(
        "the mapper at {mapper} speaks protocol version {}, this svcmap {}",
        versions(*.oldest, *.newest),
        versions(codec::VERSION_OLDEST, codec::VERSION)
    )]
    WrongVersion {
        /// Which mapper.
        mapper: MapperAddress,
        /// The oldest version that it speaks.
        oldest: u8,
        /// The newest version that it speaks.
        newest: u8,
    },
    /// The system gave no socket: too many open files, most likely.
    #[error("no socket for {mapper}: {reason}")]
    Socket {
        /// For which mapper.
        mapper: MapperAddress,
        /// In the system's words.
        reason: String,
    },
    /// The system's poll failed, for a reason that does not pass.
    #[error("waiting for mappers failed: {0}")]
    Poll(String),
}

/// Whether mappers may be of a topology that lies in this folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Here {
    /// They are of the one that a `svcmap up` keeps.
    Kept,
    /// There is one, and nobody keeps it.
    NotKept,
    /// There is none, or it has others.
    Other,
}

impl ControlError {
    /// Whether that may pass: a mapper that is not there yet may come.
    pub fn may_pass(&self) -> bool {
        matches!(self, Self::NoMapper { .. } | Self::NotAccepting { .. } | Self::Unresolved { .. })
    }
}

fn join(mappers: &[MapperAddress]) -> String {
    mappers.iter().map(MapperAddress::to_string).collect::<Vec<_>>().join(", ")
}

fn versions(oldest: u8, newest: u8) -> String {
    if oldest == newest { newest.to_string() } else { format!("{oldest} to {newest}") }
}

impl From<ControlError> for Failure {
    fn from(error: ControlError) -> Self {
        match &error {
            ControlError::NoMapper { mappers, topology, .. } => {
                let failure = Failure::unavailable(&error);
                match (mappers.first().map(|mapper| &mapper.address), topology) {
                    (Some(_), Here::Kept) => failure.fix("svcmap ps"),
                    (Some(mapper), Here::NotKept) if mapper.as_str() == MAPPER_DEFAULT => {
                        failure.fix("svcmap up")
                    }
                    (Some(mapper), _) => failure.fix(start_command(mapper)),
                    (None, _) => failure,
                }
            }
            ControlError::Unresolved { mapper, .. } => {
                Failure::unavailable(&error).fix(format!("getent hosts {}", mapper.host()))
            }
            ControlError::NotAccepting { .. } => Failure::unavailable(&error)
                .fix("there: kill -CONT, if it is stopped; else start it after ulimit -n 65536"),
            ControlError::WantsKeys { .. } => Failure::unavailable(&error).fix(
                "copy svcmap.toml from its machine to ~/.config/svcmap/; if it is there, leave \
                     --mapper out",
            ),
            ControlError::KeyRefused { .. } => Failure::unavailable(&error).fix(
                "its key was revoked or has ended, or it is of another mapper: ask who runs that for \
                     a new one (svcmap key add, or rotate)",
            ),
            ControlError::NotEncrypted { .. } => Failure::unavailable(&error)
                .fix("start that mapper with its deployment file, or do without here: --insecure"),
            ControlError::WrongVersion { newest, .. } if *newest < codec::VERSION => {
                Failure::failed(&error).fix("run this build of svcmap as the mapper")
            }
            ControlError::WrongVersion { .. } => {
                Failure::failed(&error).fix("run the mapper's build of svcmap here")
            }
            ControlError::Socket { .. } => Failure::failed(&error).fix("ulimit -n 65536"),
            ControlError::Poll(_) => Failure::failed(&error),
        }
    }
}

/// What starts a mapper at that endpoint.
pub(super) fn start_command(mapper: &Endpoint) -> String {
    let command = format!("svcmap mapper --bind {mapper}");
    if mapper.is_loopback() { command } else { format!("on {}:  {command}", mapper.host()) }
}
