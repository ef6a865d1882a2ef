//! One life of a program that stays, as the thread of a handler has it: jobs in, answers out.

use std::io::{ErrorKind, IoSlice, PipeReader, PipeWriter, Write};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use super::keeper::Ender;
use super::pipes::{CHUNK_BYTES, LAST_READS_MAX, Pipes, read_now};
use super::watch::{Reason, Watch};
use crate::exec::error::{ended, with_words};
use crate::exec::frames::{Answer, Answering, FrameError, Header, Incoming};
use crate::exec::stderr::Tail;
use crate::exec::{ExecError, Program, Task};
use crate::io::{LOOK_INTERVAL, poll};

/// How long a program that has closed its stdin or stdout may take to end, before it is told to.
const CLOSED_PATIENCE: Duration = Duration::from_secs(1);

/// A program that runs, for whoever gives it jobs.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) watch: Arc<Watch>,
    /// Closed when the worker ends.
    stdin: Option<PipeWriter>,
    pub(super) stdout: PipeReader,
    incoming: Incoming,
}

/// Why a program can do no more jobs.
enum Trouble {
    /// The job's time is over.
    Over(ExecError),
    Frame(FrameError),
    /// It has closed that, and most likely ended.
    Closed(&'static str),
    Pipe(std::io::Error),
}

impl From<FrameError> for Trouble {
    fn from(error: FrameError) -> Self {
        Trouble::Frame(error)
    }
}

impl Life {
    pub(super) fn new(pipes: Pipes, ender: Ender) -> Self {
        let Pipes { stdin, stdout, stderr } = pipes;
        let watch = Arc::new(Watch::new(ender, stderr));
        Self { watch, stdin: Some(stdin), stdout, incoming: Incoming::default() }
    }

    /// There are no more jobs: it may end by itself.
    pub(super) fn close_stdin(&mut self) {
        self.stdin = None;
    }

    /// Reads once. Whether there is more to come, now or later.
    fn read(&mut self) -> std::io::Result<bool> {
        let count = read_now(&self.stdout, self.incoming.room())?;
        self.incoming.add(count.unwrap_or(0));
        Ok(count != Some(0))
    }

    /// Whether it has said that it is ready; to be asked when there is something to read.
    pub(super) fn read_ready(&mut self) -> Result<bool, FrameError> {
        let is_open = self.read().unwrap_or(false);
        let is_ready = self.incoming.is_ready()?;
        if is_ready {
            self.incoming.expect_nothing()?;
        }
        if is_open { Ok(is_ready) } else { Err(FrameError::Closed("stdout")) }
    }

    /// Whether it can be given a job: it lives, and has said nothing that it was not asked.
    ///
    /// # Errors
    /// What it said. Then it is ended.
    pub(super) fn is_fit(&mut self, program: &Program) -> Result<bool, ExecError> {
        let is_open = self.read().unwrap_or(false);
        if let Err(why) = self.incoming.expect_nothing() {
            self.end(program, Reason::Broken(why.clone()));
            return Err(ExecError::NotBegun(format!("the program was ended: {why}")));
        }
        if !is_open && !self.watch.wait_ended(CLOSED_PATIENCE) {
            self.end(program, Reason::Broken(FrameError::Closed("stdout")));
        }
        Ok(is_open)
    }

    /// One job. After any error but those that are an answer the program has ended.
    pub(super) fn run(
        &mut self,
        program: &Program,
        task: &Task<'_>,
        result_bytes_max: usize,
    ) -> Result<Answer, ExecError> {
        let now = Clock.now();
        let header = Header {
            job: task.number,
            attempt: task.attempt,
            service: program.key.service.as_str(),
            instance: program.key.instance.as_str(),
            bytes: task.payload.len(),
            seconds_left: task.seconds_left(now),
            metadata: task.metadata,
        };
        let line = header.to_line().map_err(|error| ExecError::Pipe(error.into()))?;
        let mut unsent = Unsent { line: &line, payload: task.payload };
        let answer = self.ask(task, &mut unsent, result_bytes_max);
        let sent = line.len() + task.payload.len() - unsent.len();
        let answer = answer.map_err(|trouble| self.error(trouble, sent, program))?;
        self.watch.set_served();
        Ok(answer)
    }

    /// Writes the job and reads the answer.
    fn ask(
        &mut self,
        task: &Task<'_>,
        unsent: &mut Unsent<'_>,
        result_bytes_max: usize,
    ) -> Result<Answer, Trouble> {
        let mut answering = Answering::new(task.number, result_bytes_max);
        self.write(unsent)?;
        loop {
            let now = Clock.now();
            task.check(now).map_err(Trouble::Over)?;
            let look_at = now + LOOK_INTERVAL;
            let until = task.deadline.map_or(look_at, |deadline| deadline.min(look_at));
            let (can_read, can_write) =
                self.wait(!unsent.is_empty(), until).map_err(Trouble::Pipe)?;
            if can_read {
                let is_open = self.read().map_err(Trouble::Pipe)?;
                let answer = answering.advance(&mut self.incoming)?;
                answering.take_progress().into_iter().for_each(task.report);
                if let Some(answer) = answer {
                    self.incoming.expect_nothing()?;
                    return if unsent.is_empty() {
                        Ok(answer)
                    } else {
                        Err(FrameError::TooEarly.into())
                    };
                }
                if !is_open {
                    return Err(Trouble::Closed("stdout"));
                }
            }
            if can_write {
                self.write(unsent)?;
            }
        }
    }

    /// Waits until it has said something, or takes more, or that time. Which of both.
    fn wait(&self, is_writing: bool, until: Timestamp) -> std::io::Result<(bool, bool)> {
        let is_ready = |fd: &PollFd<'_>| !fd.revents().is_empty();
        let stdout = PollFd::new(&self.stdout, PollFlags::IN);
        match self.stdin.as_ref().filter(|_| is_writing) {
            None => {
                let mut fds = [stdout];
                poll(&mut fds, until)?;
                Ok((is_ready(&fds[0]), false))
            }
            Some(stdin) => {
                let mut fds = [stdout, PollFd::new(stdin, PollFlags::OUT)];
                poll(&mut fds, until)?;
                Ok((is_ready(&fds[0]), is_ready(&fds[1])))
            }
        }
    }

    /// Writes what it takes.
    fn write(&mut self, unsent: &mut Unsent<'_>) -> Result<(), Trouble> {
        let Some(stdin) = &mut self.stdin else { return Err(Trouble::Closed("stdin")) };
        while !unsent.is_empty() {
            match stdin.write_vectored(&unsent.slices()) {
                Ok(count) => unsent.advance(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                    return Err(Trouble::Closed("stdin"));
                }
                Err(error) => return Err(Trouble::Pipe(error)),
            }
        }
        Ok(())
    }

    /// Ends a program in trouble, if it has not ended by itself; what the job is told of it, of which so
    /// many bytes were sent.
    fn error(&mut self, trouble: Trouble, sent: usize, program: &Program) -> ExecError {
        let why = match trouble {
            Trouble::Over(error) => {
                self.end(program, Reason::Time);
                return error;
            }
            Trouble::Pipe(error) => {
                self.end(program, Reason::Pipe);
                return ExecError::Pipe(error);
            }
            Trouble::Closed(_) if self.watch.wait_ended(CLOSED_PATIENCE) => {
                return self.death(sent);
            }
            Trouble::Closed(which) => FrameError::Closed(which),
            Trouble::Frame(why) => why,
        };
        self.end(program, Reason::Broken(why.clone()));
        ExecError::Broken { why, stderr: self.watch.last_words() }
    }

    /// It ended by itself.
    fn death(&self, sent: usize) -> ExecError {
        let Some(Some(status)) = self.watch.status() else {
            return ExecError::Pipe(std::io::Error::other(
                "the process that looks after it was ended",
            ));
        };
        let stderr = self.watch.last_words();
        // Nobody but the program reads from its pipe, so what is left there was never seen.
        let unread = self.stdin.as_ref().map(rustix::io::ioctl_fionread);
        if matches!(unread, Some(Ok(unread)) if unread == sent as u64) {
            let ended = with_words(&ended(&status), &stderr);
            return ExecError::NotBegun(format!(
                "the program ended before it read the job: {ended}"
            ));
        }
        ExecError::Died { status, stderr }
    }

    /// Ends it, and waits until it has ended. What it still says is thrown away.
    fn end(&mut self, program: &Program, reason: Reason) {
        self.watch.end(reason);
        let limit = Clock.now() + program.end_limit();
        let mut buffer = vec![0; CHUNK_BYTES];
        while self.watch.status().is_none() {
            let now = Clock.now();
            if now >= limit {
                return self.watch.give_up();
            }
            // Its stdin stays open, as half a job should not look like a whole one.
            let _ = self.wait(false, limit.min(now + LOOK_INTERVAL));
            if matches!(read_now(&self.stdout, &mut buffer), Ok(Some(0)) | Err(_)) {
                self.watch.wait_ended(limit.since(now));
            }
        }
    }

    /// What it wrote to stderr between two jobs, as far as it was read.
    pub(super) fn earlier_words(&self) -> Tail {
        self.watch.take_words()
    }

    /// What it wrote to stderr in the job that is over.
    pub(super) fn take_words(&self) -> Tail {
        self.watch.read_stderr(LAST_READS_MAX);
        self.watch.take_words()
    }
}

/// What of a job was not written yet.
struct Unsent<'a> {
    line: &'a [u8],
    payload: &'a [u8],
}

impl Unsent<'_> {
    fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(self.line), IoSlice::new(self.payload)]
    }

    fn len(&self) -> usize {
        self.line.len() + self.payload.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn advance(&mut self, count: usize) {
        let of_line = count.min(self.line.len());
        self.line = &self.line[of_line..];
        self.payload = &self.payload[(count - of_line).min(self.payload.len())..];
    }
}
