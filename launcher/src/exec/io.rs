//! Runs the program once for each job: one thread, three pipes and the word of the keeper in one poll.

mod keeper;
mod life;
mod log;
mod minder;
mod pipes;
mod residents;
mod watch;

pub use self::log::StderrLog;
pub use self::residents::Residents;

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use self::keeper::Keeper;
use self::pipes::{CHUNK_BYTES, LAST_READS_MAX, Pipes, read_now};
use super::environment;
use super::progress::Words;
use super::words::{Environment, Report};
use super::{ExecError, Program, Task};
use crate::io::{LOOK_INTERVAL, poll};
use crate::processes::io::KILLED_WITHIN;

/// How much longer than it should a keeper may take to end a program: then it is ended itself.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// How long after SIGKILL a program has ended, in the worst case together with its keeper.
pub(super) const ENDED_WITHIN: Duration = KILLED_WITHIN.saturating_add(KEEPER_PATIENCE);

/// Runs a program for one job after another, in as many threads as call it. Dropping it ends
/// whatever still runs.
#[derive(Debug)]
pub struct Runner {
    program: Program,
    stderr: StderrLog,
    state: Mutex<State>,
    one_ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Those that have no job now, the one that had the last one last.
    idle: Vec<Keeper>,
    running: usize,
}

impl Runner {
    /// Runs that program, and logs what it writes to stderr.
    pub fn new(program: Program, stderr: StderrLog) -> Self {
        Self { program, stderr, state: Mutex::default(), one_ended: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the program for one job and returns what it wrote to stdout.
    ///
    /// A program that does not read its payload is no error.
    ///
    /// # Errors
    /// See [`ExecError`]. Whatever the error, nothing that the program started runs any more.
    pub fn run(&self, task: &Task<'_>, result_bytes_max: usize) -> Result<Vec<u8>, ExecError> {
        let _counted = Counted::new(self);
        let (stdio, mut job) = Job::new(result_bytes_max).map_err(ExecError::Start)?;
        let environment = environment::of_job(task, Clock.now());
        let mut keeper = self.keeper_of(&stdio, &environment).map_err(ExecError::Start)?;
        drop(stdio);
        let result = job.follow(task, &mut keeper).map_err(|error| self.named(error));
        if !keeper.is_idle() {
            job.end(&mut keeper, Clock.now() + self.program.end_limit());
        }
        if keeper.is_idle() {
            self.state().idle.push(keeper);
        }
        self.stderr.write(task.log, result.is_err(), job.words.tail());
        result
    }

    /// Says which program could not be started.
    fn named(&self, error: ExecError) -> ExecError {
        match (error, self.program.argv.first()) {
            (ExecError::Start(error), Some(name)) => ExecError::Start(std::io::Error::new(
                error.kind(),
                format!("cannot start {name}: {error}"),
            )),
            (error, _) => error,
        }
    }

    /// A keeper that was handed a job with these files.
    fn keeper_of(
        &self,
        stdio: &[OwnedFd; 3],
        environment: &Environment,
    ) -> std::io::Result<Keeper> {
        loop {
            let Some(mut keeper) = self.state().idle.pop() else { break };
            // One that somebody has killed takes nothing.
            if keeper.start(stdio, environment).is_ok() {
                return Ok(keeper);
            }
        }
        let mut keeper = Keeper::new(&self.program)?;
        keeper.start(stdio, environment)?;
        Ok(keeper)
    }

    /// Waits until no program runs, no longer than ending one may take, and then ends all keepers.
    /// To be called when every job was cancelled.
    pub fn finish(&self) {
        let limit = self.program.end_limit();
        let waited = self.one_ended.wait_timeout_while(self.state(), limit, |s| s.running > 0);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        idle.iter().for_each(Keeper::dismiss);
        self.stderr.finish();
    }
}

/// One that runs, as long as it does.
struct Counted<'a>(&'a Runner);

impl<'a> Counted<'a> {
    fn new(runner: &'a Runner) -> Self {
        runner.state().running += 1;
        Self(runner)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.state().running -= 1;
        self.0.one_ended.notify_all();
    }
}

/// The pipes of a program at work, and what came out of them.
struct Job {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    result: Vec<u8>,
    result_bytes_max: usize,
    words: Words,
}

impl Job {
    /// The program's ends of the pipes, and a job that has ours.
    fn new(result_bytes_max: usize) -> std::io::Result<([OwnedFd; 3], Self)> {
        let (theirs, Pipes { stdin, stdout, stderr }) = Pipes::open()?;
        let job = Self {
            stdin: Some(stdin),
            stdout: Some(stdout),
            stderr: Some(stderr),
            result: Vec::new(),
            result_bytes_max,
            words: Words::default(),
        };
        Ok((theirs, job))
    }

    /// Until the program and all that it started has ended, or has to be ended.
    fn follow(&mut self, task: &Task<'_>, keeper: &mut Keeper) -> Result<Vec<u8>, ExecError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        let mut unsent = task.payload;
        loop {
            let now = Clock.now();
            task.check(now)?;
            self.write(&mut unsent).map_err(ExecError::Pipe)?;
            self.read(&mut buffer, 1)?;
            self.words.take_progress().into_iter().for_each(task.report);
            let look_at = now + LOOK_INTERVAL;
            let until = task.deadline.map_or(look_at, |deadline| deadline.min(look_at));
            if !self.wait(keeper, until).map_err(ExecError::Pipe)? {
                continue;
            }
            match keeper.report()? {
                Report::Ready => {}
                Report::NotStarted(errno) => {
                    return Err(ExecError::Start(std::io::Error::from_raw_os_error(errno)));
                }
                Report::Ended(status) => {
                    return self.finish(ExitStatus::from_raw(status), &mut buffer);
                }
            }
        }
    }

    /// Has it ended by the keeper, which may take until then. What it still writes is thrown away;
    /// its stdin stays open, as half a payload should not look like a whole one.
    fn end(&mut self, keeper: &mut Keeper, deadline: Timestamp) {
        let _unread = self.stdin.take();
        let mut buffer = vec![0; CHUNK_BYTES];
        keeper.end_job();
        while !keeper.is_idle() && Clock.now() < deadline {
            // A pipe that fails, or a result that is too large, changes nothing any more.
            let _ = self.read(&mut buffer, 1);
            match self.wait(keeper, deadline) {
                Ok(false) => {}
                Ok(true) if keeper.report().is_ok() => {}
                _ => return,
            }
        }
    }

    /// Waits until there is something to do. Whether the keeper has said something.
    fn wait(&self, keeper: &Keeper, deadline: Timestamp) -> std::io::Result<bool> {
        let mut fds = Vec::with_capacity(4);
        fds.push(PollFd::new(keeper, PollFlags::IN));
        fds.extend(self.stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        fds.extend(self.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        poll(&mut fds, deadline)?;
        Ok(!fds[0].revents().is_empty())
    }

    /// Writes what the program takes; closes its stdin at the end of the payload, and when nobody
    /// reads it.
    fn write(&mut self, unsent: &mut &[u8]) -> std::io::Result<()> {
        let Some(stdin) = &mut self.stdin else { return Ok(()) };
        while !unsent.is_empty() {
            let chunk = &unsent[..unsent.len().min(CHUNK_BYTES)];
            match stdin.write(chunk) {
                Ok(written) => *unsent = &unsent[written..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => break,
                Err(error) => return Err(error),
            }
        }
        self.stdin = None;
        Ok(())
    }

    /// Reads at most so many chunks from either pipe.
    fn read(&mut self, buffer: &mut [u8], chunks: usize) -> Result<(), ExecError> {
        for _ in 0..chunks {
            let count = read_some(&mut self.stdout, buffer).map_err(ExecError::Pipe)?;
            if self.result.len() + count > self.result_bytes_max {
                return Err(ExecError::ResultTooLarge { limit_bytes: self.result_bytes_max });
            }
            self.result.extend_from_slice(&buffer[..count]);
            let words = read_some(&mut self.stderr, buffer).map_err(ExecError::Pipe)?;
            self.words.push(&buffer[..words]);
            if count == 0 && words == 0 {
                break;
            }
        }
        Ok(())
    }

    /// All has ended: takes what the pipes still hold.
    fn finish(&mut self, status: ExitStatus, buffer: &mut [u8]) -> Result<Vec<u8>, ExecError> {
        self.read(buffer, LAST_READS_MAX)?;
        if status.success() {
            return Ok(std::mem::take(&mut self.result));
        }
        Err(ExecError::Ended { status, stderr: self.words.tail().text() })
    }
}

/// Reads what is there, 0 for nothing; at its end the pipe is closed.
fn read_some(pipe: &mut Option<impl Read>, buffer: &mut [u8]) -> std::io::Result<usize> {
    let Some(open) = pipe else { return Ok(0) };
    let count = read_now(open, buffer)?;
    if count == Some(0) {
        *pipe = None;
    }
    Ok(count.unwrap_or(0))
}

/// Whether that is a file.
pub(super) fn is_file(file: &Path) -> bool {
    file.is_file()
}

/// Whether that is a file which this process may execute.
pub(super) fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}
