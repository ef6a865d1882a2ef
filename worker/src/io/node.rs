//! The I/O thread: it carries messages between the sockets and the pure types, and nothing more.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use slog::{Logger, error, warn};
use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::ToMapper;
use svcmap_proto::io::{self, Clock, Event, EventLoop, SocketKey};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::names::Endpoint;
use svcmap_proto::payload;
use svcmap_proto::rarely::Rarely;
use svcmap_proto::refusals::{BadMessage, Refusals};
use svcmap_proto::time::{Timestamp, earliest};

use super::builder::{LINGER, Notify, Observer, StartError};
use super::mappers::Mappers;
use super::serving::{Serving, UNANSWERED_MAX};
use super::shared::{Command, Room, Shared};
use super::sockets;
use super::ticket::Settler;
use super::trouble;
use crate::outbox::JobId;
use crate::outcome::Outcome;
use crate::sender::{Sender, SenderOutput};
use crate::senders::Connection;
use crate::server::{DrainReport, Server};

/// A turn that comes so much later than it was due means that this process was suspended.
const SUSPENSION: Duration = Duration::from_secs(1);

/// After a suspension, what waits is read for at most so long before any deadline counts.
const CATCH_UP: Duration = Duration::from_millis(50);

/// How the thread is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    NotYet,
    Drained(DrainReport),
    Stopped,
}

/// See the module.
pub(super) struct Node {
    event_loop: EventLoop,
    state: State,
}

struct State {
    mappers: Mappers,
    sender: Sender,
    serving: Option<Serving>,
    links: BTreeMap<u64, SocketKey>,
    /// The same, the other way round.
    link_numbers: BTreeMap<SocketKey, u64>,
    /// Commands that are being looked at.
    inbox: Vec<Command>,
    tickets: HashMap<JobId, Settler>,
    /// What the tickets are to get at the end of the turn.
    settled: Vec<(Settler, Outcome)>,
    shared: Arc<Shared>,
    observer: Option<Observer>,
    /// Whom to tell that their version is wrong.
    wrong_version: Vec<Connection>,
    refusals: Refusals,
    /// Workers to whom no socket could be opened.
    unconnected: Rarely,
    log: Logger,
    ending: Ending,
}

impl Node {
    #[allow(clippy::too_many_arguments)] // called in one place, with one of everything
    pub(super) fn new(
        mut event_loop: EventLoop,
        endpoints: Vec<Endpoint>,
        sender: Sender,
        serving: Option<Serving>,
        shared: Arc<Shared>,
        log: Logger,
        notify: Notify,
        observer: Option<Observer>,
    ) -> Result<Self, StartError> {
        let key = serving.as_ref().map(Serving::key);
        let mappers = Mappers::new(&mut event_loop, endpoints, key, log.clone(), notify)?;
        let state = State {
            mappers,
            sender,
            serving,
            links: BTreeMap::new(),
            link_numbers: BTreeMap::new(),
            inbox: Vec::new(),
            tickets: HashMap::new(),
            settled: Vec::new(),
            shared,
            observer,
            wrong_version: Vec::new(),
            refusals: Refusals::default(),
            unconnected: Rarely::default(),
            log,
            ending: Ending::NotYet,
        };
        Ok(Self { event_loop, state })
    }

    /// Runs until it is told to stop. Returns what a drain met.
    pub(super) fn run(mut self) -> Option<DrainReport> {
        let mut acted_at = Clock.now();
        while self.state.ending == Ending::NotYet {
            let deadline = self.state.poll_timeout();
            self.turn(deadline);
            let now = Clock.now();
            let late = deadline.map_or(Duration::ZERO, |due| now.since(due.max(acted_at)));
            if late > SUSPENSION {
                self.catch_up(late);
            }
            self.state.step(&mut self.event_loop);
            acted_at = Clock.now();
        }
        self.finish()
    }

    fn turn(&mut self, deadline: Option<Timestamp>) {
        let state = &mut self.state;
        if let Err(error) = self.event_loop.turn(deadline, |event| state.handle_event(event)) {
            error!(state.log, "the event loop failed"; "error" => %error);
            state.ending = Ending::Stopped;
        }
    }

    /// This process was suspended: what came meanwhile counts before any deadline does.
    fn catch_up(&mut self, late: Duration) {
        warn!(self.state.log, "this process was suspended"; "for_ms" => late.as_millis());
        let until = Clock.now() + CATCH_UP;
        while Clock.now() < until {
            self.turn(Some(Timestamp::default()));
        }
        self.state.mappers.handle_suspension(Clock.now(), late);
        self.state.sender.handle_suspension(Clock.now(), late);
        if let Some(serving) = &mut self.state.serving {
            serving.handle_suspension(Clock.now(), late);
        }
    }

    /// Says goodbye, and gives every ticket its outcome.
    fn finish(mut self) -> Option<DrainReport> {
        self.state.inbox = self.state.shared.close();
        self.state.handle_commands();
        let now = Clock.now();
        self.state.sender.stop(now);
        if let Some(serving) = &mut self.state.serving {
            serving.stop(now);
        }
        self.state.act(now, &mut self.event_loop);
        self.state.mappers.leave(&mut self.event_loop);
        let shared = Arc::clone(&self.state.shared);
        let ending = self.state.ending;
        drop(self.state);
        self.event_loop.close(LINGER);
        shared.status.update(|status| status.ended = true);
        match ending {
            Ending::Drained(report) => Some(report),
            Ending::NotYet | Ending::Stopped => None,
        }
    }
}

impl Drop for State {
    /// However this thread ends, nobody waits for it.
    fn drop(&mut self) {
        drop(self.shared.close());
    }
}

impl State {
    fn poll_timeout(&self) -> Option<Timestamp> {
        let serving = self.serving.as_ref().and_then(Serving::poll_timeout);
        let halves = earliest(serving, self.sender.poll_timeout());
        earliest(earliest(self.mappers.poll_timeout(), halves), self.refusals.poll_timeout())
    }

    /// Everything that follows a turn of the loop.
    fn step(&mut self, event_loop: &mut EventLoop) {
        self.handle_inbox();
        let now = Clock.now();
        if let Some(serving) = &mut self.serving {
            serving.handle_completions(now);
            serving.handle_timeout(now);
        }
        self.sender.handle_timeout(now);
        self.mappers.handle_timeout(now);
        self.act(now, event_loop);
        self.tell_status();
        if let Some(summary) = self.refusals.poll_summary(now) {
            warn!(self.log, "refused messages"; "messages" => %summary);
        }
        let idle = self.sender.is_empty();
        let drained = self.serving.as_ref().and_then(|serving| serving.drained(idle));
        if let Some(report) = drained {
            self.ending = Ending::Drained(report);
        }
    }

    fn handle_event(&mut self, event: Event<'_>) {
        let now = Clock.now();
        match event {
            Event::Received(socket, frames) => {
                if let Err(reason) = self.handle_frames(now, socket, frames) {
                    self.refusals.count(reason);
                }
            }
            Event::TooManyFrames(socket, frames) => {
                self.refusals.count(BadMessage::FrameCount);
                // A job waits for its reply, whatever that is.
                if let Some(&link) = self.link_numbers.get(&socket)
                    && frames.first().is_some_and(|frame| frame.is_empty())
                {
                    self.sender.handle_link_reply(now, link, &[]);
                }
                // A REQ socket waits for its reply all the same.
                if self.is_listener(socket)
                    && let Some((from, _)) = json::open(frames)
                {
                    let error = JsonError::new("too many frames: one JSON object is expected");
                    let _ = self.handle_request(now, from, Err(error));
                }
            }
            Event::Writable(socket) => {
                if let Some(&link) = self.link_numbers.get(&socket) {
                    self.sender.handle_link_writable(now, link);
                } else if let Some(index) = self.mappers.dealer(socket) {
                    self.mappers.handle_connected(now, index);
                }
            }
            Event::Unwritable(socket) => {
                if let Some(&link) = self.link_numbers.get(&socket) {
                    self.sender.handle_link_unwritable(now, link);
                } else if let Some(index) = self.mappers.dealer(socket) {
                    self.mappers.handle_lost(now, index);
                }
            }
            Event::Signal(_) | Event::Woken => {}
        }
    }

    fn handle_frames(
        &mut self,
        now: Timestamp,
        socket: SocketKey,
        frames: &mut [zmq::Message],
    ) -> Result<(), BadMessage> {
        if self.is_listener(socket) {
            self.handle_to_worker(now, frames)
        } else if let Some(&link) = self.link_numbers.get(&socket) {
            self.handle_from_worker(now, link, frames)
        } else if let Some(index) = self.mappers.subscription(socket) {
            self.mappers.handle_publication(now, index, frames, &mut self.sender)
        } else if let Some(index) = self.mappers.dealer(socket) {
            self.mappers.handle_answer(now, index, frames, &mut self.sender)
        } else if let Some(serving) = &mut self.serving
            && serving.listener.accepts.key() == socket
        {
            if let Some(failure) = serving.listener.accepts.handle_event(now, frames) {
                error!(self.log, "{}", failure);
            }
            Ok(())
        } else {
            // Of a connection that was closed a moment ago.
            Ok(())
        }
    }

    fn handle_from_worker(
        &mut self,
        now: Timestamp,
        link: u64,
        frames: &mut [zmq::Message],
    ) -> Result<(), BadMessage> {
        self.sender.count_message(frames.iter().map(|frame| frame.len()).sum());
        let [frame, others @ ..] = frames else { return Err(BadMessage::FrameCount) };
        if frame.is_empty() {
            // Only a REP socket puts that before what it says: one frame, or nothing that means
            // anything.
            let body = if let [body] = others { body } else { &[][..] };
            self.sender.handle_link_reply(now, link, body);
            return Ok(());
        }
        let message: FromWorker = payload::decode(frame, io::payloads(others))?;
        self.sender.handle_link_message(now, link, message);
        Ok(())
    }

    fn handle_to_worker(
        &mut self,
        now: Timestamp,
        frames: &mut [zmq::Message],
    ) -> Result<(), BadMessage> {
        if let Some((from, body)) = json::open(frames) {
            return self.handle_request(now, from, body);
        }
        let [from, frame, others @ ..] = frames else { return Err(BadMessage::FrameCount) };
        let from = Connection(from.to_vec());
        let message = payload::decode(frame, io::payloads(others)).inspect_err(|error| {
            let is_full = self.wrong_version.len() >= UNANSWERED_MAX;
            if matches!(error, DecodeError::Version(_)) && !is_full {
                self.wrong_version.push(from.clone());
            }
        })?;
        let Some(serving) = &mut self.serving else { return Ok(()) };
        let (own, Some(server)) = (&serving.key, &mut serving.server) else { return Ok(()) };
        match &message {
            ToWorker::Offer(slot) if !self.sender.believes(now, own, slot) => {
                server.decline(now, from, slot.offer);
            }
            _ => server.handle_message(now, from, message),
        }
        Ok(())
    }

    /// A REQ socket said something.
    fn handle_request(
        &mut self,
        now: Timestamp,
        from: Envelope,
        body: Result<&[u8], JsonError>,
    ) -> Result<(), BadMessage> {
        let Some(serving) = &mut self.serving else { return Ok(()) };
        serving.handle_request(now, from, body).map_err(|_| BadMessage::Json)
    }

    fn is_listener(&self, socket: SocketKey) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.listener.socket == socket)
    }

    /// Reads what is there; what comes meanwhile is for the next turn, which it wakes.
    fn handle_inbox(&mut self) {
        self.shared.take(&mut self.inbox);
        self.handle_commands();
    }

    fn handle_commands(&mut self) {
        let mut inbox = std::mem::take(&mut self.inbox);
        // After they were sent: else the time of a job would begin before it was submitted.
        let now = Clock.now();
        for command in inbox.drain(..) {
            match command {
                Command::Submit(spec, settler) => {
                    let id = settler.job();
                    self.tickets.insert(id, settler);
                    self.sender.handle_submit(now, id, spec);
                }
                Command::Cancel(id) => self.sender.handle_cancel(now, id),
                Command::Follow(service) => {
                    self.sender.follow(now, &service);
                }
                Command::Statistics(reply) => {
                    // Who asked may have gone.
                    let _ = reply.send(self.sender.statistics_at(now));
                }
                Command::Drain(grace) => match &mut self.serving {
                    Some(serving) => serving.drain(now, grace),
                    None => self.ending = Ending::Stopped,
                },
                Command::Stop => self.ending = Ending::Stopped,
            }
        }
        self.inbox = inbox;
    }

    /// Gives tickets their outcomes, all of a turn at once.
    fn settle(&mut self) {
        if self.settled.is_empty() {
            return;
        }
        let bytes = self.settled.iter().map(|(settler, _)| settler.bytes()).sum();
        self.shared.give_back(Room { jobs: self.settled.len(), bytes });
        for (settler, outcome) in self.settled.drain(..) {
            settler.settle(outcome);
        }
    }

    /// Does what the pure types want done, until they want nothing more.
    fn act(&mut self, now: Timestamp, event_loop: &mut EventLoop) {
        for to in std::mem::take(&mut self.wrong_version) {
            let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
            if let Some(serving) = &mut self.serving {
                let message = FromWorker::WrongVersion { oldest, newest };
                serving.answer(event_loop, now, &to, &message);
            }
        }
        loop {
            let (serving, sender) = (&mut self.serving, &mut self.sender);
            let (refusals, log) = (&mut self.refusals, &self.log);
            let served = serving.as_mut().is_some_and(|s| s.act(event_loop, sender, refusals, log));
            let load = self.serving.as_mut().and_then(|serving| serving.load(now));
            if let Some(load) = &load {
                self.mappers.handle_load(now, load);
            }
            let server = self.serving.as_ref().and_then(|serving| serving.server.as_ref());
            self.mappers.handle_error(server.and_then(Server::error));
            let serving = self.serving.as_mut();
            let talked = self.mappers.act(now, event_loop, &mut self.sender, serving);
            if !(self.act_sender(now, event_loop) || served || talked) {
                break;
            }
        }
        self.settle();
    }

    fn act_sender(&mut self, now: Timestamp, event_loop: &mut EventLoop) -> bool {
        let mut acted = false;
        while let Some(output) = self.sender.poll_output(now) {
            acted = true;
            match output {
                SenderOutput::Send { link, message } => {
                    let Some(&socket) = self.links.get(&link) else { continue };
                    let frames = payload::encode(&message);
                    // What cannot be sent is found missing at the next HELLO.
                    if event_loop.send(socket, frames.iter()).is_ok() {
                        self.sender.count_message(frames.bytes());
                    }
                }
                SenderOutput::Request { link, body } => {
                    let socket = self.links.get(&link);
                    let sent = socket.map(|&socket| event_loop.send(socket, [&b""[..], &body]));
                    if sent != Some(Ok(())) {
                        self.sender.handle_unsent(now, link);
                    }
                }
                SenderOutput::Connect { link, endpoint } => {
                    self.connect(link, &endpoint, event_loop);
                }
                SenderOutput::Disconnect { link } => {
                    if let Some(socket) = self.links.remove(&link) {
                        self.link_numbers.remove(&socket);
                        event_loop.remove(socket, LINGER);
                    }
                }
                SenderOutput::Subscribe(service) => self.mappers.follow(&service, event_loop),
                SenderOutput::Unsubscribe(service) => self.mappers.unfollow(&service, event_loop),
                SenderOutput::Sync { mapper, service } => {
                    self.mappers.tell(mapper, &ToMapper::Sync { service }, event_loop);
                }
                SenderOutput::Silent { mapper } => self.mappers.warn_silent(mapper),
                SenderOutput::Unheard(service) => self.mappers.warn_unheard(&service),
                SenderOutput::Unserved(service) => {
                    warn!(self.log, "nobody serves it any more, so jobs wait for whoever comes back";
                        "service" => %service);
                }
                SenderOutput::Unreachable { key, endpoint, failures, trouble } => {
                    trouble::warn(&self.log, &key, endpoint, failures, trouble);
                }
                SenderOutput::Observed(observation) => {
                    if let Some(observer) = &self.observer {
                        observer(observation);
                    }
                }
                SenderOutput::Declined(offer) => {
                    if let Some(serving) = &mut self.serving {
                        serving.handle_declined(offer);
                    }
                }
                SenderOutput::Settled { job, outcome } => {
                    let settler = self.tickets.remove(&job);
                    self.settled.extend(settler.map(|settler| (settler, outcome)));
                }
            }
        }
        acted
    }

    fn connect(&mut self, link: u64, endpoint: &Endpoint, event_loop: &mut EventLoop) {
        match sockets::dial_worker(event_loop, endpoint, &self.shared.config) {
            Ok(socket) => {
                self.link_numbers.insert(socket, link);
                self.links.insert(link, socket);
            }
            // The link notices that no WELCOME comes, and tries again.
            Err(error) => {
                if let Some(times) = self.unconnected.admit(Clock.now()) {
                    warn!(self.log, "cannot connect"; "worker" => %endpoint, "error" => %error,
                        "times" => times);
                }
            }
        }
    }

    fn tell_status(&self) {
        let (mappers, registered) = self.mappers.counts();
        self.shared.status.update(|status| {
            (status.mappers, status.registered) = (mappers, registered);
        });
    }
}
