//! Settings of workers and clients, and how they start.

use std::fmt;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;
use slog::{Drain, Logger, o, warn};
use svcmap_proto::deployment::Deployment;
use svcmap_proto::io::{self, Clock, EventLoop};
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey, Name, SenderId};

use super::client::Client;
use super::handler::{self, Handler};
use super::job::{Home, Job};
use super::mappers::Mappers;
use super::node::Node;
use super::notice::{Notice, Notify, Observer, StartError};
use super::report::Report;
use super::responder::Responder;
use super::serving::Serving;
use super::shared::Shared;
use super::sockets;
use super::worker::{Thread, Worker};
use crate::addresses::IntoAddresses;
use crate::answer::IntoAnswer;
use crate::config::{ConfigError, IntakeConfig, MAPPERS_MAX, OutboxConfig};
use crate::observation::Observation;
use crate::process::{Instance, Process};
use crate::sender::Sender;

/// Where a mapper listens unless somebody says otherwise.
const MAPPER_DEFAULT: &str = "tcp://127.0.0.1:5555";

/// What workers and clients have in common.
struct Common {
    /// `None`: nobody has named any.
    mappers: Option<Vec<String>>,
    keys: Option<Deployment>,
    outbox: OutboxConfig,
    logger: Logger,
    notify: Notify,
    observer: Option<Observer>,
}

impl Default for Common {
    fn default() -> Self {
        Self {
            mappers: None,
            keys: None,
            outbox: OutboxConfig::default(),
            logger: Logger::root(slog::Discard, o!()),
            notify: Box::new(|_| {}),
            observer: None,
        }
    }
}

impl Common {
    fn name_mappers(&mut self, addresses: impl IntoAddresses) {
        self.mappers.get_or_insert_default().extend(addresses.into_addresses());
    }

    fn mappers(&self) -> Result<Vec<Endpoint>, StartError> {
        let mappers: Vec<Endpoint> = match (&self.mappers, &self.keys) {
            (Some(texts), _) => texts.iter().map(|text| text.parse()).collect::<Result<_, _>>()?,
            (None, Some(keys)) => keys.mappers.iter().map(|known| known.address.clone()).collect(),
            (None, None) => vec![MAPPER_DEFAULT.parse()?],
        };
        match mappers.len() {
            1..=MAPPERS_MAX => Ok(mappers),
            _ => Err(ConfigError::Mappers.into()),
        }
    }

    /// Starts the I/O thread.
    fn start(
        self,
        mut event_loop: EventLoop,
        shared: Arc<Shared>,
        mappers: Vec<Endpoint>,
        serving: Option<(Instance, Serving)>,
    ) -> Result<Arc<Thread>, StartError> {
        let mut sender = Sender::new(
            SenderId(io::random_u128()),
            io::host_id(),
            mappers.len(),
            self.outbox.clone(),
            self.outbox.policy.choice(),
            io::random_u64(),
        );
        if self.observer.is_some() {
            sender.observe();
        }
        if let Some(doubt) = io::host_id_doubt() {
            warn!(self.logger, "this process may be taken for one on another machine";
                "why" => doubt);
        }
        let (instance, serving) = serving.unzip();
        let report = Report::new(&mappers, self.logger.clone(), self.notify);
        let dialled = Mappers::new(&mut event_loop, &mappers, self.keys, self.logger)?;
        let process = Process::new(Clock.now(), mappers, sender, instance, io::random_u64());
        let node = Node::new(
            event_loop,
            process,
            dialled,
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
#[must_use = "it does nothing until it is started"]
pub struct ClientBuilder {
    common: Common,
}

impl ClientBuilder {
    /// The mapper to ask, or several; it can be called again for further ones. A host name that has several
    /// addresses is several, and is looked up again when one of them is lost. Default
    /// `tcp://127.0.0.1:5555`.
    pub fn mapper(mut self, addresses: impl IntoAddresses) -> Self {
        self.common.name_mappers(addresses);
        self
    }

    /// Everything that it says and hears is encrypted, with what stands in this deployment file: see
    /// [`Deployment::load`]. Its mappers are asked unless others are named, which have to stand there, too.
    /// Default: plain text.
    pub fn deployment(mut self, deployment: Deployment) -> Self {
        self.common.keys = Some(deployment);
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
        let event_loop = EventLoop::new(&[])?;
        let shared = Arc::new(Shared::new(event_loop.waker(), self.common.outbox.clone()));
        let thread = self.common.start(event_loop, shared, mappers, None)?;
        Ok(Client { shared: Arc::clone(&thread.shared), _thread: Some(thread) })
    }
}

/// Settings of a [`Worker`].
#[must_use = "it does nothing until it serves"]
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
    /// The mapper to register with, or several; it can be called again for further ones. A host name that
    /// has several addresses is several, and is looked up again when one of them is lost. Default
    /// `tcp://127.0.0.1:5555`.
    pub fn mapper(mut self, addresses: impl IntoAddresses) -> Self {
        self.common.name_mappers(addresses);
        self
    }

    /// Everything that it says and hears is encrypted, with what stands in this deployment file, and whoever
    /// has another one, or none, cannot speak with it: see [`Deployment::load`]. Its mappers are registered
    /// with unless others are named, which have to stand there, too. Default: plain text, and whoever reaches
    /// it can send jobs.
    pub fn deployment(mut self, deployment: Deployment) -> Self {
        self.common.keys = Some(deployment);
        self
    }

    /// The instance's name. Default: host name, process id and a random part.
    pub fn instance(mut self, name: &str) -> Self {
        self.instance = Some(name.to_owned());
        self
    }

    /// Jobs that run at once, each in a thread of its own unless they are served
    /// [later](Self::serve_later). Default 1.
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

    /// Serves: binds, starts the threads, and registers in the background, as mappers may come later.
    /// The handler is called once for each job, from as many threads as jobs may run at once. It returns
    /// what [`IntoAnswer`] takes: a payload, or a `Result` with one.
    ///
    /// # Errors
    /// See [`StartError`]. A mapper that is not there is none.
    pub fn serve<A: IntoAnswer>(
        self,
        handler: impl Fn(&Job) -> A + Send + Sync + 'static,
    ) -> Result<Worker, StartError> {
        self.start(handler::plain(handler))
    }

    /// The same with values: a payload that is not the JSON of a `Request` fails its job, and the
    /// result is JSON.
    ///
    /// # Errors
    /// See [`WorkerBuilder::serve`].
    pub fn serve_json<Request, Response, E>(
        self,
        handler: impl Fn(Request) -> Result<Response, E> + Send + Sync + 'static,
    ) -> Result<Worker, StartError>
    where
        Request: DeserializeOwned,
        Response: Serialize,
        E: fmt::Display + 'static,
    {
        self.start(handler::json(handler))
    }

    /// The same with a state for each thread, such as a connection or a model, which need be neither
    /// `Send` nor `Sync`. It is made when its thread starts, and again after a panic. Where making it
    /// panics, jobs are tried elsewhere.
    ///
    /// # Errors
    /// See [`WorkerBuilder::serve`].
    pub fn serve_with<S: 'static, A: IntoAnswer>(
        self,
        state: impl Fn() -> S + Send + Sync + 'static,
        handler: impl Fn(&mut S, &Job) -> A + Send + Sync + 'static,
    ) -> Result<Worker, StartError> {
        self.start(handler::with_state(state, handler))
    }

    /// The same without a thread for each job: the handler begins a job and returns, and the
    /// [`Responder`] answers it from any thread or task of any runtime. As many jobs run at once
    /// as [`concurrency`](Self::concurrency) says; the handler is called from one thread, and is not to
    /// block it.
    ///
    /// ```no_run
    /// use svcmap_worker::{HandlerError, Job, Responder, Worker};
    ///
    /// async fn fetch(job: &Job) -> Result<String, HandlerError> {
    ///     let url: String = job.json()?;
    ///     tokio::select! {
    ///         () = job.cancelled() => Err("cancelled".into()),
    ///         () = tokio::time::sleep(std::time::Duration::from_secs(1)) => Ok(url),
    ///     }
    /// }
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let runtime = tokio::runtime::Runtime::new()?;
    /// let tasks = runtime.handle().clone();
    /// let worker = Worker::builder("fetch").concurrency(1000).serve_later(
    ///     move |job: Job, responder: Responder| {
    ///         tasks.spawn(async move { responder.respond(fetch(&job).await) });
    ///     },
    /// )?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// See [`WorkerBuilder::serve`].
    pub fn serve_later(
        self,
        handler: impl Fn(Job, Responder) + Send + Sync + 'static,
    ) -> Result<Worker, StartError> {
        self.start(Handler::Later(Box::new(handler)))
    }

    fn start(self, handler: Handler) -> Result<Worker, StartError> {
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
        let listener =
            sockets::listen(&mut event_loop, &bind, &self.intake, self.common.keys.as_ref())?;
        let advertise = advertised(&self.advertise, &listener.endpoint)?;
        if self.common.keys.is_none() && !listener.endpoint.is_loopback() {
            warn!(self.common.logger, "not encrypted: whoever reaches this port can send jobs";
                "endpoint" => %listener.endpoint);
        }
        if let Some(doubt) = io::libzmq_doubt() {
            warn!(self.common.logger, "what waits for a peer is counted in messages, not in bytes";
                "why" => doubt);
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
        let shared = Arc::new(Shared::new(waker.clone(), self.common.outbox.clone()));
        let log = &self.common.logger;
        let log = log.is_debug_enabled().then(|| log.clone());
        let home = Home { key: key.clone(), shared: Arc::clone(&shared), log };
        let serving = Serving::new(&instance.config, listener, handler, home, waker)?;
        let thread = self.common.start(event_loop, shared, mappers, Some((instance, serving)))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_no_mappers_is_not_taken_for_the_default() {
        let nobody = Client::connect(Vec::<String>::new());
        assert!(matches!(nobody, Err(StartError::Config(ConfigError::Mappers))));
    }
}
