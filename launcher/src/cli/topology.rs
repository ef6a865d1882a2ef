//! What may stand behind the commands for topologies and for a running `svcmap up`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use svcmap_proto::names::{InstanceKey, Name};

use super::{HttpOption, MapperOption};
use crate::fleet::command::Target;
use crate::parse;
use crate::topology::{FILE_NAME, INSTANCES_MAX};

/// `svcmap init`.
#[derive(Clone, Debug, Args)]
pub struct InitArgs {
    /// Where to write it
    #[arg(default_value = FILE_NAME)]
    pub file: PathBuf,
    /// Print it, and write nothing
    #[arg(long)]
    pub print: bool,
}

/// `svcmap plan`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
It compares with the running `svcmap up` of that file, or with nothing if there is none. Exit codes: \
0 fine, 64 the file is wrong, or a program or a folder that it names is not here (programs without a path \
are looked for in the PATH of this shell); with --exit-code 2 if something would change.")]
pub struct PlanArgs {
    /// The topology
    #[arg(default_value = FILE_NAME)]
    pub file: PathBuf,
    /// Exit with 2 if something would change
    #[arg(long)]
    pub exit_code: bool,
}

/// `svcmap up`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap init && svcmap up
  svcmap up shop.toml

Mappers start first, and services once they answer. What dies is started again, after pauses that grow; \
what dies too often is left alone, and `svcmap ps` shows it. `svcmap restart`, `scale`, `stop`, `start` \
and `logs` talk to it. SIGINT or SIGTERM lets workers finish their jobs and ends everything, a second \
one ends it at once. SIGHUP applies the file as it is then. Whatever ends it, its processes end too.")]
pub struct UpArgs {
    /// The topology
    #[arg(default_value = FILE_NAME)]
    pub file: PathBuf,
    /// Where it tells of itself.
    #[command(flatten)]
    pub http: HttpOption,
}

/// Which `svcmap up` is meant.
#[derive(Clone, Debug, Args)]
pub struct RunningUp {
    /// The topology that it keeps [default: topology.toml here; where there is none, that of the only one that runs]
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
}

/// `svcmap ps`.
#[derive(Clone, Debug, Args)]
pub struct PsArgs {
    /// Which one.
    #[command(flatten)]
    pub up: RunningUp,
    /// Print one JSON object with processes[]
    #[arg(long)]
    pub json: bool,
}

/// `svcmap logs`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap logs resize/2
  svcmap logs -f resize ocr
  svcmap logs up               (what `svcmap up` itself has said)")]
pub struct LogsArgs {
    /// Services, instances such as resize/2, or mappers [default: all]
    #[arg(value_name = "TARGET")]
    pub targets: Vec<Target>,
    /// Go on with what they write from now on
    #[arg(long, short)]
    pub follow: bool,
    /// The last so many lines of each; 1000 are kept
    #[arg(long, short = 'n', value_name = "N", default_value = "20")]
    pub lines: usize,
    /// Which one.
    #[command(flatten)]
    pub up: RunningUp,
}

/// `svcmap start`, `stop` and `restart`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Ctrl-C goes away from it and takes nothing back: it is done all the same.")]
pub struct TargetArgs {
    /// Services, instances such as resize/2, or mappers
    #[arg(value_name = "TARGET", required = true)]
    pub targets: Vec<Target>,
    /// Which one.
    #[command(flatten)]
    pub up: RunningUp,
}

/// `svcmap scale`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
It holds until the file is applied again (SIGHUP) or `svcmap up` ends: write it there to keep it.")]
pub struct ScaleArgs {
    /// The service
    pub service: Name,
    /// How many instances there are to be
    #[arg(allow_negative_numbers = true)]
    #[arg(value_parser = clap::value_parser!(u32).range(..=i64::from(INSTANCES_MAX)))]
    pub instances: u32,
    /// Which one.
    #[command(flatten)]
    pub up: RunningUp,
}

/// `svcmap drain`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The mapper tells them; each takes no more jobs, finishes what it has within its grace, and ends. With keys \
that takes an operator's. Ctrl-C goes away from it and takes nothing back. An instance of a `svcmap up` \
is not started again, unless its restart is \"always\"; `svcmap start` does that.")]
pub struct DrainArgs {
    /// Instances, such as resize/2
    #[arg(value_name = "SERVICE/INSTANCE", required = true, value_parser = parse::instance_key)]
    pub instances: Vec<InstanceKey>,
    /// Which mappers to tell.
    #[command(flatten)]
    pub mapper: MapperOption,
    /// How long to wait until they are gone
    #[arg(long, value_name = "TIME", default_value = "1m", value_parser = parse::duration)]
    pub timeout: Duration,
}
