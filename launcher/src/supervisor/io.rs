//! The processes themselves.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{ErrorKind, Read};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, kill_process};
use svcmap_proto::io::Clock;
use svcmap_proto::names::Incarnation;
use svcmap_proto::time::Timestamp;

use super::{ChildId, ChildSpec, Exit, Output, SupervisorError, next_incarnation};
use crate::io::{LOOK_INTERVAL, exit_fd, has_ended, pid, poll};
use crate::processes::io as processes;
use crate::systemd;

/// Longest first line that is read, in bytes: it names two endpoints at most.
const LINE_BYTES_MAX: usize = 4096;

/// Starts children and knows them until it has reported their end. Dropping it kills all of them.
#[derive(Debug)]
pub struct Supervisor {
    executable: PathBuf,
    children: BTreeMap<ChildId, Watched>,
    last_id: u64,
    last_incarnation: Incarnation,
    /// Neither `Send` nor `Sync`: see the module.
    stays: PhantomData<*const ()>,
}

#[derive(Debug)]
struct Watched {
    name: String,
    incarnation: Incarnation,
    process: Child,
    exit: Option<OwnedFd>,
    stdout: Option<ChildStdout>,
}

impl Supervisor {
    /// A supervisor that starts the running executable again.
    ///
    /// # Errors
    /// If the system does not tell which file that is.
    pub fn new() -> std::io::Result<Self> {
        // Not /proc/self/exe as for jobs: these children live long, and `ps` shows that name.
        std::env::current_exe().map(Self::with_executable)
    }

    /// A supervisor that starts that executable: for tests.
    pub fn with_executable(executable: impl Into<PathBuf>) -> Self {
        Self {
            executable: executable.into(),
            children: BTreeMap::new(),
            last_id: 0,
            last_incarnation: Incarnation::default(),
            stays: PhantomData,
        }
    }

    /// Starts a child. It gets a process group of its own, so that a Ctrl-C at the terminal is for
    /// the supervisor alone; it is killed by the system should the supervisor end without a word.
    ///
    /// # Errors
    /// [`SupervisorError::Start`].
    pub fn start(&mut self, spec: ChildSpec) -> Result<ChildId, SupervisorError> {
        let incarnation = next_incarnation(self.last_incarnation, Clock.unix_us());
        let mut command = Command::new(&self.executable);
        for name in spec.without_env.into_iter().chain(systemd::NOT_INHERITED) {
            command.env_remove(name);
        }
        command
            .args(&spec.args)
            .args(own_flags(incarnation))
            .envs(&spec.env)
            .stdin(Stdio::null())
            .stdout(stdio(spec.stdout))
            .stderr(stdio(spec.stderr))
            .process_group(0);
        if let Some(dir) = &spec.dir {
            command.current_dir(dir);
        }
        let mut process = processes::spawn(&mut command)
            .map_err(|reason| SupervisorError::Start { name: spec.name.clone(), reason })?;
        let child = Watched {
            name: spec.name,
            incarnation,
            exit: exit_fd(&process),
            stdout: process.stdout.take(),
            process,
        };
        self.last_incarnation = incarnation;
        self.last_id += 1;
        let id = ChildId(self.last_id);
        self.children.insert(id, child);
        Ok(id)
    }

    /// Its process id; `None` once its end was reported.
    pub fn pid(&self, id: ChildId) -> Option<u32> {
        self.children.get(&id).map(|child| child.process.id())
    }

    /// Which life of its instance it is; `None` once its end was reported.
    pub fn incarnation(&self, id: ChildId) -> Option<Incarnation> {
        self.children.get(&id).map(|child| child.incarnation)
    }

    /// What a child with [`Output::Piped`] writes to stdout and stderr, for whoever reads it. To be asked
    /// once.
    pub fn take_pipes(&mut self, id: ChildId) -> (Option<ChildStdout>, Option<ChildStderr>) {
        let child = self.children.get_mut(&id);
        child.map_or((None, None), |child| (child.stdout.take(), child.process.stderr.take()))
    }

    /// Files that become readable when a child has ended, for whoever waits for other things as well;
    /// `None` if some child has none, and has to be looked at.
    pub fn exits(&self) -> Option<Vec<BorrowedFd<'_>>> {
        self.children.values().map(|child| Some(child.exit.as_ref()?.as_fd())).collect()
    }

    /// The children whose end was not reported yet, in the order of their start.
    pub fn children(&self) -> impl Iterator<Item = ChildId> + '_ {
        self.children.keys().copied()
    }

    /// The first line that a child with [`Output::FirstLine`] writes, without its end. To be asked
    /// once.
    ///
    /// # Errors
    /// See [`SupervisorError`].
    pub fn first_line(
        &mut self,
        id: ChildId,
        deadline: Timestamp,
    ) -> Result<String, SupervisorError> {
        let child = self.children.get_mut(&id).ok_or(SupervisorError::Unknown)?;
        let no_line = || SupervisorError::NoLine { name: child.name.clone() };
        let stdout = child.stdout.as_mut().ok_or_else(no_line)?;
        let mut line = Vec::new();
        loop {
            let mut fds = [PollFd::new(stdout, PollFlags::IN)];
            poll(&mut fds, deadline).map_err(|_| no_line())?;
            if fds[0].revents().is_empty() {
                if Clock.now() >= deadline {
                    return Err(SupervisorError::Late { name: child.name.clone() });
                }
                continue;
            }
            let mut byte = [0];
            match stdout.read(&mut byte) {
                Ok(1) if byte[0] == b'\n' => break,
                Ok(1) if line.len() < LINE_BYTES_MAX => line.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                _ => return Err(no_line()),
            }
        }
        String::from_utf8(line).map_err(|_| no_line())
    }

    /// Asks a child to end gracefully (SIGTERM).
    pub fn terminate(&mut self, id: ChildId) {
        self.signal(id, Signal::TERM);
    }

    /// Ends a child at once (SIGKILL).
    pub fn kill(&mut self, id: ChildId) {
        self.signal(id, Signal::KILL);
    }

    /// Sends a child any signal, such as SIGSTOP. One that has ended gets none.
    pub fn signal(&mut self, id: ChildId, signal: Signal) {
        if let Some(pid) = self.children.get(&id).and_then(|child| pid(&child.process)) {
            // Its end was not reported, so it was not waited for, and the number is still its own.
            let _ = kill_process(pid, signal);
        }
    }

    /// The next child that has ended, as soon as it has; `None` at the deadline, or if there is no
    /// child. From then on its id is unknown.
    pub fn next_exit(&mut self, deadline: Timestamp) -> Option<Exit> {
        while !self.children.is_empty() {
            let ended = self.children.iter().find(|(_, child)| has_ended(&child.process));
            if let Some((&id, _)) = ended {
                return self.reap(id);
            }
            let now = Clock.now();
            if now >= deadline {
                return None;
            }
            let all_watched = self.children.values().all(|child| child.exit.is_some());
            let exits = self.children.values().filter_map(|child| child.exit.as_ref());
            let mut fds: Vec<_> = exits.map(|exit| PollFd::new(exit, PollFlags::IN)).collect();
            // What no file tells of has to be looked at.
            let until = if all_watched { deadline } else { deadline.min(now + LOOK_INTERVAL) };
            poll(&mut fds, until).ok()?;
        }
        None
    }

    /// Asks all children to end, and kills those that have not within `grace`. Returns how each
    /// ended.
    pub fn stop_all(&mut self, grace: Duration) -> Vec<Exit> {
        let deadline = Clock.now() + grace;
        self.children().collect::<Vec<_>>().into_iter().for_each(|id| self.terminate(id));
        let mut exits: Vec<Exit> = std::iter::from_fn(|| self.next_exit(deadline)).collect();
        exits.extend(self.kill_all());
        exits
    }

    fn kill_all(&mut self) -> Vec<Exit> {
        let ids: Vec<ChildId> = self.children().collect();
        ids.iter().for_each(|&id| self.kill(id));
        ids.into_iter().filter_map(|id| self.reap(id)).collect()
    }

    /// Waits for a child that has ended, or is about to.
    fn reap(&mut self, id: ChildId) -> Option<Exit> {
        let mut child = self.children.remove(&id)?;
        let pid = child.process.id();
        // It fails only for a process that is no child of ours, and every one here is.
        let status = processes::wait(&mut child.process)?;
        Some(Exit { child: id, name: child.name, pid, incarnation: child.incarnation, status })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.kill_all();
    }
}

/// The hidden flags that every child understands.
fn own_flags(incarnation: Incarnation) -> [OsString; 4] {
    [
        "--supervised".into(),
        std::process::id().to_string().into(),
        "--incarnation".into(),
        incarnation.to_string().into(),
    ]
}

fn stdio(output: Output) -> Stdio {
    match output {
        Output::Ours => Stdio::inherit(),
        Output::Nobody => Stdio::null(),
        Output::FirstLine | Output::Piped => Stdio::piped(),
    }
}
