//! One process: its conversations with the mappers, its sending half and, if it serves, its serving
//! half, put together.
//!
//! The halves do not know each other, nor the mappers: what one of them says to another goes through
//! here. Whoever drives this, sockets or a simulator, carries messages and keeps time, and decides
//! nothing. What concerns one half alone goes to [`Process::sender`] or [`Process::server`].

mod mappers;
mod output;
mod serving;
mod turn;

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Publication, Registration, ToMapper, Welcome};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::limits::WAITING_SERVICES_MAX;
use svcmap_proto::names::{Endpoint, Name};
use svcmap_proto::time::{Timestamp, earliest};

use crate::intake::{Ending, TaskId};
use crate::metrics::Metrics;
use crate::sender::Sender;
use crate::senders::Connection;
use crate::server::{DrainReport, Server, ServerOutput};
use mappers::Mappers;
pub use output::{ProcessEvent, ProcessOutput};
pub use serving::Instance;
use serving::Serving;
use turn::Stage;

/// A turn that comes so much later than it was due means that this process was suspended.
const SUSPENSION: Duration = Duration::from_secs(1);

/// Those who are to be told that they have to wait, or have spoken in vain, until the end of a turn:
/// more than come in one, but after a suspension.
const UNANSWERED_MAX: usize = 4096;

/// How often mappers are told which jobs wait here: they forget it after three times that.
const DEMAND_INTERVAL: Duration = Duration::from_secs(1);

/// See the module.
pub struct Process {
    mappers: Mappers,
    sender: Sender,
    serving: Option<Serving>,
    /// By when a drain is to be over, if there is one.
    drain_until: Option<Timestamp>,
    /// Unix time when a mapper last said something.
    unix_us: u64,
    stage: Stage,
    /// Nothing was done yet in this round.
    is_quiet: bool,
    /// When mappers are told next which jobs wait here. Nothing has to wake it: such jobs are looked at each
    /// second.
    demand_at: Timestamp,
    /// Whether some did when they were told last.
    has_demand: bool,
    /// Questions for the state of a service.
    resyncs: u64,
    outputs: VecDeque<ProcessOutput>,
}

impl Process {
    /// A process that dials these mappers `now`, but for those of a name, which it looks up first, and
    /// serves as that instance, or only sends. `seed` is a random number.
    pub fn new(
        now: Timestamp,
        mappers: Vec<Endpoint>,
        sender: Sender,
        instance: Option<Instance>,
        seed: u64,
    ) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let key = instance.as_ref().map(|instance| &instance.key);
        let mappers = Mappers::new(now, mappers, key, random.fork());
        let serving = instance.map(|instance| Serving::new(instance, random));
        Self {
            mappers,
            sender,
            serving,
            drain_until: None,
            unix_us: 0,
            stage: Stage::Idle,
            is_quiet: true,
            demand_at: now,
            has_demand: false,
            resyncs: 0,
            outputs: VecDeque::new(),
        }
    }

    /// The sending half.
    pub fn sender(&mut self) -> &mut Sender {
        &mut self.sender
    }

    /// The serving half, once a mapper has said WELCOME: its incarnation is not known before.
    pub fn server(&mut self) -> Option<&mut Server> {
        self.serving.as_mut()?.server()
    }

    /// What it registers with, once it does.
    pub fn registration(&self) -> Option<&Registration> {
        self.serving.as_ref()?.registration()
    }

    /// How many mappers have answered, and how many list this instance.
    pub fn mapper_counts(&self) -> (usize, usize) {
        self.mappers.counts()
    }

    /// How it is, and what it has counted. Whoever drives it knows what was refused as no message.
    pub fn metrics(&mut self, now: Timestamp) -> Metrics {
        let (mappers_connected, mappers_listing) = self.mapper_counts();
        Metrics {
            served: self.server().map(|server| server.served(now)),
            sent: self.sender.statistics_at(now),
            mappers_connected,
            mappers_listing,
            resyncs: self.resyncs,
            ..Metrics::default()
        }
    }

    /// The connection to a mapper is there.
    pub fn handle_mapper_connected(&mut self, now: Timestamp, mapper: usize) {
        self.mappers.handle_connected(now, mapper);
    }

    /// The connection to a mapper is gone.
    pub fn handle_mapper_lost(&mut self, now: Timestamp, mapper: usize) {
        let event = self.mappers.handle_lost(now, mapper);
        self.outputs.extend(event.map(ProcessOutput::Event));
    }

    /// Jobs without an outcome, its own and those of others that are here.
    pub fn jobs(&mut self) -> usize {
        self.sender.jobs() + self.server().map_or(0, |server| server.intake().len())
    }

    /// A mapper said something. `unix_us` is Unix time in microseconds: lives are numbered by it.
    pub fn handle_mapper_message(
        &mut self,
        now: Timestamp,
        unix_us: u64,
        mapper: usize,
        message: FromMapper,
    ) {
        self.unix_us = unix_us;
        if let FromMapper::Snapshot { service, part } = &message {
            self.sender.handle_snapshot(now, mapper, service, part);
        }
        match message {
            FromMapper::Admit(admission) => {
                let admitted = self.mappers.handle_admission(mapper, admission);
                self.outputs.push_back(ProcessOutput::Admit(admitted));
            }
            message => {
                if self.mappers.handle_message(now, mapper, message) {
                    // All that it knows is known from there.
                    self.sender.handle_gone(now, mapper);
                    self.outputs.push_back(ProcessOutput::HangUp { mapper });
                    let twin = ProcessEvent::MapperTwin { mapper };
                    self.outputs.push_back(ProcessOutput::Event(twin));
                }
            }
        }
    }

    /// What a name means that was [to be looked up](ProcessOutput::LookUp): its addresses, or in the
    /// system's words why there are none.
    pub fn handle_addresses(&mut self, now: Timestamp, answer: Result<Vec<Endpoint>, String>) {
        self.mappers.handle_addresses(now, answer);
    }

    /// A mapper published something: about a service, or to all.
    pub fn handle_publication(
        &mut self,
        now: Timestamp,
        mapper: usize,
        service: Option<&Name>,
        publication: &Publication,
    ) {
        if let Publication::Pulse { epoch, instances } = *publication {
            self.mappers.handle_pulse(now, mapper, epoch, instances);
            self.sender.handle_pulse(mapper);
        } else if let Some(service) = service {
            self.sender.handle_publication(now, mapper, service, publication);
        }
    }

    /// A mapper dictates timing and epoch. [`Process::handle_mapper_message`] comes to that by itself.
    pub fn handle_welcome(&mut self, now: Timestamp, mapper: usize, welcome: &Welcome) {
        self.sender.handle_welcome(now, mapper, welcome);
        if let Some(serving) = &mut self.serving {
            let (unix_us, drain_until) = (self.unix_us, self.drain_until);
            let registration = serving.handle_welcome(now, unix_us, mapper, welcome, drain_until);
            self.mappers.register(now, registration);
        }
    }

    /// A sender said something.
    pub fn handle_message(&mut self, now: Timestamp, from: Connection, message: ToWorker) {
        let Some((own, server)) = self.serving.as_mut().and_then(Serving::key_and_server) else {
            return;
        };
        match message {
            ToWorker::Offer(slot) if !self.sender.believes(now, own, from.user.as_ref(), &slot) => {
                server.decline(now, from, slot.offer);
            }
            message => server.handle_message(now, from, message),
        }
    }

    /// A client of the JSON dialect said something. It gets exactly one reply to that.
    ///
    /// # Errors
    /// What was wrong with it, which the client is told as well.
    pub fn handle_request(
        &mut self,
        now: Timestamp,
        from: Envelope,
        body: Result<&[u8], JsonError>,
    ) -> Result<(), JsonError> {
        if let Some(server) = self.server() {
            return server.handle_request(now, from, body);
        }
        if from.is_short() {
            let body = json::error("this worker is not registered yet: try again in a moment");
            self.answer(ServerOutput::Reply { to: from, body });
        }
        body.map(|_| ())
    }

    /// A sender speaks another version of the protocol.
    pub fn handle_wrong_version(&mut self, from: Connection) {
        let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
        let message = FromWorker::WrongVersion { oldest, newest };
        self.answer(ServerOutput::Answer { to: from, message });
    }

    /// Tells that to somebody whom the server does not, or not yet, hear.
    fn answer(&mut self, answer: ServerOutput) {
        if self.outputs.len() < UNANSWERED_MAX {
            self.outputs.push_back(ProcessOutput::Server(answer));
        }
    }

    /// A handler that began and ended at those times did so with a result or an error as `payload`. It
    /// gets its next job before anything else is done.
    pub fn handle_finished(
        &mut self,
        now: Timestamp,
        task: TaskId,
        (began_at, ended_at): (Timestamp, Timestamp),
        ending: Ending,
        payload: Bytes,
    ) {
        if let Some(server) = self.server() {
            server.handle_ran(task, began_at, ended_at);
            server.handle_finished(now, task, ending, payload);
            self.stage = Stage::Idle;
        }
    }

    /// For how long this process was suspended, if a turn that was due then comes `now`. It last acted
    /// at `acted_at`.
    pub fn suspended_for(
        due: Option<Timestamp>,
        acted_at: Timestamp,
        now: Timestamp,
    ) -> Option<Duration> {
        let late = now.since(due?.max(acted_at));
        (late > SUSPENSION).then_some(late)
    }

    /// This process was suspended for so long, and has read what came meanwhile.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.mappers.handle_suspension(now, gap);
        self.sender.handle_suspension(now, gap);
        if let Some(server) = self.server() {
            server.handle_suspension(now, gap);
        }
    }

    /// Takes no more jobs, says so, and lets what is here finish within `grace`.
    pub fn drain(&mut self, now: Timestamp, grace: Duration) {
        self.drain_until.get_or_insert(now + grace);
        if let Some(server) = self.server() {
            server.drain(now, grace);
        }
    }

    /// What the drain met, once it is over: nothing is under way in the other direction any more
    /// either, unless that takes longer than the grace.
    pub fn drained(&self, now: Timestamp) -> Option<DrainReport> {
        let until = self.drain_until?;
        self.served().filter(|_| until <= now || self.sender.is_empty())
    }

    /// What the drain met, once the serving half has nothing more to do.
    fn served(&self) -> Option<DrainReport> {
        self.serving.as_ref().map_or_else(|| Some(DrainReport::default()), Serving::drained)
    }

    /// This process ends: every job that was sent gets its outcome, and everybody else hears of it.
    pub fn stop(&mut self, now: Timestamp) {
        self.sender.stop(now);
        if let Some(server) = self.server() {
            server.stop();
        }
        self.tell_demand(now);
        self.mappers.leave();
    }

    /// When [`Process::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let halves = earliest(
            self.sender.poll_timeout(),
            self.serving.as_ref().and_then(Serving::poll_timeout),
        );
        // Until then the server knows itself when to go on.
        let drain_until = self.drain_until.filter(|_| self.served().is_some());
        earliest(earliest(self.mappers.poll_timeout(), drain_until), halves)
    }

    /// Acts on every deadline that has passed. A turn begins with that, whether one has or not.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if let Some(server) = self.server() {
            server.handle_timeout(now);
        }
        self.sender.handle_timeout(now);
        if let Some(event) = self.mappers.handle_timeout(now) {
            self.outputs.push_back(ProcessOutput::Event(event));
        }
        if self.demand_at <= now {
            self.demand_at = now + DEMAND_INTERVAL;
            self.tell_demand(now);
        }
    }

    /// Tells the mappers which jobs wait here for room, and once that none does any more.
    fn tell_demand(&mut self, now: Timestamp) {
        let mut jobs: Vec<_> = self.sender.waiting(now).into_iter().collect();
        let had_demand = std::mem::replace(&mut self.has_demand, !jobs.is_empty());
        if jobs.is_empty() && !had_demand {
            return;
        }
        jobs.sort_by_key(|(_, waiting)| Reverse(*waiting));
        jobs.truncate(WAITING_SERVICES_MAX);
        for mapper in self.mappers.welcomed() {
            let message = ToMapper::Waiting { jobs: jobs.clone() };
            self.outputs.push_back(ProcessOutput::ToMapper { mapper, message });
        }
    }
}

#[cfg(test)]
mod tests;
