//! What the processes of a soak take: processor, memory, files and threads, from /proc.

use std::path::PathBuf;

use crate::cli::SoakArgs;
use crate::deployment::{Deployment, MAPPER};
use crate::soak::render::Usage;

/// Clock ticks in each second, as /proc/PID/stat counts them: 100 on every Linux of today.
const TICKS_PER_S: f64 = 100.0;

/// The processes of a kind, and what they had taken when the measurement began.
struct Kind {
    name: &'static str,
    pids: Vec<u32>,
    at: [Taken; 2],
}

/// What all processes of a kind have taken so far.
#[derive(Clone, Copy, Debug, Default)]
struct Taken {
    ticks: u64,
    rss_kb: u64,
    fds: u64,
    threads: u64,
}

/// See the module.
pub(super) struct Watch {
    kinds: Vec<Kind>,
}

impl Watch {
    /// The processes of that soak.
    pub(super) fn new(args: &SoakArgs, deployment: &Deployment) -> Self {
        let kind = |name, processes: Vec<String>| {
            let pids = processes.iter().filter_map(|process| deployment.pid(process)).collect();
            Kind { name, pids, at: [Taken::default(); 2] }
        };
        let mapper = kind("mapper", vec![MAPPER.to_owned()]);
        let workers = kind("workers", (0..args.workers).map(super::instance).collect());
        let senders = kind("senders", (0..args.senders).map(super::sender_name).collect());
        let kinds = [mapper, workers, senders];
        Self { kinds: kinds.into_iter().filter(|kind| !kind.pids.is_empty()).collect() }
    }

    /// The measurement begins.
    pub(super) fn start(&mut self) {
        self.kinds.iter_mut().for_each(|kind| kind.at[0] = Taken::by(&kind.pids));
    }

    /// The measurement is over.
    pub(super) fn end(&mut self) {
        self.kinds.iter_mut().for_each(|kind| kind.at[1] = Taken::by(&kind.pids));
    }

    /// What each kind took.
    pub(super) fn usage(&self) -> Vec<Usage> {
        let usage = |kind: &Kind| {
            let [start, end] = kind.at;
            Usage {
                kind: kind.name.to_owned(),
                processes: kind.pids.len(),
                cpu_s: end.ticks.saturating_sub(start.ticks) as f64 / TICKS_PER_S,
                rss_kb: [start.rss_kb, end.rss_kb],
                fds: [start.fds, end.fds],
                threads: [start.threads, end.threads],
            }
        };
        self.kinds.iter().map(usage).collect()
    }
}

impl Taken {
    fn by(pids: &[u32]) -> Self {
        pids.iter().filter_map(|pid| Self::by_one(*pid)).fold(Self::default(), |sum, one| Self {
            ticks: sum.ticks + one.ticks,
            rss_kb: sum.rss_kb + one.rss_kb,
            fds: sum.fds + one.fds,
            threads: sum.threads + one.threads,
        })
    }

    /// `None` if it has ended.
    fn by_one(pid: u32) -> Option<Self> {
        let process = PathBuf::from(format!("/proc/{pid}"));
        let status = std::fs::read_to_string(process.join("status")).ok()?;
        let stat = std::fs::read_to_string(process.join("stat")).ok()?;
        let (rss_kb, threads) = (field(&status, "VmRSS:")?, field(&status, "Threads:")?);
        let fds = std::fs::read_dir(process.join("fd")).ok()?.count() as u64;
        Some(Self { ticks: ticks(&stat)?, rss_kb, fds, threads })
    }
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time: the 14th and 15th field. The second is a name in parentheses.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_whatever_the_process_is_called() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194304 95 0 0 0 12 30 0 0 20 0 1 0 8 1 2";
        assert_eq!(ticks(stat), Some(42));
        assert_eq!(field("Name:\tx\nVmRSS:\t  812 kB\nThreads:\t3\n", "VmRSS:"), Some(812));
        assert_eq!((field("", "VmRSS:"), ticks("7 (x")), (None, None));
    }

    #[test]
    fn this_process_takes_something() {
        let taken = Taken::by(&[std::process::id()]);
        assert!(taken.rss_kb > 100 && taken.fds > 2 && taken.threads > 0, "{taken:?}");
    }
}
