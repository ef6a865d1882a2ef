//! Settings of a mapper, and how it starts.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use slog::{Logger, info, o, warn};
use svcmap_proto::deployment::MapperFile;
use svcmap_proto::io::curve::secure_server;
use svcmap_proto::io::{
    self as proto_io, BindError, Clock, Connections, EventLoop, SocketKey, SocketSettings, ZapError,
};
use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, EndpointError, Epoch};

use super::key_file::KeyFile;
use super::mapper::Mapper;
use super::monitor::Monitor;
use super::node::{Asked, Node, Sockets};
use crate::config::{Config, ConfigError};
use crate::registry::{Identity, Registry};
use crate::rights::Rights;

/// Where a mapper listens unless somebody says otherwise.
const BIND_DEFAULT: &str = "tcp://127.0.0.1:5555";

/// Where it publishes unless somebody says otherwise.
const PUBLISH_DEFAULT: &str = "tcp://127.0.0.1:5556";

/// Bytes of publications that wait for a subscriber who does not read, before it misses some: a
/// snapshot of as many instances as a mapper holds.
const PUBLISH_QUEUE_BYTES: usize = 16 * 1024 * 1024;

/// Why a mapper did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address is none.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// The settings make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// In plain text it listens on loopback only.
    #[error("{0} is not on loopback, and plain text beside keys is for this machine only")]
    PlainBeyond(Endpoint),
    /// Somebody else listens there, or the address is not of this machine.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Nobody can be kept out, so it does not even listen.
    #[error(transparent)]
    Zap(#[from] ZapError),
    /// The system gave no thread, file or socket: look at `ulimit -n`.
    #[error("the system refused: {0}")]
    System(#[from] io::Error),
}

impl From<zmq::Error> for StartError {
    fn from(error: zmq::Error) -> Self {
        Self::System(io::Error::other(error.message()))
    }
}

/// Builds a [`Mapper`]; everything has a default.
#[derive(Clone, Debug)]
pub struct MapperBuilder {
    bind: String,
    publish: String,
    config: Config,
    keys: Option<MapperFile>,
    key_file: Option<PathBuf>,
    plain_bind: Option<String>,
    logger: Logger,
}

impl Default for MapperBuilder {
    fn default() -> Self {
        Self {
            bind: BIND_DEFAULT.to_owned(),
            publish: PUBLISH_DEFAULT.to_owned(),
            config: Config::default(),
            keys: None,
            key_file: None,
            plain_bind: None,
            logger: Logger::root(slog::Discard, o!()),
        }
    }
}

impl MapperBuilder {
    /// Where it listens. Host `*` means all interfaces, port 0 one that the system chooses.
    /// Default `tcp://127.0.0.1:5555`.
    #[must_use]
    pub fn bind(mut self, endpoint: &str) -> Self {
        endpoint.clone_into(&mut self.bind);
        self
    }

    /// Where it publishes, in the same form. Default `tcp://127.0.0.1:5556`.
    #[must_use]
    pub fn publish(mut self, endpoint: &str) -> Self {
        endpoint.clone_into(&mut self.publish);
        self
    }

    /// Longest silence that a worker allows itself: see [`Config::beat`].
    #[must_use]
    pub fn beat(mut self, beat: Duration) -> Self {
        self.config.beat = beat;
        self
    }

    /// Missed beats after which an instance expires: see [`Config::expiry_beats`].
    #[must_use]
    pub fn expiry_beats(mut self, beats: u32) -> Self {
        self.config.expiry_beats = beats;
        self
    }

    /// Time between two publications of ordinary changes, in place of one that follows each
    /// service's mean service time: see [`Config::publish_interval`].
    #[must_use]
    pub fn publish_interval(mut self, interval: Duration) -> Self {
        self.config.publish_interval = Some(interval);
        self
    }

    /// Everything that it says and hears is encrypted with these keys, and whoever is not named there gets
    /// nowhere. Default: plain text, and whoever reaches it takes part.
    #[must_use]
    pub fn keys(mut self, keys: MapperFile) -> Self {
        self.keys = Some(keys);
        self
    }

    /// Where those keys are kept, if operators change who may take part. Default: nowhere, so that such
    /// changes end with the mapper.
    #[must_use]
    pub fn key_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.key_file = Some(path.into());
        self
    }

    /// Where it listens in plain text as well, beside its [`keys`](Self::keys), for processes of this machine
    /// that speak JSON and cannot encrypt: an address of loopback. Default: nowhere.
    #[must_use]
    pub fn plain_bind(mut self, endpoint: &str) -> Self {
        self.plain_bind = Some(endpoint.to_owned());
        self
    }

    /// Where it logs. Default: nowhere.
    #[must_use]
    pub fn logger(mut self, logger: Logger) -> Self {
        self.logger = logger;
        self
    }

    /// Starts it on a thread of its own. When this returns, it listens.
    ///
    /// # Errors
    /// See [`StartError`].
    pub fn start(self) -> Result<Mapper, StartError> {
        let Self { bind, publish, config, keys, key_file, plain_bind, logger } = self;
        let (bind, publish): (Endpoint, Endpoint) = (bind.parse()?, publish.parse()?);
        let plain_bind: Option<Endpoint> = plain_bind.map(|at| at.parse()).transpose()?;
        if let Some(beyond) = plain_bind.as_ref().filter(|at| !at.is_loopback()) {
            return Err(StartError::PlainBeyond(beyond.clone()));
        }
        config.validate()?;

        let mut event_loop = EventLoop::new(&[])?;
        let rights =
            keys.as_ref().map(|keys| Rights::new(keys.principals.clone(), keys.revoked.clone()));
        if let Some(rights) = &rights {
            event_loop.admit_only(rights.admitted())?;
        }
        let secure = |socket: &proto_io::Socket| match &keys {
            Some(keys) => secure_server(socket, &keys.own),
            None => Ok(()),
        };
        let publish_settings = SocketSettings {
            send_queue: limits::queue(PUBLISH_QUEUE_BYTES),
            ..SocketSettings::default()
        };
        let router = proto_io::router(event_loop.context(), SocketSettings::default())?;
        // What is bound before the keys are set goes without them.
        let plain_endpoint = plain_bind.map(|at| proto_io::bind(&router, &at)).transpose()?;
        secure(&router)?;
        let mut connections = vec![Connections::watch(&mut event_loop, &router)?];
        let (router, endpoint) = bound(&mut event_loop, router, &bind)?;
        if let Some(port) = plain_endpoint.as_ref().and_then(Endpoint::port) {
            event_loop.listens_on(router, port);
        }
        let publisher = match &rights {
            Some(_) => proto_io::selective_publisher(event_loop.context(), publish_settings)?,
            None => proto_io::publisher(event_loop.context(), publish_settings)?,
        };
        secure(&publisher)?;
        connections.push(Connections::watch(&mut event_loop, &publisher)?);
        let (publisher, publish_endpoint) = bound(&mut event_loop, publisher, &publish)?;

        info!(logger, "listening"; "bind" => %endpoint, "publish" => %publish_endpoint,
            "encrypted" => keys.is_some());
        if let Some(plain) = &plain_endpoint {
            info!(logger, "listening in plain text for JSON of this machine"; "bind" => %plain);
        }
        if keys.is_none() && !(endpoint.is_loopback() && publish_endpoint.is_loopback()) {
            warn!(logger, "not encrypted: whoever reaches this address can register, look up and listen";
                "bind" => %endpoint, "publish" => %publish_endpoint);
        }
        if let Some(doubt) = proto_io::host_id_doubt() {
            warn!(logger, "this process may be taken for one on another machine"; "why" => doubt);
        }
        if let Some(doubt) = proto_io::libzmq_doubt() {
            warn!(logger, "what waits for a peer is counted in messages, not in bytes";
                "why" => doubt);
        }
        let (waker, stop) = (event_loop.waker(), Arc::new(AtomicBool::new(false)));
        let beat = config.beat;
        let identity = Identity {
            epoch: Epoch(proto_io::random_u64()),
            host: proto_io::host_id(),
            endpoint: endpoint.clone(),
            publish: publish_endpoint.clone(),
        };
        let mut registry = Registry::new(config, identity, Clock.now());
        if let Some(rights) = rights {
            registry = registry.with_rights(rights);
        }
        let sockets = Sockets { router, publisher, connections };
        let key_file = KeyFile::new(key_file);
        let (monitor, questions) = Monitor::new(waker.clone());
        let asked = Asked { stop: Arc::clone(&stop), questions };
        let node = Node::new(event_loop, sockets, registry, key_file, beat, asked, logger);
        let thread =
            thread::Builder::new().name("svcmap-mapper".to_owned()).spawn(move || node.run())?;
        let thread = Some(thread);
        Ok(Mapper { endpoint, publish_endpoint, plain_endpoint, stop, waker, monitor, thread })
    }
}

fn bound(
    event_loop: &mut EventLoop,
    socket: proto_io::Socket,
    endpoint: &Endpoint,
) -> Result<(SocketKey, Endpoint), StartError> {
    let endpoint = proto_io::bind(&socket, endpoint)?;
    Ok((event_loop.add(socket)?, endpoint))
}
