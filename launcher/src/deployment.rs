//! A mapper and workers on this machine, as processes of this executable: for the demo and for
//! tests of whole systems.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use svcmap_proto::deployment::Deployment as Keys;
use svcmap_proto::io::Clock;
use svcmap_proto::names::{Endpoint, InstanceKey};
use svcmap_proto::time::Timestamp;
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::{Client, Policy};
use tempfile::TempDir;

use crate::access::{Access, DEPLOYMENT_VARIABLE};
use crate::commands::mapper::parse_listening_line;
use crate::commands::status::{self, Report};
use crate::control::{self, Question};
use crate::errors::Failure;
use crate::io::pause_until;
use crate::parse::MAPPER_VARIABLE;
use crate::supervisor::{ChildId, ChildSpec, Exit, Supervisor};

/// How long anything may take that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What the mapper is called among the processes.
pub const MAPPER: &str = "mapper";

/// Time between two looks at what the mapper knows.
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// How long it may take to answer: it may share a busy machine with all the others.
const ASK_PATIENCE: Duration = Duration::from_secs(1);

/// The mapper and the workers, all ended when this is dropped.
pub struct Deployment {
    supervisor: Supervisor,
    mapper: Endpoint,
    publish: Endpoint,
    /// Further flags of the mapper.
    flags: Vec<String>,
    /// Where its keys lie, if they are its own.
    keys: Option<TempDir>,
    /// With what its mapper is reached, if everything is encrypted.
    known_by: Option<Keys>,
    /// With which flags a command gets at the mapper, whatever it is.
    access_flags: Vec<String>,
    children: BTreeMap<String, (ChildId, Option<InstanceKey>)>,
}

/// How the processes ended.
pub struct Stopped {
    /// How many there were.
    pub all: usize,
    /// How many ended with status 0.
    pub clean: usize,
}

impl Deployment {
    /// Starts a mapper on ports that the system chooses.
    ///
    /// # Errors
    /// If it does not start.
    pub fn open(supervisor: Supervisor) -> Result<Self, Failure> {
        Self::open_with(supervisor, Vec::new())
    }

    /// The same with further flags for the mapper.
    ///
    /// # Errors
    /// If it does not start.
    pub fn open_with(supervisor: Supervisor, flags: Vec<String>) -> Result<Self, Failure> {
        let any = "tcp://127.0.0.1:0".parse().map_err(failed)?;
        let mut deployment = Self { flags, ..Self::new(supervisor, any) };
        deployment.start_mapper_again()?;
        Ok(deployment)
    }

    /// The same with everything encrypted, by keys that nobody else has and that are gone with it.
    ///
    /// # Errors
    /// If it does not start.
    pub fn open_encrypted(supervisor: Supervisor, flags: Vec<String>) -> Result<Self, Failure> {
        let any = "tcp://127.0.0.1:0".parse().map_err(failed)?;
        let keys = tempfile::tempdir().map_err(failed)?;
        let file = file_in(&keys);
        let access_flags = vec!["--deployment".to_owned(), file.display().to_string()];
        let keys = Some(keys);
        let mut deployment = Self { flags, keys, access_flags, ..Self::new(supervisor, any) };
        deployment.start_mapper_again()?;
        deployment.known_by = Some(Keys::load(file).map_err(failed)?);
        Ok(deployment)
    }

    /// With a mapper that runs already, and that is not ended with the others. With these flags a command
    /// gets at it.
    pub fn join(
        supervisor: Supervisor,
        mapper: Endpoint,
        keys: Option<Keys>,
        access_flags: Vec<String>,
    ) -> Self {
        Self { known_by: keys, access_flags, ..Self::new(supervisor, mapper) }
    }

    fn new(supervisor: Supervisor, mapper: Endpoint) -> Self {
        let publish = mapper.clone();
        let (flags, keys, known_by, access_flags, children) = Default::default();
        Self { supervisor, mapper, publish, flags, keys, known_by, access_flags, children }
    }

    /// The deployment file, if everything is encrypted by keys of its own.
    pub fn file(&self) -> Option<PathBuf> {
        self.keys.as_ref().map(file_in)
    }

    /// What tells a command how to get at its mapper.
    pub fn environment(&self) -> Vec<(&'static str, OsString)> {
        let mapper = (MAPPER_VARIABLE, OsString::from(self.mapper.as_str()));
        let file = self.file().map(|file| (DEPLOYMENT_VARIABLE, file.into_os_string()));
        [Some(mapper), file].into_iter().flatten().collect()
    }

    /// How to get at its mapper.
    pub fn access(&self) -> Access {
        Access { mappers: vec![self.mapper.clone()], deployment: self.known_by.clone() }
    }

    /// Where its mapper is.
    pub fn mapper(&self) -> &Endpoint {
        &self.mapper
    }

    /// The process id of the mapper or an instance.
    pub fn pid(&self, name: &str) -> Option<u32> {
        self.supervisor.pid(self.children.get(name)?.0)
    }

    /// Starts the mapper where it was before.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_mapper_again(&mut self) -> Result<(), Failure> {
        let (bind, publish) = (self.mapper.as_str(), self.publish.as_str());
        let args = ["--log-level", "error", "mapper", "--bind", bind, "--publish", publish];
        let flags = self.flags.iter().chain(&self.access_flags).map(String::as_str);
        let child = ChildSpec::new(MAPPER, args.into_iter().chain(flags)).with_first_line();
        let child = self.supervisor.start(child).map_err(failed)?;
        let line = self.supervisor.first_line(child, Clock.now() + PATIENCE).map_err(failed)?;
        let endpoints = parse_listening_line(&line);
        (self.mapper, self.publish) =
            endpoints.ok_or_else(|| failed(format!("the mapper said `{line}`")))?;
        self.children.insert(MAPPER.to_owned(), (child, None));
        Ok(())
    }

    /// Starts a worker with these further flags.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_worker(
        &mut self,
        service: &str,
        instance: &str,
        flags: &[&str],
    ) -> Result<(), Failure> {
        let own = [
            "--log-level",
            "error",
            "worker",
            "--service",
            service,
            "--instance",
            instance,
            "--mapper",
            self.mapper.as_str(),
        ];
        let access = self.access_flags.iter().map(String::as_str);
        let args = own.iter().chain(flags).copied().chain(access);
        let child = self.supervisor.start(ChildSpec::new(instance, args)).map_err(failed)?;
        let key = InstanceKey {
            service: service.parse().map_err(failed)?,
            instance: instance.parse().map_err(failed)?,
        };
        self.children.insert(instance.to_owned(), (child, Some(key)));
        Ok(())
    }

    /// Starts another command, which knows the mapper and ends by itself.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start_command(
        &mut self,
        name: &str,
        command: &str,
        flags: &[&str],
    ) -> Result<(), Failure> {
        let own = ["--log-level", "error", command, "--mapper", self.mapper.as_str()];
        let access = self.access_flags.iter().map(String::as_str);
        let args = own.iter().chain(flags).copied().chain(access);
        let child = self.supervisor.start(ChildSpec::new(name, args)).map_err(failed)?;
        self.children.insert(name.to_owned(), (child, None));
        Ok(())
    }

    /// The next process that ends by itself until then.
    pub fn next_exit(&mut self, deadline: Timestamp) -> Option<Exit> {
        let exit = self.supervisor.next_exit(deadline)?;
        self.children.remove(&exit.name);
        Some(exit)
    }

    /// A sender that knows this mapper.
    ///
    /// # Errors
    /// If it does not start.
    pub fn client(&self) -> Result<Client, Failure> {
        self.client_with(Policy::default())
    }

    /// The same, which chooses workers in that way.
    ///
    /// # Errors
    /// If it does not start.
    pub fn client_with(&self, policy: Policy) -> Result<Client, Failure> {
        let config = OutboxConfig { policy, ..OutboxConfig::default() };
        self.access().client().outbox(config).start().map_err(failed)
    }

    /// Waits until so many instances of each service are ready.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub fn wait_ready(&self, wanted: &[(&str, usize)]) -> Result<(), Failure> {
        self.wait_for("the workers to be ready", |report| {
            wanted.iter().all(|(service, count)| {
                let ready = report.instances.iter().filter(|row| row.service.as_str() == *service);
                ready.count() == *count
            })
        })
    }

    /// Asks the mapper until it knows something.
    ///
    /// # Errors
    /// If that takes longer than [`PATIENCE`].
    pub fn wait_for(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Result<(), Failure> {
        let deadline = Clock.now() + PATIENCE;
        let access = self.access();
        while Clock.now() < deadline {
            if status::ask(&access, None, ASK_PATIENCE).is_ok_and(|report| wanted(&report)) {
                return Ok(());
            }
            pause_until(Clock.now() + LOOK_INTERVAL);
        }
        Err(failed(format!("waited {}s in vain for {what}", PATIENCE.as_secs())))
    }

    /// Ends a process with SIGKILL, and tells the mapper as soon as it is gone.
    ///
    /// # Errors
    /// If there is no such process, or the mapper does not answer.
    pub fn kill(&mut self, name: &str) -> Result<Exit, Failure> {
        self.end(name, Supervisor::kill)
    }

    /// Asks a process to end (SIGTERM), and waits until it has.
    ///
    /// # Errors
    /// As for [`Deployment::kill`].
    pub fn terminate(&mut self, name: &str) -> Result<Exit, Failure> {
        self.end(name, Supervisor::terminate)
    }

    /// Waits until a process has ended by itself.
    ///
    /// # Errors
    /// As for [`Deployment::kill`].
    pub fn wait_end(&mut self, name: &str) -> Result<Exit, Failure> {
        self.end(name, |_, _| {})
    }

    fn end(
        &mut self,
        name: &str,
        signal: impl Fn(&mut Supervisor, ChildId),
    ) -> Result<Exit, Failure> {
        let unknown = || failed(format!("there is no process {name}"));
        let (child, key) = self.children.remove(name).ok_or_else(unknown)?;
        signal(&mut self.supervisor, child);
        let exit = self.supervisor.next_exit(Clock.now() + PATIENCE).ok_or_else(unknown)?;
        if exit.child != child {
            return Err(failed(format!("unexpectedly, {exit}")));
        }
        if let Some(key) = key {
            let question = Question { left: vec![(key, exit.incarnation)], ..Question::default() };
            control::ask(self.access(), &question, PATIENCE)?;
        }
        Ok(exit)
    }

    /// Stops everything: the workers first, so that they can say goodbye to the mapper.
    pub fn stop(&mut self) -> Stopped {
        let all = self.children.len();
        let mut exits = Vec::new();
        let names: Vec<_> = self.children.keys().filter(|name| *name != MAPPER).cloned().collect();
        exits.extend(names.iter().filter_map(|name| self.end(name, Supervisor::terminate).ok()));
        exits.extend(self.supervisor.stop_all(PATIENCE));
        let clean = exits.iter().filter(|exit| exit.status.success()).count();
        Stopped { all, clean }
    }
}

/// The deployment file in a folder of its own.
fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("svcmap.toml")
}

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::failed(error.to_string())
}
