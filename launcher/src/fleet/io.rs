//! The processes of a topology, really: one thread that waits for signals, ends, lines and questions, and
//! does what the [`Fleet`] says.

mod answers;
pub mod client;
mod clients;
mod farewell;
mod files;
mod http;
mod pipes;
mod screen;
pub mod seat;
mod signals;
mod systemd;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{ChildStderr, ChildStdout, ExitCode};

use rustix::event::{PollFd, PollFlags};
use signal_hook::consts::SIGHUP;
use svcmap_proto::io::{Clock, random_u64};
use svcmap_proto::time::Timestamp;

use self::clients::Clients;
use self::farewell::{Death, Farewell};
use self::files::LogFile;
use self::http::Desk;
use self::pipes::{read, without_waiting};
use self::screen::Screen;
use self::seat::Seat;
use self::signals::Signals;
use self::systemd::Told;
use super::lines::{Recent, Splitter};
use super::{End, Event, Fleet, Launch, Output, State, Who};
use crate::errors::Failure;
use crate::io::{LOOK_INTERVAL, poll};
use crate::logging::LogOptions;
use crate::supervisor::{ChildId, ChildSpec, Exit, Output as Stdio, Supervisor};
use crate::text::time;
use crate::topology::io::{Loaded, load};
use crate::topology::{self, Log, OWN_NAME};

/// The environment variables that would tell a process something else than its topology does.
const NOT_INHERITED: [&str; 2] =
    [crate::parse::MAPPER_VARIABLE, crate::access::DEPLOYMENT_VARIABLE];

/// Keeps a topology until a signal ends it.
///
/// # Errors
/// If somebody keeps it already, or the system gives no sockets or threads.
pub fn keep(
    loaded: Loaded,
    http: Option<SocketAddr>,
    log: &LogOptions,
) -> Result<ExitCode, Failure> {
    Keeper::begin(loaded, http, log)?.run()
}

struct Keeper<'a> {
    path: PathBuf,
    /// What the file said that counts.
    text: String,
    /// What it said before, for services that go on by that.
    former: String,
    log: &'a LogOptions,
    fleet: Fleet,
    supervisor: Supervisor,
    living: BTreeMap<Who, Living>,
    recent: BTreeMap<String, Recent>,
    seat: Seat,
    desk: Option<Desk>,
    clients: Clients,
    next_command: u64,
    signals: Signals,
    told: Told,
    farewell: Farewell,
    screen: Screen,
    /// When it was started, until that was told with what it took.
    began_at: Option<Timestamp>,
    /// When it was told to end.
    closing_at: Option<Timestamp>,
    is_settled: bool,
    /// Processes whose files cannot be written, which was said.
    unwritable: BTreeSet<String>,
    /// How many files it could open before it raised that: what programs are given.
    open_files: Option<u64>,
    /// Until then nobody is taken in, as the system gave no connection.
    deaf_until: Timestamp,
}

/// How long nobody is taken in after that.
const DEAF: std::time::Duration = std::time::Duration::from_secs(1);

/// What a file that is waited for is.
enum Watched {
    Signal,
    Commands,
    Http,
    Exit,
    Lines(Who),
    Client,
}

/// A process that is there.
struct Living {
    child: ChildId,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    lines: (Splitter, Splitter),
    file: Option<LogFile>,
    /// Its last line, or the last one that says what is wrong.
    last_line: Option<String>,
    has_complained: bool,
}

impl<'a> Keeper<'a> {
    fn begin(
        loaded: Loaded,
        http: Option<SocketAddr>,
        log: &'a LogOptions,
    ) -> Result<Self, Failure> {
        let Loaded { path, text, topology } = loaded;
        let signals = Signals::catch().map_err(Failure::failed)?;
        let seat = Seat::take(&path)?;
        let desk = http.map(Desk::open).transpose()?;
        let open_files = crate::io::raise_open_files_limit();
        let names = topology.names();
        let screen = Screen::new(log.log_format, names.iter().map(String::as_str));
        let now = Clock.now();
        let mut keeper = Self {
            path,
            former: text.clone(),
            text,
            log,
            fleet: Fleet::new(topology, now, random_u64()),
            supervisor: Supervisor::new().map_err(Failure::failed)?,
            living: BTreeMap::new(),
            recent: BTreeMap::new(),
            seat,
            desk,
            clients: Clients::default(),
            next_command: 0,
            signals,
            told: Told::of_environment()?,
            farewell: Farewell::start().map_err(Failure::failed)?,
            screen: screen.map_err(Failure::failed)?,
            began_at: Some(now),
            closing_at: None,
            is_settled: false,
            unwritable: BTreeSet::new(),
            open_files,
            deaf_until: now,
        };
        let what = keeper.fleet.topology().summary();
        keeper.own_line(&format!("{what}; see them: svcmap ps"), false);
        if let Some(url) = keeper.desk.as_ref().map(|desk| desk.url.clone()) {
            keeper.own_line(&format!("HTTP on {url}: /metrics, /healthz, /readyz"), false);
        }
        Ok(keeper)
    }

    fn run(mut self) -> Result<ExitCode, Failure> {
        loop {
            while let Some(output) = self.fleet.poll_output() {
                self.perform(output);
            }
            self.clients.write();
            self.tell_settled();
            self.tell_turn(Clock.now());
            if self.fleet.is_over() {
                return Ok(self.end());
            }
            let watched = self.wait()?;
            // Those that go make room for those that come.
            for (client, question) in self.clients.read(Clock.now()) {
                self.handle_question(client, question);
            }
            for watched in watched {
                match watched {
                    Watched::Signal => self.handle_signals(Clock.now()),
                    Watched::Commands => self.take_in(Clock.now()),
                    Watched::Http => self.answer_by_http(),
                    Watched::Exit => self.handle_exits(),
                    Watched::Lines(who) => self.read_of(&who),
                    Watched::Client => {}
                }
            }
            self.fleet.handle_timeout(Clock.now());
        }
    }

    fn end(mut self) -> ExitCode {
        let took = self.closing_at.map_or_else(Default::default, |at| Clock.now().since(at));
        self.own_line(&format!("stopped in {}", time(took)), false);
        ExitCode::SUCCESS
    }

    /// Until something happens: what it is.
    fn wait(&self) -> Result<Vec<Watched>, Failure> {
        let exits = self.supervisor.exits();
        let now = Clock.now();
        let mut deadline = self.fleet.poll_timeout().unwrap_or(Timestamp::from_micros(u64::MAX));
        if exits.is_none() {
            deadline = deadline.min(now + LOOK_INTERVAL);
        }
        deadline = deadline.min(self.told.poll_timeout());
        let mut all = vec![(Watched::Signal, self.signals.as_fd(), PollFlags::IN)];
        if self.deaf_until <= now {
            all.push((Watched::Commands, self.seat.listener.as_fd(), PollFlags::IN));
        } else {
            deadline = deadline.min(self.deaf_until);
        }
        all.extend(self.desk.iter().map(|desk| (Watched::Http, desk.as_fd(), PollFlags::IN)));
        let is_unknown = exits.is_none();
        let exits = exits.into_iter().flatten();
        all.extend(exits.map(|exit| (Watched::Exit, exit, PollFlags::IN)));
        for (who, living) in &self.living {
            let stdout = living.stdout.as_ref().map(AsFd::as_fd);
            let pipes = stdout.into_iter().chain(living.stderr.as_ref().map(AsFd::as_fd));
            all.extend(pipes.map(|pipe| (Watched::Lines(who.clone()), pipe, PollFlags::IN)));
        }
        all.extend(self.clients.fds().map(|(fd, writes)| {
            let flags = if writes { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            (Watched::Client, fd, flags)
        }));
        let fds = all.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags));
        let mut fds: Vec<_> = fds.collect();
        poll(&mut fds, deadline).map_err(Failure::failed)?;
        let ready: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let ready = all.into_iter().zip(ready).filter(|(_, is_ready)| *is_ready);
        let ready = ready.map(|((watched, ..), _)| watched);
        Ok(ready.chain(is_unknown.then_some(Watched::Exit)).collect())
    }

    fn take_in(&mut self, now: Timestamp) {
        if let Err(error) = self.clients.accept(&self.seat.listener, now) {
            self.own_line(&format!("no command is heard for a second: {error}"), true);
            self.deaf_until = now + DEAF;
        }
    }

    fn handle_exits(&mut self) {
        while let Some(exit) = self.supervisor.next_exit(Timestamp::default()) {
            self.handle_exit(Clock.now(), &exit);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Start(who, launch) => {
                if let Err(reason) = self.start(&who, &launch) {
                    self.fleet.handle_start_failed(Clock.now(), &who, reason);
                }
            }
            Output::Terminate(who) => {
                if let Some(living) = self.living.get(&who) {
                    self.supervisor.terminate(living.child);
                }
            }
            Output::Kill(who) => {
                if let Some(living) = self.living.get(&who) {
                    self.supervisor.kill(living.child);
                }
            }
            Output::Say(event) => self.say(&event),
            Output::Answer(command, answer) => self.clients.answer(command, answer),
        }
    }

    fn start(&mut self, who: &Who, launch: &Launch) -> Result<(), String> {
        let name = who.to_string();
        let file = match &launch.log {
            Log::Output => None,
            Log::Files { dir, bytes_max, keep } => {
                let file = LogFile::open(dir, &name, *bytes_max, *keep);
                Some(file.map_err(|error| format!("no log in {}: {error}", dir.display()))?)
            }
        };
        if let Some(dir) = launch.dir.as_ref().filter(|dir| !dir.is_dir()) {
            return Err(format!("there is no folder {}", dir.display()));
        }
        let mut args: Vec<OsString> = self.log.flags().into_iter().map(Into::into).collect();
        args.extend(launch.args.clone());
        args.extend(self.open_files.map(|files| format!("--open-files={files}").into()));
        let spec = ChildSpec {
            env: launch.env.clone(),
            without_env: NOT_INHERITED.to_vec(),
            dir: launch.dir.clone(),
            stdout: Stdio::Piped,
            stderr: Stdio::Piped,
            ..ChildSpec::new(name, args)
        };
        let child = self.supervisor.start(spec).map_err(|error| error.to_string())?;
        let (stdout, stderr) = self.supervisor.take_pipes(child);
        stdout.iter().for_each(|pipe| without_waiting(pipe.as_fd()));
        stderr.iter().for_each(|pipe| without_waiting(pipe.as_fd()));
        let living = Living {
            child,
            stdout,
            stderr,
            lines: Default::default(),
            file,
            last_line: None,
            has_complained: false,
        };
        self.living.insert(who.clone(), living);
        Ok(())
    }

    fn handle_exit(&mut self, now: Timestamp, exit: &Exit) {
        let found = self.living.iter().find(|(_, living)| living.child == exit.child);
        let Some(who) = found.map(|(who, _)| who.clone()) else { return };
        if let Who::Worker(key) = &who {
            let topology = self.fleet.topology();
            self.farewell.tell(Death {
                key: key.clone(),
                incarnation: exit.incarnation,
                mappers: self.fleet.mapper_endpoints(),
                protection: topology.protection_of(&key.service),
            });
        }
        // What it wrote before.
        self.read_of(&who);
        let Some(living) = self.living.remove(&who) else { return };
        // Who was killed has not said why.
        let has_reason = exit.status.code().is_some() || living.has_complained;
        let last_line = living.last_line.filter(|_| has_reason);
        self.forget_lines();
        let end = End { code: exit.status.code(), how: exit.how(), last_line };
        self.fleet.handle_end(now, &who, end);
    }

    /// Keeps the last lines of those that there are, and no others.
    fn forget_lines(&mut self) {
        let names: BTreeSet<String> =
            self.fleet.members().map(|(who, _)| who.to_string()).collect();
        self.recent.retain(|name, _| name == OWN_NAME || names.contains(name));
    }

    fn read_of(&mut self, who: &Who) {
        let Some(living) = self.living.get_mut(who) else { return };
        let (stdout, stderr) = &mut living.lines;
        let said = read(&mut living.stdout, stdout);
        let logged = read(&mut living.stderr, stderr);
        for line in said {
            self.fleet.handle_line(Clock.now(), who, &line);
        }
        let name = who.to_string();
        for line in logged {
            self.log_line(who, &name, &line);
        }
    }

    fn log_line(&mut self, who: &Who, name: &str, line: &str) {
        self.clients.line(name, line);
        self.recent.entry(name.to_owned()).or_default().push(line);
        let Some(living) = self.living.get_mut(who) else { return };
        living.has_complained |= line.starts_with("error: ");
        // After an error come its remedies.
        if line.starts_with("error: ") || !living.has_complained {
            living.last_line = Some(line.to_owned());
        }
        match &mut living.file {
            None => self.screen.line(name, line, false),
            Some(file) => {
                if let Err(error) = file.line(line) {
                    self.tell_unwritable(name, &error);
                }
            }
        }
    }

    /// Once for each.
    fn tell_unwritable(&mut self, name: &str, error: &std::io::Error) {
        if self.unwritable.insert(name.to_owned()) {
            self.own_line(&format!("the log of {name} cannot be written: {error}"), true);
        }
    }

    fn say(&mut self, event: &Event) {
        let Event { who, is_bad, text } = event;
        let Some(name) = who.as_ref().map(Who::to_string) else {
            return self.own_line(text, *is_bad);
        };
        self.own_line(&format!("{name} {text}"), *is_bad);
        // Among what it wrote, for whoever looks at that alone.
        let text = format!("({OWN_NAME}: {text})");
        if who.as_ref().is_some_and(|who| self.fleet.member(who).is_some()) {
            self.recent.entry(name.clone()).or_default().push_about(&text);
        }
        self.clients.line_about(&name, &text);
    }

    fn own_line(&mut self, line: &str, is_bad: bool) {
        self.recent.entry(OWN_NAME.to_owned()).or_default().push(line);
        self.screen.line(OWN_NAME, line, is_bad);
        self.clients.line(OWN_NAME, line);
        self.clients.event(OWN_NAME, line);
    }

    /// Once everything has come to where it stays.
    fn tell_settled(&mut self) {
        let states = || self.fleet.members().map(|(_, member)| member.state);
        let is_settled = self.fleet.is_open() && states().all(State::is_settled);
        if is_settled && !self.is_settled && self.closing_at.is_none() {
            let (ready, all) =
                (states().filter(|state| state.is_ready()).count(), states().count());
            let line = match (all - ready, self.began_at.take()) {
                (0, Some(began_at)) => {
                    format!("all {all} ready (after {})", time(Clock.now().since(began_at)))
                }
                (0, None) => format!("all {all} ready"),
                _ => format!("{ready} of {all} ready; see the others: svcmap ps"),
            };
            self.own_line(&line, ready < all);
            self.tell_ready();
        }
        self.is_settled = is_settled;
    }

    fn handle_signals(&mut self, now: Timestamp) {
        for signal in self.signals.come() {
            match signal {
                SIGHUP if self.signals.has_terminal_left() => {
                    self.signals.arm();
                    self.close(now);
                }
                SIGHUP => {
                    self.tell_reloading();
                    self.reload(now);
                    self.tell_reloaded();
                }
                _ => self.close(now),
            }
        }
    }

    fn close(&mut self, now: Timestamp) {
        if self.closing_at.is_some() {
            return;
        }
        self.closing_at = Some(now);
        self.tell_stopping();
        let alive = self.living.keys().filter(|who| who.service().is_some()).count();
        let grace = self.fleet.topology().services.values().map(|service| service.worker.grace);
        let grace = time(grace.max().unwrap_or_default());
        self.own_line(
            &format!("draining {alive} instances, at most {grace} (^C again: now)"),
            false,
        );
        self.fleet.handle_close(now);
    }

    /// The file may say something else by now.
    fn reload(&mut self, now: Timestamp) {
        let applied = load(&self.path).map_err(|failure| failure.message).and_then(|new| {
            let changed = topology::changes(Some(self.fleet.topology()), &new.topology);
            self.fleet.handle_topology(now, new.topology)?;
            if self.fleet.reverted().is_empty() {
                self.former = std::mem::replace(&mut self.text, new.text);
            } else {
                self.text = new.text;
            }
            Ok(changed.iter().filter(|change| change.sign != ' ').count())
        });
        self.told.is_refused = applied.is_err();
        match applied {
            Ok(0) => self.own_line("SIGHUP: nothing has changed in the file", false),
            Ok(count) => {
                self.is_settled = false;
                self.own_line(&format!("SIGHUP: the file is applied, {count} changed"), false);
            }
            Err(why) => {
                self.own_line(
                    "SIGHUP: the file is not applied, everything goes on as before",
                    true,
                );
                why.lines().for_each(|line| self.own_line(line, true));
            }
        }
    }
}
