//! The nodes: the processes that ship, without what lies outside them.

mod carrier;
mod handlers;
mod mapper;
mod sender;
mod worker;

use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::control::{FromMapper, Publication, ToMapper, Welcome};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::names::{Endpoint, Epoch, HostId, InstanceKey, Name};
use svcmap_worker::pure::{JobSpec, Task};
use svcmap_worker::{JobId, Observation, Outcome};

use super::scenario::Scenario;
pub use carrier::Carrier;
pub use mapper::MapperNode;
pub use sender::SenderNode;
pub use worker::WorkerNode;

/// All run on one machine.
const HOST: HostId = HostId(1);

/// Which node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// The mapper.
    Mapper,
    /// A worker, by number.
    Worker(usize),
    /// A sender, by number.
    Sender(usize),
}

/// One of the connections that a link of a sender has in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whose connection it is.
    pub link: u64,
    /// How many the link had before.
    pub generation: u32,
}

/// What travels between nodes.
#[derive(Clone, Debug)]
pub enum Message {
    /// From a worker or sender.
    ToMapper(ToMapper),
    /// To a worker or sender.
    FromMapper(FromMapper),
    /// On PUB, for one subscriber. All of them share it.
    Publication(Rc<Publication>),
    /// That connection of the sender is there.
    Connected(Line),
    /// The process at the other end of that connection of a sender has ended.
    Gone(Line),
    /// From a sender, or from the sending half of a worker.
    ToWorker(Line, ToWorker),
    /// To a sender, or to the sending half of a worker.
    FromWorker(Line, FromWorker),
}

impl Message {
    /// How many jobs it brings.
    pub fn jobs(&self) -> usize {
        match self {
            Message::ToWorker(_, ToWorker::Jobs(batch)) => batch.jobs.len(),
            _ => 0,
        }
    }
}

/// What a node wants done, or has found out.
#[derive(Debug)]
pub enum Effect {
    /// Send this.
    Send(Node, Box<Message>),
    /// Send this to all who subscribed to that service, or to everybody.
    Publish(Option<Name>, Publication),
    /// Make that connection to that worker.
    Connect(usize, Line),
    /// A handler is to run this.
    Start(Task),
    /// A sender decided something.
    Observed(Observation),
    /// A job has its outcome.
    Settled(JobId, Outcome),
}

/// The one service there is.
pub fn service() -> Name {
    name("s")
}

fn name(text: &str) -> Name {
    #[allow(clippy::expect_used)] // only called with names
    text.parse().expect("a name")
}

fn endpoint(number: usize) -> Endpoint {
    #[allow(clippy::expect_used)] // the host is one
    Endpoint::tcp("127.0.0.1", (number + 1) as u16).expect("an endpoint")
}

/// The number of a worker, which is its name.
pub fn worker_number(instance: &Name) -> usize {
    instance.as_str().parse().unwrap_or(usize::MAX)
}

/// The instance of that number. Names sort like numbers.
pub fn worker_key(number: usize) -> InstanceKey {
    InstanceKey { service: service(), instance: name(&format!("{number:05}")) }
}

/// What the mapper of that epoch dictates.
pub fn welcome(scenario: &Scenario, epoch: Epoch) -> Welcome {
    let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
    Welcome {
        epoch,
        warming: false,
        beat_ms: ms(scenario.beat),
        expiry_ms: ms(3 * scenario.beat),
        publish_ms: ms(scenario.publish_interval),
        publish: endpoint(0),
        observed: String::new(),
        highest: None,
    }
}

/// A job without payload, which nobody gives up.
pub fn job(scenario: &Scenario, service: &Name, payload: &Bytes) -> JobSpec {
    JobSpec {
        deadline: Some(DEADLINE),
        hold: Some(scenario.held_for()),
        ..JobSpec::new(service.clone(), payload.clone())
    }
}

/// Longer than any simulated job takes.
const DEADLINE: Duration = Duration::from_secs(3600);
