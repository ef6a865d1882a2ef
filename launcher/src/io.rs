//! The outside that several modules need: files to poll, the parent process, the terminal.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, setrlimit};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::Signals;
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use crate::errors::signal_status;

/// Longest sleep while something has to be looked at that no file tells of: whether a job was
/// cancelled, and on systems without pidfd whether a child has ended.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Waits until one of these files is ready or the deadline comes. A signal may end it early.
///
/// # Errors
/// If the system is out of memory.
pub fn poll(fds: &mut [PollFd<'_>], deadline: Timestamp) -> std::io::Result<()> {
    // A duration that a Timespec cannot hold is as good as for ever.
    let timeout = Timespec::try_from(deadline.since(Clock.now())).ok();
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Does nothing until the deadline: for asking another process again, which cannot call us.
pub fn pause_until(deadline: Timestamp) {
    while Clock.now() < deadline && poll(&mut [], deadline).is_ok() {}
}

/// A file that becomes readable when that child ends, where the system has such a thing.
pub fn exit_fd(child: &std::process::Child) -> Option<OwnedFd> {
    #[cfg(target_os = "linux")]
    return rustix::process::pidfd_open(pid(child)?, rustix::process::PidfdFlags::empty()).ok();
    #[cfg(not(target_os = "linux"))]
    return None;
}

/// Whether that child has ended. It stays a zombie, so that its number, which is its process
/// group's as well, is not given to anybody else before it is waited for.
pub fn has_ended(child: &std::process::Child) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let Some(pid) = pid(child) else { return true };
    match rustix::process::waitid(WaitId::Pid(pid), options) {
        Ok(status) => status.is_some(),
        Err(error) => error != rustix::io::Errno::INTR,
    }
}

/// A child's number, as rustix has it.
pub fn pid(child: &std::process::Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}

/// From now on this process is killed when its parent ends: to be exact, when the thread ends that
/// started it. Where the system cannot do that, nothing happens.
///
/// # Errors
/// If the parent has ended already.
pub fn end_with_parent(parent: u32) -> Result<(), ParentGone> {
    #[cfg(target_os = "linux")]
    {
        use rustix::process::{Signal, set_parent_process_death_signal};
        // SIGKILL, as a process that hangs must go as well. It cannot fail for a valid signal.
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
    }
    // If the parent ended before that call, no signal will ever come.
    let now = rustix::process::getppid().map_or(0, |pid| pid.as_raw_pid().unsigned_abs());
    if now == parent { Ok(()) } else { Err(ParentGone { parent }) }
}

/// The process that started this one has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("process {parent}, which started this one, is gone")]
pub struct ParentGone {
    parent: u32,
}

/// Does something on a thread of its own, and waits for its end so long: for what writes to a pipe
/// that perhaps nobody reads. What is not done by then goes on, but nobody waits for it.
pub fn within<F: FnOnce() + Send + 'static>(patience: Duration, action: F) {
    let ((give, take), (done, is_done)) = (channel::<F>(), channel());
    let thread = std::thread::Builder::new().name("patience".to_owned());
    let started = thread.spawn(move || {
        if let Ok(action) = take.recv() {
            action();
            // Perhaps nobody waits any more.
            let _ = done.send(());
        }
    });
    match started {
        Ok(_) => {
            // If it is late, there is nothing to do about it.
            let _ = give.send(action);
            let _ = is_done.recv_timeout(patience);
        }
        // Without a thread it takes as long as it takes.
        Err(_) => action(),
    }
}

/// How many columns stdout has; `None` if it is no terminal.
pub fn stdout_columns() -> Option<usize> {
    columns(std::io::stdout())
}

/// How many columns stderr has; `None` if it is no terminal.
pub fn stderr_columns() -> Option<usize> {
    columns(std::io::stderr())
}

fn columns(file: impl AsFd) -> Option<usize> {
    if !rustix::termios::isatty(&file) {
        return None;
    }
    // Some terminals do not tell; 80 columns are what every screen is made for.
    let columns = rustix::termios::tcgetwinsize(&file).map_or(0, |size| size.ws_col);
    Some(if columns == 0 { 80 } else { usize::from(columns) })
}

/// Lets this process open as many files as the system allows, as each connection is one. Returns the
/// soft limit that it had before, for programs that it starts; `None` if there was none.
pub fn raise_open_files_limit() -> Option<u64> {
    let before = getrlimit(Resource::Nofile).current;
    svcmap_proto::io::raise_open_files_limit();
    before
}

/// Sets the soft limit of open files of this process, and of all that it starts from now on.
pub fn set_open_files_limit(files: u64) {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    // Where a hard limit below it was set meanwhile it stays as it is.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum });
}

/// SIGINT, SIGTERM, and SIGHUP, which a terminal sends that is closed: the first is waited for, so
/// that the process can end gracefully. After it a SIGINT or SIGTERM ends the process at once, with
/// the exit status 130 or 143. Another SIGHUP does not: one closed terminal sends several.
#[derive(Debug)]
pub struct StopSignals {
    signals: Signals,
}

impl StopSignals {
    /// From now on these signals no longer end the process by themselves.
    ///
    /// # Errors
    /// If the system does not let them be caught.
    pub fn catch() -> std::io::Result<Self> {
        let armed = arm_second_signal()?;
        let signals = stop_signals();
        if signals.contains(&SIGHUP) {
            flag::register(SIGHUP, armed)?;
        }
        Ok(Self { signals: Signals::new(signals)? })
    }

    /// A way for another thread to end [`StopSignals::wait`] without a signal.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let handle = self.signals.handle();
        move || handle.close()
    }

    /// Waits for the first signal, and returns its number; `None` if a stopper ended it.
    pub fn wait(&mut self) -> Option<i32> {
        self.signals.forever().next()
    }

    /// Whether the first signal has come, without waiting for it.
    pub fn has_come(&mut self) -> bool {
        self.signals.pending().next().is_some()
    }

    /// Does this at the first signal, on a thread of its own.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn on_first(mut self, action: impl FnOnce(i32) + Send + 'static) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("signals".into());
        let on_signal = move || {
            if let Some(signal) = self.wait() {
                action(signal);
            }
        };
        thread.spawn(on_signal).map(drop)
    }
}

/// Tells of each SIGINT, SIGTERM and SIGHUP, on a thread of its own, for a process that ends at the
/// second by itself. One that does not, as it waits for somebody who reads no more, is ended some time
/// after a SIGINT or SIGTERM that is not the first signal.
///
/// # Errors
/// If the system does not let them be caught, or gives no thread.
pub fn on_stop_signals(
    patience: Duration,
    tell: impl Fn(i32) + Send + 'static,
) -> std::io::Result<()> {
    let mut signals = Signals::new(stop_signals())?;
    let thread = std::thread::Builder::new().name("signals".into());
    let told = move || {
        for (count, signal) in signals.forever().enumerate() {
            tell(signal);
            if count > 0 && signal != SIGHUP {
                pause_until(Clock.now() + patience);
                signal_hook::low_level::exit(signal_status(signal));
            }
        }
    };
    thread.spawn(told).map(drop)
}

/// From now on a SIGINT or SIGTERM ends the process at once if the flag is set, which the first of them sets.
///
/// # Errors
/// If the system does not let them be caught.
pub fn arm_second_signal() -> std::io::Result<Arc<AtomicBool>> {
    let armed = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag unset, and then sets it.
        flag::register_conditional_shutdown(signal, signal_status(signal), armed.clone())?;
        flag::register(signal, armed.clone())?;
    }
    Ok(armed)
}

/// What asks a process to end.
pub fn stop_signals() -> Vec<i32> {
    let hangup = (!is_hangup_ignored()).then_some(SIGHUP);
    [SIGINT, SIGTERM].into_iter().chain(hangup).collect()
}

/// Whether stdout is a pipe that nobody reads any more.
pub fn is_stdout_closed() -> bool {
    let stdout = std::io::stdout();
    let mut fds = [PollFd::new(&stdout, PollFlags::empty())];
    poll(&mut fds, Timestamp::default()).is_ok() && fds[0].revents().contains(PollFlags::ERR)
}

/// Whether whoever started this process wants it to outlive its terminal, as `nohup` does. Where the
/// system does not tell, SIGHUP is left as it is.
fn is_hangup_ignored() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/self/status") else { return true };
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_none_or(|mask| mask & (1 << (SIGHUP - 1)) != 0)
}
