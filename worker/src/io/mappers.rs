//! The control plane at the outside: for each mapper a DEALER, a SUB, and a session.

use std::collections::BTreeSet;
use std::time::Duration;

use slog::{Logger, debug, error, info, warn};
use svcmap_proto::codec;
use svcmap_proto::control::{self, FromMapper, Publication, Registration, ToMapper, Welcome};
use svcmap_proto::io::{Clock, EventLoop, SocketKey};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, InstanceKey, Name};
use svcmap_proto::refusals::BadMessage;
use svcmap_proto::time::{Timestamp, earliest};

use super::builder::{Notice, Notify, StartError};
use super::serving::Serving;
use super::sockets;
use crate::sender::Sender;
use crate::session::{Outage, OutageOutput, Session, SessionOutput};

struct Mapper {
    endpoint: Endpoint,
    /// Missing if the system gave none the last time.
    socket: Option<SocketKey>,
    /// Where it publishes, as its last WELCOME says.
    publish: Option<Endpoint>,
    subscription: Option<SocketKey>,
    /// It was said that nothing is heard from it.
    is_missed: bool,
    session: Session,
}

/// See the module.
pub(super) struct Mappers {
    mappers: Vec<Mapper>,
    /// The services that every subscription is for.
    followed: BTreeSet<Name>,
    outage: Outage,
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
        let now = Clock.now();
        let mut mappers = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let socket = Some(sockets::dial_mapper(event_loop, &endpoint)?);
            let session = Session::new(now, key.cloned(), fastrand::u64(..));
            let (publish, subscription, is_missed) = (None, None, false);
            mappers.push(Mapper { endpoint, socket, publish, subscription, is_missed, session });
        }
        Ok(Self { mappers, followed: BTreeSet::new(), outage: Outage::new(now), log, notify })
    }

    /// The index of the mapper that this socket leads to.
    pub(super) fn dealer(&self, socket: SocketKey) -> Option<usize> {
        self.mappers.iter().position(|mapper| mapper.socket == Some(socket))
    }

    /// The index of the mapper whose publications this socket gets.
    pub(super) fn subscription(&self, socket: SocketKey) -> Option<usize> {
        self.mappers.iter().position(|mapper| mapper.subscription == Some(socket))
    }

    pub(super) fn handle_connected(&mut self, now: Timestamp, index: usize) {
        self.mappers[index].session.handle_connected(now);
    }

    pub(super) fn handle_lost(&mut self, now: Timestamp, index: usize) {
        let mapper = &mut self.mappers[index];
        // One that never said a word is no loss.
        let is_loss = mapper.session.is_welcomed();
        mapper.session.handle_disconnected(now);
        if is_loss {
            mapper.is_missed = true;
            warn!(self.log, "mapper lost, going on without it"; "mapper" => %mapper.endpoint);
            (self.notify)(Notice::MapperLost(mapper.endpoint.clone()));
        }
    }

    /// This process was suspended for so long.
    pub(super) fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_suspension(now, gap));
    }

    /// An answer of a mapper.
    pub(super) fn handle_answer(
        &mut self,
        now: Timestamp,
        index: usize,
        frames: &mut [zmq::Message],
        sender: &mut Sender,
    ) -> Result<(), BadMessage> {
        let [frame] = frames else { return Err(BadMessage::FrameCount) };
        let message = codec::decode(frame)?;
        if let FromMapper::Snapshot { service, part } = &message {
            sender.handle_snapshot(now, index, service, part);
        }
        self.mappers[index].session.handle_message(now, message);
        Ok(())
    }

    /// Something that a mapper published.
    pub(super) fn handle_publication(
        &mut self,
        now: Timestamp,
        index: usize,
        frames: &mut [zmq::Message],
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
        let sessions = self.mappers.iter().filter_map(|mapper| mapper.session.poll_timeout());
        earliest(sessions.min(), self.outage.poll_timeout())
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_timeout(now));
        let any = self.mappers.iter().any(|mapper| mapper.session.is_answered());
        if let Some(output) = self.outage.handle_answers(now, any) {
            self.say(output);
        }
    }

    pub(super) fn handle_load(&mut self, now: Timestamp, load: &Load) {
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_load(now, load));
    }

    pub(super) fn handle_error(&mut self, error: Option<&str>) {
        self.mappers.iter_mut().for_each(|mapper| mapper.session.handle_error(error));
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
                        self.handle_welcome(index, &welcome, event_loop);
                        sender.handle_welcome(now, index, &welcome);
                        if let Some(serving) = &mut serving {
                            self.register(now, serving.registration(now, index, &welcome));
                        }
                    }
                    SessionOutput::Reconnect => self.dial_again(index, event_loop),
                    SessionOutput::Resubscribe => {
                        self.subscribe(index, event_loop);
                        sender.handle_silence(index);
                    }
                    notable => {
                        if notable == SessionOutput::Registered
                            && let Some(serving) = &mut serving
                        {
                            serving.handle_registered();
                        }
                        self.report(index, notable);
                    }
                }
            }
        }
        acted
    }

    /// Registers with that at every mapper; those that know it already are not told again.
    fn register(&mut self, now: Timestamp, registration: &Registration) {
        for mapper in &mut self.mappers {
            mapper.session.register(now, registration.clone());
        }
    }

    /// A connection that may be dead makes way for a new one. Its name is looked up again, too.
    fn dial_again(&mut self, index: usize, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        for socket in [mapper.socket.take(), mapper.subscription.take()].into_iter().flatten() {
            event_loop.remove(socket, Duration::ZERO);
        }
        match sockets::dial_mapper(event_loop, &mapper.endpoint) {
            Ok(socket) => mapper.socket = Some(socket),
            // The session notices that nothing is heard.
            Err(error) => {
                warn!(self.log, "cannot connect"; "mapper" => %mapper.endpoint, "error" => %error);
            }
        }
    }

    /// Tells the log and the user that no mapper answers.
    fn say(&self, output: OutageOutput) {
        let endpoints = || {
            let all: Vec<_> = self.mappers.iter().map(|mapper| mapper.endpoint.as_str()).collect();
            all.join(", ")
        };
        match output {
            OutageOutput::NeverAnswered(lasts) => {
                warn!(self.log, "no mapper answers, waiting for one: start it there, or name \
                    another one with --mapper"; "mappers" => endpoints(), "for_s" => lasts.as_secs());
                (self.notify)(Notice::NoMapper(lasts));
            }
            OutageOutput::Silent(lasts) => {
                warn!(self.log, "no word from any mapper, going on with what is known";
                    "mappers" => endpoints(), "for_s" => lasts.as_secs());
                (self.notify)(Notice::NoMapper(lasts));
            }
            OutageOutput::Over(lasted) => {
                info!(self.log, "a mapper answers"; "after_s" => lasted.as_secs());
            }
        }
    }

    /// Tells the log and the user what they want to know.
    fn report(&mut self, index: usize, output: SessionOutput) {
        let endpoint = self.mappers[index].endpoint.clone();
        match output {
            SessionOutput::Send(_)
            | SessionOutput::Welcomed(_)
            | SessionOutput::Reconnect
            | SessionOutput::Resubscribe => {}
            SessionOutput::Silent(lasts) => {
                self.mappers[index].is_missed = true;
                // That none answers is said by itself.
                if self.mappers.iter().any(|mapper| mapper.session.is_welcomed()) {
                    warn!(self.log, "no word from the mapper, connecting again";
                        "mapper" => %endpoint, "for_s" => lasts.as_secs());
                }
                (self.notify)(Notice::MapperLost(endpoint));
            }
            SessionOutput::Registered => {
                info!(self.log, "registered"; "mapper" => %endpoint);
                (self.notify)(Notice::Registered(endpoint));
            }
            SessionOutput::RegistrationRefused(reason) => {
                error!(self.log, "not registered, trying again";
                    "mapper" => %endpoint, "why" => %reason);
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
    fn handle_welcome(&mut self, index: usize, welcome: &Welcome, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        if std::mem::take(&mut mapper.is_missed) {
            info!(self.log, "the mapper answers again"; "mapper" => %mapper.endpoint);
        }
        debug!(self.log, "welcomed"; "mapper" => %mapper.endpoint, "epoch" => %welcome.epoch);
        let publish = sockets::publish_endpoint(&mapper.endpoint, &welcome.publish);
        if mapper.subscription.is_none() || mapper.publish.as_ref() != Some(&publish) {
            mapper.publish = Some(publish);
            self.subscribe(index, event_loop);
        }
    }

    /// Makes a subscription in place of the one there is, or should be.
    fn subscribe(&mut self, index: usize, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        let Some(publish) = &mapper.publish else { return };
        if let Some(old) = mapper.subscription.take() {
            event_loop.remove(old, Duration::ZERO);
        }
        let topics: Vec<_> = self.followed.iter().map(control::topic).collect();
        let topics = topics.iter().map(Vec::as_slice).chain([control::PULSE_TOPIC]);
        match sockets::subscribe(event_loop, publish, topics) {
            Ok(socket) => mapper.subscription = Some(socket),
            // The cache asks by SYNC instead, and the session notices that no pulse comes.
            Err(error) => warn!(self.log, "cannot subscribe"; "error" => %error),
        }
    }

    /// Listens to what every mapper publishes about this service, too.
    pub(super) fn follow(&mut self, service: &Name, event_loop: &mut EventLoop) {
        self.followed.insert(service.clone());
        let topic = control::topic(service);
        for mapper in &self.mappers {
            if let Some(socket) = mapper.subscription.and_then(|key| event_loop.socket(key))
                && let Err(error) = socket.set_subscribe(&topic)
            {
                warn!(self.log, "cannot subscribe"; "error" => error.message());
            }
        }
    }

    /// Listens to that no more.
    pub(super) fn unfollow(&mut self, service: &Name, event_loop: &mut EventLoop) {
        self.followed.remove(service);
        let topic = control::topic(service);
        for mapper in &self.mappers {
            if let Some(socket) = mapper.subscription.and_then(|key| event_loop.socket(key)) {
                // What comes all the same is of no service that is known.
                let _ = socket.set_unsubscribe(&topic);
            }
        }
    }

    /// Sends this to a mapper.
    pub(super) fn tell(&self, index: usize, message: &ToMapper, event_loop: &mut EventLoop) {
        // A mapper that is away is told at the next beat after its return.
        if let Some(socket) = self.mappers[index].socket {
            let _ = event_loop.send(socket, [&codec::encode(message)[..]]);
        }
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
