//! The control plane at the outside: for each mapper a DEALER, a SUB, and a session.

use std::collections::BTreeSet;
use std::time::Duration;

use slog::{Logger, debug, error, info, warn};
use svcmap_proto::codec;
use svcmap_proto::control::{self, FromMapper, Publication, ToMapper, Welcome};
use svcmap_proto::io::{EventLoop, SocketKey};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, InstanceKey, Name};
use svcmap_proto::refusals::BadMessage;
use svcmap_proto::time::Timestamp;

use super::builder::{Notice, Notify, StartError};
use super::serving::Serving;
use super::sockets;
use crate::sender::Sender;
use crate::session::{Session, SessionOutput};

struct Mapper {
    endpoint: Endpoint,
    socket: SocketKey,
    subscription: Option<(Endpoint, SocketKey)>,
    session: Session,
}

/// See the module.
pub(super) struct Mappers {
    mappers: Vec<Mapper>,
    /// The services that every subscription is for.
    followed: BTreeSet<Name>,
    log: Logger,
    notify: Notify,
}

impl Mappers {
    /// Dials every mapper. `key` is the instance that will register, if one will.
    pub(super) fn new(
        event_loop: &mut EventLoop,
        endpoints: Vec<Endpoint>,
        key: Option<&InstanceKey>,
        log: Logger,
        notify: Notify,
    ) -> Result<Self, StartError> {
        let mut mappers = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let socket = sockets::dial_mapper(event_loop, &endpoint)?;
            let session = Session::new(key.cloned());
            mappers.push(Mapper { endpoint, socket, subscription: None, session });
        }
        Ok(Self { mappers, followed: BTreeSet::new(), log, notify })
    }

    /// The index of the mapper that this socket leads to.
    pub(super) fn dealer(&self, socket: SocketKey) -> Option<usize> {
        self.mappers.iter().position(|mapper| mapper.socket == socket)
    }

    /// The index of the mapper whose publications this socket gets.
    pub(super) fn subscription(&self, socket: SocketKey) -> Option<usize> {
        let is_it = |(_, key): &(Endpoint, SocketKey)| *key == socket;
        self.mappers.iter().position(|mapper| mapper.subscription.as_ref().is_some_and(is_it))
    }

    pub(super) fn handle_connected(&mut self, now: Timestamp, index: usize) {
        self.mappers[index].session.handle_connected(now);
    }

    pub(super) fn handle_lost(&mut self, index: usize) {
        let mapper = &mut self.mappers[index];
        mapper.session.handle_disconnected();
        warn!(self.log, "mapper lost, going on without it"; "mapper" => %mapper.endpoint);
        (self.notify)(Notice::MapperLost(mapper.endpoint.clone()));
    }

    /// An answer of a mapper.
    pub(super) fn handle_answer(
        &mut self,
        now: Timestamp,
        index: usize,
        frames: &[zmq::Message],
        sender: &mut Sender,
    ) -> Result<(), BadMessage> {
        let [frame] = frames else { return Err(BadMessage::FrameCount) };
        match codec::decode(frame)? {
            FromMapper::Snapshot { service, part } => {
                sender.handle_snapshot(now, index, &service, &part);
            }
            message => self.mappers[index].session.handle_message(now, message),
        }
        Ok(())
    }

    /// Something that a mapper published.
    pub(super) fn handle_publication(
        &mut self,
        now: Timestamp,
        index: usize,
        frames: &[zmq::Message],
        sender: &mut Sender,
    ) -> Result<(), BadMessage> {
        let [topic, frame] = frames else { return Err(BadMessage::FrameCount) };
        let publication: Publication = codec::decode(frame)?;
        if let Publication::Pulse { epoch, instances } = publication {
            self.mappers[index].session.handle_pulse(now, epoch, instances, fastrand::f64());
            sender.handle_pulse(index);
        } else if let Some(service) = control::topic_service(topic) {
            sender.handle_publication(now, index, &service, &publication);
        }
        Ok(())
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.mappers.iter().filter_map(|mapper| mapper.session.poll_timeout()).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_timeout(now));
    }

    pub(super) fn handle_load(&mut self, now: Timestamp, load: &Load) {
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_load(now, load));
    }

    /// Says goodbye to all of them.
    pub(super) fn leave(&mut self, event_loop: &mut EventLoop) {
        for index in 0..self.mappers.len() {
            self.mappers[index].session.leave();
            while let Some(output) = self.mappers[index].session.poll_output() {
                if let SessionOutput::Send(message) = output {
                    self.tell(index, &message, event_loop);
                }
            }
        }
    }

    /// How many have answered, and how many list this instance.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |wanted: fn(&Session) -> bool| {
            self.mappers.iter().filter(|mapper| wanted(&mapper.session)).count()
        };
        (count(Session::is_welcomed), count(Session::is_registered))
    }

    /// Does what the sessions want done. Returns whether there was anything.
    pub(super) fn act(
        &mut self,
        now: Timestamp,
        event_loop: &mut EventLoop,
        sender: &mut Sender,
        mut serving: Option<&mut Serving>,
    ) -> bool {
        let mut acted = false;
        for index in 0..self.mappers.len() {
            while let Some(output) = self.mappers[index].session.poll_output() {
                acted = true;
                match output {
                    SessionOutput::Send(message) => self.tell(index, &message, event_loop),
                    SessionOutput::Welcomed(welcome) => {
                        self.subscribe(index, &welcome, event_loop);
                        sender.handle_welcome(now, index, &welcome);
                        if let Some(serving) = &mut serving {
                            let registration = serving.registration(&welcome);
                            self.mappers[index].session.register(now, registration);
                        }
                    }
                    notable => self.report(index, notable),
                }
            }
        }
        acted
    }

    /// Tells the log and the user what they want to know.
    fn report(&self, index: usize, output: SessionOutput) {
        let endpoint = self.mappers[index].endpoint.clone();
        match output {
            SessionOutput::Send(_) | SessionOutput::Welcomed(_) => {}
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

    /// Listens to the mapper's publications; again, if they come from elsewhere by now.
    fn subscribe(&mut self, index: usize, welcome: &Welcome, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        debug!(self.log, "welcomed"; "mapper" => %mapper.endpoint, "epoch" => %welcome.epoch);
        let publish = sockets::publish_endpoint(&mapper.endpoint, &welcome.publish);
        if mapper.subscription.as_ref().is_some_and(|(known, _)| *known == publish) {
            return;
        }
        if let Some((_, old)) = mapper.subscription.take() {
            event_loop.remove(old, Duration::ZERO);
        }
        let topics: Vec<_> = self.followed.iter().map(control::topic).collect();
        let topics = topics.iter().map(Vec::as_slice).chain([control::PULSE_TOPIC]);
        match sockets::subscribe(event_loop, &publish, topics) {
            Ok(socket) => mapper.subscription = Some((publish, socket)),
            // The cache asks by SYNC instead, and the next WELCOME tries again.
            Err(error) => warn!(self.log, "cannot subscribe"; "error" => %error),
        }
    }

    /// Listens to what every mapper publishes about this service, too.
    pub(super) fn follow(&mut self, service: &Name, event_loop: &mut EventLoop) {
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

    /// Sends this to a mapper.
    pub(super) fn tell(&self, index: usize, message: &ToMapper, event_loop: &mut EventLoop) {
        // A mapper that is away is told at the next beat after its return.
        let _ = event_loop.send(self.mappers[index].socket, &[&codec::encode(message)]);
    }

    /// Jobs wait, and nobody says for whom.
    pub(super) fn warn_unheard(&self, service: &Name) {
        let all: Vec<_> = self.mappers.iter().map(|mapper| mapper.endpoint.as_str()).collect();
        warn!(self.log, "no mapper answers, so jobs wait: is one running?";
            "service" => %service, "mappers" => all.join(","));
    }

    /// Nothing comes from that mapper's PUB.
    pub(super) fn warn_silent(&self, index: usize) {
        warn!(self.log, "no publications arrive, so the mapper is asked each beat: is its PUB port \
            open?"; "mapper" => %self.mappers[index].endpoint);
    }
}
