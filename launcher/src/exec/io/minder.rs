//! Looks after one program that stays, on a thread of its own: starts it, reads its stderr, and starts
//! it again when it has ended.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::SIGTERM;
use slog::{debug, warn};
use svcmap_proto::io::{Clock, random_u64};
use svcmap_proto::time::Timestamp;

use super::keeper::Keeper;
use super::life::Life;
use super::pipes::{LAST_READS_MAX, Pipes};
use super::residents::Shared;
use super::watch::{Reason, Watch};
use crate::exec::error::{ended, with_words};
use crate::exec::frames::FrameError;
use crate::exec::restarts::Restarts;
use crate::exec::words::{Environment, Report};
use crate::io::poll;
use crate::text;

/// How a life ended.
struct Over {
    why: String,
    was_ready: bool,
    /// It has answered a job.
    has_served: bool,
    fault: Fault,
    /// Who waits for its end, and what to tell them.
    waiting: Option<(Arc<Watch>, Option<ExitStatus>)>,
}

/// Whose fault it was.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// It was ended as a job's time was over, or that of the worker.
    Nobodys,
    /// It has done its jobs, and then ended as if all was well.
    Recycled,
    Its,
}

impl Over {
    /// It never lived.
    fn unborn(error: &std::io::Error, shared: &Shared) -> Self {
        let why = format!("cannot start {}: {error}", shared.program);
        Self { why, was_ready: false, has_served: false, fault: Fault::Its, waiting: None }
    }
}

/// Until the worker ends.
pub(super) fn mind(shared: &Shared, number: usize) {
    let (mut restarts, mut random) = (Restarts::default(), fastrand::Rng::with_seed(random_u64()));
    let mut keeper = None;
    loop {
        let over = Mind::begin(shared, number, keeper.take())
            .map(|mind| mind.follow(&mut keeper))
            .unwrap_or_else(|error| Over::unborn(&error, shared));
        if over.has_served {
            restarts.answered();
        }
        let pause = if over.fault == Fault::Nobodys {
            restarts.was_ended();
            Duration::ZERO
        } else {
            restarts.died(over.was_ready, &mut random)
        };
        if shared.set_ended(number, restarts.is_near(), &over.why) {
            tell(shared, number, &over, &restarts, pause);
        }
        // Now that the next job finds out whether to wait.
        if let Some((watch, status)) = over.waiting {
            watch.set_ended(status);
        }
        if !shared.pause(pause) {
            break;
        }
    }
    drop(keeper);
    shared.set_gone(number);
}

fn tell(shared: &Shared, number: usize, over: &Over, restarts: &Restarts, pause: Duration) {
    let (program, again_in) = (number + 1, text::time(pause));
    if over.fault == Fault::Its && restarts.is_notable() {
        warn!(shared.log, "program ended, it is started again"; "program" => program,
            "again_in" => again_in, "why" => &over.why);
    } else {
        debug!(shared.log, "program ended, it is started again"; "program" => program,
            "again_in" => again_in, "why" => &over.why);
    }
}

/// One life of the program.
struct Mind<'a> {
    shared: &'a Shared,
    number: usize,
    keeper: Keeper,
    watch: Arc<Watch>,
    /// As long as it has said nothing.
    unready: Option<Life>,
    /// It has said that it is ready.
    was_ready: bool,
    has_stderr: bool,
    /// When it has to have ended.
    until: Option<Timestamp>,
}

/// What has something to read.
struct Readable {
    keeper: bool,
    stderr: bool,
    stdout: bool,
}

impl<'a> Mind<'a> {
    fn begin(shared: &'a Shared, number: usize, keeper: Option<Keeper>) -> std::io::Result<Self> {
        let (theirs, pipes) = Pipes::open()?;
        let keeper = start(shared, keeper, &theirs)?;
        drop(theirs);
        let life = Life::new(pipes, keeper.ender()?);
        let watch = Arc::clone(&life.watch);
        if !shared.begin(number, &life) {
            watch.end(Reason::Time);
        }
        let (unready, has_stderr, until) = (Some(life), true, None);
        Ok(Self { shared, number, keeper, watch, unready, was_ready: false, has_stderr, until })
    }

    /// Until it has ended; a keeper that can be used again is left.
    fn follow(mut self, left: &mut Option<Keeper>) -> Over {
        let end = loop {
            let Ok(readable) = self.wait() else { break Err(None) };
            if readable.stderr {
                self.has_stderr = self.watch.read_stderr(1);
            }
            if readable.stdout {
                self.read_first_line();
            }
            if readable.keeper {
                match self.keeper.report() {
                    Ok(Report::Ready) => {}
                    Ok(Report::Ended(status)) => break Ok(ExitStatus::from_raw(status)),
                    Ok(Report::NotStarted(errno)) => {
                        break Err(Some(std::io::Error::from_raw_os_error(errno)));
                    }
                    Err(_) => break Err(None),
                }
            }
            if self.until.is_some_and(|until| until <= Clock.now()) {
                break Err(None);
            }
        };
        self.watch.read_stderr(LAST_READS_MAX);
        let waiting = Some((Arc::clone(&self.watch), end.as_ref().ok().copied()));
        let over = Over { waiting, ..self.over(end) };
        if self.keeper.is_idle() {
            *left = Some(self.keeper);
        }
        over
    }

    fn wait(&self) -> std::io::Result<Readable> {
        let mut fds = Vec::with_capacity(3);
        fds.push(PollFd::new(&self.keeper, PollFlags::IN));
        fds.extend(self.has_stderr.then(|| PollFd::new(&self.watch.stderr, PollFlags::IN)));
        fds.extend(self.unready.iter().map(|life| PollFd::new(&life.stdout, PollFlags::IN)));
        poll(&mut fds, self.until.unwrap_or(Timestamp::from_micros(u64::MAX)))?;
        let mut ready = fds.iter().map(|fd| !fd.revents().is_empty());
        let mut next = |is_there: bool| is_there && ready.next().unwrap_or(false);
        Ok(Readable {
            keeper: next(true),
            stderr: next(self.has_stderr),
            stdout: next(self.unready.is_some()),
        })
    }

    fn read_first_line(&mut self) {
        let Some(mut life) = self.unready.take() else { return };
        match life.read_ready() {
            Ok(true) => {
                debug!(self.shared.log, "program ready"; "program" => self.number + 1);
                self.was_ready = true;
                self.shared.set_ready(self.number, life);
            }
            Ok(false) => self.unready = Some(life),
            Err(why) => {
                self.watch.end(Reason::Broken(why));
                self.until = Some(Clock.now() + self.shared.program.end_limit());
            }
        }
    }

    fn over(&self, end: Result<ExitStatus, Option<std::io::Error>>) -> Over {
        let when = if self.was_ready { "" } else { " before it was ready" };
        let (has_served, was_ready) = (self.watch.has_served(), self.was_ready);
        let mut fault = Fault::Its;
        let why = match (end, self.watch.reason()) {
            (Err(Some(error)), _) => return Over::unborn(&error, self.shared),
            (Err(None), _) => format!("the process that looks after it was ended{when}"),
            // Most programs close their stdout by ending.
            (Ok(status), Some(Reason::Broken(why)))
                if why != FrameError::Closed("stdout") || status.signal() == Some(SIGTERM) =>
            {
                why.to_string()
            }
            (Ok(status), reason) => {
                if matches!(reason, Some(Reason::Time)) {
                    fault = Fault::Nobodys;
                } else if has_served && status.success() {
                    fault = Fault::Recycled;
                }
                format!("it ended{when}: {}", ended(&status))
            }
        };
        let why = with_words(&why, &self.watch.last_words());
        Over { why, was_ready, has_served, fault, waiting: None }
    }
}

/// A keeper that was handed the program: the one that had it before, or a new one.
fn start(
    shared: &Shared,
    earlier: Option<Keeper>,
    stdio: &[OwnedFd; 3],
) -> std::io::Result<Keeper> {
    let environment = Environment::new();
    if let Some(mut keeper) = earlier
        && keeper.start(stdio, &environment).is_ok()
    {
        return Ok(keeper);
    }
    let mut keeper = Keeper::new(&shared.program)?;
    keeper.start(stdio, &environment)?;
    Ok(keeper)
}
