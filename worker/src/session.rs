//! A process's conversation with one mapper: HELLO, register, report, beat, register again.
//!
//! It never gives up: a mapper that is away is simply not told, and when it is back, or another
//! life of it, the conversation starts over. What the mapper refuses is tried again, too.

mod liveness;
mod observed;
mod outage;

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::{
    FromMapper, Hello, Registration, RegistrationError, ToMapper, Welcome,
};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey};
use svcmap_proto::time::{Timestamp, earliest};

use liveness::Hearing;
pub use observed::Observed;
pub use outage::{Outage, OutageOutput};
use svcmap_proto::backoff::Backoff;

/// Reports of a load that crossed a level keep at least this distance: a burst is one report.
const CROSSING_INTERVAL: Duration = Duration::from_millis(5);

/// For each instance that the mapper lists, ordinary reports keep this distance, and so do those of
/// a load that crossed a level: 20,000 a second of either kind, from all together, are what a mapper
/// can well take.
const REPORT_SHARE: Duration = Duration::from_micros(50);

/// An unanswered HELLO or registration is repeated after this.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);

/// After a mapper's restart, each instance that it had listed stretches the time over which all
/// register again by this much: 2,000 registrations a second are easy for any mapper.
const SPREAD_PER_INSTANCE: Duration = Duration::from_micros(500);

/// What was refused is tried again after this, then twice this, and so on.
const RETRY_FIRST: Duration = Duration::from_secs(1);

/// What the session wants done, or has found out.
#[derive(Clone, Debug, PartialEq)]
pub enum SessionOutput {
    /// Send this to the mapper.
    Send(ToMapper),
    /// The mapper dictates this.
    Welcomed(Welcome),
    /// The mapper lists this instance.
    Registered,
    /// The mapper does not list it. That is tried again, and said at a falling rate.
    RegistrationRefused(RegistrationError),
    /// Another life has taken the name: this one is to stop.
    Replaced(Incarnation),
    /// An operator wants this instance to finish its jobs and to end.
    DrainWanted,
    /// Nothing was heard from the mapper for so long. Said at a falling rate.
    Silent(Duration),
    /// Make a new connection in place of the one there is, or was.
    Reconnect,
    /// No pulse comes: make a new subscription in place of the one there is, or should be.
    Resubscribe,
    /// The mapper speaks other versions of the protocol. It is asked again, and that is said at a
    /// falling rate.
    WrongVersion {
        /// The oldest that it speaks.
        oldest: u8,
        /// The newest that it speaks.
        newest: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No connection.
    Away,
    /// HELLO goes out then.
    Due(Timestamp),
    /// HELLO was sent then.
    Greeting(Timestamp),
    /// WELCOME came.
    Welcomed,
    /// The registration was sent then.
    Registering(Timestamp),
    /// The mapper lists the instance.
    Registered,
    /// The registration was refused: it starts over then.
    Refused(Timestamp),
    /// Nothing is said for now.
    Resting,
    /// There is nothing more to say.
    Ended,
}

/// See the module.
#[derive(Debug)]
pub struct Session {
    /// The name to register under, for a process that serves.
    key: Option<InstanceKey>,
    registration: Option<Registration>,
    phase: Phase,
    epoch: Option<Epoch>,
    /// The address at which the mapper sees this process.
    observed: String,
    beat: Duration,
    expiry: Duration,
    publish: Duration,
    /// Instances that the mapper lists, as its pulse tells.
    known: u32,
    /// The load that was reported last, and when.
    reported: Load,
    reported_at: Timestamp,
    /// When a load that had crossed a level was last reported.
    crossed_at: Timestamp,
    load: Load,
    answers: Hearing,
    pulses: Hearing,
    refusals: Backoff,
    /// The next deadline, as of the last change.
    due_at: Option<Timestamp>,
    random: fastrand::Rng,
    outputs: VecDeque<SessionOutput>,
}

impl Session {
    /// A conversation that begins when the mapper that was dialled `now` is there, for a process that
    /// serves under `key`, or only sends. `seed` is a random number.
    pub fn new(now: Timestamp, key: Option<InstanceKey>, seed: u64) -> Self {
        let mut session = Self {
            key,
            registration: None,
            phase: Phase::Away,
            epoch: None,
            observed: String::new(),
            beat: Duration::from_secs(1),
            expiry: Duration::from_secs(3),
            publish: Duration::from_millis(100),
            known: 0,
            reported: Load::default(),
            reported_at: Timestamp::default(),
            crossed_at: Timestamp::default(),
            load: Load::default(),
            answers: Hearing::new(now),
            pulses: Hearing::new(now),
            refusals: Backoff::default(),
            due_at: None,
            random: fastrand::Rng::with_seed(seed),
            outputs: VecDeque::new(),
        };
        session.plan();
        session
    }

    /// Whether the mapper has answered on the current connection.
    pub fn is_welcomed(&self) -> bool {
        matches!(
            self.phase,
            Phase::Welcomed | Phase::Registering(_) | Phase::Registered | Phase::Refused(_)
        )
    }

    /// Whether the mapper is there, as far as is known, or there is nothing to be said to it.
    pub fn is_answered(&self) -> bool {
        !matches!(self.phase, Phase::Away | Phase::Greeting(_) | Phase::Resting)
    }

    /// Whether that life of a mapper has answered on the current connection.
    pub fn is_welcomed_by(&self, epoch: Epoch) -> bool {
        self.is_welcomed() && self.epoch == Some(epoch)
    }

    /// Whether the mapper lists this instance, as far as it has said.
    pub fn is_registered(&self) -> bool {
        self.phase == Phase::Registered
    }

    /// There is a connection.
    pub fn handle_connected(&mut self, now: Timestamp) {
        if self.phase == Phase::Away {
            self.greet(now);
            self.plan();
        }
    }

    /// There is none any more.
    pub fn handle_disconnected(&mut self, now: Timestamp) {
        if !matches!(self.phase, Phase::Resting | Phase::Ended) {
            self.phase = Phase::Away;
            self.answers.expect(now);
            self.plan();
        }
    }

    /// Says nothing more until [`Session::begin`]: the mapper is gone, or is met elsewhere.
    pub fn rest(&mut self) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Resting;
            self.plan();
        }
    }

    /// The mapper is dialled `now`, after a rest or at another address.
    pub fn begin(&mut self, now: Timestamp) {
        if self.phase != Phase::Ended {
            self.phase = Phase::Away;
            (self.answers, self.pulses) = (Hearing::new(now), Hearing::new(now));
            self.plan();
        }
    }

    /// Register with this, now and whenever it is necessary again.
    pub fn register(&mut self, now: Timestamp, registration: Registration) {
        if registration.load.sequence > self.load.sequence {
            self.load = registration.load;
        }
        let changed = |known: &Registration| {
            (&known.endpoints, known.incarnation)
                != (&registration.endpoints, registration.incarnation)
        };
        let is_news = self.registration.as_ref().is_none_or(changed);
        self.registration = Some(registration);
        let is_told = matches!(self.phase, Phase::Registering(_) | Phase::Registered);
        if self.phase == Phase::Welcomed || (is_told && is_news) {
            self.send_registration(now);
        }
        self.plan();
    }

    /// The mapper said something; what the snapshots and lists say is not the session's business.
    pub fn handle_message(&mut self, now: Timestamp, message: FromMapper) {
        if matches!(self.phase, Phase::Resting | Phase::Ended) {
            return;
        }
        self.answers.handle_word(now);
        match message {
            FromMapper::Welcome(welcome) => self.handle_welcome(now, welcome),
            FromMapper::Registered { incarnation, .. } => {
                if self.is_own(incarnation) && matches!(self.phase, Phase::Registering(_)) {
                    self.phase = Phase::Registered;
                    self.refusals.reset();
                    self.outputs.push_back(SessionOutput::Registered);
                }
            }
            FromMapper::Reregister => {
                if matches!(self.phase, Phase::Registered | Phase::Registering(_)) {
                    self.greet(now);
                }
            }
            FromMapper::Replaced { incarnation, by, .. } => {
                if self.is_own(incarnation) {
                    self.phase = Phase::Ended;
                    self.outputs.push_back(SessionOutput::Replaced(by));
                }
            }
            FromMapper::RegistrationRefused(error) => {
                if matches!(self.phase, Phase::Registering(_)) {
                    self.phase = Phase::Refused(self.retry_at(now));
                    self.say_refused(SessionOutput::RegistrationRefused(error));
                }
            }
            FromMapper::WrongVersion { oldest, newest } => {
                self.phase = Phase::Due(self.retry_at(now));
                self.say_refused(SessionOutput::WrongVersion { oldest, newest });
            }
            FromMapper::Drain { incarnation } => {
                if self.is_own(incarnation) {
                    self.outputs.push_back(SessionOutput::DrainWanted);
                }
            }
            FromMapper::Snapshot { .. }
            | FromMapper::Services { .. }
            | FromMapper::Keys(_)
            | FromMapper::DrainAsked(_)
            | FromMapper::Admit(_) => {}
        }
        self.plan();
    }

    fn handle_welcome(&mut self, now: Timestamp, welcome: Welcome) {
        let is_known = self.epoch == Some(welcome.epoch) && self.observed == welcome.observed;
        if !(matches!(self.phase, Phase::Greeting(_)) || self.is_welcomed() && !is_known) {
            return;
        }
        self.phase = Phase::Welcomed;
        self.pulses.expect(now);
        self.epoch = Some(welcome.epoch);
        self.observed.clone_from(&welcome.observed);
        self.beat = Duration::from_millis(u64::from(welcome.beat_ms.max(1)));
        self.expiry = Duration::from_millis(u64::from(welcome.expiry_ms)).max(self.beat);
        self.publish = Duration::from_millis(u64::from(welcome.publish_ms.max(1)));
        self.outputs.push_back(SessionOutput::Welcomed(welcome));
        if self.key.is_none() {
            // Nothing else can be refused.
            self.refusals.reset();
        }
        self.send_registration(now);
    }

    /// The mapper's pulse came: it lists so many instances. `random` (0.0 to 1.0) is this process's
    /// place in the spread.
    pub fn handle_pulse(&mut self, now: Timestamp, epoch: Epoch, known: u32, random: f64) {
        self.known = known;
        self.pulses.handle_word(now);
        if self.epoch != Some(epoch) && self.is_welcomed() {
            let spread = (SPREAD_PER_INSTANCE * known).min(2 * self.beat);
            self.phase = Phase::Due(now + spread.mul_f64(random.clamp(0.0, 1.0)));
        }
        self.plan();
    }

    /// This is the instance's load now: it is reported when the rules say so.
    pub fn handle_load(&mut self, now: Timestamp, load: &Load) {
        // With these alone no report comes sooner.
        let Load { sequence, oldest_queued_ms, since_finish_ms, .. } = *load;
        let is_alike = *load == Load { sequence, oldest_queued_ms, since_finish_ms, ..self.load };
        self.load = *load;
        if !is_alike {
            self.plan();
        }
        self.handle_timeout(now);
    }

    /// This is what the instance says of its failures from now on: the mapper is told, if it lists it.
    pub fn handle_error(&mut self, error: Option<&str>) {
        let Some(registration) = &mut self.registration else { return };
        if registration.error.as_deref() == error {
            return;
        }
        registration.error = error.map(str::to_owned);
        if matches!(self.phase, Phase::Registering(_) | Phase::Registered) {
            let registration = Registration { load: self.load, ..registration.clone() };
            self.outputs.push_back(SessionOutput::Send(ToMapper::Register(registration)));
        }
    }

    /// Says goodbye, if there is a connection and the mapper may list this instance. It is told
    /// once: a mapper that does not hear it expires the instance.
    pub fn leave(&mut self) {
        // On a connection that was made again, WELCOME may be on its way.
        if let Some(registration) = &self.registration
            && (self.is_welcomed() || matches!(self.phase, Phase::Greeting(_)))
        {
            let (key, incarnation) = (registration.key.clone(), registration.incarnation);
            self.outputs.push_back(SessionOutput::Send(ToMapper::Leave { key, incarnation }));
        }
        self.phase = Phase::Ended;
        self.plan();
    }

    /// When [`Session::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        debug_assert_eq!(self.due_at, self.deadline(), "whatever changes it plans anew");
        self.due_at
    }

    /// Something has changed, and with it perhaps the next deadline.
    fn plan(&mut self) {
        self.due_at = self.deadline();
    }

    fn deadline(&self) -> Option<Timestamp> {
        earliest(self.phase_timeout(), self.silence_timeout())
    }

    fn phase_timeout(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Away | Phase::Welcomed | Phase::Resting | Phase::Ended => None,
            Phase::Due(at) | Phase::Refused(at) => Some(at),
            Phase::Greeting(since) | Phase::Registering(since) => Some(since + ANSWER_LIMIT),
            Phase::Registered => {
                earliest(Some(self.reported_at + self.beat), self.early_report_at())
            }
        }
    }

    /// Acts on what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.due_at.is_none_or(|at| at > now) {
            return;
        }
        self.handle_silence(now);
        if self.phase_timeout().is_some_and(|at| at <= now) {
            match self.phase {
                Phase::Away | Phase::Welcomed | Phase::Resting | Phase::Ended => {}
                Phase::Due(_) | Phase::Refused(_) | Phase::Greeting(_) => self.greet(now),
                Phase::Registering(_) => self.send_registration(now),
                Phase::Registered => self.report(now),
            }
        }
        self.plan();
    }

    /// What to do next; ask until there is nothing.
    pub fn poll_output(&mut self) -> Option<SessionOutput> {
        self.outputs.pop_front()
    }

    /// When a report is due before the next beat, because the load changed.
    fn early_report_at(&self) -> Option<Timestamp> {
        let (now, then) = (&self.load, &self.reported);
        let share = REPORT_SHARE.saturating_mul(self.known);
        if now.crossed(then) {
            return Some((self.reported_at + CROSSING_INTERVAL).max(self.crossed_at + share));
        }
        let changed = (now.busy(), now.accepted, now.done, now.failed, now.rejected)
            != (then.busy(), then.accepted, then.done, then.failed, then.rejected);
        let mean = Duration::from_micros(now.mean_service_us);
        changed.then(|| self.reported_at + mean.max(self.publish).max(share))
    }

    fn report(&mut self, now: Timestamp) {
        let Some(registration) = &self.registration else { return };
        let (key, incarnation) = (registration.key.clone(), registration.incarnation);
        if self.load.crossed(&self.reported) {
            self.crossed_at = now;
        }
        (self.reported, self.reported_at) = (self.load, now);
        let report = ToMapper::Report { key, incarnation, load: self.load };
        self.outputs.push_back(SessionOutput::Send(report));
    }

    fn greet(&mut self, now: Timestamp) {
        if !matches!(self.phase, Phase::Greeting(_)) {
            self.answers.expect(now);
        }
        self.phase = Phase::Greeting(now);
        self.say_hello();
    }

    fn say_hello(&mut self) {
        let hello =
            Hello { oldest: codec::VERSION_OLDEST, newest: codec::VERSION, key: self.key.clone() };
        self.outputs.push_back(SessionOutput::Send(ToMapper::Hello(hello)));
    }

    fn send_registration(&mut self, now: Timestamp) {
        let Some(registration) = &self.registration else { return };
        let registration = Registration { load: self.load, ..registration.clone() };
        (self.reported, self.reported_at) = (self.load, now);
        self.phase = Phase::Registering(now);
        self.outputs.push_back(SessionOutput::Send(ToMapper::Register(registration)));
    }

    /// When to try again what was refused.
    fn retry_at(&mut self, now: Timestamp) -> Timestamp {
        now + self.refusals.pause(RETRY_FIRST, &mut self.random)
    }

    fn say_refused(&mut self, refused: SessionOutput) {
        if self.refusals.is_notable() {
            self.outputs.push_back(refused);
        }
    }

    fn is_own(&self, incarnation: Incarnation) -> bool {
        self.registration.as_ref().is_some_and(|own| own.incarnation == incarnation)
    }
}

#[cfg(test)]
mod tests;
