//! Settings of workers and clients, and how they start.

use std::sync::{Arc, Mutex};

use slog::{Logger, o, warn};
use svcmap_proto::io::{self, Clock, EventLoop};
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey, Name, SenderId};

use super::client::Client;
use super::mappers::Mappers;
use super::node::Node;
use super::notice::{Notice, Notify, Observer, StartError};
use super::pool::{HandlerError, Job};
use super::report::Report;
use super::serving::Serving;
use super::shared::Shared;
use super::sockets;
use super::worker::{Thread, Worker};
use crate::config::{ConfigError, IntakeConfig, MAPPERS_MAX, OutboxConfig};
use crate::observation::Observation;
use crate::process::{Instance, Process};
use crate::sender::Sender;

/// Where a mapper listens unless somebody says otherwise.
const MAPPER_DEFAULT: &str = "tcp://127.0.0.1:5555";

/// What workers and clients have in common.
struct Common {
    mappers: Vec<String>,
    outbox: OutboxConfig,
    logger: Logger,
    notify: Notify,
    observer: Option<Observer>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            mappers: Vec::new(),
            outbox: OutboxConfig::default(),
            logger: Logger::root(slog::Discard, o!()),
            notify: Box::new(|_| {}),
            observer: None,
        }
    }
}

impl Common {
    fn mappers(&self) -> Result<Vec<Endpoint>, StartError> {
        let default = [MAPPER_DEFAULT.to_owned()];
        let texts = if self.mappers.is_empty() { &default[..] } else { &self.mappers };
        if texts.len() > MAPPERS_MAX {
            return Err(ConfigError::Mappers.into());
        }
        texts.iter().map(|text| Ok(text.parse()?)).collect()
    }

    /// Starts the I/O thread.
    fn start(
        self,
        mut event_loop: EventLoop,
        mappers: Vec<Endpoint>,
        serving: Option<(Instance, Serving)>,
    ) -> Result<Arc<Thread>, StartError> {
        let mut sender = Sender::new(
            SenderId(fastrand::u128(..)),
            io::host_id(),
            mappers.len(),
            self.outbox.clone(),
            self.outbox.policy.choice(),
            fastrand::u64(..),
        );
        if self.observer.is_some() {
            sender.observe();
        }
        if let Some(doubt) = io::host_id_doubt() {
            warn!(self.logger, "this process may be taken for one on another machine";
                "why" => doubt);
        }
        let shared = Arc::new(Shared::new(event_loop.waker(), self.outbox));
        let (instance, serving) = serving.unzip();
        let (count, seed) = (mappers.len(), fastrand::u64(..));
        let report = Report::new(&mappers, self.logger.clone(), self.notify);
        let mappers = Mappers::new(&mut event_loop, mappers, self.logger)?;
        let process = Process::new(Clock.now(), count, sender, instance, seed);
        let node = Node::new(
            event_loop,
            process,
            mappers,
            serving,
            Arc::clone(&shared),
            report,
            self.observer,
        );
        let thread = std::thread::Builder::new().name("svcmap-io".to_owned());
        let handle = Mutex::new(Some(
            thread
                .spawn(move || node.run())
                .map_err(|reason| StartError::Threads { wanted: 1, reason })?,
        ));
        Ok(Arc::new(Thread { shared, handle }))
    }
}

/// Settings of a [`Client`].
#[derive(Default)]
pub struct ClientBuilder {
    common: Common,
}

impl ClientBuilder {
    /// A mapper to ask; call it again for each further one. Default `tcp://127.0.0.1:5555`.
    pub fn mapper(self, endpoint: impl AsRef<str>) -> Self {
        self.mappers([endpoint])
    }

    /// Mappers to ask.
    pub fn mappers<I>(mut self, endpoints: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.common.mappers.extend(endpoints.into_iter().map(|e| e.as_ref().to_owned()));
        self
    }

    /// Everything that can be set about sending.
    pub fn outbox(mut self, config: OutboxConfig) -> Self {
        self.common.outbox = config;
        self
    }

    /// Where to log. Default: nowhere.
    pub fn logger(mut self, logger: Logger) -> Self {
        self.common.logger = logger;
        self
    }

    /// Called with each notice, on the I/O thread: it must return at once.
    pub fn notify(mut self, notify: impl Fn(Notice) + Send + 'static) -> Self {
        self.common.notify = Box::new(notify);
        self
    }

    /// Called with each decision, on the I/O thread: it must return at once.
    pub fn observe(mut self, observer: impl Fn(Observation) + Send + 'static) -> Self {
        self.common.observer = Some(Box::new(observer));
        self
    }

    /// Starts.
    ///
    /// # Errors
    /// See [`StartError`]. A mapper that is not there is none.
    pub fn start(self) -> Result<Client, StartError> {
        self.common.outbox.validate()?;
        let mappers = self.common.mappers()?;
        let thread = self.common.start(EventLoop::new(&[])?, mappers, None)?;
        Ok(Client { shared: Arc::clone(&thread.shared), _thread: Some(thread) })
    }
}

/// Settings of a [`Worker`].
pub struct WorkerBuilder {
    service: String,
    instance: Option<String>,
    intake: IntakeConfig,
    bind: Option<String>,
    advertise: Vec<String>,
    incarnation: Option<Incarnation>,
    common: Common,
}

impl Worker {
    /// A worker that will serve this service.
    pub fn builder(service: &str) -> WorkerBuilder {
        WorkerBuilder {
            service: service.to_owned(),
            instance: None,
            intake: IntakeConfig::default(),
            bind: None,
            advertise: Vec::new(),
            incarnation: None,
            common: Common::default(),
        }
    }
}

impl WorkerBuilder {
    /// A mapper to register with; call it again for each further one. Default
    /// `tcp://127.0.0.1:5555`.
    pub fn mapper(self, endpoint: impl AsRef<str>) -> Self {
        self.mappers([endpoint])
    }

    /// Mappers to register with.
    pub fn mappers<I>(mut self, endpoints: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        self.common.mappers.extend(endpoints.into_iter().map(|e| e.as_ref().to_owned()));
        self
    }

    /// The instance's name. Default: host name, process id and a random part.
    pub fn instance(mut self, name: &str) -> Self {
        self.instance = Some(name.to_owned());
        self
    }

    /// Jobs that run at once, each in a thread of its own. Default 1.
    pub fn concurrency(mut self, jobs: u32) -> Self {
        self.intake.concurrency = jobs;
        self
    }

    /// Jobs that wait beyond those that run; 0 is allowed. Default 10.
    pub fn queue(mut self, jobs: u32) -> Self {
        self.intake.queue = jobs;
        self
    }

    /// Largest payload of a job and of a result, in bytes. Default 1 MiB.
    pub fn payload_bytes_max(mut self, bytes: usize) -> Self {
        self.intake = self.intake.with_payload_bytes_max(bytes);
        self
    }

    /// Where to listen for jobs. Default: loopback if every mapper is there, else all interfaces;
    /// a port that the system chooses.
    pub fn bind(mut self, endpoint: &str) -> Self {
        self.bind = Some(endpoint.to_owned());
        self
    }

    /// What to tell others instead of what the mapper sees: a host, or `tcp://HOST:PORT`. Call it
    /// again for each further one.
    pub fn advertise(mut self, address: &str) -> Self {
        self.advertise.push(address.to_owned());
        self
    }

    /// This life's number, for a supervisor that has to know it. Default: Unix time in
    /// microseconds, or one more than the highest that is alive under this name.
    pub fn incarnation(mut self, incarnation: Incarnation) -> Self {
        self.incarnation = Some(incarnation);
        self
    }

    /// Everything that can be set about taking jobs.
    pub fn intake(mut self, config: IntakeConfig) -> Self {
        self.intake = config;
        self
    }

    /// Everything that can be set about sending.
    pub fn outbox(mut self, config: OutboxConfig) -> Self {
        self.common.outbox = config;
        self
    }

    /// Where to log. Default: nowhere.
    pub fn logger(mut self, logger: Logger) -> Self {
        self.common.logger = logger;
        self
    }

    /// Called with each notice, on the I/O thread: it must return at once.
    pub fn notify(mut self, notify: impl Fn(Notice) + Send + 'static) -> Self {
        self.common.notify = Box::new(notify);
        self
    }

    /// Binds, starts the threads, and registers in the background: mappers may come later.
    ///
    /// # Errors
    /// See [`StartError`]. A mapper that is not there is none.
    pub fn start<H>(self, handler: H) -> Result<Worker, StartError>
    where
        H: Fn(&Job) -> Result<Vec<u8>, HandlerError> + Send + Sync + 'static,
    {
        self.intake.validate()?;
        self.common.outbox.validate()?;
        let mappers = self.common.mappers()?;
        let service: Name = self.service.parse()?;
        let instance = match &self.instance {
            Some(name) => name.parse()?,
            None => sockets::default_instance(),
        };
        let key = InstanceKey { service, instance };
        let mut event_loop = EventLoop::new(&[])?;
        let bind = match &self.bind {
            Some(bind) => bind.parse()?,
            None => sockets::default_bind(&mappers)?,
        };
        let listener = sockets::listen(&mut event_loop, &bind, &self.intake)?;
        let advertise = advertised(&self.advertise, &listener.endpoint)?;
        if !listener.endpoint.is_loopback() {
            warn!(self.common.logger, "anyone who reaches this port can send jobs";
                "endpoint" => %listener.endpoint);
        }
        let endpoint = listener.endpoint.clone();
        let instance = Instance {
            key: key.clone(),
            incarnation: self.incarnation,
            endpoint: endpoint.clone(),
            advertise,
            host: io::host_id(),
            pid: std::process::id(),
            config: self.intake,
        };
        let waker = event_loop.waker();
        let serving = Serving::new(&instance, listener, Arc::new(handler), &waker)?;
        let thread = self.common.start(event_loop, mappers, Some((instance, serving)))?;
        Ok(Worker { key, endpoint, thread })
    }
}

/// Addresses to tell others, from what the user gave.
fn advertised(texts: &[String], bound: &Endpoint) -> Result<Vec<Endpoint>, StartError> {
    let port = bound.port().unwrap_or(0);
    let mut endpoints = Vec::new();
    for text in texts {
        let endpoint: Endpoint =
            if text.contains("://") { text.parse()? } else { Endpoint::tcp(text, port)? };
        if endpoint.is_wildcard() {
            return Err(StartError::Advertise(endpoint));
        }
        // A port that is left open is the one that this worker listens on.
        endpoints.push(match endpoint.port() {
            None | Some(0) => Endpoint::tcp(endpoint.host(), port)?,
            Some(_) => endpoint,
        });
    }
    Ok(endpoints)
}
