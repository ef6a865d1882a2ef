//! The I/O thread: it carries messages between the sockets and the pure types, and nothing more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use slog::{Logger, debug, error, info, warn};
use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::{self, FromMapper, Publication, ToMapper, Welcome};
use svcmap_proto::io::{Clock, Event, EventLoop, SocketKey};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::names::{Endpoint, Name};
use svcmap_proto::refusals::{BadMessage, Refusals};
use svcmap_proto::time::{Timestamp, earliest};

use super::builder::{LINGER, Notice, Notify, StartError};
use super::serving::Serving;
use super::shared::{Command, Shared};
use super::sockets;
use super::ticket::Settler;
use crate::outbox::JobId;
use crate::sender::{Sender, SenderOutput};
use crate::senders::Connection;
use crate::server::DrainReport;
use crate::session::{Session, SessionOutput};

/// A turn that comes so much later than it was due means that this process was suspended.
const SUSPENSION: Duration = Duration::from_secs(1);

/// After a suspension, what waits is read for at most so long before any deadline counts.
const CATCH_UP: Duration = Duration::from_millis(50);

/// What a socket is for.
#[derive(Clone, Copy, Debug)]
enum Role {
    Listener,
    Mapper(usize),
    Subscription(usize),
    Link(u64),
}

struct Mapper {
    endpoint: Endpoint,
    socket: SocketKey,
    subscription: Option<(Endpoint, SocketKey)>,
    session: Session,
}

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
    mappers: Vec<Mapper>,
    sender: Sender,
    serving: Option<Serving>,
    roles: BTreeMap<SocketKey, Role>,
    links: BTreeMap<u64, SocketKey>,
    followed: BTreeSet<Name>,
    inbox: Receiver<Command>,
    tickets: BTreeMap<JobId, Settler>,
    shared: Arc<Shared>,
    /// Whom to tell that their version is wrong.
    wrong_version: Vec<Connection>,
    refusals: Refusals,
    log: Logger,
    notify: Notify,
    ending: Ending,
}

impl Node {
    #[allow(clippy::too_many_arguments)] // called in one place, with one of everything
    pub(super) fn new(
        mut event_loop: EventLoop,
        endpoints: Vec<Endpoint>,
        sender: Sender,
        serving: Option<Serving>,
        inbox: Receiver<Command>,
        shared: Arc<Shared>,
        log: Logger,
        notify: Notify,
    ) -> Result<Self, StartError> {
        let mut roles = BTreeMap::new();
        let mut mappers = Vec::new();
        for (index, endpoint) in endpoints.into_iter().enumerate() {
            let socket = sockets::dial_mapper(&mut event_loop, &endpoint)?;
            roles.insert(socket, Role::Mapper(index));
            let session = Session::new(serving.as_ref().map(|serving| serving.key().clone()));
            mappers.push(Mapper { endpoint, socket, subscription: None, session });
        }
        if let Some(serving) = &serving {
            roles.insert(serving.listener.socket, Role::Listener);
        }
        let state = State {
            mappers,
            sender,
            serving,
            roles,
            links: BTreeMap::new(),
            followed: BTreeSet::new(),
            inbox,
            tickets: BTreeMap::new(),
            shared,
            wrong_version: Vec::new(),
            refusals: Refusals::default(),
            log,
            notify,
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
            self.state.step(Clock.now(), &mut self.event_loop);
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
        self.state.sender.handle_suspension(late);
    }

    /// Says goodbye, and gives every ticket its outcome.
    fn finish(mut self) -> Option<DrainReport> {
        let now = Clock.now();
        self.state.shared.permits.close();
        self.state.handle_inbox(now);
        self.state.sender.stop(now);
        self.state.act(now, &mut self.event_loop);
        self.state.mappers.iter_mut().for_each(|mapper| mapper.session.leave());
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

impl State {
    fn poll_timeout(&self) -> Option<Timestamp> {
        let sessions = self.mappers.iter().filter_map(|mapper| mapper.session.poll_timeout());
        let serving = self.serving.as_ref().and_then(Serving::poll_timeout);
        let halves = earliest(serving, self.sender.poll_timeout());
        earliest(earliest(sessions.min(), halves), self.refusals.poll_timeout())
    }

    /// Everything that follows a turn of the loop.
    fn step(&mut self, now: Timestamp, event_loop: &mut EventLoop) {
        self.handle_inbox(now);
        if let Some(serving) = &mut self.serving {
            serving.handle_completions(now);
            serving.handle_timeout(now);
        }
        self.sender.handle_timeout(now);
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_timeout(now));
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
                if let Some(&role) = self.roles.get(&socket)
                    && let Err(reason) = self.handle_frames(now, role, frames)
                {
                    self.refusals.count(reason);
                }
            }
            Event::TooManyFrames(_) => self.refusals.count(BadMessage::FrameCount),
            Event::Writable(socket) => match self.roles.get(&socket) {
                Some(&Role::Mapper(index)) => self.mappers[index].session.handle_connected(now),
                Some(&Role::Link(link)) => self.sender.handle_link_writable(now, link),
                _ => {}
            },
            Event::Unwritable(socket) => match self.roles.get(&socket) {
                Some(&Role::Mapper(index)) => self.handle_mapper_lost(index),
                Some(&Role::Link(link)) => self.sender.handle_link_unwritable(now, link),
                _ => {}
            },
            Event::Signal(_) | Event::Woken => {}
        }
    }

    fn handle_mapper_lost(&mut self, index: usize) {
        let mapper = &mut self.mappers[index];
        mapper.session.handle_disconnected();
        warn!(self.log, "mapper lost, going on without it"; "mapper" => %mapper.endpoint);
        (self.notify)(Notice::MapperLost(mapper.endpoint.clone()));
    }

    fn handle_frames(
        &mut self,
        now: Timestamp,
        role: Role,
        frames: &[zmq::Message],
    ) -> Result<(), BadMessage> {
        match (role, frames) {
            (Role::Listener, [from, rest @ ..]) => self.handle_to_worker(now, from, rest),
            (Role::Mapper(index), [frame]) => {
                let message: FromMapper = codec::decode(frame)?;
                if let FromMapper::Snapshot { service, part } = message {
                    self.sender.handle_snapshot(now, index, &service, part);
                } else {
                    self.mappers[index].session.handle_message(now, message);
                }
                Ok(())
            }
            (Role::Subscription(index), [topic, frame]) => {
                let publication: Publication = codec::decode(frame)?;
                if let Publication::Pulse { epoch, instances } = publication {
                    let session = &mut self.mappers[index].session;
                    session.handle_pulse(now, epoch, instances, fastrand::f64());
                    self.sender.handle_pulse(index);
                } else if let Some(service) = control::topic_service(topic) {
                    self.sender.handle_publication(now, index, &service, publication);
                }
                Ok(())
            }
            (Role::Link(link), [frame, payload @ ..]) => {
                let message: FromWorker = codec::decode(frame)?;
                match (&message, payload) {
                    (FromWorker::Outcome(_), [payload]) => {
                        self.sender.handle_link_message(now, link, message, payload);
                    }
                    (FromWorker::Outcome(_), _) => return Err(BadMessage::FrameCount),
                    (_, []) => self.sender.handle_link_message(now, link, message, &[]),
                    _ => return Err(BadMessage::FrameCount),
                }
                Ok(())
            }
            _ => Err(BadMessage::FrameCount),
        }
    }

    fn handle_to_worker(
        &mut self,
        now: Timestamp,
        from: &zmq::Message,
        frames: &[zmq::Message],
    ) -> Result<(), BadMessage> {
        let [frame, payload @ ..] = frames else { return Err(BadMessage::FrameCount) };
        let from = Connection(from.to_vec());
        let message = codec::decode::<ToWorker>(frame).inspect_err(|error| {
            if matches!(error, DecodeError::Version(_)) {
                self.wrong_version.push(from.clone());
            }
        })?;
        let Some(server) = self.serving.as_mut().and_then(|serving| serving.server.as_mut()) else {
            return Ok(());
        };
        match (&message, payload) {
            (ToWorker::Job(_), [payload]) => server.handle_message(now, from, message, payload),
            (ToWorker::Job(_), _) => return Err(BadMessage::FrameCount),
            (_, []) => server.handle_message(now, from, message, &[]),
            _ => return Err(BadMessage::FrameCount),
        }
        Ok(())
    }

    fn handle_inbox(&mut self, now: Timestamp) {
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Submit(id, spec, settler) => {
                    self.tickets.insert(id, settler);
                    self.sender.handle_submit(now, id, spec);
                }
                Command::Cancel(id) => self.sender.handle_cancel(now, id),
                Command::Follow(service) => {
                    self.sender.follow(now, &service);
                }
                Command::Statistics(reply) => {
                    // Who asked may have gone.
                    let _ = reply.send(self.sender.statistics().clone());
                }
                Command::Drain(grace) => match &mut self.serving {
                    Some(serving) => serving.drain(now, grace),
                    None => self.ending = Ending::Stopped,
                },
                Command::Stop => self.ending = Ending::Stopped,
            }
        }
    }

    /// Does what the pure types want done, until they want nothing more.
    fn act(&mut self, now: Timestamp, event_loop: &mut EventLoop) {
        for to in std::mem::take(&mut self.wrong_version) {
            let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
            if let Some(serving) = &mut self.serving {
                serving.answer(event_loop, &to, &FromWorker::WrongVersion { oldest, newest });
            }
        }
        loop {
            let served = self.serving.as_mut().is_some_and(|serving| serving.act(now, event_loop));
            let load = self.serving.as_mut().and_then(|serving| serving.load(now));
            let mut talked = false;
            for index in 0..self.mappers.len() {
                if let Some(load) = &load {
                    self.mappers[index].session.handle_load(now, load);
                }
                talked |= self.act_session(now, index, event_loop);
            }
            if !(self.act_sender(now, event_loop) || served || talked) {
                break;
            }
        }
    }

    fn act_session(&mut self, now: Timestamp, index: usize, event_loop: &mut EventLoop) -> bool {
        let mut acted = false;
        while let Some(output) = self.mappers[index].session.poll_output() {
            acted = true;
            let endpoint = self.mappers[index].endpoint.clone();
            match output {
                SessionOutput::Send(message) => self.tell_mapper(index, &message, event_loop),
                SessionOutput::Welcomed(welcome) => {
                    debug!(self.log, "welcomed"; "mapper" => %endpoint, "epoch" => %welcome.epoch);
                    self.handle_welcome(now, index, &welcome, event_loop);
                }
                SessionOutput::Registered => {
                    info!(self.log, "registered"; "mapper" => %endpoint);
                    (self.notify)(Notice::Registered(endpoint));
                }
                SessionOutput::RegistrationRefused(reason) => {
                    error!(self.log, "not registered"; "mapper" => %endpoint, "why" => %reason);
                    (self.notify)(Notice::RegistrationRefused(endpoint, reason));
                }
                SessionOutput::Replaced(by) => {
                    error!(self.log, "another process took this name"; "incarnation" => %by);
                    (self.notify)(Notice::Replaced(by));
                }
                SessionOutput::WrongVersion { oldest, newest } => {
                    error!(self.log, "the mapper speaks other protocol versions";
                        "mapper" => %endpoint, "oldest" => oldest, "newest" => newest,
                        "ours" => codec::VERSION);
                    (self.notify)(Notice::WrongVersion(endpoint, oldest, newest));
                }
            }
        }
        acted
    }

    fn handle_welcome(
        &mut self,
        now: Timestamp,
        index: usize,
        welcome: &Welcome,
        event_loop: &mut EventLoop,
    ) {
        self.subscribe(index, welcome, event_loop);
        self.sender.handle_welcome(now, index, welcome);
        if let Some(serving) = &mut self.serving {
            let registration = serving.registration(welcome);
            self.mappers[index].session.register(now, registration);
        }
    }

    /// Listens to the mapper's publications; again, if they come from elsewhere by now.
    fn subscribe(&mut self, index: usize, welcome: &Welcome, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        let publish = sockets::publish_endpoint(&mapper.endpoint, &welcome.publish);
        if mapper.subscription.as_ref().is_some_and(|(known, _)| *known == publish) {
            return;
        }
        if let Some((_, old)) = mapper.subscription.take() {
            event_loop.remove(old, Duration::ZERO);
            self.roles.remove(&old);
        }
        let topics: Vec<_> = self.followed.iter().map(control::topic).collect();
        let topics = topics.iter().map(Vec::as_slice).chain([control::PULSE_TOPIC]);
        match sockets::subscribe(event_loop, &publish, topics) {
            Ok(socket) => {
                self.roles.insert(socket, Role::Subscription(index));
                mapper.subscription = Some((publish, socket));
            }
            // The cache asks by SYNC instead, and the next WELCOME tries again.
            Err(error) => warn!(self.log, "cannot subscribe"; "error" => %error),
        }
    }

    fn act_sender(&mut self, now: Timestamp, event_loop: &mut EventLoop) -> bool {
        let mut acted = false;
        while let Some(output) = self.sender.poll_output(now) {
            acted = true;
            match output {
                SenderOutput::Send { link, message, payload } => {
                    let Some(&socket) = self.links.get(&link) else { continue };
                    let frame = codec::encode(&message);
                    let frames: &[&[u8]] = match &payload {
                        Some(payload) => &[&frame, payload],
                        None => &[&frame],
                    };
                    // What cannot be sent is found missing at the next HELLO.
                    let _ = event_loop.send(socket, frames);
                }
                SenderOutput::Connect { link, endpoint } => {
                    self.connect(link, &endpoint, event_loop);
                }
                SenderOutput::Disconnect { link } => {
                    if let Some(socket) = self.links.remove(&link) {
                        self.roles.remove(&socket);
                        event_loop.remove(socket, LINGER);
                    }
                }
                SenderOutput::Subscribe(service) => self.follow(&service, event_loop),
                SenderOutput::Sync { mapper, service } => {
                    self.tell_mapper(mapper, &ToMapper::Sync { service }, event_loop);
                }
                SenderOutput::Silent { mapper } => {
                    let mapper = &self.mappers[mapper].endpoint;
                    warn!(self.log, "no publications arrive, so the mapper is asked each beat: \
                        is its PUB port open?"; "mapper" => %mapper);
                }
                SenderOutput::Settled { job, outcome } => {
                    if let Some(settler) = self.tickets.remove(&job) {
                        settler.settle(outcome);
                    }
                }
            }
        }
        acted
    }

    fn connect(&mut self, link: u64, endpoint: &Endpoint, event_loop: &mut EventLoop) {
        let payload_bytes_max = self.shared.config.payload_bytes_max;
        match sockets::dial_worker(event_loop, endpoint, payload_bytes_max) {
            Ok(socket) => {
                self.roles.insert(socket, Role::Link(link));
                self.links.insert(link, socket);
            }
            // The link notices that no WELCOME comes.
            Err(error) => {
                warn!(self.log, "cannot connect"; "worker" => %endpoint, "error" => %error);
            }
        }
    }

    fn follow(&mut self, service: &Name, event_loop: &mut EventLoop) {
        self.followed.insert(service.clone());
        let topic = control::topic(service);
        for mapper in &self.mappers {
            let socket = mapper.subscription.as_ref().map(|(_, socket)| *socket);
            if let Some(socket) = socket.and_then(|socket| event_loop.socket(socket))
                && let Err(error) = socket.set_subscribe(&topic)
            {
                warn!(self.log, "cannot subscribe"; "error" => error.message());
            }
        }
    }

    fn tell_mapper(&self, index: usize, message: &ToMapper, event_loop: &mut EventLoop) {
        // A mapper that is away is told at the next beat after its return.
        let _ = event_loop.send(self.mappers[index].socket, &[&codec::encode(message)]);
    }

    fn tell_status(&self) {
        let count = |wanted: fn(&Session) -> bool| {
            self.mappers.iter().filter(|mapper| wanted(&mapper.session)).count()
        };
        let (mappers, registered) = (count(Session::is_welcomed), count(Session::is_registered));
        self.shared.status.update(|status| {
            (status.mappers, status.registered) = (mappers, registered);
        });
    }
}
