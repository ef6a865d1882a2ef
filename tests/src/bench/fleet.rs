//! Simulated instances: each has a connection to a mapper and says what a worker would say, a
//! thousand to a hundredth of a core.

use std::time::Duration;

use svcmap_proto::codec::{self, VERSION, VERSION_OLDEST};
use svcmap_proto::control::{Hello, Registration, ToMapper};
use svcmap_proto::io::{Clock, host_id};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Incarnation, InstanceKey, Name};

use crate::zmtp::{Raw, message};

/// Which life of it each instance is.
const INCARNATION: Incarnation = Incarnation(1);

/// Instances of some services, dealt to some connections.
pub struct Fleet {
    /// The connections, each with the number of answers that it is owed.
    peers: Vec<(Raw, usize)>,
    instances: Vec<InstanceKey>,
    sequence: u64,
}

impl Fleet {
    /// Connects, and says nothing yet: `instances` of so many services `s0`, `s1`, …, over so many
    /// connections.
    ///
    /// # Panics
    /// If nobody listens there.
    pub fn connect(endpoint: &str, instances: usize, services: usize, connections: usize) -> Self {
        let key = |number| InstanceKey {
            service: service(number % services),
            instance: format!("host-{number}-0123abcd").parse().expect("a name"),
        };
        let connect = |_| (Raw::connect(endpoint).expect("it listens"), 0);
        let peers = (0..connections).map(connect).collect();
        Self { peers, instances: (0..instances).map(key).collect(), sequence: 1 }
    }

    /// Everybody says HELLO and registers.
    pub fn register(&mut self) {
        for number in 0..self.instances.len() {
            let registration = ToMapper::Register(Registration {
                key: self.instances[number].clone(),
                incarnation: INCARNATION,
                endpoints: vec!["tcp://127.0.0.1:50123".parse().expect("an endpoint")],
                host: host_id(),
                pid: 12_345,
                load: load(1, 0),
                error: None,
            });
            let hello = hello(Some(self.instances[number].clone()));
            let said = [hello, registration].map(|said| message(&[&codec::encode(&said)]));
            let (peer, owed) = self.peer(number);
            peer.write(&said.concat()).expect("it reads");
            *owed += 2;
        }
    }

    /// Waits until all that was said is read: each connection asks, and has its answer.
    ///
    /// # Panics
    /// If one has none.
    pub fn settle(&mut self) {
        let hello = codec::encode(&hello(None));
        for (peer, owed) in &mut self.peers {
            peer.send(&[&hello]).expect("it reads");
            *owed += 1;
        }
        for (peer, owed) in &mut self.peers {
            (0..std::mem::take(owed)).for_each(|_| drop(peer.receive().expect("an answer")));
        }
    }

    /// That instance reports a new load, with so many jobs running.
    pub fn report(&mut self, number: usize, running: u32) {
        self.sequence += 1;
        let bytes = self.report_bytes(number, running, self.sequence);
        self.peer(number).0.write(&bytes).expect("it reads");
    }

    /// Everybody reports each second for so long, each at its own time, with a new load.
    pub fn beat(&mut self, length: Duration) {
        let start = Clock.now();
        let count = self.instances.len();
        let mut random = fastrand::Rng::with_seed(1);
        let mut phases: Vec<_> = (0..count).map(|n| (random.u64(..1_000_000), n)).collect();
        phases.sort_unstable();
        for second in 0..length.as_secs() {
            for (phase_us, number) in &phases {
                let at = start + Duration::from_micros(second * 1_000_000 + phase_us);
                if at > Clock.now() {
                    svcmap::io::pause_until(at);
                }
                self.report(*number, 1 + (second % 2) as u32);
            }
        }
    }

    /// So many reports of everybody in turn, as bytes for each connection: chunks of so many.
    pub fn reports(&mut self, count: usize, chunk: usize) -> Vec<(usize, Vec<u8>)> {
        let (peers, instances) = (self.peers.len(), self.instances.len());
        let mut chunks = Vec::new();
        for first in (0..count).step_by(chunk) {
            let peer = first / chunk % peers;
            let mut bytes = Vec::new();
            for turn in 0..chunk {
                self.sequence += 1;
                let number = (peer + turn * peers) % instances;
                let running = 1 + (self.sequence % 2) as u32;
                bytes.extend(self.report_bytes(number, running, self.sequence));
            }
            chunks.push((peer, bytes));
        }
        chunks
    }

    /// Says what was prepared.
    pub fn say(&mut self, chunks: &[(usize, Vec<u8>)]) {
        for (peer, bytes) in chunks {
            self.peers[*peer].0.write(bytes).expect("it reads");
        }
    }

    /// The last ones end, without a word, until so many are left.
    pub fn shrink(&mut self, left: usize) {
        self.instances.truncate(left);
        self.peers.truncate(left);
    }

    fn report_bytes(&self, number: usize, running: u32, sequence: u64) -> Vec<u8> {
        let (key, load) = (self.instances[number].clone(), load(sequence, running));
        let report = ToMapper::Report { key, incarnation: INCARNATION, load };
        message(&[&codec::encode(&report)])
    }

    fn peer(&mut self, number: usize) -> &mut (Raw, usize) {
        let count = self.peers.len();
        &mut self.peers[number % count]
    }
}

/// The service of that number.
pub(super) fn service(number: usize) -> Name {
    format!("s{number}").parse().expect("a name")
}

/// HELLO, of one that is going to register or of one that is not.
pub(super) fn hello(key: Option<InstanceKey>) -> ToMapper {
    ToMapper::Hello(Hello { oldest: VERSION_OLDEST, newest: VERSION, key })
}

/// A load as that of a worker that has done something, with eight slots.
fn load(sequence: u64, running: u32) -> Load {
    Load {
        sequence,
        running,
        slots: 8,
        concurrency: 4,
        accepted: sequence,
        done: sequence,
        since_finish_ms: Some(100),
        ..Load::default()
    }
}
