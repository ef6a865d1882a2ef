//! The serving half of a process, from the first WELCOME on, and what it registers with.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::control::{Registration, Welcome};
use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey};
use svcmap_proto::time::Timestamp;

use crate::config::IntakeConfig;
use crate::server::{DrainReport, Server};
use crate::session::Observed;

/// What a process that serves is told of itself.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Under which name it serves.
    pub key: InstanceKey,
    /// This life's number, if somebody else chooses it.
    pub incarnation: Option<Incarnation>,
    /// Where it listens for jobs. The host `*` means all interfaces.
    pub endpoint: Endpoint,
    /// What to tell others instead, if anything.
    pub advertise: Vec<Endpoint>,
    /// The machine that it runs on.
    pub host: HostId,
    /// Its number there.
    pub pid: u32,
    /// How it takes jobs.
    pub config: IntakeConfig,
}

impl Instance {
    /// What to tell others about where it is: what the user said, or what it is bound to, or, bound to
    /// all interfaces, the address at which the mapper sees it, and loopback for this host.
    fn endpoints(&self, observed: &str) -> Vec<Endpoint> {
        if !self.advertise.is_empty() {
            return self.advertise.iter().take(limits::ENDPOINTS_MAX).cloned().collect();
        }
        if !self.endpoint.is_wildcard() {
            return vec![self.endpoint.clone()];
        }
        let port = self.endpoint.port().unwrap_or(0);
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for host in [observed, "127.0.0.1"] {
            if let Ok(endpoint) = Endpoint::tcp(host, port)
                && !endpoints.contains(&endpoint)
            {
                endpoints.push(endpoint);
            }
        }
        endpoints
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Serving {
    instance: Instance,
    observed: Observed,
    /// Made at the first WELCOME, with the registration: the incarnation is not known before.
    server: Option<Server>,
    registration: Option<Registration>,
    /// For how long a peer may be silent, by what each mapper dictates.
    expiries: BTreeMap<usize, Duration>,
    /// A mapper has listed it.
    is_known: bool,
    random: fastrand::Rng,
}

impl Serving {
    pub(super) fn new(instance: Instance, random: fastrand::Rng) -> Self {
        Self {
            instance,
            observed: Observed::default(),
            server: None,
            registration: None,
            expiries: BTreeMap::new(),
            is_known: false,
            random,
        }
    }

    pub(super) fn server(&mut self) -> Option<&mut Server> {
        self.server.as_mut()
    }

    /// The server, and under which name it serves.
    pub(super) fn key_and_server(&mut self) -> Option<(&InstanceKey, &mut Server)> {
        Some((&self.instance.key, self.server.as_mut()?))
    }

    pub(super) fn registration(&self) -> Option<&Registration> {
        self.registration.as_ref()
    }

    /// What to register with, now that this mapper said WELCOME; the same for every mapper. Decided
    /// at the first one, but for the addresses, which may change, and for a life that no mapper takes
    /// because it began while this machine's clock was wrong.
    pub(super) fn handle_welcome(
        &mut self,
        now: Timestamp,
        unix_us: u64,
        mapper: usize,
        welcome: &Welcome,
        drain_until: Option<Timestamp>,
    ) -> &Registration {
        let observed = self.observed.handle_welcome(mapper, &welcome.observed);
        let endpoints = self.instance.endpoints(observed);
        let newest = unix_us.saturating_add(limits::INCARNATION_AHEAD_US_MAX);
        let registration = match self.registration.take() {
            Some(known) if known.incarnation.0 <= newest || !self.may_begin_anew() => {
                Registration { endpoints, ..known }
            }
            _ => self.begin(now, unix_us, welcome, endpoints, drain_until),
        };
        let expiry = welcome.expiry_ms.max(welcome.beat_ms);
        self.expiries.insert(mapper, Duration::from_millis(expiry.into()));
        // Senders beat as their own mapper wants, which may be any of these.
        let longest = self.expiries.values().copied().max();
        if let (Some(server), Some(expiry)) = (&mut self.server, longest) {
            server.set_expiry(now, expiry);
        }
        self.registration.insert(registration)
    }

    /// A mapper lists this life.
    pub(super) fn handle_registered(&mut self) {
        self.is_known = true;
    }

    /// Whether nobody knows of this life yet, and its number is this worker's to choose.
    fn may_begin_anew(&self) -> bool {
        let is_idle = |server: &Server| server.intake().is_empty() && !server.is_draining();
        let is_unused = self.server.as_ref().is_none_or(is_idle);
        self.instance.incarnation.is_none() && !self.is_known && is_unused
    }

    /// Begins a life, in which a drain that was wanted before goes on.
    fn begin(
        &mut self,
        now: Timestamp,
        unix_us: u64,
        welcome: &Welcome,
        endpoints: Vec<Endpoint>,
        drain_until: Option<Timestamp>,
    ) -> Registration {
        let Instance { key, host, pid, config, .. } = self.instance.clone();
        let incarnation = self.instance.incarnation.unwrap_or_else(|| {
            let above = welcome.highest.map_or(0, |highest| highest.0.saturating_add(1));
            Incarnation(unix_us.max(above))
        });
        let mut server = Server::new(key.clone(), incarnation, config);
        server.seed(self.random.u64(..));
        if let Some(until) = drain_until {
            server.drain(now, until.since(now));
        }
        let load = server.load(now);
        self.server = Some(server);
        Registration { key, incarnation, endpoints, host, pid, load, error: None }
    }

    /// What the drain met, once the server has nothing more to do.
    pub(super) fn drained(&self) -> Option<DrainReport> {
        self.server.as_ref().map_or_else(|| Some(DrainReport::default()), Server::drained)
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.server.as_ref().and_then(Server::poll_timeout)
    }
}
