//! A cache as a client has it: the worker library's, with sockets of its own, so that a benchmark can
//! see what it holds.

use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Publication, ToMapper, topic, topic_service};
use svcmap_proto::io::Clock;
use svcmap_proto::names::Name;
use svcmap_worker::pure::{Peers, PeersOutput};

use super::fleet::{hello, service};
use crate::{PATIENCE, dealer};

/// See the module.
pub struct Cache {
    peers: Peers,
    services: Vec<Name>,
    mapper: zmq::Socket,
    published: zmq::Socket,
    /// Where the mapper publishes.
    pub publish: String,
}

impl Cache {
    /// Follows the services `s0`, `s1`, … at the mapper.
    ///
    /// # Panics
    /// If no mapper answers there.
    pub fn connect(endpoint: &str, services: usize) -> Self {
        let mapper = dealer(endpoint);
        mapper.send(codec::encode(&hello(None)), 0).expect("a mapper");
        let answer = mapper.recv_bytes(0).expect("a WELCOME");
        let Ok(FromMapper::Welcome(welcome)) = codec::decode(&answer) else {
            panic!("no WELCOME: {answer:?}")
        };
        let published = zmq::Context::new().socket(zmq::SUB).expect("a socket");
        published.set_linger(0).expect("linger");
        published.connect(welcome.publish.as_str()).expect("connect");
        let (mut peers, now) = (Peers::new(1, 1), Clock.now());
        let ms = |ms| Duration::from_millis(u64::from(ms));
        peers.handle_welcome(now, 0, welcome.epoch, (ms(welcome.beat_ms), ms(welcome.expiry_ms)));
        let services: Vec<_> = (0..services).map(service).collect();
        services.iter().for_each(|service| assert!(peers.follow(now, service)));
        let publish = welcome.publish.to_string();
        Self { peers, services, mapper, published, publish }
    }

    /// Goes on until it has so many members.
    ///
    /// # Panics
    /// If that takes long.
    pub fn wait_members(&mut self, members: usize) {
        let deadline = Clock.now() + 2 * PATIENCE;
        while self.services.iter().map(|s| self.peers.members(s).count()).sum::<usize>() < members {
            assert!(Clock.now() < deadline, "waited in vain for {members} members");
            self.turn();
        }
    }

    fn turn(&mut self) {
        self.act();
        let mut items =
            [&self.mapper, &self.published].map(|socket| socket.as_poll_item(zmq::POLLIN));
        zmq::poll(&mut items, 1).expect("a poll");
        while let Ok(frame) = self.mapper.recv_bytes(zmq::DONTWAIT) {
            if let Ok(FromMapper::Snapshot { service, part }) = codec::decode(&frame) {
                self.peers.handle_snapshot(Clock.now(), 0, &service, &part);
            }
        }
        while let Ok(frames) = self.published.recv_multipart(zmq::DONTWAIT) {
            let publication: Publication = codec::decode(&frames[1]).expect("a publication");
            if let Some(service) = topic_service(&frames[0]) {
                self.peers.handle_publication(Clock.now(), 0, &service, &publication);
            }
        }
        let now = Clock.now();
        if self.peers.poll_timeout().is_some_and(|at| at <= now) {
            self.peers.handle_timeout(now);
        }
    }

    fn act(&mut self) {
        while let Some(output) = self.peers.poll_output() {
            match output {
                PeersOutput::Subscribe(service) => {
                    self.published.set_subscribe(&topic(&service)).expect("subscribe");
                }
                PeersOutput::Sync { service, .. } => {
                    let sync = codec::encode(&ToMapper::Sync { service });
                    self.mapper.send(sync, 0).expect("it reads");
                }
                PeersOutput::Unsubscribe(_)
                | PeersOutput::Ended { .. }
                | PeersOutput::Silent { .. } => {}
            }
        }
    }
}
