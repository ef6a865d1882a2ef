//! A sender's connection to one life of one worker.
//!
//! It survives resets: jobs and outcomes are numbered (see [`svcmap_proto::jobs`]), and each HELLO
//! settles what became of those under way. Sending may fail silently, as a failed send and a lost
//! connection have the same cure.

mod batch;
mod liveness;
mod output;
mod promises;
mod receipts;
mod window;

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::jobs::{
    AttemptId, Claim, Detachment, FromWorker, OutcomeBatch, OutcomeHeader, Priority, SenderHello,
    ToWorker,
};
use svcmap_proto::limits;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Incarnation, InstanceKey};
use svcmap_proto::time::Timestamp;

use crate::outcome::Cause;
pub use output::{Closing, Ended, Identity, LinkOutput, Timing};
use promises::Promises;
use receipts::{Arrival, Receipts};
use window::Window;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not connected yet, since then.
    Connecting(Timestamp),
    /// HELLO was sent then.
    Greeting(Timestamp),
    /// WELCOME came.
    Ready,
    /// The connection was lost; it comes back by itself, or not.
    Away,
    /// Done.
    Closed,
}

/// An attempt on its way to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which one.
    pub id: AttemptId,
    /// When its outcome is due.
    pub deadline: Option<Timestamp>,
    /// How long it may run.
    pub run_limit: Option<Duration>,
    /// How long what the handler gets is. The link has no use for the bytes.
    pub payload_bytes: usize,
    /// The same of its metadata.
    pub metadata_bytes: u16,
    /// On what it claims a slot.
    pub claim: Claim,
    /// Until when that can be claimed.
    pub claimed_until: Option<Timestamp>,
    /// How often it may still be handed over.
    pub redirects_left: u8,
    /// When it was submitted.
    pub submitted_at: Timestamp,
    /// Whether it needs its sender.
    pub detachment: Detachment,
    /// Before which others it goes.
    pub priority: Priority,
}

impl Attempt {
    /// How much it takes in a message.
    fn bytes(&self) -> usize {
        self.payload_bytes + usize::from(self.metadata_bytes)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    identity: Identity,
    key: InstanceKey,
    incarnation: Incarnation,
    timing: Timing,
    phase: Phase,
    connections: u32,
    /// Attempts that were not sent yet.
    pending: VecDeque<Attempt>,
    /// Credits that are wanted for other jobs once these are sent, those included that are there and
    /// not used.
    share: (u32, Priority),
    /// When something last happened here.
    now: Timestamp,
    window: Window,
    promises: Promises,
    receipts: Receipts,
    heard_at: Timestamp,
    /// When it last said something that the worker is sure to hear.
    spoke_at: Timestamp,
    pings: u32,
    pinged_at: Timestamp,
    /// Largest payload that the worker takes, as its WELCOME says.
    payload_bytes_max: usize,
    /// The worker said that it drains. It never takes that back.
    draining: bool,
    /// The worker's life is over, somebody said: until when its last words may still come.
    ended_at: Option<Timestamp>,
    outputs: VecDeque<LinkOutput>,
}

impl Link {
    /// A link that waits to be connected.
    pub fn new(
        now: Timestamp,
        identity: Identity,
        key: InstanceKey,
        incarnation: Incarnation,
        timing: Timing,
    ) -> Self {
        Self {
            identity,
            key,
            incarnation,
            timing,
            phase: Phase::Connecting(now),
            connections: 0,
            pending: VecDeque::new(),
            share: Default::default(),
            now,
            window: Window::default(),
            promises: Promises::default(),
            receipts: Receipts::default(),
            heard_at: now,
            spoke_at: now,
            pings: 0,
            pinged_at: now,
            payload_bytes_max: usize::MAX,
            draining: false,
            ended_at: None,
            outputs: VecDeque::new(),
        }
    }

    /// Whose link it is.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// To which life of it.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Whether the link is closed; it can be opened again, and goes on where it was.
    pub fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Starts connecting again after it was closed. Numbers go on, so nothing gets mixed up.
    pub fn reopen(&mut self, now: Timestamp) {
        if self.phase == Phase::Closed {
            self.phase = Phase::Connecting(now);
            (self.heard_at, self.pinged_at, self.pings) = (now, now, 0);
            // Whoever is chosen again after an end was given up too early.
            self.ended_at = None;
            self.window.reflect_all();
        }
    }

    /// Whether new jobs may go there: it is connected or about to be, and answers.
    pub fn is_usable(&self) -> bool {
        !matches!(self.phase, Phase::Away | Phase::Closed)
            && self.ended_at.is_none()
            && !self.draining
            && self.pings < 2
            && self.window.len() + self.pending.len() < limits::OPEN_ATTEMPTS_MAX
    }

    /// Whether the worker takes payloads of so many bytes, as far as it has said.
    pub fn takes(&self, bytes: usize) -> bool {
        bytes <= self.payload_bytes_max
    }

    /// Whether its worker takes nothing new any more, by its own word.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether it is closed, and not all of that has been told yet.
    pub fn is_closing(&self) -> bool {
        self.is_closed() && !self.outputs.is_empty()
    }

    /// Sends an attempt, together with all others that come before [`Link::poll_output`], as soon as
    /// there is a connection.
    pub fn assign(&mut self, now: Timestamp, attempt: Attempt) {
        self.now = now;
        if attempt.claim == Claim::Credit {
            self.claim_credit(now, attempt.payload_bytes);
        }
        self.pending.push_back(attempt);
    }

    /// So many credits are wanted for other jobs than those that are about to be sent, those included
    /// that are there and not used.
    pub fn set_share(&mut self, share: u32, priority: Priority) {
        self.share = (share, priority);
    }

    /// Takes back an attempt that was not sent. `false` if it was.
    pub fn withdraw(&mut self, attempt: AttemptId) -> bool {
        let before = self.pending.len();
        self.pending.retain(|pending| pending.id != attempt);
        self.pending.len() < before
    }

    /// Tells the worker that nobody waits for an attempt any more: at once, and with each HELLO
    /// until it has its outcome.
    pub fn cancel(&mut self, attempt: AttemptId) {
        self.window.cancel(attempt);
        if matches!(self.phase, Phase::Ready | Phase::Greeting(_)) {
            self.say(ToWorker::Cancel { attempt });
        }
    }

    /// Tells the worker that an attempt is not to be begun any more.
    pub fn take_back(&mut self, attempt: AttemptId) {
        if matches!(self.phase, Phase::Ready | Phase::Greeting(_)) {
            self.say(ToWorker::TakeBack { attempt });
        }
    }

    /// The socket has a connection.
    pub fn handle_writable(&mut self, now: Timestamp) {
        if matches!(self.phase, Phase::Connecting(_) | Phase::Away) {
            self.greet(now);
        }
    }

    /// The socket has none any more.
    pub fn handle_unwritable(&mut self, now: Timestamp) {
        self.forget_demand();
        if matches!(self.phase, Phase::Closed | Phase::Connecting(_)) {
            return;
        }
        self.phase = Phase::Away;
        self.release_pending();
        self.void_promises();
        if self.ended_at.is_some() {
            self.close(Closing::Gone, Cause::PeerEnded);
        } else if self.window.is_empty() {
            // Nothing is owed: a later job makes a new link, if the worker is still there.
            self.close(Closing::Lost, Cause::PeerSilent);
        } else {
            self.heard_at = self.heard_at.max(now.before(self.timing.beat));
        }
    }

    /// The connection took an attempt no more, so nobody has seen it.
    pub fn handle_unsent(&mut self, now: Timestamp, attempt: AttemptId) {
        if self.window.settle(attempt).is_some() {
            self.outputs.push_back(LinkOutput::NeverSeen(attempt));
        }
        self.handle_unwritable(now);
    }

    /// The worker's life is over, as a mapper or its successor says. Its last words may be on
    /// their way: they get one beat, or until the connection closes.
    pub fn handle_ended(&mut self, now: Timestamp) {
        match self.phase {
            Phase::Closed => {}
            Phase::Ready => {
                self.release_pending();
                self.void_promises();
                self.ended_at.get_or_insert(now + self.timing.beat);
            }
            _ => self.close(Closing::Gone, Cause::PeerEnded),
        }
    }

    /// The mapper dictates another timing.
    pub fn set_timing(&mut self, timing: Timing) {
        self.timing = timing;
    }

    /// This process was suspended for so long: silence in that time means nothing.
    pub fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.heard_at = now.min(self.heard_at + gap);
        self.pinged_at = now.min(self.pinged_at + gap);
        self.age_promises(gap);
        if let Phase::Connecting(since) | Phase::Greeting(since) = &mut self.phase {
            *since = now.min(*since + gap);
        }
    }

    /// The worker said something.
    pub fn handle_message(&mut self, now: Timestamp, message: FromWorker) {
        if self.phase == Phase::Closed {
            return;
        }
        self.now = now;
        self.heard_at = now;
        self.pings = 0;
        match message {
            FromWorker::Welcome {
                connection,
                received_jobs,
                payload_bytes_max,
                load,
                forgotten,
            } => {
                if connection == self.connections {
                    self.payload_bytes_max =
                        usize::try_from(payload_bytes_max).unwrap_or(usize::MAX);
                    self.reconcile(received_jobs, &forgotten);
                    self.receipts.handle_welcome();
                    self.phase = Phase::Ready;
                    self.handle_load(now, received_jobs, load);
                }
            }
            FromWorker::NotHere { .. } => self.close(Closing::Gone, Cause::PeerEnded),
            FromWorker::WrongVersion { .. } => self.close(Closing::WrongVersion, Cause::PeerEnded),
            FromWorker::TurnedAway => self.handle_turned_away(),
            FromWorker::HelloWanted => {
                if self.phase == Phase::Ready {
                    self.greet(now);
                }
            }
            FromWorker::Outcomes(batch) => self.handle_outcomes(now, batch),
            FromWorker::Pong { received_jobs, load } => self.handle_load(now, received_jobs, load),
            FromWorker::Grant { grant, received_jobs, load } => {
                self.handle_load(now, received_jobs, load);
                self.handle_grant(now, grant);
            }
            FromWorker::Offered(slot) => self.outputs.push_back(LinkOutput::Offered(slot)),
            FromWorker::Recall => self.handle_recall(now),
            FromWorker::Declined(offer) => self.outputs.push_back(LinkOutput::Declined(offer)),
            FromWorker::Progress(mut reports) => {
                reports.retain(|report| self.window.contains(report.attempt));
                self.outputs.push_back(LinkOutput::Progress(reports));
            }
        }
    }

    fn handle_outcomes(&mut self, now: Timestamp, batch: OutcomeBatch) {
        let OutcomeBatch { first_number, received_jobs, load, grant, outcomes, mut payloads } =
            batch;
        let (mut is_news, mut ended) = (false, Vec::with_capacity(outcomes.len()));
        for (number, outcome) in (first_number.min(limits::NUMBER_MAX)..).zip(outcomes) {
            let payload = payloads.take(outcome.payload_bytes);
            let bytes = payload.len();
            match self.receipts.receive(now, number, bytes, self.timing.expiry) {
                Arrival::Next => {}
                Arrival::Again => continue,
                Arrival::Gap => {
                    // HELLO finds out what became of the others.
                    if self.phase == Phase::Ready {
                        self.greet(now);
                    }
                    break;
                }
            }
            if !std::mem::replace(&mut is_news, true) {
                self.handle_load(now, received_jobs, load);
                grant.into_iter().for_each(|grant| self.handle_grant(now, grant));
            }
            let OutcomeHeader { attempt, verdict, residence_us, ran_us, .. } = outcome;
            // One that was given up before has been told already.
            if let Some(sent_at) = self.window.settle(attempt) {
                let journey =
                    now.since(sent_at).saturating_sub(Duration::from_micros(residence_us));
                let ran = Duration::from_micros(ran_us);
                ended.push(Ended { attempt, verdict, payload, ran, journey });
            }
        }
        if !ended.is_empty() {
            self.outputs.push_back(LinkOutput::Ended(ended));
        }
    }

    fn handle_load(&mut self, now: Timestamp, received_jobs: u64, load: Load) {
        self.handle_received(received_jobs);
        self.outputs.push_back(LinkOutput::Load { load, received_jobs });
        self.draining |= load.state == State::Draining;
        if load.state != State::Ready {
            self.release_pending();
            self.void_promises();
        }
        if load.state == State::Draining {
            // It waits for this before it leaves: no job follows, and no outcome is missing.
            self.receipts.hurry(now);
        }
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        if self.outputs.is_empty() {
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// This process stops sending: the worker is to drop what it has of it. One that is not told,
    /// as there is no connection, notices the silence.
    pub fn stop(&mut self) {
        self.say_goodbye();
        self.close(Closing::Idle, Cause::Stopped);
    }

    /// Tells the worker that nothing follows, if there is a connection.
    fn say_goodbye(&mut self) {
        if matches!(self.phase, Phase::Ready | Phase::Greeting(_)) {
            self.say(ToWorker::Goodbye);
        }
    }

    /// Tells the worker which outcomes came, if that is due.
    fn acknowledge(&mut self, now: Timestamp) {
        if self.phase == Phase::Ready && self.receipts.due_at().is_some_and(|at| at <= now) {
            let outcomes = self.receipts.acknowledge();
            self.spoke_at = now;
            self.say(ToWorker::Received { outcomes });
        }
    }

    /// Ends the link. What was sent is lost, what was not goes elsewhere.
    pub fn close(&mut self, closing: Closing, cause: Cause) {
        if self.phase == Phase::Closed {
            return;
        }
        self.release_pending();
        self.forget_demand();
        self.void_promises();
        for attempt in self.window.take_after(0) {
            self.outputs.push_back(LinkOutput::Lost { attempt, cause });
        }
        self.phase = Phase::Closed;
        self.outputs.push_back(LinkOutput::Closed(closing));
    }

    fn greet(&mut self, now: Timestamp) {
        self.phase = Phase::Greeting(now);
        self.spoke_at = now;
        self.connections += 1;
        let received_outcomes = self.receipts.acknowledge();
        let hello = SenderHello {
            oldest: codec::VERSION_OLDEST,
            newest: codec::VERSION,
            sender: self.identity.sender,
            connection: self.connections,
            key: self.key.clone(),
            incarnation: self.incarnation,
            received_outcomes,
            payload_bytes_max: self.identity.result_bytes_max,
            takes_credits: self.identity.takes_credits,
            open: self.window.attempts(),
        };
        self.say(ToWorker::Hello(hello));
        self.renew_promises();
    }

    /// WELCOME says what became of the open attempts; those it does not name are on their way.
    fn reconcile(&mut self, received_jobs: u64, forgotten: &[AttemptId]) {
        for attempt in self.window.take_after(received_jobs) {
            self.outputs.push_back(LinkOutput::NeverSeen(attempt));
        }
        for &attempt in forgotten {
            if self.window.settle(attempt).is_some() {
                self.outputs.push_back(LinkOutput::Lost { attempt, cause: Cause::Forgotten });
            }
        }
        self.window.continue_after(received_jobs);
        self.window.reflect_all();
    }

    /// The worker does not know this sender, so nothing of it ever came that is still open.
    fn handle_turned_away(&mut self) {
        if matches!(self.phase, Phase::Greeting(_)) {
            self.reconcile(0, &[]);
            self.close(Closing::TurnedAway, Cause::PeerSilent);
        }
    }

    fn release_pending(&mut self) {
        for pending in std::mem::take(&mut self.pending) {
            self.outputs.push_back(LinkOutput::NeverSeen(pending.id));
        }
    }
}
