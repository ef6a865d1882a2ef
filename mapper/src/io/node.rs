//! The I/O thread: it carries messages between the sockets and the registry, and nothing more.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::Duration;

use slog::{Logger, debug, error, info, warn};
use svcmap_proto::codec;
use svcmap_proto::control::{KeyAnswer, KeyRefusal, KeyRequest, RegistrationError};
use svcmap_proto::io::{
    Clock, Connections, Event as IoEvent, EventLoop, Heard, SendError, SocketKey,
};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::principals::Principal;
use svcmap_proto::rarely::Rarely;
use svcmap_proto::refusals::Refusals;
use svcmap_proto::time::{Timestamp, earliest};

use super::key_file::KeyFile;
use super::monitor::Question;
use super::received;
use crate::backlog::Backlog;
use crate::metrics::Metrics;
use crate::registry::{Connection, Event, Output, Registry};
use crate::rights::Rights;

/// While nothing but reports comes, and few of them, they are read together once in this time: each
/// would wake this thread, and nobody waits for an answer. It is little beside the time that news waits
/// for company.
const REST: Duration = Duration::from_millis(2);

/// With more reports in a turn there is no rest.
const REST_REPORTS: usize = 64;

/// Reports between two looks at the clock: some ten microseconds of them.
const LOOK: usize = 16;

/// After a suspension, what waits is read for at most so long before any lease ends.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Messages that are read then, at most: four beats of a mapper with 16,384 instances.
const CATCH_UP_MESSAGES: usize = 65_536;

/// How long answers have to get out when the mapper stops.
const LINGER: Duration = Duration::from_millis(100);

/// What an operator wants, for the log.
fn told(request: &KeyRequest) -> String {
    match request {
        KeyRequest::List { .. } => "keys are listed".to_owned(),
        KeyRequest::Add(Principal { name, role, .. }) => {
            format!("a key is added: {name}, {role}")
        }
        KeyRequest::Revoke { name } => format!("a key is revoked: {name}"),
        KeyRequest::Rotate { name, keep_s, .. } => {
            format!("a key is replaced: {name}, whose former one is good for {keep_s} s")
        }
    }
}

/// What a turn of the loop brought: so many messages, and how many of them were no reports.
#[derive(Clone, Copy, Default)]
struct Came {
    messages: usize,
    others: usize,
}

/// The sockets of a mapper.
pub(super) struct Sockets {
    pub(super) router: SocketKey,
    pub(super) publisher: SocketKey,
    /// What tells of connections to them.
    pub(super) connections: Vec<Connections>,
}

/// What other threads want of that of a mapper; each wakes its loop for that.
pub(super) struct Asked {
    /// To end.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) questions: Receiver<Question>,
}

/// What runs on the thread of a mapper.
pub(super) struct Node {
    event_loop: EventLoop,
    sockets: Sockets,
    registry: Registry,
    key_file: KeyFile,
    /// A turn that comes so much later than it was due means that this process was suspended.
    suspension: Duration,
    asked: Asked,
    backlog: Backlog,
    bad_messages: Refusals,
    /// Who sent too many of them.
    cut_off: Rarely,
    refused: Refusals<RegistrationError>,
    undelivered: Refusals<SendError>,
    suspensions: u64,
    /// What came before that was read.
    read_until: Timestamp,
    log: Logger,
}

impl Node {
    /// `beat` is the registry's.
    pub(super) fn new(
        event_loop: EventLoop,
        sockets: Sockets,
        registry: Registry,
        key_file: KeyFile,
        beat: Duration,
        asked: Asked,
        log: Logger,
    ) -> Self {
        Self {
            event_loop,
            sockets,
            registry,
            key_file,
            suspension: beat,
            asked,
            backlog: Backlog::default(),
            bad_messages: Refusals::default(),
            cut_off: Rarely::default(),
            refused: Refusals::default(),
            undelivered: Refusals::default(),
            suspensions: 0,
            read_until: Clock.now(),
            log,
        }
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) -> io::Result<()> {
        let result = self.turns();
        match &result {
            Ok(()) => info!(self.log, "stopped"),
            Err(error) => error!(self.log, "the event loop failed"; "error" => %error),
        }
        self.event_loop.close(LINGER);
        result
    }

    fn turns(&mut self) -> io::Result<()> {
        while !self.asked.stop.load(Ordering::Acquire) {
            let registry_at = self.registry.poll_timeout();
            let due_at = earliest(registry_at, self.summaries_at());
            let came = self.turn(earliest(due_at, self.backlog.poll_timeout()))?;
            // The pulse is always due some time, so a process that stood still shows here, be it
            // in its sleep or amid its work.
            let due_at = registry_at.unwrap_or_else(|| Clock.now());
            if Clock.now().since(due_at) > self.suspension {
                self.catch_up(due_at)?;
            }
            let now = Clock.now();
            if self.registry.poll_timeout().is_some_and(|at| at <= now) {
                self.registry.handle_timeout(now);
                self.end_keys();
                self.act();
            }
            self.answer(now);
            self.try_again(now);
            self.summarise(now);
            self.rest(now, came);
        }
        Ok(())
    }

    /// Lets a few reports come together, unless something is due before.
    fn rest(&self, now: Timestamp, came: Came) {
        if came.others == 0 && (1..REST_REPORTS).contains(&came.messages) {
            let until = earliest(Some(now + REST), self.registry.poll_timeout());
            thread::park_timeout(until.map_or(REST, |until| until.since(now)));
        }
    }

    /// One turn of the loop: what it brings is bounded by the loop's own budget. Returns what came.
    fn turn(&mut self, deadline: Option<Timestamp>) -> io::Result<Came> {
        let (mut came, mut now) = (Came::default(), Clock.now());
        let Self { event_loop, sockets, registry, bad_messages, cut_off, log, .. } = self;
        event_loop.turn(deadline, |event| match event {
            IoEvent::Received(key, frames) if key != sockets.router => {
                let watched = sockets.connections.iter_mut().find(|watched| watched.key() == key);
                let now = Clock.now();
                if let Some(trouble) = watched.and_then(|watched| watched.handle_event(now, frames))
                {
                    error!(log, "{}", trouble);
                }
                Heard::Fine
            }
            IoEvent::Received(_, frames) => {
                if came.messages.is_multiple_of(LOOK) {
                    now = Clock.now();
                }
                came.messages += 1;
                if received::handle_report(registry, now, frames) {
                    return Heard::Fine;
                }
                came.others += 1;
                match received::handle(registry, frames) {
                    Ok(()) => Heard::Fine,
                    Err(reason) => {
                        bad_messages.count(reason);
                        registry.count_bad_message();
                        Heard::Bad
                    }
                }
            }
            IoEvent::TooManyFrames(_, frames) => {
                (came.messages, came.others) = (came.messages + 1, came.others + 1);
                bad_messages.count(received::refuse_frames(registry, frames));
                registry.count_bad_message();
                Heard::Bad
            }
            IoEvent::CutOff(_, address) => {
                if let Some(times) = cut_off.admit(Clock.now()) {
                    warn!(log, "cut off: it sent more than can be answered of what nobody can read";
                        "address" => address, "times" => times);
                }
                Heard::Fine
            }
            // To stop or to answer; nobody watches the rest.
            IoEvent::Woken | IoEvent::Signal(_) | IoEvent::Writable(_) | IoEvent::Unwritable(_) => {
                Heard::Fine
            }
        })?;
        // Reports may be among what was not read yet.
        now = Clock.now();
        if !self.event_loop.is_behind(self.sockets.router) {
            self.read_until = now;
        }
        self.registry.handle_unread(now.since(self.read_until));
        self.act();
        Ok(came)
    }

    /// Answers what other threads have asked.
    fn answer(&mut self, now: Timestamp) {
        while let Ok(question) = self.asked.questions.try_recv() {
            match question {
                Question::Metrics(reply) => reply(Metrics {
                    messages_refused: self.bad_messages.counts().clone(),
                    suspensions: self.suspensions,
                    ..self.registry.metrics(now)
                }),
                Question::Listed(reply) => reply(self.registry.listing(now, false)),
            }
        }
    }

    /// This process did not run since `due_at`: what came meanwhile counts before any lease ends.
    fn catch_up(&mut self, due_at: Timestamp) -> io::Result<()> {
        let until = Clock.now() + CATCH_UP;
        let mut count = 0;
        while Clock.now() < until && count < CATCH_UP_MESSAGES {
            count += self.turn(Some(until))?.messages;
        }
        let now = Clock.now();
        let gap = now.since(due_at);
        self.registry.handle_suspension(now, gap);
        self.suspensions += 1;
        warn!(self.log, "the mapper stood still: leases are extended";
            "gap_ms" => gap.as_millis(), "read" => count, "times" => self.suspensions);
        Ok(())
    }

    /// Does what the registry wants done.
    fn act(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Reply { to, message } => self.send(to, codec::encode(&message).into()),
                Output::Send { to, frame } => self.send(to, frame),
                Output::JsonReply { to, body } => {
                    let sent = self.event_loop.send(self.sockets.router, to.around(&body));
                    self.count_undelivered(sent);
                }
                Output::Publish { topic, frame } => {
                    let sent = self.event_loop.send(self.sockets.publisher, [&topic[..], &frame]);
                    self.count_undelivered(sent);
                }
                Output::Keys { from, request } => {
                    let answer = self.change_keys(from.user(), request);
                    self.registry.answer_keys(&from, answer);
                }
                Output::Event(event) => self.tell(event),
            }
        }
    }

    /// Does what an operator wants: once it is kept, it counts.
    fn change_keys(&mut self, user: Option<&PublicKey>, request: KeyRequest) -> KeyAnswer {
        let Some(rights) = self.registry.rights() else {
            return KeyAnswer::Refused(KeyRefusal::NoKeys);
        };
        let by = user.and_then(|user| rights.of(user)).map(|by| by.name.to_string());
        let (unix_s, what) = (Clock.unix_us() / 1_000_000, told(&request));
        // A key that is to be kept for no time ends now.
        let next = rights.after(unix_s, request).map(|next| next.at(unix_s).unwrap_or(next));
        match next {
            Ok(next) if next == *rights => KeyAnswer::Done,
            Ok(next) => match self.key_file.keep(&next) {
                Ok(()) => {
                    info!(self.log, "{}", what; "by" => by);
                    self.adopt(next);
                    KeyAnswer::Done
                }
                Err(error) => {
                    error!(self.log, "keys are as they were: the file cannot be written";
                        "error" => %error);
                    KeyAnswer::Refused(KeyRefusal::NotKept)
                }
            },
            Err(refusal) => KeyAnswer::Refused(refusal),
        }
    }

    /// Keys whose time has come are good no more.
    fn end_keys(&mut self) {
        let rights = self.registry.rights();
        if let Some(next) = rights.and_then(|rights| rights.at(Clock.unix_us() / 1_000_000)) {
            if let Err(error) = self.key_file.keep(&next) {
                error!(self.log, "a key has ended, and the file cannot be written";
                    "error" => %error);
            }
            self.adopt(next);
        }
    }

    /// Those may take part from now on, and nobody else: who may not any more is cut off.
    fn adopt(&mut self, rights: Rights) {
        let keys = rights.principals().len();
        self.event_loop.admit(rights.admitted());
        self.registry.handle_rights(Clock.now(), rights);
        info!(self.log, "others may take part from now on"; "keys" => keys);
    }

    fn send(&mut self, to: Connection, frame: Arc<[u8]>) {
        let is_waiting = self.backlog.holds(&to);
        let sent = match is_waiting {
            true => Err(SendError::Full),
            false => self.event_loop.send(self.sockets.router, [to.as_bytes(), &frame]),
        };
        match sent {
            Err(SendError::Full) => self.backlog.push(Clock.now(), to, frame),
            sent => self.count_undelivered(sent),
        }
    }

    /// Sends what connections could not take before.
    fn try_again(&mut self, now: Timestamp) {
        while let Some((to, frame)) = self.backlog.poll(now) {
            match self.event_loop.send(self.sockets.router, [to.as_bytes(), frame]) {
                Ok(()) => self.backlog.handle_sent(now, &to),
                Err(SendError::Full) => self.backlog.handle_full(now, &to),
                Err(SendError::Unreachable) => self.backlog.forget(&to),
            }
        }
    }

    /// A peer that is gone or does not read: ordinary life. Whoever needs an answer asks again.
    fn count_undelivered(&mut self, sent: Result<(), SendError>) {
        if let Err(error) = sent {
            self.undelivered.count(error);
        }
    }

    fn tell(&mut self, event: Event) {
        match event {
            Event::Registered { key, incarnation, endpoint } => info!(self.log, "registered";
                "instance" => %key, "incarnation" => %incarnation, "endpoint" => %endpoint),
            Event::Replaced { key, incarnation, by } => info!(self.log, "replaced";
                "instance" => %key, "incarnation" => %incarnation, "by" => %by),
            Event::AskedToDrain { key, incarnation } => info!(self.log, "asked to drain";
                "instance" => %key, "incarnation" => %incarnation),
            Event::Left { key, incarnation } => info!(self.log, "left";
                "instance" => %key, "incarnation" => %incarnation),
            Event::Expired { key, incarnation } => info!(self.log, "expired";
                "instance" => %key, "incarnation" => %incarnation),
            Event::Refused(error) => self.refused.count(error),
        }
    }

    fn summaries_at(&self) -> Option<Timestamp> {
        let refusals_at = earliest(self.bad_messages.poll_timeout(), self.refused.poll_timeout());
        earliest(refusals_at, self.undelivered.poll_timeout())
    }

    fn summarise(&mut self, now: Timestamp) {
        if let Some(summary) = self.bad_messages.poll_summary(now) {
            warn!(self.log, "refused messages"; "messages" => %summary);
        }
        if let Some(summary) = self.refused.poll_summary(now) {
            warn!(self.log, "refused registrations"; "registrations" => %summary);
        }
        if let Some(summary) = self.undelivered.poll_summary(now) {
            debug!(self.log, "undelivered messages"; "messages" => %summary);
        }
    }
}
