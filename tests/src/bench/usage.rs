//! What processes take: CPU time from /proc, system calls from `perf`.

use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A clock tick, as /proc/PID/stat counts them: 10 ms on every Linux of today.
const TICK: Duration = Duration::from_millis(10);

/// The CPU time that these processes have taken so far, in user and in kernel mode.
///
/// # Panics
/// If one of them is gone.
pub fn cpu_time(pids: &[u32]) -> Duration {
    pids.iter().map(|pid| TICK * ticks(*pid).expect("it runs")).sum()
}

/// The 14th and the 15th field of /proc/PID/stat; the second is a name in parentheses.
fn ticks(pid: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u32, u32) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
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
