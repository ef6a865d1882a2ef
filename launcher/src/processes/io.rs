//! Reading `/proc`, ending what descends from us, and collecting what others left to us.

use std::collections::BTreeSet;
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use signal_hook::consts::SIGCHLD;
use signal_hook::iterator::Signals;
use svcmap_proto::io::Clock;

use super::{Process, descendants};
use crate::io::pause_until;

/// How long processes that were killed may take to end: longer takes only one that waits for a
/// device, or that belongs to somebody else.
pub const KILLED_WITHIN: Duration = Duration::from_secs(1);

/// Time between two looks at whether they have.
pub const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The children that somebody here waits for.
static OURS: Mutex<BTreeSet<u32>> = Mutex::new(BTreeSet::new());

fn ours() -> MutexGuard<'static, BTreeSet<u32>> {
    OURS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts a child that [`collect_orphans`] leaves to [`wait`].
///
/// # Errors
/// As [`Command::spawn`].
pub fn spawn(command: &mut Command) -> std::io::Result<Child> {
    // The lock is held until its number is noted: it may end before.
    let mut ours = ours();
    let child = command.spawn()?;
    ours.insert(child.id());
    Ok(child)
}

/// Waits for the end of a child of [`spawn`], and returns how it ended.
pub fn wait(child: &mut Child) -> Option<ExitStatus> {
    // It fails only for a process that is no child of ours, or if nobody may wait for children.
    let status = child.wait().ok();
    ours().remove(&child.id());
    status
}

/// Whether there is a `/proc` here whose numbers are ours: it may show another PID namespace.
pub fn sees_descendants() -> bool {
    let own = std::fs::read_link("/proc/self").unwrap_or_default();
    own.to_str().and_then(|pid| pid.parse().ok()) == Some(std::process::id())
}

/// All processes, where they can be seen.
fn all() -> Option<Vec<Process>> {
    if !sees_descendants() {
        return None;
    }
    let entries = std::fs::read_dir("/proc").ok()?.flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ends meanwhile has no file any more.
    let stats = pids.filter_map(|pid| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok());
    Some(stats.filter_map(|stat| Process::parse(&stat)).collect())
}

fn own_pid() -> i32 {
    std::process::id().cast_signed()
}

/// Sends a signal to all that descend from this process. Returns whether they could be found.
pub fn signal_descendants(signal: Signal) -> bool {
    let Some(all) = all() else { return false };
    descendants(&all, |process| process.pid == own_pid())
        .iter()
        .for_each(|process| send(process.pid, signal));
    true
}

/// Kills what is left of the session that `leader`, a child of ours that ended, had begun, with all
/// that descends from it.
pub fn kill_session(leader: u32) {
    let (leader, deadline) = (leader.cast_signed(), Clock.now() + KILLED_WITHIN);
    while let Some(all) = all() {
        let is_member = |p: &Process| p.session == leader && p.pid != leader;
        let mut left = descendants(&all, is_member);
        left.extend(all.iter().filter(|process| is_member(process)));
        left.retain(|process| !process.is_zombie);
        if left.is_empty() || Clock.now() >= deadline {
            return;
        }
        left.iter().for_each(|process| send(process.pid, Signal::KILL));
        pause_until(Clock.now() + LOOK_AGAIN);
    }
}

fn send(pid: i32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid) {
        // It may have ended by itself, or belong to somebody else.
        let _ = kill_process(pid, signal);
    }
}

/// Collects the zombies that other processes leave to this one from now on, on a thread of its own:
/// as the first process of a container, or where whoever started it made it a subreaper. Does
/// nothing anywhere else.
///
/// # Errors
/// If the system gives no thread.
pub fn collect_orphans() -> std::io::Result<()> {
    if !gets_orphans() {
        return Ok(());
    }
    let mut signals = Signals::new([SIGCHLD])?;
    let thread = std::thread::Builder::new().name("orphans".into());
    let collect = move || {
        collect_zombies();
        signals.forever().for_each(|_| collect_zombies());
    };
    thread.spawn(collect).map(drop)
}

fn gets_orphans() -> bool {
    #[cfg(target_os = "linux")]
    let is_subreaper = matches!(rustix::process::child_subreaper(), Ok(Some(_)));
    #[cfg(not(target_os = "linux"))]
    let is_subreaper = false;
    std::process::id() == 1 || is_subreaper
}

/// Never `waitpid(-1)`: that would take the status of a child that somebody here waits for.
fn collect_zombies() {
    let ours = ours();
    let zombies = all().unwrap_or_default().into_iter().filter(|process| {
        let is_awaited = u32::try_from(process.pid).is_ok_and(|pid| ours.contains(&pid));
        process.is_zombie && process.parent == own_pid() && !is_awaited
    });
    for pid in zombies.filter_map(|process| Pid::from_raw(process.pid)) {
        // Nobody else waits for it, so it is there.
        let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    }
}
