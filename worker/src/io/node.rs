//! The I/O thread: it carries messages between the sockets and the process, and nothing more.

mod outputs;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use slog::{error, warn};
use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::{Publication, topic_service};
use svcmap_proto::io::{self, Clock, Event, EventLoop, Heard, SocketKey};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::payload;
use svcmap_proto::rarely::Rarely;
use svcmap_proto::refusals::{BadMessage, Refusals};
use svcmap_proto::time::{Timestamp, earliest};

use super::mappers::Mappers;
use super::notice::{LINGER, Observer};
use super::pool::Completion;
use super::report::Report;
use super::serving::Serving;
use super::shared::{Command, FEW_JOBS, Room, Shared};
use super::ticket::{Completer, Wakeup};
use crate::config::SERVICES_FOLLOWED_MAX;
use crate::metrics::Metrics;
use crate::outbox::JobId;
use crate::outcome::Outcome;
use crate::process::Process;
use crate::senders::Connection;
use crate::server::DrainReport;

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
    process: Process,
    mappers: Mappers,
    serving: Option<Serving>,
    links: BTreeMap<u64, SocketKey>,
    /// The same, the other way round.
    link_numbers: BTreeMap<SocketKey, u64>,
    /// Commands that are being looked at.
    inbox: Vec<Command>,
    /// Jobs that handlers have finished, and that are being looked at.
    done: Vec<Completion>,
    tickets: FxHashMap<JobId, Completer>,
    /// What the tickets are to get at the end of the turn.
    settled: Vec<(Completer, Outcome)>,
    /// Whom that wakes.
    wakeups: Vec<Wakeup>,
    /// A job was submitted or ended in this turn, or a worker or sender spoke.
    has_moved: bool,
    shared: Arc<Shared>,
    report: Report,
    observer: Option<Observer>,
    refusals: Refusals,
    /// Who sent too much that was refused.
    cut_off: Rarely,
    /// Workers to whom no socket could be opened.
    unconnected: Rarely,
    ending: Ending,
}

impl Node {
    #[allow(clippy::too_many_arguments)] // called in one place, with one of everything
    pub(super) fn new(
        event_loop: EventLoop,
        process: Process,
        mappers: Mappers,
        serving: Option<Serving>,
        shared: Arc<Shared>,
        report: Report,
        observer: Option<Observer>,
    ) -> Self {
        let state = State {
            process,
            mappers,
            serving,
            links: BTreeMap::new(),
            link_numbers: BTreeMap::new(),
            inbox: Vec::new(),
            done: Vec::new(),
            tickets: FxHashMap::default(),
            settled: Vec::new(),
            wakeups: Vec::new(),
            has_moved: false,
            shared,
            report,
            observer,
            refusals: Refusals::default(),
            cut_off: Rarely::default(),
            unconnected: Rarely::default(),
            ending: Ending::NotYet,
        };
        Self { event_loop, state }
    }

    /// Runs until it is told to stop. Returns what a drain met.
    pub(super) fn run(mut self) -> Option<DrainReport> {
        let mut acted_at = Clock.now();
        while self.state.ending == Ending::NotYet {
            let deadline = self.state.poll_timeout();
            self.turn(deadline);
            if let Some(gap) = Process::suspended_for(deadline, acted_at, Clock.now()) {
                self.catch_up(gap);
            }
            self.state.step(&mut self.event_loop);
            acted_at = Clock.now();
        }
        self.finish()
    }

    fn turn(&mut self, deadline: Option<Timestamp>) {
        let state = &mut self.state;
        if let Err(error) = self.event_loop.turn(deadline, |event| state.handle_event(event)) {
            error!(state.report.log, "the event loop failed"; "error" => %error);
            state.ending = Ending::Stopped;
        }
    }

    /// This process was suspended: what came meanwhile counts before any deadline does.
    fn catch_up(&mut self, gap: Duration) {
        warn!(self.state.report.log, "this process was suspended"; "for_ms" => gap.as_millis());
        let until = Clock.now() + CATCH_UP;
        while Clock.now() < until {
            self.turn(Some(Timestamp::default()));
        }
        self.state.process.handle_suspension(Clock.now(), gap);
    }

    /// Says goodbye, and gives every ticket its outcome.
    fn finish(mut self) -> Option<DrainReport> {
        self.state.inbox = self.state.shared.close();
        self.state.handle_commands();
        let now = Clock.now();
        self.state.handle_completions(now);
        self.state.process.stop(now);
        self.state.act(now, &mut self.event_loop);
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
        if std::thread::panicking() {
            self.shared.status.update(|status| status.ended = true);
        }
    }
}

impl State {
    fn poll_timeout(&self) -> Option<Timestamp> {
        earliest(self.process.poll_timeout(), self.refusals.poll_timeout())
    }

    /// Everything that follows a turn of the loop.
    fn step(&mut self, event_loop: &mut EventLoop) {
        self.handle_inbox();
        let now = Clock.now();
        if let Some(serving) = &mut self.serving {
            serving.begin_turn();
        }
        self.handle_completions(now);
        self.handle_progress_news(now);
        if let Some(addresses) = self.mappers.take_addresses() {
            self.process.handle_addresses(now, addresses);
        }
        self.process.handle_timeout(now);
        self.act(now, event_loop);
        self.tell_status();
        if let Some(summary) = self.refusals.poll_summary(now) {
            warn!(self.report.log, "refused messages"; "messages" => %summary);
        }
        if let Some(report) = self.process.drained(now) {
            self.ending = Ending::Drained(report);
        }
        if std::mem::take(&mut self.has_moved) && self.process.jobs() <= FEW_JOBS {
            event_loop.expect_soon();
        }
    }

    fn handle_event(&mut self, event: Event<'_>) -> Heard {
        let now = Clock.now();
        match event {
            Event::Received(socket, frames) => {
                if let Err(reason) = self.handle_frames(now, socket, frames) {
                    self.refusals.count(reason);
                    return Heard::Bad;
                }
            }
            Event::TooManyFrames(socket, frames) => {
                self.refusals.count(BadMessage::FrameCount);
                // A job waits for its reply, whatever that is.
                if let Some(&link) = self.link_numbers.get(&socket)
                    && let Some((tag, _)) = json::open_reply(frames)
                {
                    // It is counted already.
                    let _ = self.process.sender().handle_link_reply(now, link, tag, &[]);
                }
                // A REQ socket waits for its reply all the same.
                if self.is_listener(socket)
                    && let Some((from, _)) = json::open(frames)
                {
                    let error = JsonError::new("too many frames: one JSON object is expected");
                    let _ = self.handle_request(now, from, Err(error));
                }
                return Heard::Bad;
            }
            Event::CutOff(_, address) => {
                if let Some(times) = self.cut_off.admit(now) {
                    warn!(self.report.log, "cut off: it sent more than can be answered of what nobody \
                        can read"; "address" => address, "times" => times);
                }
            }
            Event::Writable(socket) => {
                if let Some(&link) = self.link_numbers.get(&socket) {
                    self.process.sender().handle_link_writable(now, link);
                } else if let Some(mapper) = self.mappers.dealer(socket) {
                    self.process.handle_mapper_connected(now, mapper);
                }
            }
            Event::Unwritable(socket) => {
                if let Some(&link) = self.link_numbers.get(&socket) {
                    self.process.sender().handle_link_unwritable(now, link);
                } else if let Some(mapper) = self.mappers.dealer(socket) {
                    self.process.handle_mapper_lost(now, mapper);
                }
            }
            Event::Signal(_) | Event::Woken => {}
        }
        Heard::Fine
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
        } else if let Some(mapper) = self.mappers.subscription(socket) {
            let [topic, frame] = frames else { return Err(BadMessage::FrameCount) };
            let publication: Publication = codec::decode(frame)?;
            let service = topic_service(topic);
            self.process.handle_publication(now, mapper, service.as_ref(), &publication);
            Ok(())
        } else if let Some(mapper) = self.mappers.dealer(socket) {
            let [frame] = frames else { return Err(BadMessage::FrameCount) };
            let (unix_us, message) = (Clock.unix_us(), codec::decode(frame)?);
            self.process.handle_mapper_message(now, unix_us, mapper, message);
            Ok(())
        } else if let Some(serving) = &mut self.serving
            && serving.listener.connections.key() == socket
        {
            if let Some(trouble) = serving.listener.connections.handle_event(now, frames) {
                error!(self.report.log, "{}", trouble);
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
        let sender = self.process.sender();
        sender.count_message(frames.iter().map(|frame| frame.len()).sum());
        if let Some((tag, body)) = json::open_reply(frames) {
            return sender.handle_link_reply(now, link, tag, body);
        }
        let [frame, others @ ..] = frames else { return Err(BadMessage::FrameCount) };
        sender.handle_link_message(now, link, payload::decode(frame, io::payloads(others))?);
        self.has_moved = true;
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
        let user = io::user(frames);
        let [from, frame, others @ ..] = frames else { return Err(BadMessage::FrameCount) };
        let from = Connection { id: from.to_vec(), user };
        let message = payload::decode(frame, io::payloads(others)).inspect_err(|error| {
            if matches!(error, DecodeError::Version(_)) {
                self.process.handle_wrong_version(from.clone());
            }
        })?;
        self.process.handle_message(now, from, message);
        self.has_moved = true;
        Ok(())
    }

    /// A REQ socket said something.
    fn handle_request(
        &mut self,
        now: Timestamp,
        from: Envelope,
        body: Result<&[u8], JsonError>,
    ) -> Result<(), BadMessage> {
        self.process.handle_request(now, from, body).map_err(|_| BadMessage::Json)
    }

    fn is_listener(&self, socket: SocketKey) -> bool {
        self.serving.as_ref().is_some_and(|serving| serving.listener.socket == socket)
    }

    /// Takes what handlers have finished.
    fn handle_completions(&mut self, now: Timestamp) {
        let Some(serving) = &mut self.serving else { return };
        serving.take_done(&mut self.done);
        self.has_moved |= !self.done.is_empty();
        for completion in self.done.drain(..) {
            let Completion { id, began_at, ended_at, ending, payload } = completion;
            self.process.handle_finished(now, id, (began_at, ended_at), ending, payload);
        }
    }

    /// Handlers have said how far their jobs are.
    fn handle_progress_news(&mut self, now: Timestamp) {
        if self.serving.as_ref().is_some_and(|serving| serving.progress().has_news())
            && let Some(server) = self.process.server()
        {
            server.handle_progress_news(now);
        }
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
                Command::Submit(spec, completer) => {
                    self.has_moved = true;
                    let id = completer.job();
                    self.tickets.insert(id, completer);
                    self.process.sender().handle_submit(now, id, spec);
                }
                Command::Cancel(id) => self.process.sender().handle_cancel(now, id),
                Command::TakeBack(id) => self.process.sender().handle_take_back(now, id),
                Command::Follow(service) => {
                    if !self.process.sender().follow(now, &service) {
                        warn!(self.report.log, "a service is not followed: jobs wait for as many \
                            others"; "service" => %service, "limit" => SERVICES_FOLLOWED_MAX);
                    }
                }
                Command::Statistics(reply) => {
                    // Who asked may have gone.
                    let _ = reply.send(self.process.sender().statistics_at(now));
                }
                Command::Metrics(reply) => (reply.0)(Metrics {
                    messages_refused: self.refusals.counts().clone(),
                    ..self.process.metrics(now)
                }),
                Command::Drain(grace) => self.process.drain(now, grace),
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
        let bytes = self.settled.iter().map(|(completer, _)| completer.bytes()).sum();
        self.shared.give_back(Room { jobs: self.settled.len(), bytes });
        let settled = self.settled.drain(..);
        self.wakeups.extend(settled.filter_map(|(completer, outcome)| completer.settle(outcome)));
        // Who is woken takes the place of this thread, and looks for the next outcome soon.
        self.wakeups.clear();
    }

    fn tell_status(&self) {
        let (mappers, registered) = self.process.mapper_counts();
        self.shared.status.update(|status| {
            (status.mappers, status.registered) = (mappers, registered);
        });
    }
}
