//! What processes take: CPU time from /proc, system calls from `perf`.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// The time that these processes have kept cores busy so far, all their threads together.
///
/// # Panics
/// If one of them is gone.
pub fn cpu_time(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| cpu_time_of(*pid)).sum()
}

fn cpu_time_of(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The memory of its own that a process has in use, in kB: without its code, which is read as it goes.
///
/// # Panics
/// If it does not run.
pub fn own_memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it is Linux");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// The system calls that these processes make meanwhile, as `perf stat` counts them.
///
/// # Errors
/// If `perf` is not there or may not do that.
pub fn system_calls<T>(pids: &[u32], meanwhile: impl FnOnce() -> T) -> Result<(u64, T), String> {
    let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let event = "raw_syscalls:sys_enter";
    let perf = Command::new("perf")
        .args(["stat", "--field-separator", ",", "--event", event, "--pid", &pids])
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("perf: {error}"))?;
    // It says nothing when it is ready. What is missed while it starts is little.
    let result = meanwhile();
    let pid = i32::try_from(perf.id()).ok().and_then(Pid::from_raw).ok_or("perf has no number")?;
    kill_process(pid, Signal::INT).map_err(|error| format!("perf: {error}"))?;
    let output = perf.wait_with_output().map_err(|error| format!("perf: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said.lines().find(|line| line.contains(event));
    let count = line.and_then(|line| line.split(',').next()?.parse().ok());
    Ok((count.ok_or_else(|| format!("perf said `{}`", said.trim()))?, result))
}
