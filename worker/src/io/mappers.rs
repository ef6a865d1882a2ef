//! The control plane at the outside: for each mapper a DEALER and a SUB.

use std::collections::BTreeSet;
use std::time::Duration;

use slog::{Logger, warn};
use svcmap_proto::codec;
use svcmap_proto::control::{self, ToMapper};
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::{EventLoop, SocketKey};
use svcmap_proto::names::{Endpoint, MapperAddress, Name};

use super::look_up::LookUp;
use super::notice::StartError;
use super::sockets;

struct Mapper {
    at: MapperAddress,
    /// Missing if there is nothing to dial, or the system gave none the last time.
    socket: Option<SocketKey>,
    /// Where it publishes, as its last WELCOME says.
    publish: Option<Endpoint>,
    subscription: Option<SocketKey>,
}

/// See the module.
pub(super) struct Mappers {
    mappers: Vec<Mapper>,
    /// The services that every subscription is for.
    followed: BTreeSet<Name>,
    keys: Option<Deployment>,
    look_up: LookUp,
    log: Logger,
}

impl Mappers {
    /// Dials every mapper but those of a name.
    pub(super) fn new(
        event_loop: &mut EventLoop,
        endpoints: &[Endpoint],
        keys: Option<Deployment>,
        log: Logger,
    ) -> Result<Self, StartError> {
        let mut mappers = Vec::with_capacity(endpoints.len());
        for at in endpoints.iter().map(MapperAddress::of) {
            keys.as_ref().map(|keys| sockets::mapper_key(keys, &at.named)).transpose()?;
            let socket = match at.named.is_name() {
                true => None,
                false => Some(sockets::dial_mapper(event_loop, &at, keys.as_ref())?),
            };
            mappers.push(Mapper { at, socket, publish: None, subscription: None });
        }
        let look_up = LookUp::new(event_loop.waker());
        Ok(Self { mappers, followed: BTreeSet::new(), keys, look_up, log })
    }

    /// With what this process proves who it is, if everything is encrypted.
    pub(super) fn keys(&self) -> Option<&Deployment> {
        self.keys.as_ref()
    }

    /// The index of the mapper that this socket leads to.
    pub(super) fn dealer(&self, socket: SocketKey) -> Option<usize> {
        self.mappers.iter().position(|mapper| mapper.socket == Some(socket))
    }

    /// The index of the mapper whose publications this socket gets.
    pub(super) fn subscription(&self, socket: SocketKey) -> Option<usize> {
        self.mappers.iter().position(|mapper| mapper.subscription == Some(socket))
    }

    /// Sends this to a mapper.
    pub(super) fn tell(&self, index: usize, message: &ToMapper, event_loop: &mut EventLoop) {
        // A mapper that is away is told at the next beat after its return.
        if let Some(socket) = self.mappers[index].socket {
            let _ = event_loop.send(socket, [&codec::encode(message)[..]]);
        }
    }

    /// A connection that may be dead, or leads where nobody is any more, makes way for a new one.
    pub(super) fn dial(&mut self, index: usize, at: MapperAddress, event_loop: &mut EventLoop) {
        if index == self.mappers.len() {
            let (socket, publish, subscription) = Default::default();
            self.mappers.push(Mapper { at: at.clone(), socket, publish, subscription });
        }
        self.hang_up(index, event_loop);
        let mapper = &mut self.mappers[index];
        mapper.at = at;
        match sockets::dial_mapper(event_loop, &mapper.at, self.keys.as_ref()) {
            Ok(socket) => mapper.socket = Some(socket),
            // The session notices that nothing is heard.
            Err(error) => {
                warn!(self.log, "cannot connect"; "mapper" => %mapper.at, "error" => %error);
            }
        }
    }

    /// Ends the connections to a mapper.
    pub(super) fn hang_up(&mut self, index: usize, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        for socket in [mapper.socket.take(), mapper.subscription.take()].into_iter().flatten() {
            event_loop.remove(socket, Duration::ZERO);
        }
    }

    /// Has a name looked up.
    pub(super) fn look_up(&mut self, name: Endpoint) {
        self.look_up.start(name);
    }

    /// What that name means, once that is known.
    pub(super) fn take_addresses(&mut self) -> Option<Result<Vec<Endpoint>, String>> {
        self.look_up.take()
    }

    /// Listens to the mapper's publications; again, if they come from elsewhere by now.
    pub(super) fn listen(&mut self, index: usize, publish: &Endpoint, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        let publish = publish.as_dialled(&mapper.at.address);
        if mapper.subscription.is_none() || mapper.publish.as_ref() != Some(&publish) {
            mapper.publish = Some(publish);
            self.subscribe(index, event_loop);
        }
    }

    /// Makes a subscription in place of the one there is, or should be.
    pub(super) fn subscribe(&mut self, index: usize, event_loop: &mut EventLoop) {
        let mapper = &mut self.mappers[index];
        let Some(publish) = &mapper.publish else { return };
        if let Some(old) = mapper.subscription.take() {
            event_loop.remove(old, Duration::ZERO);
        }
        let topics: Vec<_> = self.followed.iter().map(control::topic).collect();
        let topics = topics.iter().map(Vec::as_slice).chain([control::PULSE_TOPIC]);
        let keys = self.keys.as_ref();
        match sockets::subscribe(event_loop, &mapper.at, publish, topics, keys) {
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
}
