//! Runs the program: one thread, three pipes and the word of the keeper in one poll.

mod keeper;

use std::io::{ErrorKind, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use self::keeper::Keeper;
use super::words::Report;
use super::{ExecError, Program, Tail};
use crate::io::{LOOK_INTERVAL, poll};
use crate::processes::io::KILLED_WITHIN;

/// Bytes of one read or write: what a pipe holds by default.
const CHUNK_BYTES: usize = 64 * 1024;

/// Reads after the program's end that a pipe is still worth: 16 chunks are the largest pipe that an
/// unprivileged process can make.
const LAST_READS_MAX: usize = 16;

/// How much longer than it should a keeper may take to end a program: then it is ended itself.
const KEEPER_PATIENCE: Duration = Duration::from_secs(5);

/// Runs a program for one job after another, in as many threads as call it. Dropping it ends
/// whatever still runs.
#[derive(Debug)]
pub struct Runner {
    program: Program,
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
    /// Runs that program.
    pub fn new(program: Program) -> Self {
        Self { program, state: Mutex::default(), one_ended: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the program for one job and returns what it wrote to stdout.
    ///
    /// A program that does not read its payload is no error. `is_cancelled` is asked every 50 ms.
    ///
    /// # Errors
    /// See [`ExecError`]. Whatever the error, nothing that the program started runs any more.
    pub fn run(
        &self,
        payload: &[u8],
        result_bytes_max: usize,
        deadline: Timestamp,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, ExecError> {
        let _counted = Counted::new(self);
        let (stdio, mut job) = Job::new(result_bytes_max).map_err(ExecError::Start)?;
        let mut keeper = self.keeper_of(&stdio).map_err(ExecError::Start)?;
        drop(stdio);
        let result = job.follow(payload, &mut keeper, deadline, is_cancelled);
        let result = result.map_err(|error| self.named(error));
        if !keeper.is_idle() {
            let limit = self.program.kill_after + KILLED_WITHIN + KEEPER_PATIENCE;
            job.end(&mut keeper, Clock.now() + limit);
        }
        if keeper.is_idle() {
            self.state().idle.push(keeper);
        }
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
    fn keeper_of(&self, stdio: &[OwnedFd; 3]) -> std::io::Result<Keeper> {
        loop {
            let Some(mut keeper) = self.state().idle.pop() else { break };
            // One that somebody has killed takes nothing.
            if keeper.start(stdio).is_ok() {
                return Ok(keeper);
            }
        }
        let mut keeper = Keeper::new(&self.program)?;
        keeper.start(stdio)?;
        Ok(keeper)
    }

    /// Waits until no program runs, no longer than ending one may take, and then ends all keepers.
    /// To be called when every job was cancelled.
    pub fn finish(&self) {
        let limit = self.program.kill_after + KEEPER_PATIENCE + KILLED_WITHIN;
        let waited = self.one_ended.wait_timeout_while(self.state(), limit, |s| s.running > 0);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let idle = std::mem::take(&mut state.idle);
        drop(state);
        idle.iter().for_each(Keeper::dismiss);
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
    tail: Tail,
}

impl Job {
    /// Three pipes: the program's ends, and ours.
    fn new(result_bytes_max: usize) -> std::io::Result<([OwnedFd; 3], Self)> {
        let (stdin, payload) = std::io::pipe()?;
        let (result, stdout) = std::io::pipe()?;
        let (words, stderr) = std::io::pipe()?;
        for pipe in [payload.as_fd(), result.as_fd(), words.as_fd()] {
            rustix::io::ioctl_fionbio(pipe, true)?;
        }
        let job = Self {
            stdin: Some(payload),
            stdout: Some(result),
            stderr: Some(words),
            result: Vec::new(),
            result_bytes_max,
            tail: Tail::default(),
        };
        Ok(([stdin.into(), stdout.into(), stderr.into()], job))
    }

    /// Until the program and all that it started has ended, or has to be ended.
    fn follow(
        &mut self,
        mut unsent: &[u8],
        keeper: &mut Keeper,
        deadline: Timestamp,
        is_cancelled: &dyn Fn() -> bool,
    ) -> Result<Vec<u8>, ExecError> {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let now = Clock.now();
            if now >= deadline {
                return Err(ExecError::Deadline);
            }
            if is_cancelled() {
                return Err(ExecError::Cancelled);
            }
            self.write(&mut unsent).map_err(ExecError::Pipe)?;
            self.read(&mut buffer, 1)?;
            if !self.wait(keeper, deadline.min(now + LOOK_INTERVAL)).map_err(ExecError::Pipe)? {
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
            self.tail.push(&buffer[..words]);
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
        Err(ExecError::Ended { status, stderr: self.tail.text() })
    }
}

/// Reads what is there, 0 for nothing; at its end the pipe is closed.
fn read_some(pipe: &mut Option<impl Read>, buffer: &mut [u8]) -> std::io::Result<usize> {
    let Some(open) = pipe else { return Ok(0) };
    loop {
        match open.read(buffer) {
            Ok(0) => {
                *pipe = None;
                return Ok(0);
            }
            Ok(count) => return Ok(count),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether that is a file.
pub(super) fn is_file(file: &Path) -> bool {
    file.is_file()
}

/// Whether that is a file which this process may execute.
pub(super) fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}
