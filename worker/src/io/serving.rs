//! The serving half at the outside: the listener, the handler pool, and the registration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use slog::{Logger, info, warn};
use svcmap_proto::codec;
use svcmap_proto::control::{Registration, Welcome};
use svcmap_proto::io::{self, Clock, EventLoop, SendError, Waker};
use svcmap_proto::jobs::{FromWorker, OfferId};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::limits;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};
use svcmap_proto::payload;
use svcmap_proto::refusals::{BadMessage, Refusals};
use svcmap_proto::time::{Timestamp, earliest};

use super::builder::StartError;
use super::pool::{Assignment, Completion, Handler, Job, Pool};
use super::sockets::{self, Listener};
use crate::config::IntakeConfig;
use crate::intake::{Task, TaskId};
use crate::senders::Connection;
use crate::server::{DrainReport, Server, ServerOutput};
use crate::session::Observed;

/// How often in a turn of the loop finished jobs are looked for beside its start: senders wait to be
/// heard.
const LOOKS_MAX: u32 = 256;

/// Those who are to be told that they have to wait, or have spoken in vain, until the end of a turn:
/// more than come in one, but after a suspension.
pub(super) const UNANSWERED_MAX: usize = 4096;

/// See the module.
pub(super) struct Serving {
    pub(super) key: Arc<InstanceKey>,
    incarnation: Option<Incarnation>,
    pub(super) listener: Listener,
    advertise: Vec<Endpoint>,
    observed: Observed,
    config: IntakeConfig,
    /// Made at the first WELCOME: the incarnation is not known before.
    pub(super) server: Option<Server>,
    registration: Option<Registration>,
    /// For how long a peer may be silent, by what each mapper dictates.
    expiries: BTreeMap<usize, Duration>,
    /// A mapper has listed it.
    is_known: bool,
    /// Clients that came before the server was made.
    early: Vec<Envelope>,
    pool: Pool,
    /// What has ended and is being looked at.
    done: Vec<Completion>,
    looks_left: u32,
    /// The flags of the jobs that run.
    cancelled: BTreeMap<TaskId, Arc<AtomicBool>>,
    grace: Grace,
}

/// How long what is here may still take.
#[derive(Clone, Copy, Debug)]
enum Grace {
    /// There is no drain.
    None,
    Until(Timestamp),
    Over,
}

impl Serving {
    pub(super) fn new(
        key: InstanceKey,
        incarnation: Option<Incarnation>,
        listener: Listener,
        advertise: Vec<Endpoint>,
        config: IntakeConfig,
        handler: Arc<Handler>,
        waker: &Waker,
    ) -> Result<Self, StartError> {
        let wanted = config.concurrency;
        let pool = Pool::start(wanted, &handler, config.payload_bytes_max, waker.clone())
            .map_err(|reason| StartError::Threads { wanted, reason })?;
        Ok(Self {
            key: Arc::new(key),
            incarnation,
            listener,
            advertise,
            observed: Observed::default(),
            config,
            server: None,
            registration: None,
            expiries: BTreeMap::new(),
            is_known: false,
            early: Vec::new(),
            pool,
            done: Vec::new(),
            looks_left: 0,
            cancelled: BTreeMap::new(),
            grace: Grace::None,
        })
    }

    pub(super) fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// What to register with, now that this mapper said WELCOME; the same for every mapper. Decided
    /// at the first one, but for the addresses, which may change, and for a life that no mapper takes
    /// because it began while this machine's clock was wrong.
    pub(super) fn registration(
        &mut self,
        now: Timestamp,
        mapper: usize,
        welcome: &Welcome,
    ) -> &Registration {
        let observed = self.observed.handle_welcome(mapper, &welcome.observed);
        let endpoints = sockets::endpoints(&self.listener.endpoint, &self.advertise, observed);
        let newest = Clock.unix_us().saturating_add(limits::INCARNATION_AHEAD_US_MAX);
        let registration = match self.registration.take() {
            Some(known) if self.may_begin_anew() && known.incarnation.0 > newest => {
                self.first_registration(now, welcome, endpoints)
            }
            Some(known) => Registration { endpoints, ..known },
            None => self.first_registration(now, welcome, endpoints),
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
        let is_idle = self.server.as_ref().is_none_or(|server| server.intake().is_empty());
        let is_draining = !matches!(self.grace, Grace::None);
        self.incarnation.is_none() && !self.is_known && is_idle && !is_draining
    }

    fn first_registration(
        &mut self,
        now: Timestamp,
        welcome: &Welcome,
        endpoints: Vec<Endpoint>,
    ) -> Registration {
        let incarnation = self.incarnation.unwrap_or_else(|| {
            let above = welcome.highest.map_or(0, |highest| highest.0.saturating_add(1));
            Incarnation(Clock.unix_us().max(above))
        });
        let key = InstanceKey::clone(&self.key);
        let mut server = Server::new(key.clone(), incarnation, self.config.clone());
        server.seed(fastrand::u64(..));
        match self.grace {
            Grace::None => {}
            Grace::Until(until) => server.drain(now, until.since(now)),
            Grace::Over => server.drain(now, Duration::ZERO),
        }
        let load = server.load(now);
        self.server = Some(server);
        let (host, pid) = (io::host_id(), std::process::id());
        Registration { key, incarnation, endpoints, host, pid, load, error: None }
    }

    /// Takes what handlers have finished, at the start of a turn.
    pub(super) fn handle_completions(&mut self, now: Timestamp) {
        self.looks_left = LOOKS_MAX;
        self.take_completions(now);
    }

    fn take_completions(&mut self, now: Timestamp) {
        let Some(server) = &mut self.server else { return };
        self.pool.take_done(&mut self.done);
        for Completion { id, began_at, ended_at, ending, payload } in self.done.drain(..) {
            self.cancelled.remove(&id);
            server.handle_ran(id, began_at, ended_at);
            server.handle_finished(now, id, ending, payload);
        }
    }

    /// A client of the JSON dialect said something.
    pub(super) fn handle_request(
        &mut self,
        now: Timestamp,
        from: Envelope,
        body: Result<&[u8], JsonError>,
    ) -> Result<(), JsonError> {
        match &mut self.server {
            Some(server) => server.handle_request(now, from, body),
            None => {
                if self.early.len() < UNANSWERED_MAX && from.is_short() {
                    self.early.push(from);
                }
                body.map(|_| ())
            }
        }
    }

    pub(super) fn load(&mut self, now: Timestamp) -> Option<Load> {
        Some(self.server.as_mut()?.load(now))
    }

    pub(super) fn drain(&mut self, now: Timestamp, grace: Duration) {
        if let Grace::None = self.grace {
            self.grace = Grace::Until(now + grace);
        }
        if let Some(server) = &mut self.server {
            server.drain(now, grace);
        }
    }

    /// A drain leaves what waits to others, as soon as one is known.
    fn hand_back(&mut self, now: Timestamp, sender: &mut crate::sender::Sender) {
        if let Some(server) = self.server.as_mut().filter(|server| server.is_draining()) {
            sender.follow(now, &self.key.service);
            if sender.has_ready_peer(now, &self.key) {
                server.handle_peer_ready(now);
            }
        }
    }

    /// This process ends.
    pub(super) fn stop(&mut self, now: Timestamp) {
        self.take_completions(now);
        if let Some(server) = &mut self.server {
            server.stop();
        }
    }

    /// What the drain met, once it is over. `idle`: nothing is under way in the other direction.
    pub(super) fn drained(&self, idle: bool) -> Option<DrainReport> {
        let may_end = match self.grace {
            Grace::None => false,
            Grace::Until(_) => idle,
            Grace::Over => true,
        };
        let report = match &self.server {
            None => Some(DrainReport::default()),
            Some(server) => server.drained(),
        };
        report.filter(|_| may_end)
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let grace = match self.grace {
            Grace::Until(until) => Some(until),
            Grace::None | Grace::Over => None,
        };
        earliest(grace, self.server.as_ref().and_then(Server::poll_timeout))
    }

    pub(super) fn handle_timeout(&mut self, now: Timestamp) {
        if matches!(self.grace, Grace::Until(until) if until <= now) {
            self.grace = Grace::Over;
        }
        if let Some(server) = &mut self.server {
            server.handle_timeout(now);
        }
    }

    /// Does what the server wants done. Returns whether there was anything.
    pub(super) fn act(
        &mut self,
        event_loop: &mut EventLoop,
        sender: &mut crate::sender::Sender,
        refusals: &mut Refusals,
        log: &Logger,
    ) -> bool {
        let mut now = Clock.now();
        let mut acted = false;
        self.hand_back(now, sender);
        for to in std::mem::take(&mut self.early) {
            let body = json::error("this worker is not registered yet: try again in a moment");
            self.reply(event_loop, &to, &body);
        }
        loop {
            // A handler that has finished gets its next job before anything else is done.
            if self.looks_left > 0 && self.pool.has_done() {
                self.looks_left -= 1;
                now = Clock.now();
                self.take_completions(now);
            }
            self.look_at_peers(now, sender);
            let Some(output) = self.server.as_mut().and_then(|server| server.poll_output(now))
            else {
                break;
            };
            acted = true;
            match output {
                ServerOutput::Start(task) => self.start(task),
                ServerOutput::TakeBack => self.take_back(),
                ServerOutput::SetAside { error, pause } => {
                    warn!(log, "takes no jobs for a while: they fail here, or cannot be started";
                        "error" => error, "for_ms" => pause.as_millis());
                }
                ServerOutput::Trusted => info!(log, "takes jobs again: one was done"),
                ServerOutput::Cancel(task) => {
                    if self.pool.withdraw(task) {
                        self.cancelled.remove(&task);
                        self.server.iter_mut().for_each(|s| s.handle_withdrawn(now, task));
                    } else if let Some(flag) = self.cancelled.get(&task) {
                        flag.store(true, Ordering::Relaxed);
                    }
                }
                ServerOutput::Answer { to, message } => {
                    if message == FromWorker::TurnedAway {
                        refusals.count(BadMessage::Senders);
                    }
                    self.answer(event_loop, now, &to, &message);
                }
                ServerOutput::Offer { slot, blind, way } => {
                    let offer = slot.offer;
                    if !sender.offer(now, &self.key, slot, (blind, way)) {
                        self.handle_declined(offer);
                    }
                }
                ServerOutput::Reply { to, body } => self.reply(event_loop, &to, &body),
                ServerOutput::Outcomes { to, sender, batch } => {
                    let (number, is_granted) = (batch.first_number, batch.grant.is_some());
                    let frames = payload::encode(&FromWorker::Outcomes(batch));
                    let frames = std::iter::once(&to.0[..]).chain(frames.iter());
                    let Some(server) = &mut self.server else { continue };
                    match event_loop.send(self.listener.socket, frames) {
                        Ok(()) => {}
                        Err(SendError::Full) => {
                            server.handle_blocked(now, sender, number, is_granted);
                        }
                        Err(SendError::Unreachable) => {
                            server.handle_unreachable(now, sender, number);
                        }
                    }
                }
            }
        }
        acted
    }

    /// What has just failed here is compared with how peers fare.
    fn look_at_peers(&mut self, now: Timestamp, sender: &mut crate::sender::Sender) {
        if let Some(server) = &mut self.server
            && server.wants_verdict(now)
        {
            let verdict = sender.judge(now, &self.key, &server.load(now));
            server.handle_verdict(now, verdict);
        }
    }

    /// No peer has use for a slot that was offered.
    pub(super) fn handle_declined(&mut self, offer: OfferId) {
        if let Some(server) = &mut self.server {
            server.handle_no_taker(offer);
        }
    }

    /// This process was suspended for so long.
    pub(super) fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        if let Some(server) = &mut self.server {
            server.handle_suspension(now, gap);
        }
    }

    /// Replies to a client; nobody wants it if that is gone or reads nothing.
    fn reply(&self, event_loop: &mut EventLoop, to: &Envelope, body: &[u8]) {
        let _ = event_loop.send(self.listener.socket, to.around(body));
    }

    /// Answers a sender.
    pub(super) fn answer(
        &mut self,
        event_loop: &mut EventLoop,
        now: Timestamp,
        to: &Connection,
        message: &FromWorker,
    ) {
        let frame = codec::encode(message);
        let sent = event_loop.send(self.listener.socket, [&to.0[..], &frame]);
        match (sent, &mut self.server) {
            (Err(SendError::Unreachable), Some(server)) => server.handle_gone(now, to),
            (Err(SendError::Full), Some(server)) => server.handle_unread(now, to, message),
            _ => {}
        }
    }

    fn start(&mut self, task: Task) {
        let cancelled = Arc::<AtomicBool>::default();
        self.cancelled.insert(task.id, Arc::clone(&cancelled));
        let key = Arc::clone(&self.key);
        let Task { arrived_at, payload, .. } = task;
        let limit_at = task.run_limit.map(|limit| Clock.now() + limit);
        let deadline = earliest(task.deadline, limit_at);
        let job = Job { payload, key, arrived_at, deadline, cancelled };
        self.pool.assign(Assignment { id: task.id, job });
    }

    fn take_back(&mut self) {
        let Some(server) = &mut self.server else { return };
        let jobs = self.pool.take_back();
        jobs.iter().for_each(|assignment| drop(self.cancelled.remove(&assignment.id)));
        server.handle_taken_back(jobs.into_iter().map(|a| (a.id, a.job.payload)));
    }
}
