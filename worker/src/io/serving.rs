//! The serving half at the outside: the listener, the handler pool, and the registration.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use svcmap_proto::codec;
use svcmap_proto::control::{Registration, Welcome};
use svcmap_proto::io::{self, Clock, EventLoop, SendError, Waker};
use svcmap_proto::jobs::{FromWorker, OfferId};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey};
use svcmap_proto::time::{Timestamp, earliest};

use super::builder::StartError;
use super::pool::{self, Assignment, Completion, Handler, Job};
use super::sockets::{self, Listener};
use crate::config::IntakeConfig;
use crate::intake::{Task, TaskId};
use crate::senders::Connection;
use crate::server::{DrainReport, Server, ServerOutput};

/// How often in a turn of the loop finished jobs are looked for beside its start: senders wait to be
/// heard.
const LOOKS_MAX: u32 = 256;

/// See the module.
pub(super) struct Serving {
    key: Arc<InstanceKey>,
    incarnation: Option<Incarnation>,
    pub(super) listener: Listener,
    advertise: Vec<Endpoint>,
    config: IntakeConfig,
    /// Made at the first WELCOME: the incarnation is not known before.
    pub(super) server: Option<Server>,
    registration: Option<Registration>,
    /// Clients that came before the server was made.
    early: Vec<Envelope>,
    assignments: Sender<Assignment>,
    completions: Receiver<Completion>,
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
        let (assignments, to_handlers) = crossbeam_channel::unbounded();
        let (from_handlers, completions) = crossbeam_channel::unbounded();
        let limit = config.payload_bytes_max;
        pool::start(config.concurrency, handler, limit, &to_handlers, &from_handlers, waker)?;
        Ok(Self {
            key: Arc::new(key),
            incarnation,
            listener,
            advertise,
            config,
            server: None,
            registration: None,
            early: Vec::new(),
            assignments,
            completions,
            looks_left: 0,
            cancelled: BTreeMap::new(),
            grace: Grace::None,
        })
    }

    pub(super) fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// What to register with. Decided once, at the first WELCOME, and the same for every mapper.
    pub(super) fn registration(&mut self, welcome: &Welcome) -> Registration {
        if let Some(registration) = &self.registration {
            return registration.clone();
        }
        let incarnation = self.incarnation.unwrap_or_else(|| {
            let above = welcome.highest.map_or(0, |highest| highest.0.saturating_add(1));
            Incarnation(Clock.unix_us().max(above))
        });
        let key = InstanceKey::clone(&self.key);
        let mut server = Server::new(key.clone(), incarnation, self.config.clone());
        let bound = &self.listener.endpoint;
        let registration = Registration {
            key,
            incarnation,
            endpoints: sockets::endpoints(bound, &self.advertise, &welcome.observed),
            host: io::host_id(),
            pid: std::process::id(),
            load: server.load(Clock.now()),
        };
        self.server = Some(server);
        self.registration.insert(registration).clone()
    }

    /// Takes what handlers have finished, at the start of a turn.
    pub(super) fn handle_completions(&mut self, now: Timestamp) {
        self.looks_left = LOOKS_MAX;
        self.take_completions(now);
    }

    fn take_completions(&mut self, now: Timestamp) {
        let Some(server) = &mut self.server else { return };
        for Completion { id, ending, payload } in self.completions.try_iter() {
            self.cancelled.remove(&id);
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
                self.early.push(from);
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
    ) -> bool {
        let mut now = Clock.now();
        let mut acted = false;
        for to in std::mem::take(&mut self.early) {
            let body = json::error("this worker is not registered yet: try again in a moment");
            self.reply(event_loop, &to, &body);
        }
        loop {
            // A handler that has finished gets its next job before anything else is done.
            if self.looks_left > 0 && !self.completions.is_empty() {
                self.looks_left -= 1;
                now = Clock.now();
                self.take_completions(now);
            }
            let Some(output) = self.server.as_mut().and_then(|server| server.poll_output(now))
            else {
                break;
            };
            acted = true;
            match output {
                ServerOutput::Start(task) => self.start(task),
                ServerOutput::Cancel(task) => {
                    if let Some(flag) = self.cancelled.get(&task) {
                        flag.store(true, Ordering::Relaxed);
                    }
                }
                ServerOutput::Answer { to, message } => {
                    self.answer(event_loop, now, &to, &message);
                }
                ServerOutput::Offer { slot, blind } => {
                    let offer = slot.offer;
                    if !sender.offer(now, &self.key, slot, blind) {
                        self.handle_declined(offer);
                    }
                }
                ServerOutput::Reply { to, body } => self.reply(event_loop, &to, &body),
                ServerOutput::Outcome { to, sender, header, payload } => {
                    let (number, is_granted) = (header.number, header.grant.is_some());
                    let frame = codec::encode(&FromWorker::Outcome(header));
                    let frames: [&[u8]; 3] = [&to.0, &frame, &payload];
                    let Some(server) = &mut self.server else { continue };
                    match event_loop.send(self.listener.socket, &frames) {
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

    /// No peer has use for a slot that was offered.
    pub(super) fn handle_declined(&mut self, offer: OfferId) {
        if let Some(server) = &mut self.server {
            server.handle_no_taker(offer);
        }
    }

    /// This process was suspended for so long.
    pub(super) fn handle_suspension(&mut self, gap: Duration) {
        if let Some(server) = &mut self.server {
            server.handle_suspension(gap);
        }
    }

    /// Replies to a client; nobody wants it if that is gone or reads nothing.
    fn reply(&self, event_loop: &mut EventLoop, to: &Envelope, body: &[u8]) {
        let _ = event_loop.send(self.listener.socket, &to.around(body));
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
        let sent = event_loop.send(self.listener.socket, &[&to.0, &frame]);
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
        // The handlers live as long as this does, so somebody takes it.
        let _ = self.assignments.send(Assignment { id: task.id, job });
    }
}
