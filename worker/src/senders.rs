//! What a worker knows of those who send to it: on which connection each is, which of its jobs
//! came, and which outcomes it has not acknowledged yet.
//!
//! Both directions are numbered (see [`svcmap_proto::jobs`]), so a lost connection loses nothing:
//! after the next HELLO the worker sends again what did not get through, and the sender learns
//! which of its jobs never came.

mod absence;
mod idle;
mod retained;
mod room;
mod speakers;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{
    AttemptId, Claim, JobBatch, JobHeader, OutcomeHeader, Reason, SenderHello, Verdict,
};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::SenderId;
use svcmap_proto::payload::Payloads;
use svcmap_proto::time::{Timestamp, wire_us};

use crate::config::{IntakeConfig, SENDERS_MAX};
use idle::Idle;
use retained::Retained;
use speakers::Speakers;

/// Outcomes kept for one sender: all that it can have open, and as many again on their way.
const RETAINED_PER_SENDER_MAX: usize = 2 * limits::OPEN_ATTEMPTS_MAX;

/// What a retained outcome takes beside its payload, in bytes, or somewhat more: without payloads there
/// are as many as would take the place of the largest results together.
const RETAINED_BYTES: usize = 256;

/// So many are retained at least, however little room there is for results.
const RETAINED_MIN: usize = 64;

/// Without a deadline an outcome is kept for no longer than that.
const OUTCOME_KEPT: Duration = Duration::from_secs(600);

/// Beyond its deadline nobody asks for an outcome; this much for clocks and the way.
const RETAIN_SLACK: Duration = Duration::from_secs(2);

/// Time to wait before offering an outcome again to a sender that does not read.
const BLOCKED: Duration = Duration::from_millis(20);

/// Where to answer: the routing id that the ROUTER gave to a connection, and who has proven to be there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Connection {
    /// The routing id.
    pub id: Vec<u8>,
    /// Who is there, if everything is encrypted.
    pub user: Option<PublicKey>,
}

impl From<Vec<u8>> for Connection {
    fn from(id: Vec<u8>) -> Self {
        Self { id, user: None }
    }
}

/// What HELLO is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HelloAnswer {
    /// The highest number of a job that came from this sender.
    pub received_jobs: u64,
    /// Open attempts that came, but whose fate is no longer known.
    pub forgotten: Vec<AttemptId>,
}

/// Why a HELLO is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwelcome {
    /// A later one of that sender came before.
    Late,
    /// There is no room for one more sender, its connection has spoken for too many, or it is not its to
    /// speak for.
    TurnedAway,
}

/// Outcomes on their way to their sender.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Where to.
    pub to: Connection,
    /// Whose they are.
    pub sender: SenderId,
    /// The number of the first.
    pub first_number: u64,
    /// The highest number of a job that came from this sender.
    pub received_jobs: u64,
    /// What ended, and how.
    pub outcomes: Vec<OutcomeHeader>,
    /// Results and errors.
    pub payloads: Payloads,
}

/// How an attempt ended.
#[derive(Clone, Debug)]
pub struct Ended {
    /// How.
    pub verdict: Verdict,
    /// How long it was here.
    pub here: Duration,
    /// How long of that it ran.
    pub ran: Duration,
    /// Result or error.
    pub payload: Bytes,
    /// Until when its sender may ask.
    pub wanted_until: Timestamp,
}

/// Until when the sender of a job with that deadline, or without one, may ask for its outcome.
pub fn wanted_until(now: Timestamp, deadline: Option<Timestamp>) -> Timestamp {
    let kept_until = now + OUTCOME_KEPT;
    deadline.map_or(kept_until, |deadline| deadline.clamp(now, kept_until))
}

impl Ended {
    /// No handler started it, as what came is no job.
    pub fn unreadable(wanted_until: Timestamp) -> Self {
        let payload = Bytes::from_static(b"its metadata cannot be read");
        let verdict = Verdict::Failed { code: None };
        Self { verdict, payload, ..Self::rejected(Reason::Full, wanted_until) }
    }

    /// It is here, and nobody is told what comes of it.
    pub fn accepted(wanted_until: Timestamp) -> Self {
        Self { verdict: Verdict::Accepted, ..Self::rejected(Reason::Full, wanted_until) }
    }

    /// No handler started it.
    pub fn rejected(reason: Reason, wanted_until: Timestamp) -> Self {
        let (verdict, payload) = (Verdict::Rejected(reason), Bytes::new());
        Self { verdict, here: Duration::ZERO, ran: Duration::ZERO, payload, wanted_until }
    }
}

#[derive(Debug)]
struct Sender {
    /// Who it is: nobody else speaks for it, while it is known.
    user: Option<PublicKey>,
    connection: Option<Connection>,
    connection_number: u32,
    received_jobs: u64,
    /// Jobs of it that came and that have no outcome yet.
    here: u32,
    last_number: u64,
    next_to_send: u64,
    /// Of what is retained, the bytes of what was sent on this connection.
    unacknowledged_bytes: usize,
    retained: VecDeque<Retained>,
    heard_at: Timestamp,
    /// Largest result that it takes.
    payload_bytes_max: usize,
    takes_credits: bool,
    /// Whether its newest jobs came on promises, or it wants some for the next.
    wants_promises: bool,
    /// It has nothing here, as far as [`Idle`] knows.
    is_idle: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Senders {
    senders: BTreeMap<SenderId, Sender>,
    connections: Speakers,
    /// Who can be forgotten.
    idle: Idle,
    /// Who has lost its connection to another sender, or was forgotten, and nobody was told.
    parted: VecDeque<SenderId>,
    turned_away: u64,
    senders_max: usize,
    /// Who has something to send.
    waiting: BTreeSet<SenderId>,
    /// Who does not read now, and when to try again.
    blocked: BTreeMap<SenderId, Timestamp>,
    /// Whose oldest retained outcome is the oldest of all, by its place among these, and so on.
    by_age: BTreeMap<u64, SenderId>,
    next_order: u64,
    retained: usize,
    retained_max: usize,
    retained_bytes: usize,
    retained_bytes_max: usize,
    unacknowledged_bytes_max: usize,
}

impl Senders {
    /// Nobody yet.
    pub fn new(config: &IntakeConfig) -> Self {
        Self {
            senders: BTreeMap::new(),
            connections: Speakers::default(),
            idle: Idle::default(),
            parted: VecDeque::new(),
            turned_away: 0,
            senders_max: SENDERS_MAX,
            waiting: BTreeSet::new(),
            blocked: BTreeMap::new(),
            by_age: BTreeMap::new(),
            next_order: 0,
            retained: 0,
            retained_max: RETAINED_MIN.max(config.results_bytes_max / RETAINED_BYTES),
            retained_bytes: 0,
            retained_bytes_max: config.results_bytes_max,
            unacknowledged_bytes_max: config.unacknowledged_bytes_max(),
        }
    }

    /// A sender opens a connection. `here` holds the attempts of it that wait or run.
    ///
    /// # Errors
    /// See [`Unwelcome`].
    pub fn handle_hello(
        &mut self,
        now: Timestamp,
        from: Connection,
        hello: &SenderHello,
        here: &BTreeSet<AttemptId>,
    ) -> Result<HelloAnswer, Unwelcome> {
        let known = self.senders.get(&hello.sender);
        let may_speak = known.is_none_or(|known| known.user == from.user)
            && self.connections.may_claim(now, &from, hello.sender);
        if !may_speak || !(self.senders.contains_key(&hello.sender) || self.make_room(now)) {
            self.turned_away += 1;
            return Err(Unwelcome::TurnedAway);
        }
        let sender = self.senders.entry(hello.sender).or_insert_with(|| Sender {
            user: from.user,
            connection: None,
            connection_number: 0,
            received_jobs: 0,
            here: 0,
            last_number: 0,
            next_to_send: 1,
            unacknowledged_bytes: 0,
            retained: VecDeque::new(),
            heard_at: now,
            payload_bytes_max: 0,
            takes_credits: false,
            wants_promises: false,
            is_idle: false,
        });
        if hello.connection < sender.connection_number {
            return Err(Unwelcome::Late);
        }
        if let Some(old) = sender.connection.replace(from.clone()).filter(|old| *old != from) {
            self.connections.remove(&old);
        }
        sender.connection_number = hello.connection;
        sender.heard_at = now;
        sender.takes_credits = hello.takes_credits;
        sender.payload_bytes_max = usize::try_from(hello.payload_bytes_max).unwrap_or(usize::MAX);
        self.blocked.remove(&hello.sender);
        self.claim(now, from, hello.sender);
        self.acknowledge(hello.sender, hello.received_outcomes);
        Ok(self.reconcile(hello, here))
    }

    /// Decides what becomes of each attempt that is open at the sender.
    fn reconcile(&mut self, hello: &SenderHello, here: &BTreeSet<AttemptId>) -> HelloAnswer {
        let Some(sender) = self.senders.get_mut(&hello.sender) else {
            return HelloAnswer { received_jobs: 0, forgotten: Vec::new() };
        };
        sender.next_to_send =
            sender.retained.front().map_or(sender.last_number + 1, |first| first.number);
        sender.unacknowledged_bytes = 0;
        if !sender.retained.is_empty() {
            self.waiting.insert(hello.sender);
        }
        let retained: BTreeSet<_> = sender.retained.iter().map(|r| r.attempt).collect();
        let received_jobs = sender.received_jobs;
        let forgotten = hello
            .open
            .iter()
            .filter(|open| open.number <= received_jobs)
            .map(|open| open.attempt)
            .filter(|attempt| !here.contains(attempt) && !retained.contains(attempt))
            .collect();
        HelloAnswer { received_jobs, forgotten }
    }

    /// Whose connection this is; `None` if it has not said HELLO.
    pub fn sender(&mut self, now: Timestamp, from: &Connection) -> Option<SenderId> {
        let id = self.connections.sender(from)?;
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.heard_at = now;
        }
        Some(id)
    }

    /// Jobs came. Returns how many of them came before, which only a broken sender sends again.
    pub fn handle_jobs(&mut self, id: SenderId, batch: &JobBatch) -> usize {
        self.acknowledge(id, batch.received_outcomes);
        let first = batch.first_number.min(limits::NUMBER_MAX);
        let end = first + batch.jobs.len() as u64;
        let Some(sender) = self.senders.get_mut(&id) else { return batch.jobs.len() };
        let next = sender.received_jobs + 1;
        if end <= next {
            return batch.jobs.len();
        }
        let before = next.saturating_sub(first);
        sender.received_jobs = end - 1;
        sender.here += u32::try_from(end - first - before).unwrap_or(u32::MAX);
        let claims = |job: &JobHeader| job.claim != Claim::Nothing;
        sender.wants_promises = batch.share > 0 || batch.jobs.iter().any(claims);
        self.index(id);
        usize::try_from(before).unwrap_or(usize::MAX)
    }

    /// The sender has outcomes up to this number: they need not be kept.
    pub fn acknowledge(&mut self, id: SenderId, number: u64) {
        let number = number.min(limits::NUMBER_MAX);
        let Some(sender) = self.senders.get_mut(&id) else { return };
        let oldest = sender.oldest();
        while sender.retained.front().is_some_and(|first| first.number <= number) {
            self.retained -= 1;
            self.retained_bytes -= sender.forget_first().map_or(0, |gone| gone.payload.len());
        }
        if oldest != sender.oldest() {
            oldest.map(|order| self.by_age.remove(&order));
            sender.oldest().map(|order| self.by_age.insert(order, id));
        }
        sender.next_to_send = sender.next_to_send.max(number + 1);
        // A sender that outlived a restart of this bookkeeping may be ahead of it.
        sender.last_number = sender.last_number.max(number);
        // There may be room again for what waits.
        if !sender.retained.is_empty() && !self.blocked.contains_key(&id) {
            self.waiting.insert(id);
        }
        self.index(id);
    }

    /// The highest number of a job that came from that sender.
    pub fn received_jobs(&self, id: SenderId) -> u64 {
        self.senders.get(&id).map_or(0, |sender| sender.received_jobs)
    }

    /// An attempt ended: its outcome is sent, and kept until the sender acknowledges it or nobody
    /// can want it any more.
    pub fn push(&mut self, id: SenderId, attempt: AttemptId, ended: Ended) {
        let Ended { mut verdict, here, ran, mut payload, wanted_until } = ended;
        let Some(sender) = self.senders.get_mut(&id) else { return };
        sender.here = sender.here.saturating_sub(1);
        if payload.len() > sender.payload_bytes_max {
            // Its libzmq would close the connection over it.
            let (bytes, limit) = (payload.len(), sender.payload_bytes_max);
            verdict = Verdict::Failed { code: None };
            payload = format!("a result of {bytes} bytes, but the sender takes {limit}").into();
        }
        sender.last_number += 1;
        self.retained += 1;
        self.retained_bytes += payload.len();
        if sender.retained.is_empty() {
            self.by_age.insert(self.next_order, id);
        }
        sender.retained.push_back(Retained {
            number: sender.last_number,
            attempt,
            verdict,
            residence_us: wire_us(here),
            ran_us: wire_us(ran),
            payload,
            order: self.next_order,
            until: wanted_until + RETAIN_SLACK,
        });
        self.next_order += 1;
        if sender.retained.len() > RETAINED_PER_SENDER_MAX {
            self.drop_oldest_of(id);
        }
        while self.is_crowded()
            && let Some((_, &oldest)) = self.by_age.first_key_value()
        {
            self.drop_oldest_of(oldest);
        }
        self.index(id);
        if !self.blocked.contains_key(&id) {
            self.waiting.insert(id);
        }
    }

    /// The next outcomes to send: of one sender, as many as fit into a message.
    pub fn poll_delivery(&mut self) -> Option<Delivery> {
        while let Some(id) = self.waiting.first().copied() {
            let sender = self.senders.get_mut(&id);
            let limit = self.unacknowledged_bytes_max;
            let delivery = sender.and_then(|sender| sender.next_delivery(id, limit));
            if delivery.is_some() {
                return delivery;
            }
            self.waiting.remove(&id);
        }
        None
    }

    /// The sender does not read: the delivery is tried again a little later.
    pub fn handle_blocked(&mut self, now: Timestamp, id: SenderId, number: u64) {
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.take_back(number);
            self.blocked.insert(id, now + BLOCKED);
            self.waiting.remove(&id);
        }
    }

    /// The connection is gone: the delivery waits for the next HELLO.
    pub fn handle_unreachable(&mut self, id: SenderId, number: u64) {
        if let Some(sender) = self.senders.get_mut(&id) {
            sender.take_back(number);
            if let Some(gone) = sender.connection.take() {
                self.connections.remove(&gone);
            }
            self.index(id);
        }
    }

    /// Nobody is at the other end of that connection any more.
    /// Returns whose it was.
    pub fn handle_gone(&mut self, connection: &Connection) -> Option<SenderId> {
        let id = self.connections.remove(connection)?;
        self.senders.get_mut(&id)?.connection = None;
        self.index(id);
        Some(id)
    }

    /// The connection of a sender; `None` if it is away.
    pub fn connection(&self, id: SenderId) -> Option<&Connection> {
        self.senders.get(&id)?.connection.as_ref()
    }

    /// Whether a sender is there that has use for a promise it has not asked for: who sends without
    /// any has none.
    pub fn takes_standing(&self, id: SenderId) -> bool {
        let is_there = |sender: &Sender| sender.connection.is_some();
        self.senders.get(&id).is_some_and(|s| is_there(s) && s.takes_credits && s.wants_promises)
    }

    /// Connections of all senders that are there, for what concerns everybody.
    pub fn connections(&self) -> impl Iterator<Item = (&Connection, SenderId)> {
        self.connections.iter()
    }

    /// Whether nothing is left that a sender has not acknowledged.
    pub fn is_flushed(&self) -> bool {
        self.by_age.is_empty()
    }

    /// When a blocked sender is to be tried again, or something retained is out of date.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let blocked = self.blocked.values().min().copied();
        svcmap_proto::time::earliest(blocked, self.oldest().map(|(_, until)| until))
    }

    /// Whether an outcome has to go for want of room, which the newest never does.
    fn is_crowded(&self) -> bool {
        let is_too_much = self.retained_bytes > self.retained_bytes_max;
        self.retained > 1 && (is_too_much || self.retained > self.retained_max)
    }

    /// Whose outcome is the oldest, and until when it is worth keeping.
    fn oldest(&self) -> Option<(SenderId, Timestamp)> {
        let (_, &id) = self.by_age.first_key_value()?;
        Some((id, self.senders.get(&id)?.retained.front()?.until))
    }

    /// Tries blocked senders again, and forgets what nobody can want any more.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.blocked.retain(|id, until| {
            let due = *until <= now;
            if due {
                self.waiting.insert(*id);
            }
            !due
        });
        while let Some((id, _)) = self.oldest().filter(|(_, until)| *until <= now) {
            self.forget_oldest_of(id);
            self.index(id);
        }
    }

    fn forget_oldest_of(&mut self, id: SenderId) {
        let Some(sender) = self.senders.get_mut(&id) else { return };
        if let Some(oldest) = sender.forget_first() {
            self.retained -= 1;
            self.retained_bytes -= oldest.payload.len();
            self.by_age.remove(&oldest.order);
            sender.oldest().map(|order| self.by_age.insert(order, id));
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod tests;
