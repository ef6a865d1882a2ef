//! What the rooms of this module tell others: why nothing starts, and what happens later.

use std::time::Duration;

use svcmap_proto::control::RegistrationError;
use svcmap_proto::io::{BindError, ZapError};
use svcmap_proto::names::{Endpoint, EndpointError, Incarnation, NameError};

use crate::config::ConfigError;
use crate::observation::Observation;

/// How long what was sent may take to get out when a worker or client stops.
pub(super) const LINGER: Duration = Duration::from_millis(500);

/// Why a worker or client did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The deployment file names no such mapper, so nobody knows its key: add it there, or leave it out.
    #[error("the deployment file has no key of {0}")]
    NoKey(Endpoint),
    /// Nobody can be kept out, so it does not even listen.
    #[error(transparent)]
    Zap(#[from] ZapError),
    /// The service or instance has no valid name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// An address is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Others cannot connect to a wildcard.
    #[error("`{0}` cannot be advertised: give a host, or tcp://HOST:PORT")]
    Advertise(Endpoint),
    /// Somebody else listens there, or the address is not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The system gave no file or socket: look at `ulimit -n`.
    #[error("the system refused: {0}")]
    System(#[from] std::io::Error),
    /// The system gave no thread: want fewer at once, or look at `ulimit -u`, the control group's
    /// `pids.max` and at memory, as each thread needs a stack.
    #[error("the system does not start {wanted} threads: {reason}")]
    Threads {
        /// How many were wanted.
        wanted: u32,
        /// In the system's words.
        reason: std::io::Error,
    },
}

impl From<zmq::Error> for StartError {
    fn from(error: zmq::Error) -> Self {
        Self::System(std::io::Error::other(error.message()))
    }
}

/// Something that a process may want to tell its operator or supervisor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A mapper lists this instance. It is meant by its address, here as below, if it was named otherwise.
    Registered(Endpoint),
    /// The connection to a mapper is gone, or silent. Work goes on.
    MapperLost(Endpoint),
    /// No mapper answers, for so long by now. Work goes on with what is known.
    NoMapper(Duration),
    /// A mapper does not list this instance. That is tried again.
    RegistrationRefused(Endpoint, RegistrationError),
    /// A mapper speaks other versions of the protocol, from the first to the last of these.
    WrongVersion(Endpoint, u8, u8),
    /// Another process took this instance's name, with this incarnation: stop, and do not restart.
    Replaced(Incarnation),
    /// An operator wants this instance to end (`svcmap drain`): drain, and do not restart. It goes on
    /// until the program does so, and may be told again.
    DrainWanted,
}

/// Called with each [`Notice`], on the I/O thread: it must return at once.
pub(super) type Notify = Box<dyn Fn(Notice) + Send>;

/// Called with each [`Observation`], on the I/O thread: it must return at once.
pub(super) type Observer = Box<dyn Fn(Observation) + Send>;
