//! A pure sender and pure servers in one thread: what a job costs without sockets, threads and the
//! kernel. Messages are encoded, handed over in memory, and decoded.
//!
//! Time is virtual and the same in each run. A handler takes [`SERVICE`], a message [`WAY`].

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use svcmap_proto::control::{Entry, ServiceStanding, SnapshotPart, Welcome};
use svcmap_proto::jobs::FromWorker;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, Name, SenderId};
use svcmap_proto::payload::{self, Frames, Laden};
use svcmap_proto::time::Timestamp;
use svcmap_worker::config::{IntakeConfig, OutboxConfig};
use svcmap_worker::pure::{
    Connection, Ending, JobSpec, Sender, SenderOutput, Server, ServerOutput, Task,
};
use svcmap_worker::{JobId, Outcome, Policy};

const SERVICE: Duration = Duration::from_micros(2);
const WAY: Duration = Duration::from_micros(10);

/// How often the cache is told what a mapper would publish.
const BEAT: Duration = Duration::from_secs(1);

const HOST: HostId = HostId(1);
const LIFE: Incarnation = Incarnation(1);

/// The message in these frames. Its small payloads are copied, as sockets do it.
fn decode<T: Laden + DeserializeOwned>(frames: Frames) -> T {
    let small = Some(&frames.small[..]).filter(|small| !small.is_empty());
    let small = small.into_iter().map(Bytes::copy_from_slice);
    payload::decode(&frames.message, small.chain(frames.large)).expect("it is a message")
}

/// See the module.
pub struct Pure {
    now: Timestamp,
    sender: Sender,
    servers: Vec<Server>,
    service: Name,
    payload: Bytes,
    /// Where each link leads.
    links: BTreeMap<u64, usize>,
    /// What is on its way to servers, over which link, and back.
    to_servers: VecDeque<(u64, Frames)>,
    to_sender: VecDeque<(u64, Frames)>,
    published_at: Timestamp,
    submitted: u64,
    done: u64,
}

impl Pure {
    /// A sender that chooses as it ships, and so many servers that it knows of.
    ///
    /// # Panics
    /// Never: these are names.
    pub fn new(instances: usize, queue: u32, payload: Vec<u8>) -> Self {
        let service: Name = "echo".parse().expect("it is a name");
        let config = IntakeConfig { concurrency: 1, queue, ..IntakeConfig::default() };
        let server = |number| Server::new(key(&service, number), LIFE, config.clone());
        let servers = (0..instances).map(server).collect();
        let (outbox, choice) = (OutboxConfig::default(), Policy::default().choice());
        let mut pure = Self {
            now: Timestamp::from_micros(1_000_000_000),
            sender: Sender::new(SenderId(1), HOST, 1, outbox, choice, 1),
            servers,
            service,
            payload: payload.into(),
            links: BTreeMap::new(),
            to_servers: VecDeque::new(),
            to_sender: VecDeque::new(),
            published_at: Timestamp::default(),
            submitted: 0,
            done: 0,
        };
        pure.sender.handle_welcome(pure.now, 0, &welcome());
        pure.sender.follow(pure.now, &pure.service);
        pure
    }

    /// Jobs that have their outcome.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Submits until so many are under way.
    pub fn submit(&mut self, window: u64) {
        while self.submitted - self.done < window {
            self.submitted += 1;
            let spec = JobSpec::new(self.service.clone(), self.payload.clone());
            self.sender.handle_submit(self.now, JobId(self.submitted), spec);
        }
    }

    /// The sender reads what came, and does what it wants done.
    ///
    /// # Panics
    /// If a job is not done, or a message is none.
    pub fn act_sender(&mut self) {
        for (link, frames) in std::mem::take(&mut self.to_sender) {
            self.sender.handle_link_message(self.now, link, decode(frames));
        }
        if self.sender.poll_timeout().is_some_and(|at| at <= self.now) {
            self.sender.handle_timeout(self.now);
        }
        while let Some(output) = self.sender.poll_output(self.now) {
            match output {
                SenderOutput::Send { link, message } => {
                    self.to_servers.push_back((link, payload::encode(message)));
                }
                SenderOutput::Settled { outcome: Outcome::Done(_), .. } => self.done += 1,
                SenderOutput::Settled { outcome, .. } => panic!("{outcome}"),
                SenderOutput::Connect { link, endpoint, .. } => {
                    let number = usize::from(endpoint.port().expect("it has a port")) - 1;
                    self.links.insert(link, number);
                    self.sender.handle_link_writable(self.now, link);
                }
                _ => {}
            }
        }
    }

    /// The servers read what came, their handlers run, and time passes. A mapper publishes if it is
    /// time.
    ///
    /// # Panics
    /// If a message is none.
    pub fn act_servers(&mut self) {
        self.now = self.now + WAY;
        let mut busy = Vec::new();
        for (link, frames) in std::mem::take(&mut self.to_servers) {
            let (number, from) = (self.links[&link], Connection::from(link.to_le_bytes().to_vec()));
            self.servers[number].handle_message(self.now, from, decode(frames));
            busy.push(number);
        }
        busy.sort_unstable();
        busy.dedup();
        for number in busy {
            self.act_server(number);
        }
        self.now = self.now + WAY;
        if self.now.since(self.published_at) >= BEAT {
            self.publish();
        }
    }

    fn act_server(&mut self, number: usize) {
        let server = &mut self.servers[number];
        if server.poll_timeout().is_some_and(|at| at <= self.now) {
            server.handle_timeout(self.now);
        }
        let mut started: VecDeque<Task> = VecDeque::new();
        loop {
            while let Some(output) = server.poll_output(self.now) {
                let (to, message) = match output {
                    ServerOutput::Start(task) => {
                        started.push_back(task);
                        continue;
                    }
                    ServerOutput::Outcomes { to, batch, .. } => (to, FromWorker::Outcomes(batch)),
                    ServerOutput::Answer { to, message } => (to, message),
                    _ => continue,
                };
                let link = u64::from_le_bytes(to.id[..].try_into().expect("it is a link's number"));
                self.to_sender.push_back((link, payload::encode(message)));
            }
            if started.is_empty() {
                break;
            }
            // The handler ends all that it has before the server looks at it again.
            for task in started.drain(..) {
                let began_at = self.now;
                self.now = self.now + SERVICE;
                server.handle_ran(task.id, began_at, self.now);
                server.handle_finished(self.now, task.id, Ending::Done, task.payload);
            }
        }
    }

    /// What a mapper would tell of all servers.
    fn publish(&mut self) {
        self.published_at = self.now;
        let now = self.now;
        let servers = self.servers.iter_mut().enumerate();
        let entries = servers.map(|(number, server)| entry(number, server.load(now))).collect();
        let part = SnapshotPart {
            epoch: Epoch(1),
            revision: now.as_micros(),
            warming: false,
            standing: ServiceStanding::Heard,
            part: 0,
            parts: 1,
            entries,
        };
        self.sender.handle_pulse(0);
        self.sender.handle_snapshot(now, 0, &self.service, &part);
    }
}

fn instance(number: usize) -> Name {
    format!("w-{number}").parse().expect("it is a name")
}

fn key(service: &Name, number: usize) -> InstanceKey {
    InstanceKey { service: service.clone(), instance: instance(number) }
}

/// The port says which server it is.
fn endpoint(number: usize) -> Endpoint {
    format!("tcp://10.0.0.1:{}", number + 1).parse().expect("it is an endpoint")
}

fn entry(number: usize, load: Load) -> Entry {
    Entry {
        instance: instance(number),
        incarnation: LIFE,
        endpoints: vec![endpoint(number)],
        host: HOST,
        pid: 1,
        load,
        age_ms: 0,
        error: None,
        key: None,
    }
}

fn welcome() -> Welcome {
    Welcome {
        epoch: Epoch(1),
        warming: false,
        beat_ms: 1000,
        expiry_ms: 3000,
        publish_ms: 100,
        publish: endpoint(0),
        observed: String::new(),
        highest: None,
    }
}
