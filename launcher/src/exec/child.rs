//! The keeper, `svcmap exec-child`: a process between a worker and its programs. It runs one program
//! at a time, and ends all that this started: when the program has ended, when the worker says so,
//! and when the worker is gone, however that died.
//!
//! It is a *subreaper*: a process whose parent has ended becomes its child, whatever session or
//! process group it has put itself into. So nothing that a program starts can get away from it, and
//! as it runs one program at a time there is no doubt to which job something belongs. It has no
//! thread, no socket of libzmq, and no file but those of the job.

use std::io::{IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitCode};
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use rustix::process::{Signal, WaitOptions, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use super::words::{END, Environment, Orders, Report, START, read_environment};
use crate::io::{has_ended, pid, poll, set_open_files_limit};
use crate::processes::io::{KILLED_WITHIN, LOOK_AGAIN, sees_descendants, signal_descendants};

/// The wait status of a process that SIGKILL ended.
const KILLED: i32 = 9;

/// Looks after programs until the worker is gone.
pub fn keep() -> ExitCode {
    match Keeper::begin().and_then(Keeper::serve) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever could read the error is gone.
        Err(_) => ExitCode::FAILURE,
    }
}

struct Keeper {
    orders: Orders,
    /// To the worker; it ends when that does.
    worker: UnixStream,
    /// Readable when a child has ended.
    endings: UnixStream,
}

/// stdin, stdout and stderr of a program.
type Stdio = [OwnedFd; 3];

/// The program that runs, and what is left of it.
struct Running {
    program: Child,
    /// Its wait status, once it was waited for.
    status: Option<i32>,
    /// Whether `/proc` tells of all that it started.
    is_visible: bool,
}

impl Keeper {
    fn begin() -> std::io::Result<Self> {
        let mut worker = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        let orders = Orders::read(&mut worker)?;
        // A session of its own: no terminal sends it signals, and the worker finds what is left of
        // it should it be killed. It fails for nobody who was started by `fork`.
        let _ = rustix::process::setsid();
        #[cfg(target_os = "linux")]
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        if let Some(files) = orders.open_files {
            set_open_files_limit(files);
        }
        // It ends with the worker, and not before its programs. A handler, as what is ignored
        // would be ignored by the programs as well.
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::default())?;
        }
        let (endings, write) = UnixStream::pair()?;
        endings.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGCHLD, write)?;
        Ok(Self { orders, worker, endings })
    }

    fn serve(mut self) -> std::io::Result<()> {
        self.say(Report::Ready)?;
        while let Some((stdio, environment)) = self.next_job()? {
            let mut running = match self.start(stdio, environment) {
                Ok(program) => Running { program, status: None, is_visible: sees_descendants() },
                Err(error) => {
                    self.say(Report::NotStarted(error.raw_os_error().unwrap_or_default()))?;
                    continue;
                }
            };
            let is_wanted = self.look_after(&mut running);
            let all_ended = self.end(&mut running);
            if !is_wanted {
                break;
            }
            if !all_ended {
                // What cannot be killed must not be taken for a part of the next job: from here on
                // none can be handed over.
                self.worker.shutdown(Shutdown::Read)?;
            }
            self.say(Report::Ended(running.status.unwrap_or(KILLED)))?;
            if !all_ended {
                break;
            }
        }
        Ok(())
    }

    fn say(&mut self, report: Report) -> std::io::Result<()> {
        self.worker.write_all(&report.encode())
    }

    /// The files and the environment of the next program; `None` when the worker is gone.
    fn next_job(&mut self) -> std::io::Result<Option<(Stdio, Environment)>> {
        loop {
            let mut word = [0];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
            let mut along = RecvAncillaryBuffer::new(&mut space);
            let mut into = [IoSliceMut::new(&mut word)];
            let received = recvmsg(&self.worker, &mut into, &mut along, receive_flags());
            let bytes = match received {
                Ok(message) => message.bytes,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            if bytes == 0 {
                return Ok(None);
            }
            // An END that comes now crossed the report of the end.
            if word == [START] {
                let files = along.drain().filter_map(|message| match message {
                    RecvAncillaryMessage::ScmRights(files) => Some(files),
                    _ => None,
                });
                let files: Vec<OwnedFd> = files.flatten().collect();
                drop(along);
                let environment = read_environment(&mut self.worker)?;
                return Stdio::try_from(files)
                    .map(|stdio| Some((stdio, environment)))
                    .map_err(|_| std::io::ErrorKind::InvalidData.into());
            }
        }
    }

    /// The one place where it is known that a program cannot be started. From then on the files are
    /// the program's alone.
    fn start(&self, stdio: Stdio, environment: Environment) -> std::io::Result<Child> {
        let Some((program, rest)) = self.orders.argv.split_first() else {
            return Err(std::io::ErrorKind::InvalidInput.into());
        };
        let mut command = Command::new(program);
        match spawn(command.args(rest).envs(environment.clone()), &stdio) {
            // A script that names no interpreter, as every shell starts it.
            Err(error) if error.raw_os_error() == Some(Errno::NOEXEC.raw_os_error()) => {
                let mut shell = Command::new("/bin/sh");
                spawn(shell.arg(program).args(rest).envs(environment), &stdio)
            }
            started => started,
        }
    }

    /// Returns when what is left has to be killed: the program has ended, or was asked to and has
    /// not for too long, or the worker is gone. Whether somebody wants to know how it ended.
    fn look_after(&mut self, running: &mut Running) -> bool {
        let mut kill_at: Option<Timestamp> = None;
        loop {
            let is_any_left = running.collect();
            if !is_any_left || (running.status.is_some() && kill_at.is_none()) {
                return true;
            }
            if kill_at.is_some_and(|at| at <= Clock.now()) {
                return true;
            }
            let is_spoken_to = self.wait(kill_at);
            let mut word = [0];
            match is_spoken_to.then(|| self.worker.read(&mut word)) {
                None => {}
                Some(Ok(1)) if word == [END] && kill_at.is_none() => {
                    running.signal(Signal::TERM);
                    kill_at = Some(Clock.now() + self.orders.kill_after);
                }
                Some(Ok(1)) => {}
                Some(Err(error)) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Some(_) => return false,
            }
        }
    }

    /// Kills whatever is left until nothing is. Returns whether it came to that.
    fn end(&mut self, running: &mut Running) -> bool {
        let deadline = Clock.now() + KILLED_WITHIN;
        while running.collect() {
            if Clock.now() >= deadline {
                return false;
            }
            running.signal(Signal::KILL);
            let mut fds = [PollFd::new(&self.endings, PollFlags::IN)];
            // Without memory for a poll, it looks again at once.
            let _ = poll(&mut fds, Clock.now() + LOOK_AGAIN);
            self.forget_endings();
        }
        true
    }

    /// Waits for the end of a child, a word of the worker, or that time. Whether it was a word.
    fn wait(&mut self, until: Option<Timestamp>) -> bool {
        let mut fds =
            [PollFd::new(&self.endings, PollFlags::IN), PollFd::new(&self.worker, PollFlags::IN)];
        let _ = poll(&mut fds, until.unwrap_or(Timestamp::from_micros(u64::MAX)));
        let is_spoken_to = !fds[1].revents().is_empty();
        self.forget_endings();
        is_spoken_to
    }

    fn forget_endings(&mut self) {
        // Full or empty: whoever comes here looks at all children afterwards.
        let _ = self.endings.read(&mut [0; 64]);
    }
}

fn spawn(command: &mut Command, [stdin, stdout, stderr]: &Stdio) -> std::io::Result<Child> {
    command
        .stdin(stdin.try_clone()?)
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .process_group(0)
        .spawn()
}

impl Running {
    /// Takes note of whoever has ended. Returns whether there is anybody left.
    fn collect(&mut self) -> bool {
        let number = pid(&self.program);
        // Where descendants cannot be found, the group is what can be ended: as long as its leader
        // was not waited for, its number is its own.
        if !self.is_visible && self.status.is_none() && has_ended(&self.program) {
            self.signal(Signal::KILL);
        }
        loop {
            // All children are its own or of its own: nobody else here waits for any.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if Some(pid) == number => {
                    self.status = Some(status.as_raw());
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => return true,
                Err(_) => return false,
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if signal_descendants(signal) || self.status.is_some() {
            return;
        }
        if let Some(group) = pid(&self.program) {
            let _ = kill_process_group(group, signal);
        }
    }
}

#[cfg(target_os = "linux")]
fn receive_flags() -> RecvFlags {
    RecvFlags::CMSG_CLOEXEC
}

/// No such flag there: a program may see one file too many.
#[cfg(not(target_os = "linux"))]
fn receive_flags() -> RecvFlags {
    RecvFlags::empty()
}
