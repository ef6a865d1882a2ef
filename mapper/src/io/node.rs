//! The I/O thread: it carries messages between the sockets and the registry, and nothing more.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slog::{Logger, debug, error, info, warn};
use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::{FromMapper, RegistrationError, ToMapper};
use svcmap_proto::io::{Accepts, Clock, Event as IoEvent, EventLoop, SendError, SocketKey};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::limits;
use svcmap_proto::refusals::{BadMessage, Refusals};
use svcmap_proto::time::{Timestamp, earliest};
use zmq::Message;

use crate::backlog::Backlog;
use crate::registry::{Connection, Event, Output, Registry};

/// What came is handled for at most so long before what is due gets its turn: beats and publications
/// wait for no flood.
const TURN: Duration = Duration::from_millis(10);

/// After a suspension, what waits is read for at most so long before any lease ends.
const CATCH_UP: Duration = Duration::from_millis(50);

/// Messages that are read then, at most: four beats of a mapper with 16,384 instances.
const CATCH_UP_MESSAGES: usize = 65_536;

/// How long answers have to get out when the mapper stops.
const LINGER: Duration = Duration::from_millis(100);

/// A message as it came.
struct Received {
    /// The address that it came from; empty if unknown.
    observed: String,
    said: Said,
}

enum Said {
    Native(Connection, Result<ToMapper, DecodeError>),
    /// What a REQ socket sent.
    Json(Envelope, Result<Vec<u8>, JsonError>),
}

/// The sockets of a mapper.
pub(super) struct Sockets {
    pub(super) router: SocketKey,
    pub(super) publisher: SocketKey,
    /// What tells of connections to them that could not be accepted.
    pub(super) accepts: Vec<Accepts>,
}

/// What runs on the thread of a mapper.
pub(super) struct Node {
    event_loop: EventLoop,
    sockets: Sockets,
    registry: Registry,
    /// A turn that comes so much later than it was due means that this process was suspended.
    suspension: Duration,
    stop: Arc<AtomicBool>,
    /// What one turn of the loop read: bounded by the loop's budget. Nothing is read until it was
    /// handled.
    inbox: VecDeque<Received>,
    backlog: Backlog,
    bad_messages: Refusals,
    refused: Refusals<RegistrationError>,
    undelivered: Refusals<SendError>,
    suspensions: u64,
    log: Logger,
}

impl Node {
    /// `beat` is the registry's, and `stop` ends it once it is set and the loop is woken.
    pub(super) fn new(
        event_loop: EventLoop,
        sockets: Sockets,
        registry: Registry,
        beat: Duration,
        stop: Arc<AtomicBool>,
        log: Logger,
    ) -> Self {
        Self {
            event_loop,
            sockets,
            registry,
            suspension: beat,
            stop,
            inbox: VecDeque::new(),
            backlog: Backlog::default(),
            bad_messages: Refusals::default(),
            refused: Refusals::default(),
            undelivered: Refusals::default(),
            suspensions: 0,
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
        while !self.stop.load(Ordering::Acquire) {
            let registry_at = self.registry.poll_timeout();
            let due_at = earliest(registry_at, self.summaries_at());
            self.turn(earliest(due_at, self.backlog.poll_timeout()))?;
            // The pulse is always due some time, so a process that stood still shows here, be it
            // in its sleep or amid its work.
            let due_at = registry_at.unwrap_or_else(|| Clock.now());
            if Clock.now().since(due_at) > self.suspension {
                self.catch_up(due_at)?;
            }
            let now = Clock.now();
            if self.registry.poll_timeout().is_some_and(|at| at <= now) {
                self.registry.handle_timeout(now);
                self.act();
            }
            self.try_again(now);
            self.summarise(now);
        }
        Ok(())
    }

    /// One turn of the loop. Returns how many messages it handled.
    fn turn(&mut self, deadline: Option<Timestamp>) -> io::Result<usize> {
        if self.inbox.is_empty() {
            self.read(deadline)?;
        }
        let until = Clock.now() + TURN;
        let mut count = 0;
        while let Some(received) = self.inbox.pop_front() {
            self.handle(received);
            // Before the next: a short question can have a long answer.
            self.act();
            count += 1;
            if Clock.now() >= until {
                break;
            }
        }
        Ok(count)
    }

    fn read(&mut self, deadline: Option<Timestamp>) -> io::Result<()> {
        let (inbox, bad_messages, registry) =
            (&mut self.inbox, &mut self.bad_messages, &mut self.registry);
        let mut count_bad = |reason: BadMessage| {
            bad_messages.count(reason);
            registry.count_bad_message();
        };
        let Sockets { router, accepts, .. } = &mut self.sockets;
        let log = &self.log;
        self.event_loop.turn(deadline, |event| match event {
            IoEvent::Received(key, frames) if key != *router => {
                let watched = accepts.iter_mut().find(|accepts| accepts.key() == key);
                let now = Clock.now();
                if let Some(failure) = watched.and_then(|a| a.handle_event(now, frames)) {
                    error!(log, "{}", failure);
                }
            }
            IoEvent::Received(_, frames) => match receive(frames) {
                Ok(received) => inbox.push_back(received),
                Err(reason) => count_bad(reason),
            },
            IoEvent::TooManyFrames(_, frames) => match json::open(frames) {
                // A REQ socket waits for its reply all the same.
                Some((from, _)) => {
                    let error = JsonError::new("too many frames: one JSON object is expected");
                    let said = Said::Json(from, Err(error));
                    inbox.push_back(Received { observed: String::new(), said });
                }
                None => count_bad(BadMessage::FrameCount),
            },
            // To stop; nobody watches the rest.
            IoEvent::Woken | IoEvent::Signal(_) | IoEvent::Writable(_) | IoEvent::Unwritable(_) => {
            }
        })
    }

    fn handle(&mut self, Received { observed, said }: Received) {
        let (now, unix_us) = (Clock.now(), Clock.unix_us());
        match said {
            Said::Native(from, Ok(message)) => {
                self.registry.handle_message(now, unix_us, &from, &observed, message);
            }
            Said::Native(from, Err(error)) => self.handle_undecoded(&from, error),
            Said::Json(from, body) => {
                let body = body.as_deref().map_err(Clone::clone);
                let answered = self.registry.handle_request(now, unix_us, from, &observed, body);
                if answered.is_err() {
                    self.count_bad(BadMessage::Json);
                }
            }
        }
    }

    fn handle_undecoded(&mut self, from: &Connection, error: DecodeError) {
        self.count_bad(error);
        if let DecodeError::Version(_) = error {
            let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
            self.reply(from, &FromMapper::WrongVersion { oldest, newest });
        }
    }

    fn count_bad(&mut self, reason: impl Into<BadMessage>) {
        self.bad_messages.count(reason);
        self.registry.count_bad_message();
    }

    /// This process did not run since `due_at`: what came meanwhile counts before any lease ends.
    fn catch_up(&mut self, due_at: Timestamp) -> io::Result<()> {
        let until = Clock.now() + CATCH_UP;
        let mut count = 0;
        while Clock.now() < until && count < CATCH_UP_MESSAGES {
            count += self.turn(Some(until))?;
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
                Output::Reply { to, message } => self.reply(&to, &message),
                Output::JsonReply { to, body } => {
                    let sent = self.event_loop.send(self.sockets.router, to.around(&body));
                    self.count_undelivered(sent);
                }
                Output::Publish { topic, message } => {
                    let frame = codec::encode(&message);
                    let sent = self.event_loop.send(self.sockets.publisher, [&topic[..], &frame]);
                    self.count_undelivered(sent);
                }
                Output::Event(event) => self.tell(event),
            }
        }
    }

    fn reply(&mut self, to: &Connection, message: &FromMapper) {
        let frame = codec::encode(message);
        let is_waiting = self.backlog.holds(to);
        let sent = match is_waiting {
            true => Err(SendError::Full),
            false => self.event_loop.send(self.sockets.router, [to.as_bytes(), &frame]),
        };
        match sent {
            Err(SendError::Full) => self.backlog.push(Clock.now(), to.clone(), frame),
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

/// A message on the ROUTER: the connection it came on, and one frame, or what a REQ socket sends.
fn receive(frames: &mut [Message]) -> Result<Received, BadMessage> {
    let said = match json::open(frames) {
        Some((from, body)) => Said::Json(from, body.and_then(within_limit)),
        None => {
            let [from, frame] = &*frames else { return Err(BadMessage::FrameCount) };
            Said::Native(Connection::new(from), codec::decode(frame))
        }
    };
    // A mapped address is the IPv4 address that it maps.
    let observed = frames.last_mut().and_then(|frame| frame.gets("Peer-Address"));
    let observed = observed.unwrap_or_default();
    let observed = observed.strip_prefix("::ffff:").unwrap_or(observed).to_owned();
    Ok(Received { observed, said })
}

fn within_limit(body: &[u8]) -> Result<Vec<u8>, JsonError> {
    if body.len() > limits::CONTROL_BYTES_MAX {
        let limit = limits::CONTROL_BYTES_MAX;
        return Err(JsonError::new(format_args!("larger than {limit} bytes")));
    }
    Ok(body.to_vec())
}
