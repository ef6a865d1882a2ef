//! A keeper as the worker has it.

use std::io::{IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::Shutdown;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use rustix::event::{PollFd, PollFlags};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use svcmap_proto::io::Clock;

use super::KEEPER_PATIENCE;
use crate::exec::environment::{OF_JOB, of_instance};
use crate::exec::words::{END, Environment, Orders, Report, start};
use crate::exec::{ExecError, Program};
use crate::io::{LOOK_INTERVAL, exit_fd, has_ended, poll};
use crate::processes::io as processes;
use crate::systemd;

/// A process that runs one program at a time. Dropping it ends the program.
#[derive(Debug)]
pub(super) struct Keeper {
    process: Child,
    socket: UnixStream,
    /// It has said so.
    is_ready: bool,
    is_idle: bool,
}

impl Keeper {
    pub(super) fn new(program: &Program) -> std::io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let mut command = Command::new(&program.starter);
        command.arg("exec-child").stdin(OwnedFd::from(theirs)).stdout(Stdio::null());
        OF_JOB.iter().chain(&systemd::NOT_INHERITED).for_each(|name| _ = command.env_remove(name));
        command.envs(of_instance(&program.key));
        let process = processes::spawn(&mut command)?;
        // The other end of the socket is now the keeper's alone, and ends with it.
        drop(command);
        let mut keeper = Self { process, socket, is_ready: false, is_idle: true };
        let Program { argv, kill_after, open_files, .. } = program.clone();
        Orders { argv, kill_after, open_files }.write(&mut keeper.socket)?;
        Ok(keeper)
    }

    /// Hands it the program's stdin, stdout and stderr, and what is to be added to its environment.
    ///
    /// # Errors
    /// If it does not live. Then it has not started anything.
    pub(super) fn start(
        &mut self,
        stdio: &[OwnedFd; 3],
        environment: &Environment,
    ) -> std::io::Result<()> {
        let word = start(environment)?;
        let files = [stdio[0].as_fd(), stdio[1].as_fd(), stdio[2].as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(3))];
        let mut along = SendAncillaryBuffer::new(&mut space);
        along.push(SendAncillaryMessage::ScmRights(&files));
        let sent = sendmsg(&self.socket, &[IoSlice::new(&word)], &mut along, SendFlags::empty())?;
        self.socket.write_all(&word[sent..])?;
        self.is_idle = false;
        Ok(())
    }

    /// The program is to end: now by itself, later by SIGKILL. If the keeper is gone, its report
    /// will say so.
    pub(super) fn end_job(&mut self) {
        let _ = self.socket.write_all(&[END]);
    }

    /// Another way to tell it the same, and to dismiss it.
    pub(super) fn ender(&self) -> std::io::Result<Ender> {
        self.socket.try_clone().map(Ender)
    }

    /// What it says; to be asked when there is something.
    ///
    /// # Errors
    /// If it was killed, and its program with it.
    pub(super) fn report(&mut self) -> Result<Report, ExecError> {
        let mut bytes = [0; Report::LENGTH];
        let read = self.socket.read_exact(&mut bytes);
        let Some(report) = read.ok().and_then(|()| Report::decode(bytes)) else {
            let lost = std::io::Error::other("the process that looks after it was ended");
            return Err(if self.is_ready { ExecError::Pipe(lost) } else { ExecError::Start(lost) });
        };
        match report {
            Report::Ready => self.is_ready = true,
            Report::NotStarted(_) | Report::Ended(_) => self.is_idle = true,
        }
        Ok(report)
    }

    /// Whether it can be handed a job.
    pub(super) fn is_idle(&self) -> bool {
        self.is_idle
    }

    /// Tells it that nobody needs it any more. It kills whatever it still has.
    pub(super) fn dismiss(&self) {
        // It may be gone already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Waits until it has ended. Whether it has, within the time that this may take.
    fn ends(&self) -> bool {
        let (exit, deadline) = (exit_fd(&self.process), Clock.now() + KEEPER_PATIENCE);
        while !has_ended(&self.process) {
            let now = Clock.now();
            if now >= deadline {
                return false;
            }
            let mut fds: Vec<_> = exit.iter().map(|fd| PollFd::new(fd, PollFlags::IN)).collect();
            if poll(&mut fds, deadline.min(now + LOOK_INTERVAL)).is_err() {
                return false;
            }
        }
        true
    }
}

/// Ends a keeper's program, from another thread.
#[derive(Debug)]
pub(super) struct Ender(UnixStream);

impl Ender {
    /// See [`Keeper::end_job`].
    pub(super) fn end(&self) {
        let _ = (&self.0).write_all(&[END]);
    }

    /// See [`Keeper::dismiss`].
    pub(super) fn dismiss(&self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

impl AsFd for Keeper {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.dismiss();
        if !self.ends() {
            // It was stopped, or waits for a device.
            let _ = self.process.kill();
        }
        if !self.is_idle {
            // It may have been killed amid a job. As long as it was not waited for, its number,
            // which is its session's, is its own.
            processes::kill_session(self.process.id());
        }
        processes::wait(&mut self.process);
    }
}
