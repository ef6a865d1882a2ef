//! What `svcmap doctor` has seen, before anybody judges it.

use std::path::PathBuf;
use std::time::Duration;

use svcmap_proto::io::Probe;
use svcmap_proto::names::{Endpoint, HostId, MapperAddress, Name};
use svcmap_proto::status::Report;

use crate::control::{ControlError, View};
use crate::errors::Failure;
use crate::fleet::wire::Process;

/// Everything.
#[derive(Debug)]
pub(super) struct Observed {
    pub(super) settings: Settings,
    pub(super) mappers: Vec<Mapper>,
    /// What they know together, and who of that can be reached; `None` if nobody answers.
    pub(super) known: Option<(View, Report)>,
    pub(super) machine: Machine,
    pub(super) kept: Kept,
}

/// What the `svcmap up` of this folder keeps; nothing if none runs.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) processes: Vec<Process>,
    /// Services that go on by what its file said before.
    pub(super) reverted: Vec<Name>,
    /// Whether the mappers that were asked are its own.
    pub(super) has_these_mappers: bool,
}

/// What was said on the command line, in the environment and in the deployment file.
#[derive(Debug)]
pub(super) struct Settings {
    /// Why nothing can be asked with these, if so.
    pub(super) unusable: Option<Failure>,
    /// The deployment file that was named, or lies where it is looked for.
    pub(super) file: Option<File>,
    /// What `SVCMAP_MAPPER` names, unless `--mapper` goes over that.
    pub(super) variable: Vec<Endpoint>,
}

/// A deployment file.
#[derive(Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// The mappers that it knows, or why it is of no use.
    pub(super) mappers: Result<Vec<Endpoint>, Failure>,
    /// Whether it is used.
    pub(super) is_used: bool,
}

/// One mapper.
#[derive(Debug)]
pub(super) struct Mapper {
    pub(super) at: MapperAddress,
    pub(super) is_encrypted: bool,
    /// Why its name leads nowhere, if so.
    pub(super) unresolved: Option<String>,
    /// What is found at its port.
    pub(super) port: Probe,
    /// Why it tells nothing, if it was asked and does not.
    pub(super) silence: Option<ControlError>,
    /// What was heard of it.
    pub(super) heard: Option<Heard>,
}

/// What was heard of a mapper that answers.
#[derive(Debug)]
pub(super) struct Heard {
    /// A question there and its answer back.
    pub(super) round_trip: Option<Duration>,
    /// Where it publishes.
    pub(super) publish: Endpoint,
    /// Whether anything came from there, and how long that was awaited.
    pub(super) is_published: bool,
    pub(super) awaited: Duration,
}

/// This process and its machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) host: HostId,
    pub(super) name: String,
    /// The wall clock, in microseconds since 1970.
    pub(super) unix_us: u64,
    pub(super) open_files_max: u64,
    pub(super) libzmq: String,
    pub(super) has_curve: bool,
    pub(super) libzmq_doubt: Option<&'static str>,
}
