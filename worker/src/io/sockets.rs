//! The sockets of a worker or client, and the addresses that go with them.

use std::collections::BTreeMap;

use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::curve::{secure_client, secure_server};
use svcmap_proto::io::{self, Connections, EventLoop, Socket, SocketKey, SocketSettings};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, EndpointError, MapperAddress, Name};

use super::notice::StartError;
use crate::config::{IntakeConfig, OutboxConfig, SERVICES_FOLLOWED_MAX};

/// Messages that may wait on a connection beside the payloads: more than can ever be open on it.
const LINK_QUEUE: i32 = 2 * limits::OPEN_ATTEMPTS_MAX as i32 + 64;

/// What may wait for a mapper: a question for each service that is followed, and a few reports. An old
/// one is worth nothing, the next beat brings another.
const CONTROL_QUEUE: i32 = SERVICES_FOLLOWED_MAX as i32 + 64;

/// Bytes of publications that may wait for this process, until some are dropped and a snapshot
/// mends it.
const SUBSCRIPTION_QUEUE_BYTES: usize = 8 * 1024 * 1024;

/// Where a worker listens for jobs.
pub(super) struct Listener {
    pub(super) socket: SocketKey,
    pub(super) connections: Connections,
    pub(super) endpoint: Endpoint,
}

/// Binds a worker's ROUTER.
pub(super) fn listen(
    event_loop: &mut EventLoop,
    endpoint: &Endpoint,
    config: &IntakeConfig,
    keys: Option<&Deployment>,
) -> Result<Listener, StartError> {
    let settings = SocketSettings {
        frame_bytes_max: config.payload_bytes_max.max(limits::CONTROL_BYTES_MAX),
        // Outcomes that were not acknowledged, headers included, and answers.
        send_queue: LINK_QUEUE + limits::queue(config.unacknowledged_bytes_max()),
        ..SocketSettings::default()
    };
    let socket = io::router(event_loop.context(), settings)?;
    if let Some(Deployment { own, .. }) = keys {
        // The mappers say who else, before anybody hears of this worker.
        event_loop.admit_only(BTreeMap::new())?;
        secure_server(&socket, own)?;
    }
    let connections = Connections::watch(event_loop, &socket)?;
    let endpoint = io::bind(&socket, endpoint)?;
    Ok(Listener { socket: event_loop.add(socket)?, connections, endpoint })
}

/// Connects a DEALER to a mapper.
pub(super) fn dial_mapper(
    event_loop: &mut EventLoop,
    mapper: &MapperAddress,
    keys: Option<&Deployment>,
) -> Result<SocketKey, StartError> {
    let settings = SocketSettings { send_queue: CONTROL_QUEUE, ..SocketSettings::default() };
    let socket = io::dealer(event_loop.context(), settings)?;
    trust(&socket, mapper, keys)?;
    io::connect(&socket, &mapper.address)?;
    let key = event_loop.add(socket)?;
    event_loop.watch_writable(key);
    Ok(key)
}

/// Speaks only with whoever has the key of that mapper.
fn trust(
    socket: &Socket,
    mapper: &MapperAddress,
    keys: Option<&Deployment>,
) -> Result<(), StartError> {
    let Some(keys) = keys else { return Ok(()) };
    Ok(secure_client(socket, &keys.own, mapper_key(keys, &mapper.named)?)?)
}

/// The key of a mapper, or of all that have its name.
pub(super) fn mapper_key(keys: &Deployment, named: &Endpoint) -> Result<PublicKey, StartError> {
    keys.key_of(named).ok_or_else(|| StartError::NoKey(named.clone()))
}

/// Connects a SUB to the PUB of a mapper, with these subscriptions.
pub(super) fn subscribe<'a>(
    event_loop: &mut EventLoop,
    mapper: &MapperAddress,
    publish: &Endpoint,
    topics: impl Iterator<Item = &'a [u8]>,
    keys: Option<&Deployment>,
) -> Result<SocketKey, StartError> {
    // Subscriptions are messages to the publisher: beyond the send queue they are dropped.
    let settings = SocketSettings {
        receive_queue: limits::queue(SUBSCRIPTION_QUEUE_BYTES),
        send_queue: 0,
        ..SocketSettings::default()
    };
    let socket = io::subscriber(event_loop.context(), settings)?;
    trust(&socket, mapper, keys)?;
    for topic in topics {
        socket.set_subscribe(topic)?;
    }
    io::connect(&socket, publish)?;
    Ok(event_loop.add(socket)?)
}

/// Connects a DEALER to a worker.
pub(super) fn dial_worker(
    event_loop: &mut EventLoop,
    worker: &Endpoint,
    key: Option<PublicKey>,
    config: &OutboxConfig,
    keys: Option<&Deployment>,
) -> Result<SocketKey, StartError> {
    let settings = SocketSettings {
        frame_bytes_max: config.payload_bytes_max.max(limits::CONTROL_BYTES_MAX),
        // All jobs of this process, headers included: a connection that takes nothing is one that
        // is gone, not one that is full.
        send_queue: (2 * LINK_QUEUE).saturating_add(limits::queue(config.jobs_bytes_max)),
        ..SocketSettings::default()
    };
    let socket = io::dealer(event_loop.context(), settings)?;
    match (keys, key) {
        (Some(Deployment { own, .. }), Some(key)) => secure_client(&socket, own, key)?,
        // Of this machine, and with the mapper's word for that.
        (Some(_), None) if worker.is_loopback() => {}
        (Some(_), None) => return Err(StartError::NoKey(worker.clone())),
        (None, _) => {}
    }
    io::connect(&socket, worker)?;
    let key = event_loop.add(socket)?;
    event_loop.watch_writable(key);
    Ok(key)
}

/// Where to listen unless the user says so: on loopback if every mapper is there.
pub(super) fn default_bind(mappers: &[Endpoint]) -> Result<Endpoint, EndpointError> {
    let local = mappers.iter().all(Endpoint::is_loopback);
    Endpoint::tcp(if local { "127.0.0.1" } else { "*" }, 0)
}

/// Host name, process id and a random part: unique, and an operator can tell where it runs.
pub fn default_instance() -> Name {
    let host = io::node_name();
    let host: String = host
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '-' })
        .take(32)
        .collect();
    let mut random = fastrand::Rng::with_seed(io::random_u64());
    let random: String = std::iter::repeat_with(|| random.alphanumeric()).take(4).collect();
    let name = format!("{host}-{}-{}", std::process::id(), random.to_lowercase());
    name.parse().unwrap_or_else(|_| fallback_name())
}

/// The part of the name that is valid on any host.
fn fallback_name() -> Name {
    loop {
        if let Ok(name) = format!("instance-{}", io::random_u64()).parse() {
            return name;
        }
    }
}
