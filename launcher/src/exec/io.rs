//! Runs the program: one thread, three pipes and the end of the child in one poll.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::process::{Signal, kill_process_group};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use super::{ExecError, Program, Tail};
use crate::io::{LOOK_INTERVAL, exit_fd, has_ended, pid, poll};

/// Bytes of one read or write: what a pipe holds by default.
const CHUNK_BYTES: usize = 64 * 1024;

/// Reads after the child's end that a pipe is still worth: 16 chunks are the largest pipe that an
/// unprivileged process can make. A process that outlives its group and goes on writing ends here.
const LAST_READS_MAX: usize = 16;

/// Runs the program for one job and returns what it wrote to stdout.
///
/// A program that does not read its payload is no error. `is_cancelled` is asked every 50 ms.
///
/// # Errors
/// See [`ExecError`]. Whatever the error, nothing of the program's process group runs any more.
pub fn run(
    program: &Program,
    payload: &[u8],
    result_bytes_max: usize,
    deadline: Timestamp,
    is_cancelled: &dyn Fn() -> bool,
) -> Result<Vec<u8>, ExecError> {
    let mut running = Running::start(program, result_bytes_max)?;
    let mut unsent = payload;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let now = Clock.now();
        if is_cancelled() {
            return Err(ExecError::Cancelled);
        }
        if now >= deadline {
            return Err(ExecError::Deadline);
        }
        running.wait(deadline.min(now + LOOK_INTERVAL)).map_err(ExecError::Pipe)?;
        running.write(&mut unsent).map_err(ExecError::Pipe)?;
        running.read(&mut buffer, 1)?;
        if has_ended(&running.child) {
            return running.finish(&mut buffer);
        }
    }
}

/// A program at work. Dropping it kills what is left of its process group.
struct Running {
    child: Child,
    /// What precedes the starter's own error.
    token: String,
    exit: Option<OwnedFd>,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    result: Vec<u8>,
    result_bytes_max: usize,
    tail: Tail,
}

impl Running {
    fn start(program: &Program, result_bytes_max: usize) -> Result<Self, ExecError> {
        let token = format!("{:016x}:", fastrand::u64(..));
        let mut child = Command::new(&program.starter)
            .args(["exec-child", "--parent", &std::process::id().to_string()])
            .args(["--token", &token, "--"])
            .args(&program.argv)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .map_err(ExecError::Start)?;
        let running = Self {
            exit: exit_fd(&child),
            stdin: child.stdin.take(),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            child,
            token,
            result: Vec::new(),
            result_bytes_max,
            tail: Tail::default(),
        };
        let pipes = [
            running.stdin.as_ref().map(AsFd::as_fd),
            running.stdout.as_ref().map(AsFd::as_fd),
            running.stderr.as_ref().map(AsFd::as_fd),
        ];
        for pipe in pipes.into_iter().flatten() {
            rustix::io::ioctl_fionbio(pipe, true).map_err(|e| ExecError::Pipe(e.into()))?;
        }
        Ok(running)
    }

    fn wait(&self, deadline: Timestamp) -> std::io::Result<()> {
        let mut fds = Vec::with_capacity(4);
        fds.extend(self.stdin.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::OUT)));
        fds.extend(self.stdout.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(self.stderr.as_ref().map(|pipe| PollFd::new(pipe, PollFlags::IN)));
        fds.extend(self.exit.as_ref().map(|exit| PollFd::new(exit, PollFlags::IN)));
        poll(&mut fds, deadline)
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

    /// The child has ended: takes what the pipes still hold, but waits for nobody.
    fn finish(mut self, buffer: &mut [u8]) -> Result<Vec<u8>, ExecError> {
        self.kill_group();
        self.read(buffer, LAST_READS_MAX)?;
        let status = self.child.wait().map_err(ExecError::Pipe)?;
        if status.success() {
            return Ok(std::mem::take(&mut self.result));
        }
        let stderr = self.tail.text();
        if let Some(error) = stderr.strip_prefix(&self.token) {
            return Err(ExecError::Start(std::io::Error::other(error.trim_end())));
        }
        Err(ExecError::Ended { status, stderr })
    }

    /// Kills the whole group. The child has not been waited for, so its number is still its own.
    fn kill_group(&self) {
        if let Some(pid) = pid(&self.child) {
            // A group that has nobody left is what we want.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // `try_wait` knows whether it was waited for; if it was, the number may be another's.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill_group();
            // It was killed, so this is short.
            let _ = self.child.wait();
        }
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

/// Whether that is a file which this process may execute.
pub(super) fn is_executable(file: &Path) -> bool {
    file.is_file() && rustix::fs::access(file, rustix::fs::Access::EXEC_OK).is_ok()
}
