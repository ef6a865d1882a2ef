//! The serving half of a worker: what comes from senders, through the intake, and back to them.
//!
//! It puts [`Intake`], [`Senders`] and [`Clients`] together and adds the conversation: HELLO,
//! cancel, ping, deadlines and the drain.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::jobs::{
    FromWorker, JobHeader, OutcomeHeader, Reason, SenderHello, ToWorker, Verdict,
};
use svcmap_proto::json::{Envelope, JsonError};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Incarnation, InstanceKey, SenderId};
use svcmap_proto::time::{Timestamp, earliest};

use crate::clients::{Client, Clients};
use crate::config::IntakeConfig;
use crate::intake::{Cancelled, Ending, Intake, Origin, Task, TaskId};
use crate::json;
use crate::outcome::Cause;
use crate::senders::{Connection, Delivery, Senders};

/// Once no job is left, senders get this long to say that they have their last outcomes.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);

/// What the server wants done.
#[derive(Debug)]
pub enum ServerOutput {
    /// Send this; if nobody is there any more, say so: [`Server::handle_gone`]. Whoever does not
    /// read now will ask again.
    Answer {
        /// Where to.
        to: Connection,
        /// What.
        message: FromWorker,
    },
    /// Send this; if it cannot be sent, say so: [`Server::handle_blocked`] and
    /// [`Server::handle_unreachable`].
    Outcome {
        /// Where to.
        to: Connection,
        /// Whose it is.
        sender: SenderId,
        /// What to say.
        header: OutcomeHeader,
        /// The second frame.
        payload: Arc<Vec<u8>>,
    },
    /// Send this to a client of the JSON dialect. If nobody is there any more, nobody wants it.
    Reply {
        /// Where to, and what goes before it.
        to: Envelope,
        /// What to say.
        body: Vec<u8>,
    },
    /// Give this job to a handler.
    Start(Task),
    /// Tell the handler of this job that nobody waits for it any more.
    Cancel(TaskId),
}

/// How far a drain is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Drain {
    No,
    /// Until when jobs that are here may finish.
    Until(Timestamp),
    /// No job is left; until when senders may acknowledge their outcomes.
    Flushing(Timestamp),
    /// That time is over, too.
    Over,
}

/// Jobs that a drain met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Finished within the grace, whatever the result.
    pub finished: u64,
    /// Had not been started, and went back to their senders.
    pub handed_back: u64,
    /// Still running when the grace ended: `Unknown` for their senders.
    pub abandoned: u64,
    /// Of these two, those of which no sender hears: accepted from clients that expect no outcome.
    pub dropped: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Server {
    key: InstanceKey,
    incarnation: Incarnation,
    payload_bytes_max: usize,
    intake: Intake,
    senders: Senders,
    clients: Clients,
    answers: VecDeque<ServerOutput>,
    drain: Drain,
    /// Who has said nothing since the drain was announced: jobs of theirs may be on their way.
    unheard: BTreeSet<Connection>,
    drained: DrainReport,
}

impl Server {
    /// A server of that instance, without jobs.
    pub fn new(key: InstanceKey, incarnation: Incarnation, config: IntakeConfig) -> Self {
        Self {
            key,
            incarnation,
            payload_bytes_max: config.payload_bytes_max,
            senders: Senders::new(config.results_bytes_max),
            intake: Intake::new(config),
            clients: Clients::default(),
            answers: VecDeque::new(),
            drain: Drain::No,
            unheard: BTreeSet::new(),
            drained: DrainReport::default(),
        }
    }

    /// A sender said something. A job's payload is its second frame; all others have none.
    pub fn handle_message(
        &mut self,
        now: Timestamp,
        from: Connection,
        message: ToWorker,
        payload: &[u8],
    ) {
        self.unheard.remove(&from);
        if let ToWorker::Hello(hello) = message {
            self.handle_hello(now, from, &hello);
            return;
        }
        let Some(sender) = self.senders.sender(now, &from) else {
            self.answer(from, FromWorker::HelloWanted);
            return;
        };
        match message {
            ToWorker::Hello(_) => {}
            ToWorker::Job(header) => self.handle_job(now, sender, &header, payload),
            ToWorker::Cancel { attempt } => {
                self.handle_cancel(now, Origin::Sender { sender, attempt });
            }
            ToWorker::Received { outcomes } => self.senders.acknowledge(sender, outcomes),
            ToWorker::Ping { received_outcomes } => {
                self.senders.acknowledge(sender, received_outcomes);
                let received_jobs = self.senders.received_jobs(sender);
                let load = self.intake.load(now);
                self.answer(from, FromWorker::Pong { received_jobs, load });
            }
        }
    }

    fn handle_hello(&mut self, now: Timestamp, from: Connection, hello: &SenderHello) {
        if hello.newest < codec::VERSION_OLDEST || hello.oldest > codec::VERSION {
            let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
            self.answer(from, FromWorker::WrongVersion { oldest, newest });
            return;
        }
        if hello.key != self.key || hello.incarnation != self.incarnation {
            let (key, incarnation) = (self.key.clone(), self.incarnation);
            self.answer(from, FromWorker::NotHere { key, incarnation });
            return;
        }
        let here: BTreeSet<_> = self.intake.attempts_of(hello.sender).collect();
        let Some(answer) = self.senders.handle_hello(now, from.clone(), hello, &here) else {
            return;
        };
        let welcome = FromWorker::Welcome {
            connection: hello.connection,
            received_jobs: answer.received_jobs,
            payload_bytes_max: u32::try_from(self.payload_bytes_max).unwrap_or(u32::MAX),
            load: self.intake.load(now),
            forgotten: answer.forgotten,
        };
        self.answer(from, welcome);
    }

    fn handle_job(&mut self, now: Timestamp, sender: SenderId, header: &JobHeader, payload: &[u8]) {
        if !self.senders.handle_job(sender, header) {
            return;
        }
        let origin = Origin::Sender { sender, attempt: header.attempt };
        let deadline = now + Duration::from_millis(u64::from(header.deadline_ms));
        if let Err(reason) = self.intake.admit(now, origin, deadline, payload) {
            self.end(now, origin, Verdict::Rejected(reason), Vec::new(), deadline);
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
        let body = if from.is_short() { body } else { Err(JsonError::new("a long envelope")) };
        match body.and_then(json::read) {
            Ok(request) => {
                self.handle_json_job(now, from, &request);
                Ok(())
            }
            Err(error) => {
                self.reply(from, svcmap_proto::json::error(&error));
                Err(error)
            }
        }
    }

    fn handle_json_job(&mut self, now: Timestamp, from: Envelope, request: &json::Request<'_>) {
        let waits = !request.style.is_immediate();
        let origin = if waits { self.clients.next_origin() } else { Origin::Nobody };
        let deadline = now + request.deadline;
        let body = match self.intake.admit(now, origin, deadline, &request.payload) {
            Ok(_) if waits => {
                let client = Client { envelope: from, style: request.style };
                return self.clients.insert(origin, client);
            }
            Ok(_) => json::accepted(),
            Err(reason) => json::rejected(request.style, reason, &self.intake.load(now)),
        };
        self.reply(from, body);
    }

    fn handle_cancel(&mut self, now: Timestamp, origin: Origin) {
        match self.intake.cancel(origin) {
            Cancelled::Removed => {
                self.end(now, origin, Verdict::Rejected(Reason::Cancelled), Vec::new(), now);
            }
            Cancelled::Running(task) => self.answers.push_back(ServerOutput::Cancel(task)),
            Cancelled::NotFound => {}
        }
    }

    /// A handler ended, with a result or an error as `payload`.
    pub fn handle_finished(
        &mut self,
        now: Timestamp,
        task: TaskId,
        ending: Ending,
        payload: Vec<u8>,
    ) {
        let Some((origin, deadline)) = self.intake.handle_finished(now, task, ending) else {
            return;
        };
        let verdict = match ending {
            Ending::Done => Verdict::Done,
            Ending::Failed => Verdict::Failed,
        };
        if self.is_draining() {
            self.drained.finished += 1;
        }
        self.end(now, origin, verdict, payload, deadline.max(now));
    }

    /// The sender of an outcome does not read now.
    pub fn handle_blocked(&mut self, now: Timestamp, sender: SenderId, number: u64) {
        self.senders.handle_blocked(now, sender, number);
    }

    /// The sender of an outcome is not on that connection any more.
    pub fn handle_unreachable(&mut self, sender: SenderId, number: u64) {
        self.senders.handle_unreachable(sender, number);
    }

    /// Nobody is at the other end of that connection any more.
    pub fn handle_gone(&mut self, connection: &Connection) {
        self.unheard.remove(connection);
        self.senders.handle_gone(connection);
    }

    /// Stops taking jobs, says so to every sender, and lets what is here finish within `grace`.
    pub fn drain(&mut self, now: Timestamp, grace: Duration) {
        if self.is_draining() {
            return;
        }
        self.intake.drain();
        self.drain = Drain::Until(now + grace);
        let load = self.intake.load(now);
        let everybody: Vec<_> = self
            .senders
            .connections()
            .map(|(to, id)| (to.clone(), self.senders.received_jobs(id)))
            .collect();
        for (to, received_jobs) in everybody {
            self.unheard.insert(to.clone());
            self.answer(to, FromWorker::Pong { received_jobs, load });
        }
    }

    /// What a drain met, once no job is here or on its way, and every sender has its outcomes.
    ///
    /// A connection delivers in order, so whoever answers the announcement has sent its last job
    /// before.
    pub fn drained(&self) -> Option<DrainReport> {
        let settled =
            || self.answers.is_empty() && self.unheard.is_empty() && self.senders.is_flushed();
        match self.drain {
            Drain::No | Drain::Until(_) => None,
            Drain::Flushing(_) => settled().then_some(self.drained),
            Drain::Over => Some(self.drained),
        }
    }

    /// Whether it has stopped taking jobs.
    pub fn is_draining(&self) -> bool {
        self.drain != Drain::No
    }

    /// This process ends: clients that wait have only their reply, and no other connection to ask
    /// on.
    pub fn stop(&mut self) {
        for client in self.clients.take_all() {
            self.reply(client.envelope, json::unknown(Cause::PeerEnded));
        }
    }

    /// The jobs that are here.
    pub fn intake(&self) -> &Intake {
        &self.intake
    }

    /// What the instance says of itself now.
    pub fn load(&mut self, now: Timestamp) -> Load {
        self.intake.load(now)
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self, now: Timestamp) -> Option<ServerOutput> {
        if let Some(task) = self.intake.start_next(now) {
            return Some(ServerOutput::Start(task));
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        self.senders.poll_delivery().map(|delivery| self.outcome(now, delivery))
    }

    /// When [`Server::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let drain = match self.drain {
            Drain::Until(until) | Drain::Flushing(until) => Some(until),
            Drain::No | Drain::Over => None,
        };
        earliest(drain, earliest(self.intake.poll_timeout(), self.senders.poll_timeout()))
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for (origin, cancelled) in self.intake.expire(now) {
            match cancelled {
                Cancelled::Running(task) => {
                    self.answers.push_back(ServerOutput::Cancel(task));
                    // A sender has a clock of its own; a client has only its reply.
                    if let Some(client) = self.clients.take(origin) {
                        let body = json::unknown(Cause::Deadline);
                        self.reply(client.envelope, body);
                    }
                }
                _ => self.end(now, origin, Verdict::Rejected(Reason::Expired), Vec::new(), now),
            }
        }
        self.senders.handle_timeout(now);
        match self.drain {
            Drain::Until(until) if until <= now => self.abandon(now),
            Drain::Until(_) if self.intake.is_empty() => {
                self.drain = Drain::Flushing(now + FLUSH_LIMIT);
            }
            Drain::Flushing(until) if until <= now => self.drain = Drain::Over,
            _ => {}
        }
    }

    /// The grace is over: what waits goes back, what runs is given up.
    fn abandon(&mut self, now: Timestamp) {
        let (queued, running) = self.intake.abandon();
        self.drained.handed_back += queued.len() as u64;
        self.drained.abandoned += running.len() as u64;
        let origins = queued.iter().chain(running.iter().map(|(_, origin)| origin));
        self.drained.dropped += origins.filter(|origin| **origin == Origin::Nobody).count() as u64;
        for origin in queued {
            self.end(now, origin, Verdict::Rejected(Reason::Draining), Vec::new(), now);
        }
        for (task, origin) in running {
            self.answers.push_back(ServerOutput::Cancel(task));
            self.end(now, origin, Verdict::Abandoned, Vec::new(), now);
        }
        self.drain = Drain::Flushing(now + FLUSH_LIMIT);
    }

    fn end(
        &mut self,
        now: Timestamp,
        origin: Origin,
        verdict: Verdict,
        payload: Vec<u8>,
        deadline: Timestamp,
    ) {
        match origin {
            Origin::Sender { sender, attempt } => {
                self.senders.push(sender, attempt, verdict, payload, deadline);
            }
            Origin::Client(_) => {
                let Some(client) = self.clients.take(origin) else { return };
                let body = json::ended(client.style, verdict, &payload, &self.intake.load(now));
                self.reply(client.envelope, body);
            }
            Origin::Nobody => {}
        }
    }

    fn reply(&mut self, to: Envelope, body: Vec<u8>) {
        self.answers.push_back(ServerOutput::Reply { to, body });
    }

    fn answer(&mut self, to: Connection, message: FromWorker) {
        self.answers.push_back(ServerOutput::Answer { to, message });
    }

    fn outcome(&mut self, now: Timestamp, delivery: Delivery) -> ServerOutput {
        let header = OutcomeHeader {
            number: delivery.number,
            attempt: delivery.attempt,
            verdict: delivery.verdict,
            received_jobs: delivery.received_jobs,
            load: self.intake.load(now),
        };
        let (to, sender, payload) = (delivery.to, delivery.sender, delivery.payload);
        ServerOutput::Outcome { to, sender, header, payload }
    }
}

#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod tests;
