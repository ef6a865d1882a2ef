//! The serving half of a worker: what comes from senders, through the intake, and back to them.
//!
//! It puts [`Intake`], [`Credits`], [`Senders`] and [`Clients`] together and adds the conversation:
//! HELLO, cancel, ping, deadlines, promises and the drain.

mod absence;
mod aside;
mod drain;
mod jobs;
mod progress;
mod promises;
mod requests;
mod untold;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::jobs::{
    AttemptId, FromWorker, OfferedSlot, OutcomeBatch, Reason, SenderHello, ToWorker, Verdict,
};
use svcmap_proto::json::Envelope;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Incarnation, InstanceKey, SenderId};
use svcmap_proto::time::{Timestamp, earliest};

use crate::clients::Clients;
use crate::config::IntakeConfig;
use crate::credits::Credits;
use crate::handover::Offers;
use crate::health::Health;
use crate::intake::{Expired, Intake, Origin, Task, TaskId};
use crate::json;
use crate::metrics::Served;
use crate::outcome::Cause;
use crate::senders::{Connection, Delivery, Ended, Senders, Unwelcome, wanted_until};
use absence::Absence;
use drain::Drain;
pub use drain::DrainReport;
use jobs::reached;
use progress::Progress;
use untold::Untold;

/// What the server wants done.
#[derive(Debug)]
pub enum ServerOutput {
    /// Send this; if nobody is there any more, say so: [`Server::handle_gone`]. If nobody reads it
    /// now: [`Server::handle_unread`].
    Answer {
        /// Where to.
        to: Connection,
        /// What.
        message: FromWorker,
    },
    /// Send this; if it cannot be sent, say so: [`Server::handle_blocked`] and
    /// [`Server::handle_unreachable`].
    Outcomes {
        /// Where to.
        to: Connection,
        /// Whose they are.
        sender: SenderId,
        /// What to say.
        batch: OutcomeBatch,
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
    /// Nobody waits for this job any more: tell its handler, or, if none has begun it, take it from them
    /// and say so: [`Server::handle_withdrawn`].
    Cancel(TaskId),
    /// Take back all that no handler has begun: [`Server::handle_taken_back`].
    TakeBack,
    /// Take what handlers have said of how far their jobs are: [`Server::handle_progress`].
    TakeProgress,
    /// Offer this slot to a busy peer; if there is none, say so: [`Server::handle_no_taker`].
    Offer {
        /// What is offered.
        slot: OfferedSlot,
        /// Whether it may go to a peer of which nothing is known.
        blind: bool,
        /// The time of one message, as far as this worker knows.
        way: Duration,
    },
    /// People want to know: this instance takes no jobs for so long, as they fail here.
    SetAside {
        /// What the last one failed of.
        error: String,
        /// How long that is.
        pause: Duration,
    },
    /// People want to know: most jobs fail here, and it takes them all the same, as no peer does
    /// better.
    FailsAlike {
        /// What the last one failed of.
        error: String,
    },
    /// People want to know: a job was done, so this instance takes jobs again.
    Trusted,
    /// People want to know, as its sender does not: a job failed or was not begun.
    Untold {
        /// Whose it was.
        sender: SenderId,
        /// Which one.
        attempt: AttemptId,
        /// Why it did.
        error: String,
    },
    /// The same of so many more, one of which is as good as another.
    UntoldMore(u64),
}

/// See the module.
#[derive(Debug)]
pub struct Server {
    key: InstanceKey,
    incarnation: Incarnation,
    payload_bytes_max: usize,
    json_bytes_max: usize,
    intake: Intake,
    credits: Credits,
    health: Health,
    /// Slots of other instances.
    offers: Offers,
    /// When a slot here may be offered to others next.
    offer_at: Timestamp,
    /// How often one was since a handler here last became idle.
    offered: u32,
    /// Whether senders here let their jobs be handed over: those of the peers will, too. `None` before
    /// the first job.
    has_movable: Option<bool>,
    senders: Senders,
    /// Jobs have just ended, and whose these were.
    has_ended: bool,
    ended: Vec<SenderId>,
    absence: Absence,
    progress: Progress,
    untold: Untold,
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
            json_bytes_max: config.json_bytes_max(),
            senders: Senders::new(&config),
            has_ended: false,
            ended: Vec::new(),
            absence: Absence::default(),
            progress: Progress::default(),
            untold: Untold::default(),
            credits: Credits::new(&config),
            health: Health::new(incarnation.0),
            offers: Offers::default(),
            offer_at: Timestamp::default(),
            offered: 0,
            has_movable: None,
            intake: Intake::new(config),
            clients: Clients::default(),
            answers: VecDeque::new(),
            drain: Drain::No,
            unheard: BTreeSet::new(),
            drained: DrainReport::default(),
        }
    }

    /// Names what it offers from this random number on, so that nobody can guess it.
    pub fn seed(&mut self, seed: u64) {
        self.credits.seed(seed);
    }

    /// A sender said something.
    pub fn handle_message(&mut self, now: Timestamp, from: Connection, message: ToWorker) {
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
            ToWorker::Ask(demand) => self.handle_ask(now, sender, demand),
            ToWorker::Return(claim) => self.credits.handle_return(sender, claim),
            ToWorker::Offer(slot) => self.handle_offer(now, from, slot),
            ToWorker::Jobs(batch) => self.handle_jobs(now, sender, batch),
            ToWorker::Cancel { attempt } => {
                self.handle_cancel(now, Origin::Sender { sender, attempt });
            }
            ToWorker::TakeBack { attempt } => {
                self.handle_take_back(now, Origin::Sender { sender, attempt });
            }
            ToWorker::Goodbye => self.handle_goodbye(now, sender),
            ToWorker::Received { outcomes } => self.senders.acknowledge(sender, outcomes),
            ToWorker::Ping { received_outcomes } => {
                self.senders.acknowledge(sender, received_outcomes);
                let received_jobs = self.senders.received_jobs(sender);
                let load = self.load(now);
                self.answer(from, FromWorker::Pong { received_jobs, load });
            }
        }
        self.promise(now);
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
        // A look at all that is here, so only where it can find something.
        let asks_of_jobs = !hello.open.is_empty() && self.senders.has_jobs(hello.sender);
        let here = asks_of_jobs.then(|| self.intake.attempts_of(hello.sender));
        let here: BTreeSet<_> = here.into_iter().flatten().collect();
        let answer = self.senders.handle_hello(now, from.clone(), hello, &here);
        while let Some(parted) = self.senders.poll_parted() {
            self.void(now, parted);
        }
        let answer = match answer {
            Ok(answer) => answer,
            Err(Unwelcome::Late) => return,
            Err(Unwelcome::TurnedAway) => return self.answer(from, FromWorker::TurnedAway),
        };
        self.drop_omitted(now, hello);
        self.void(now, hello.sender);
        for open in hello.open.iter().filter(|open| open.cancelled) {
            let (sender, attempt) = (hello.sender, open.attempt);
            self.handle_cancel(now, Origin::Sender { sender, attempt });
        }
        let welcome = FromWorker::Welcome {
            connection: hello.connection,
            received_jobs: answer.received_jobs,
            payload_bytes_max: u32::try_from(self.payload_bytes_max).unwrap_or(u32::MAX),
            load: self.load(now),
            forgotten: answer.forgotten,
        };
        self.answer(from, welcome);
    }

    /// The sender of an outcome does not read now. With the outcome it would have learnt of a grant,
    /// or not.
    pub fn handle_blocked(
        &mut self,
        now: Timestamp,
        sender: SenderId,
        number: u64,
        is_granted: bool,
    ) {
        match is_granted {
            true => self.handle_unreachable(now, sender, number),
            false => self.senders.handle_blocked(now, sender, number),
        }
    }

    /// Whom an answer was for has left so much unread that it takes no more. Most of that is asked for
    /// again; of a promise it has to learn, so it is to say HELLO again.
    pub fn handle_unread(&mut self, now: Timestamp, to: &Connection, message: &FromWorker) {
        use FromWorker::{Grant, Offered, Pong, Recall};
        let is_promise = matches!(message, Grant { .. } | Offered(_) | Recall);
        // With that every promise is void.
        let is_aside = matches!(message, Pong { load, .. } if load.state == State::Failing);
        if is_promise || is_aside {
            self.handle_gone(now, to);
        }
    }

    /// The sender of an outcome is not on that connection any more.
    pub fn handle_unreachable(&mut self, now: Timestamp, sender: SenderId, number: u64) {
        self.senders.handle_unreachable(sender, number);
        self.void(now, sender);
    }

    /// Nobody is at the other end of that connection any more.
    pub fn handle_gone(&mut self, now: Timestamp, connection: &Connection) {
        self.unheard.remove(connection);
        if let Some(sender) = self.senders.handle_gone(connection) {
            self.void(now, sender);
        }
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
        let load = self.intake.load(now, self.credits.promised());
        let mut load = Load { turned_away: self.senders.turned_away(), ..load };
        self.health.tell(&mut load);
        load
    }

    /// How it is, and what it has counted.
    pub fn served(&mut self, now: Timestamp) -> Served {
        Served { load: self.load(now), ..self.intake.served() }
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self, now: Timestamp) -> Option<ServerOutput> {
        if std::mem::take(&mut self.has_ended) {
            self.promise_next(now);
        }
        self.intake.set_cautious(!self.health.is_trusted());
        if self.intake.poll_stuck(now) {
            return Some(ServerOutput::TakeBack);
        }
        if let Some(task) = self.intake.start_next(now) {
            return Some(ServerOutput::Start(task));
        }
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        if let Some(delivery) = self.senders.poll_delivery() {
            return Some(self.deliver(now, delivery));
        }
        if self.progress.poll(now) {
            return Some(ServerOutput::TakeProgress);
        }
        if let Some(untold) = self.untold.poll(now, self.is_draining()) {
            return Some(untold);
        }
        self.poll_promise(now)
    }

    /// When [`Server::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let promises = earliest(self.credits.poll_timeout(), self.offers.poll_timeout());
        let promises = earliest(promises, self.offer_timeout());
        let jobs = earliest(self.intake.poll_timeout(), self.senders.poll_timeout());
        let jobs = earliest(jobs, self.absence.poll_timeout());
        let jobs =
            earliest(jobs, earliest(self.progress.poll_timeout(), self.untold.poll_timeout()));
        let state = match self.drain_timeout() {
            None => self.health.poll_timeout(self.intake.is_empty()),
            drain => drain,
        };
        earliest(state, earliest(promises, jobs))
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        for expired in self.intake.expire(now) {
            match expired {
                Expired::Running(origin, task, has_begun) => {
                    self.answers.push_back(ServerOutput::Cancel(task));
                    // A sender has a clock of its own; a client has only its reply. If no handler has
                    // begun it, that is said once it was taken from them.
                    if has_begun && let Some(client) = self.clients.take(origin) {
                        let body = json::unknown(Cause::Deadline);
                        self.reply(client.envelope, body);
                    }
                }
                Expired::Waiting(origin) => self.end_queued(now, origin, Reason::Expired),
                Expired::RunLimit { origin, task, limit, deadline, here } => {
                    self.answers.push_back(ServerOutput::Cancel(task));
                    let payload = reached(limit);
                    let verdict = Verdict::Failed { code: None };
                    let (ran, wanted_until) = (limit, wanted_until(now, deadline));
                    self.leave(origin);
                    self.end(now, origin, Ended { verdict, payload, wanted_until, here, ran });
                }
            }
        }
        self.drop_unattended(now);
        self.senders.handle_timeout(now);
        self.credits.handle_timeout(now);
        self.reclaim(now);
        self.let_one_through(now);
        self.advance_drain(now);
        self.promise(now);
    }

    /// This process was suspended for so long: nobody could claim what was promised, nor be heard.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.senders.handle_suspension(now, gap);
        self.credits.handle_suspension(gap);
    }

    /// A job that waited will not be run here.
    fn end_queued(&mut self, now: Timestamp, origin: Origin, reason: Reason) {
        self.leave(origin);
        self.end(now, origin, Ended::rejected(reason, now));
    }

    /// These jobs were taken from the queue, and their senders may try them elsewhere.
    fn hand_back(&mut self, now: Timestamp, reason: Reason, tasks: VecDeque<Task>) {
        for Task { origin, terms, .. } in tasks {
            self.leave(origin);
            let wanted_until = wanted_until(now, terms.deadline);
            self.end(now, origin, Ended::rejected(reason, wanted_until));
        }
    }

    /// A job is no longer here.
    fn leave(&mut self, origin: Origin) {
        if let Some((sender, _)) = origin.sent() {
            self.credits.handle_ended(sender);
        }
    }

    fn end(&mut self, now: Timestamp, origin: Origin, ended: Ended) {
        match origin {
            Origin::Sender { sender, attempt } => self.senders.push(sender, attempt, ended),
            Origin::Client(_) => {
                let Some(client) = self.clients.take(origin) else { return };
                let Ended { verdict, payload, .. } = ended;
                let body = json::ended(client.style, &verdict, &payload, &self.load(now));
                self.reply(client.envelope, body);
            }
            Origin::Released { sender, attempt } => {
                self.answers.extend(self.untold.handle_ended(now, (sender, attempt), &ended));
            }
            Origin::Nobody | Origin::Overdue => {}
        }
    }

    fn reply(&mut self, to: Envelope, body: Vec<u8>) {
        self.answers.push_back(ServerOutput::Reply { to, body });
    }

    fn answer(&mut self, to: Connection, message: FromWorker) {
        self.answers.push_back(ServerOutput::Answer { to, message });
    }

    fn deliver(&mut self, now: Timestamp, delivery: Delivery) -> ServerOutput {
        let Delivery { to, sender, first_number, received_jobs, outcomes, payloads } = delivery;
        let (load, grant) = (self.load(now), self.credits.take_untold(now, sender));
        let batch = OutcomeBatch { first_number, received_jobs, load, grant, outcomes, payloads };
        ServerOutput::Outcomes { to, sender, batch }
    }
}

#[cfg(test)]
mod absence_tests;
#[cfg(test)]
mod drain_tests;
#[cfg(test)]
mod json_tests;
#[cfg(test)]
mod progress_tests;
#[cfg(test)]
mod promise_tests;
#[cfg(test)]
mod released_tests;
#[cfg(test)]
mod tests;
