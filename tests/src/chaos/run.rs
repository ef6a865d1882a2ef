//! One round: starts everybody, does to them what is planned, lets all jobs end, and looks at what
//! was written down.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use svcmap::commands::mapper::parse_listening_line;
use svcmap::io::pause_until;
use svcmap::supervisor::{ChildId, ChildSpec, Exit, Supervisor};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use super::check::{Timing, story, violations};
use super::history::{EVERYBODY, Event, Line, Told};
use super::journal::{self, Journal, LATE, LOOK};
use super::plan::{Fault, Planned, Role, plan};
use super::{SERVICE, worker_name};

/// What the mappers dictate.
pub const TIMING: Timing =
    Timing { beat: Duration::from_millis(500), expiry: Duration::from_millis(1500) };

/// How long a process may take to end that was asked to.
const ENDS_WITHIN: Duration = Duration::from_secs(12);

/// How long all jobs may take to end once nothing happens any more: longer than a patience.
const SETTLES_WITHIN: Duration = Duration::from_secs(60);

/// How long what was ended may still be seen.
const GONE_WITHIN: Duration = Duration::from_secs(3);

/// Time before a mapper is tried again whose port somebody else has for a moment.
const AGAIN: Duration = Duration::from_millis(300);

/// A process that is asked to end so soon may not have got to where it listens for that.
const YOUNG: Duration = Duration::from_secs(2);

/// Stories that are told of one round.
const STORIES: usize = 5;

/// How a round shall be.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long things are done to processes.
    pub length: Duration,
    /// What the plan and the jobs follow from.
    pub seed: u64,
    /// How many mappers.
    pub mappers: usize,
    /// How many workers; every fourth runs programs.
    pub workers: usize,
    /// How many senders.
    pub senders: usize,
    /// Jobs in a second, of all senders together.
    pub rate: f64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Findings {
    /// Jobs submitted.
    pub jobs: usize,
    /// How often each outcome was told.
    pub outcomes: BTreeMap<&'static str, usize>,
    /// Jobs that a sender left without an outcome as it was killed.
    pub left: usize,
    /// Runs begun.
    pub runs: usize,
    /// What was done to processes.
    pub faults: usize,
    /// What must not be, each with its story.
    pub wrong: Vec<String>,
}

/// What a process is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    No,
    Killed,
    Asked(Timestamp),
}

struct Process {
    role: Role,
    name: String,
    life: u64,
    child: Option<ChildId>,
    started_at: Timestamp,
    /// When its next life begins, once it has none.
    start_at: Timestamp,
    away: Duration,
    ending: Ending,
    /// Where a mapper listens.
    addresses: [String; 2],
}

struct Round<'a> {
    settings: &'a Settings,
    folder: &'a Path,
    executable: PathBuf,
    supervisor: Supervisor,
    journal: Journal,
    processes: Vec<Process>,
    continues: BTreeSet<(Timestamp, usize)>,
    until: Timestamp,
    wrong: Vec<String>,
}

/// Runs a round, with what is written in that folder. To be called by the main thread, whose
/// working directory becomes that folder.
///
/// # Errors
/// If the system starts no process, or takes no file.
pub fn run(settings: &Settings, folder: &Path) -> Result<Findings, Box<dyn std::error::Error>> {
    // By it, whatever a process has started is found at the end.
    std::env::set_current_dir(folder)?;
    let executable = std::env::current_exe()?;
    let mut round = Round {
        settings,
        folder,
        supervisor: Supervisor::with_executable(&executable),
        executable,
        journal: Journal::open(folder, EVERYBODY, 0)?,
        processes: processes(settings),
        continues: BTreeSet::new(),
        until: Clock.now() + settings.length,
        wrong: Vec::new(),
    };
    let faults = round.disturb();
    round.settle();
    round.end();
    round.wrong.extend(left_behind(folder).map(|what| format!("it outlived everything: {what}")));
    let wrong = std::mem::take(&mut round.wrong);
    drop(round);
    let lines = journal::read(folder)?;
    Ok(Findings { faults, wrong, ..Findings::default() }.with(&lines))
}

fn processes(settings: &Settings) -> Vec<Process> {
    let process = |role, name| Process {
        role,
        name,
        life: 0,
        child: None,
        started_at: Timestamp::default(),
        start_at: Timestamp::default(),
        away: Duration::ZERO,
        ending: Ending::No,
        addresses: ["tcp://127.0.0.1:0".to_owned(), "tcp://127.0.0.1:0".to_owned()],
    };
    let mappers = (0..settings.mappers).map(|n| process(Role::Mapper, format!("m-{n}")));
    let workers = (0..settings.workers)
        .map(|n| process(if n % 4 == 3 { Role::ExecWorker } else { Role::Worker }, worker_name(n)));
    let senders = (0..settings.senders).map(|n| process(Role::Sender, format!("s-{n}")));
    mappers.chain(workers).chain(senders).collect()
}

impl Round<'_> {
    /// Does what is planned, until all of it is over and everybody is there again.
    fn disturb(&mut self) -> usize {
        let roles: Vec<Role> = self.processes.iter().map(|process| process.role).collect();
        let planned = plan(self.settings.seed, self.settings.length, &roles);
        let (begin, mut faults) = (Clock.now(), 0);
        let mut planned = planned.into_iter().peekable();
        loop {
            let now = Clock.now();
            while let Some(next) = planned.next_if(|next| begin + next.at <= now) {
                faults += usize::from(self.inflict(next));
            }
            self.go_on(now);
            let is_over = planned.peek().is_none() && self.continues.is_empty();
            let is_whole = self.processes.iter().all(|process| {
                (process.child.is_some() && process.ending == Ending::No)
                    || (process.role == Role::Sender && process.child.is_none())
            });
            if is_over && is_whole && now >= self.until || now >= self.until + ENDS_WITHIN {
                return faults;
            }
            self.wait(now + LOOK);
        }
    }

    /// Waits until all senders have ended, as each of their jobs has its outcome.
    fn settle(&mut self) {
        let limit = Clock.now() + SETTLES_WITHIN;
        while self.processes.iter().any(|p| p.role == Role::Sender && p.child.is_some()) {
            if Clock.now() >= limit {
                self.wrong.push("some senders still wait for outcomes".to_owned());
                return;
            }
            self.go_on(Clock.now());
            self.wait(Clock.now() + LOOK);
        }
    }

    /// Asks all to end: the workers before the mappers.
    fn end(&mut self) {
        for is_mapper in [false, true] {
            for index in 0..self.processes.len() {
                if (self.processes[index].role == Role::Mapper) == is_mapper {
                    self.terminate(index, Duration::MAX);
                }
            }
            let is_there = |p: &Process| (p.role == Role::Mapper) == is_mapper && p.child.is_some();
            while self.processes.iter().any(is_there) {
                self.hurry(Clock.now());
                self.wait(Clock.now() + LOOK);
            }
        }
    }

    fn inflict(&mut self, Planned { target, fault, .. }: Planned) -> bool {
        let process = &mut self.processes[target];
        let (Some(child), Ending::No) = (process.child, process.ending) else { return false };
        match fault {
            Fault::Kill(away) => {
                (process.ending, process.away) = (Ending::Killed, away);
                self.note(target, Event::Killed);
                self.supervisor.kill(child);
            }
            Fault::Stop(still) => {
                self.note(target, Event::Stopped);
                self.supervisor.signal(child, Signal::STOP);
                self.continues.insert((Clock.now() + still, target));
            }
            Fault::Terminate(away) => self.terminate(target, away),
        }
        true
    }

    fn terminate(&mut self, target: usize, away: Duration) {
        let process = &mut self.processes[target];
        if let (Some(child), Ending::No) = (process.child, process.ending) {
            (process.ending, process.away) = (Ending::Asked(Clock.now()), away);
            self.note(target, Event::Asked);
            self.supervisor.terminate(child);
        }
    }

    /// Continues whoever stood still for long enough, and starts whoever was away for long enough.
    fn go_on(&mut self, now: Timestamp) {
        while let Some((at, target)) = self.continues.pop_first() {
            if at > now {
                self.continues.insert((at, target));
                break;
            }
            if let Some(child) = self.processes[target].child {
                self.supervisor.signal(child, Signal::CONT);
                self.note(target, Event::Continued);
            }
        }
        self.hurry(now);
        for target in 0..self.processes.len() {
            let Process { role, child, start_at, .. } = self.processes[target];
            let is_wanted = role != Role::Sender || now < self.until;
            if child.is_none() && start_at <= now && is_wanted {
                self.start(target);
            }
        }
    }

    /// Kills whoever was asked and does not end.
    fn hurry(&mut self, now: Timestamp) {
        for process in &mut self.processes {
            if let (Some(child), Ending::Asked(at)) = (process.child, process.ending)
                && now >= at + ENDS_WITHIN
            {
                process.ending = Ending::Killed;
                self.wrong.push(format!("{} did not end when it was asked to", process.name));
                self.supervisor.kill(child);
            }
        }
    }

    fn start(&mut self, target: usize) {
        let args = self.args(target);
        let process = &mut self.processes[target];
        process.life += 1;
        process.ending = Ending::No;
        process.started_at = Clock.now();
        let is_mapper = process.role == Role::Mapper;
        let spec = ChildSpec::new(process.name.clone(), args);
        let spec = if is_mapper { spec.with_first_line() } else { spec };
        self.note(target, Event::Started);
        let started = self.supervisor.start(spec);
        let process = &mut self.processes[target];
        match started {
            Ok(child) => process.child = Some(child),
            Err(error) => {
                self.wrong.push(error.to_string());
                process.start_at = Clock.now() + ENDS_WITHIN;
                return;
            }
        }
        let Some(child) = process.child.filter(|_| is_mapper) else { return };
        // Without a line it ends, and is tried again.
        if let Ok(line) = self.supervisor.first_line(child, Clock.now() + ENDS_WITHIN)
            && let Some((bind, publish)) = parse_listening_line(&line)
        {
            process.addresses = [bind.to_string(), publish.to_string()];
        }
    }

    fn args(&self, target: usize) -> Vec<String> {
        let process = &self.processes[target];
        let own = |command: &str| {
            let folder = self.folder.display().to_string();
            let life = (process.life + 1).to_string();
            let own = [command, "--folder", &folder, "--who", &process.name, "--life", &life];
            own.map(str::to_owned).to_vec()
        };
        let beat = format!("{}ms", TIMING.beat.as_millis());
        let [bind, publish] = &process.addresses;
        let mut args = match process.role {
            Role::Mapper => {
                let own = ["mapper", "--log-level", "error", "--bind", bind, "--publish", publish];
                return own.into_iter().chain(["--beat", &beat]).map(str::to_owned).collect();
            }
            Role::Worker => own("serve"),
            Role::ExecWorker => self.exec_args(&process.name),
            Role::Sender => own("send"),
        };
        if process.role == Role::Sender {
            let rate = self.settings.rate / self.settings.senders as f64;
            let seed = self.settings.seed.wrapping_mul(1000) + target as u64 * 100 + process.life;
            let until = self.until.as_micros().to_string();
            let further = [("--rate", rate.to_string()), ("--until", until)];
            let numbers = [("--seed", seed), ("--workers", self.settings.workers as u64)];
            let numbers = numbers.map(|(flag, number)| (flag, number.to_string()));
            for (flag, value) in further.into_iter().chain(numbers) {
                args.extend([flag.to_owned(), value]);
            }
        }
        for mapper in self.processes.iter().filter(|process| process.role == Role::Mapper) {
            args.extend(["--mapper".to_owned(), mapper.addresses[0].clone()]);
        }
        args
    }

    fn exec_args(&self, name: &str) -> Vec<String> {
        let (executable, folder) = (self.executable.display(), self.folder.display());
        let exec = format!("'{executable}' program --folder '{folder}' --who {name}");
        let own = ["worker", "--log-level", "error", "--service", SERVICE, "--instance", name];
        let queue = super::serve::QUEUE.to_string();
        let limits = [
            "--queue",
            &queue,
            "--concurrency",
            "2",
            "--grace",
            "1s",
            "--kill-after",
            "500ms",
            "--exec",
        ];
        own.into_iter().chain(limits).map(str::to_owned).chain([exec]).collect()
    }

    /// Waits so long, or until somebody has ended.
    fn wait(&mut self, until: Timestamp) {
        let exit = self.supervisor.next_exit(until);
        let now = Clock.now();
        if exit.is_none() && now < until {
            pause_until(until);
        }
        if let Some(exit) = exit {
            self.handle_exit(&exit, now);
        }
        if now.since(until) > LATE {
            self.journal.write(Event::Late { from_us: until.as_micros() });
        }
    }

    fn handle_exit(&mut self, exit: &Exit, now: Timestamp) {
        let of = |process: &Process| process.child == Some(exit.child);
        let Some(target) = self.processes.iter().position(of) else { return };
        self.note(target, Event::Ended);
        self.continues.retain(|(_, of)| *of != target);
        let until = self.until;
        let process = &mut self.processes[target];
        process.child = None;
        process.start_at = now + process.away;
        let is_right = match process.ending {
            Ending::Killed => true,
            Ending::Asked(at) => exit.status.success() || at.since(process.started_at) < YOUNG,
            Ending::No if process.role == Role::Sender => exit.status.success() && now >= until,
            Ending::No => {
                process.start_at = now + AGAIN;
                // Its port may be somebody else's for a moment.
                process.role == Role::Mapper && now.since(process.started_at) < YOUNG
            }
        };
        process.ending = Ending::No;
        if !is_right {
            self.wrong.push(exit.to_string());
        }
    }

    fn note(&self, target: usize, event: Event) {
        let process = &self.processes[target];
        self.journal.write_of(&process.name, process.life, event);
    }
}

impl Findings {
    fn with(mut self, lines: &[Line]) -> Self {
        for line in lines {
            match &line.event {
                Event::Submit { .. } => self.jobs += 1,
                Event::Start { .. } => self.runs += 1,
                Event::Outcome { told, .. } => *self.outcomes.entry(word(told)).or_default() += 1,
                _ => {}
            }
        }
        self.left = self.jobs.saturating_sub(self.outcomes.values().sum());
        let found = violations(lines, TIMING);
        for violation in found.iter().take(STORIES) {
            self.wrong.push(format!("{violation}\n{}", story(lines, &violation.job)));
        }
        self.wrong.extend(found.iter().skip(STORIES).map(ToString::to_string));
        self
    }
}

fn word(told: &Told) -> &'static str {
    match told {
        Told::Done { .. } => "done",
        Told::Mistaken { .. } => "mistaken",
        Told::Failed { .. } => "failed",
        Told::Refused { .. } => "refused",
        Told::Unknown { .. } => "unknown",
        Told::Accepted => "accepted",
    }
}

/// Processes that work in that folder though all have ended: what some process had started.
fn left_behind(folder: &Path) -> impl Iterator<Item = String> {
    let limit = Clock.now() + GONE_WITHIN;
    loop {
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let there = processes.filter(|entry| {
            let pid = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            pid.is_some_and(|pid| pid != std::process::id())
                && std::fs::read_link(entry.path().join("cwd")).is_ok_and(|at| at == folder)
        });
        let found: Vec<String> = there
            .map(|entry| {
                let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
                let words = String::from_utf8_lossy(&words).replace('\0', " ");
                format!("{} {words}", entry.file_name().display())
            })
            .collect();
        if found.is_empty() || Clock.now() >= limit {
            return found.into_iter();
        }
        pause_until(Clock.now() + LOOK);
    }
}
