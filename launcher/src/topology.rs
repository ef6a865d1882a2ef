//! A whole topology in one file: mappers, and services with their instances. What the file says, and
//! with which arguments the processes are started that follow from it.

mod fields;
mod file;
pub mod io;
mod plan;
mod problem;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use svcmap_proto::names::{Endpoint, Name};

pub use file::read;
pub use plan::{Change, changes, text as plan_text};
pub use problem::{Problem, Problems};

use crate::cli::Builtin;
use crate::parse;
use crate::text::count;

/// What a topology's file is called if nobody says otherwise.
pub const FILE_NAME: &str = "topology.toml";

/// What `svcmap up` itself is called among its processes.
pub const OWN_NAME: &str = "up";

/// What `svcmap init` writes.
pub const EXAMPLE: &str = include_str!("topology/example.toml");

/// Most instances of one service that one `svcmap up` looks after: each is a process, and some twelve
/// megabytes.
pub const INSTANCES_MAX: u32 = 1000;

/// Longest prefix: it leaves room for numbers.
const PREFIX_BYTES_MAX: usize = 48;

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    /// Who knows who is there.
    pub mappers: Mappers,
    /// How everything is protected.
    pub protection: Protection,
    /// Stands before the numbers of instances, so that they differ from those of other machines.
    pub prefix: Option<Name>,
    /// The services, by name.
    pub services: BTreeMap<Name, Service>,
}

/// Who knows who is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mappers {
    /// Those of the file, by name. At least one.
    Ours(BTreeMap<Name, Mapper>),
    /// Those that somebody else runs, there. At least one.
    Elsewhere(Vec<Endpoint>),
}

/// How everything is protected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Protection {
    /// The deployment file, with which everything is encrypted.
    pub deployment: Option<PathBuf>,
    /// Plain text will do, beyond this machine as well.
    pub insecure: bool,
}

/// A mapper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapper {
    /// Where it listens.
    pub bind: Endpoint,
    /// Where it publishes.
    pub publish: Endpoint,
    /// The host that a new deployment file names for it.
    pub advertise: Option<String>,
    /// Where it listens in plain text as well.
    pub plain_bind: Option<Endpoint>,
    /// Its own deployment file, if it is not that of all.
    pub deployment: Option<PathBuf>,
    /// How often workers report at least, unless as ever.
    pub beat: Option<Duration>,
    /// Time between publications of load, unless as ever.
    pub publish_interval: Option<Duration>,
    /// Where it tells of itself by HTTP.
    pub http: Option<SocketAddr>,
    /// What happens when it ends.
    pub keep: Keep,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// How many of it there are to be.
    pub instances: u32,
    /// What each of them is.
    pub worker: Worker,
    /// How they are replaced.
    pub rolling: Rolling,
    /// What happens when one ends.
    pub keep: Keep,
}

/// What an instance is started with: another one of these is another program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Worker {
    /// What runs the jobs.
    pub handler: Handler,
    /// Jobs that run at once, from 1 on.
    pub concurrency: u32,
    /// Jobs that may wait for a handler.
    pub queue: u32,
    /// What is added to the environment.
    pub env: BTreeMap<String, String>,
    /// Where it is started.
    pub dir: PathBuf,
    /// Where senders reach it; the system chooses ports.
    pub bind: Option<Endpoint>,
    /// Under which hosts others reach it.
    pub advertise: Vec<String>,
    /// Longest time that a job may run.
    pub run_limit: Option<Duration>,
    /// How long it finishes jobs when it is stopped.
    pub grace: Duration,
    /// How much later a program is killed that has not ended at SIGTERM.
    pub kill_after: Duration,
    /// Largest payload or result.
    pub payload_bytes_max: Option<usize>,
    /// Its own deployment file, if it is not that of all.
    pub deployment: Option<PathBuf>,
}

/// What runs the jobs of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handler {
    /// A program for each job, as one line that is quoted as in a shell.
    Exec(String),
    /// A program that stays.
    ExecLoop(String),
    /// No program.
    Builtin(Builtin),
}

/// What happens when a process ends that should not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Whether it is started again.
    pub restart: Restart,
    /// How soon.
    pub backoff: Backoff,
    /// How often, before it is left alone.
    pub flap: Flap,
    /// Where what it writes goes.
    pub log: Log,
}

/// When a process is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Whenever it has ended.
    Always,
    /// When it did not end with status 0.
    OnFailure,
    /// Never.
    Never,
}

/// Pauses before a process is started again, each twice as long as the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first one.
    pub first: Duration,
    /// The longest.
    pub max: Duration,
    /// After being ready for so long the next one is the first again.
    pub reset_after: Duration,
}

/// How many ends within which time are too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flap {
    /// So many, from 1 on.
    pub exits: u32,
    /// Within that.
    pub within: Duration,
}

/// How the instances of a service are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rolling {
    /// How many new ones there may be at a time before old ones go, from 1 on.
    pub surge: u32,
    /// How long a new one may take to be ready.
    pub ready_within: Duration,
}

/// Where what a process writes goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Log {
    /// To where `svcmap up` writes, with the process's name before each line.
    Output,
    /// To files of this folder, one for each process. A full one is renamed, and so many are kept.
    Files {
        /// The folder.
        dir: PathBuf,
        /// A file that has so many is full.
        bytes_max: u64,
        /// Full ones that are kept.
        keep: u32,
    },
}

impl Default for Keep {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            restart: Restart::OnFailure,
            backoff: Backoff {
                first: Duration::from_millis(200),
                max: seconds(30),
                reset_after: seconds(60),
            },
            flap: Flap { exits: 5, within: seconds(60) },
            log: Log::Output,
        }
    }
}

impl Default for Rolling {
    fn default() -> Self {
        Self { surge: 1, ready_within: Duration::from_secs(30) }
    }
}

impl Topology {
    /// `1 mapper, 2 services, 5 instances`.
    pub fn summary(&self) -> String {
        let mappers = match &self.mappers {
            Mappers::Ours(ours) => count(ours.len(), "mapper"),
            Mappers::Elsewhere(mappers) => format!("{} elsewhere", count(mappers.len(), "mapper")),
        };
        let instances: u32 = self.services.values().map(|service| service.instances).sum();
        let services = count(self.services.len(), "service");
        format!("{mappers}, {services}, {}", count(instances, "instance"))
    }

    /// The names of all processes, and of some more of each service that may follow them.
    pub fn names(&self) -> Vec<String> {
        let mappers = self.our_mappers().into_iter().flatten().map(|(name, _)| name.to_string());
        let prefix = self.prefix.as_ref().map(|prefix| format!("{prefix}-")).unwrap_or_default();
        let last = |service: &Service| service.instances.saturating_add(service.rolling.surge);
        let services = self.services.iter();
        let workers = services.map(|(name, service)| format!("{name}/{prefix}{}", last(service)));
        mappers.chain(workers).collect()
    }

    /// The same with a prefix for the instances, if others may have some of the same services on other
    /// machines, and none is given: the name of this machine.
    pub fn named_apart(self, host: &str) -> Self {
        let is_shared = match &self.mappers {
            Mappers::Ours(ours) => ours.values().any(|mapper| !mapper.bind.is_loopback()),
            Mappers::Elsewhere(_) => true,
        };
        if self.prefix.is_some() || !is_shared {
            return self;
        }
        let valid = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' };
        let host: String = host.chars().map(valid).take(PREFIX_BYTES_MAX).collect();
        Self { prefix: host.parse().ok(), ..self }
    }

    /// How that service is protected.
    pub fn protection_of(&self, service: &Name) -> Protection {
        let own = self.services.get(service).and_then(|service| service.worker.deployment.clone());
        let deployment = own.or_else(|| self.protection.deployment.clone());
        Protection { deployment, insecure: self.protection.insecure }
    }

    /// The mappers of the file.
    pub fn our_mappers(&self) -> Option<&BTreeMap<Name, Mapper>> {
        match &self.mappers {
            Mappers::Ours(mappers) => Some(mappers),
            Mappers::Elsewhere(_) => None,
        }
    }

    /// With which arguments a mapper is started, that listens and publishes there.
    pub fn mapper_args(
        &self,
        mapper: &Mapper,
        bind: &Endpoint,
        publish: &Endpoint,
    ) -> Vec<OsString> {
        let mut args = Args::new("mapper");
        args.push("--bind", bind.as_str());
        args.push("--publish", publish.as_str());
        args.push_all("--advertise", &mapper.advertise);
        args.push_all("--plain-bind", mapper.plain_bind.as_ref().map(Endpoint::as_str));
        args.push_all("--beat", mapper.beat.map(parse::exact));
        args.push_all("--http", mapper.http.map(|address| address.to_string()));
        args.push_all("--publish-interval", mapper.publish_interval.map(parse::exact));
        args.protect(&self.protection, mapper.deployment.as_deref());
        args.0
    }

    /// With which arguments an instance of that service is started, whose mappers are these.
    pub fn worker_args(
        &self,
        name: &Name,
        instance: &Name,
        worker: &Worker,
        mappers: &[Endpoint],
    ) -> Vec<OsString> {
        let mut args = Args::new("worker");
        args.push("--service", name.as_str());
        args.push("--instance", instance.as_str());
        let file = worker.deployment.as_ref().or(self.protection.deployment.as_ref());
        if file.is_none() {
            // A deployment file says itself where they are.
            let mappers: Vec<&str> = mappers.iter().map(Endpoint::as_str).collect();
            args.push("--mapper", mappers.join(","));
        }
        match &worker.handler {
            Handler::Exec(command) => args.push("--exec", command),
            Handler::ExecLoop(command) => args.push("--exec-loop", command),
            Handler::Builtin(builtin) => args.push("--builtin", builtin.word()),
        }
        args.push("--concurrency", worker.concurrency.to_string());
        args.push("--queue", worker.queue.to_string());
        args.push_all("--bind", worker.bind.as_ref().map(Endpoint::as_str));
        let advertise = (!worker.advertise.is_empty()).then(|| worker.advertise.join(","));
        args.push_all("--advertise", advertise);
        args.push_all("--run-limit", worker.run_limit.map(parse::exact));
        args.push("--grace", parse::exact(worker.grace));
        args.push("--kill-after", parse::exact(worker.kill_after));
        args.push_all("--payload-max", worker.payload_bytes_max.map(|bytes| bytes.to_string()));
        args.protect(&self.protection, worker.deployment.as_deref());
        let is_here = mappers.iter().chain(&worker.bind).all(Endpoint::is_loopback);
        if file.is_none() && !self.protection.insecure && is_here {
            // A file in the user's settings is not meant.
            args.0.push("--insecure".into());
        }
        args.0
    }
}

/// A command line while it is put together.
struct Args(Vec<OsString>);

impl Args {
    fn new(command: &str) -> Self {
        Self(vec![command.into()])
    }

    /// In one word: a value may begin with a dash.
    fn push(&mut self, flag: &str, value: impl AsRef<std::ffi::OsStr>) {
        let mut word = OsString::from(flag);
        word.push("=");
        word.push(value);
        self.0.push(word);
    }

    fn push_all(
        &mut self,
        flag: &str,
        values: impl IntoIterator<Item = impl AsRef<std::ffi::OsStr>>,
    ) {
        values.into_iter().for_each(|value| self.push(flag, value));
    }

    fn protect(&mut self, all: &Protection, own: Option<&Path>) {
        match own.or(all.deployment.as_deref()) {
            Some(file) => self.push("--deployment", file),
            None if all.insecure => self.0.push("--insecure".into()),
            None => {}
        }
    }
}

#[cfg(test)]
#[path = "topology/topology_tests.rs"]
mod tests;
