//! The conversations with all mappers, and what people want to know of them.

use std::collections::BTreeSet;
use std::time::Duration;

use svcmap_proto::control::{Admission, FromMapper, Registration};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Epoch, InstanceKey, MapperAddress};
use svcmap_proto::time::{Timestamp, earliest};

use super::ProcessEvent;
use crate::session::{Outage, Session, SessionOutput};
use crate::whereabouts::{Whereabouts, WhereaboutsOutput};

#[derive(Debug)]
struct Mapper {
    session: Session,
    /// It was said that nothing is heard from it.
    is_missed: bool,
    /// It is the same as that one, which it has been met as.
    twin_of: Option<usize>,
    /// Whose connections this worker takes, as it said last.
    admission: Admission,
}

impl Mapper {
    fn new(now: Timestamp, key: Option<InstanceKey>, random: &mut fastrand::Rng) -> Self {
        let session = Session::new(now, key, random.u64(..));
        Self { session, is_missed: false, twin_of: None, admission: Admission::default() }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mappers {
    mappers: Vec<Mapper>,
    whereabouts: Whereabouts,
    /// The instance that registers, if one does.
    key: Option<InstanceKey>,
    outage: Outage,
    random: fastrand::Rng,
}

impl Mappers {
    /// One for each of these, dialled `now` or looked up first. `key` is the instance that will register,
    /// if one will.
    pub(super) fn new(
        now: Timestamp,
        mappers: Vec<Endpoint>,
        key: Option<&InstanceKey>,
        mut random: fastrand::Rng,
    ) -> Self {
        let whereabouts = Whereabouts::new(now, mappers, random.fork());
        let mapper = |_| Mapper::new(now, key.cloned(), &mut random);
        let mappers = (0..whereabouts.mappers()).map(mapper).collect();
        Self { mappers, whereabouts, key: key.cloned(), outage: Outage::new(now), random }
    }

    pub(super) fn handle_connected(&mut self, now: Timestamp, index: usize) {
        self.mappers[index].session.handle_connected(now);
    }

    /// Returns what people want to know of it.
    pub(super) fn handle_lost(&mut self, now: Timestamp, index: usize) -> Option<ProcessEvent> {
        let mapper = &mut self.mappers[index];
        // One that never said a word is no loss.
        let is_loss = mapper.session.is_welcomed();
        mapper.session.handle_disconnected(now);
        mapper.is_missed |= is_loss;
        self.whereabouts.handle_lost(now, index);
        is_loss.then_some(ProcessEvent::MapperLost { mapper: index })
    }

    /// Returns whether there is to be no connection to it: it is met elsewhere.
    pub(super) fn handle_message(
        &mut self,
        now: Timestamp,
        index: usize,
        message: FromMapper,
    ) -> bool {
        if let FromMapper::Welcome(welcome) = &message {
            let is_met = |(other, mapper): (usize, &Mapper)| {
                other != index && mapper.session.is_welcomed_by(welcome.epoch)
            };
            if let Some(other) = self.mappers.iter().enumerate().position(is_met) {
                let mapper = &mut self.mappers[index];
                (mapper.twin_of, mapper.is_missed) = (Some(other), false);
                mapper.session.rest();
                self.whereabouts.handle_twin(now, index);
                return true;
            }
        }
        self.mappers[index].session.handle_message(now, message);
        false
    }

    /// Who was met elsewhere, and is not any more, is dialled again.
    fn part_twins(&mut self, now: Timestamp) {
        for index in 0..self.mappers.len() {
            let Some(other) = self.mappers[index].twin_of else { continue };
            if !self.mappers[other].session.is_welcomed() {
                self.mappers[index].twin_of = None;
                self.whereabouts.handle_parted(now, index);
            }
        }
    }

    /// A name that was to be looked up means this.
    pub(super) fn handle_addresses(
        &mut self,
        now: Timestamp,
        answer: Result<Vec<Endpoint>, String>,
    ) {
        self.whereabouts.handle_answer(now, answer);
    }

    /// A mapper is to be dialled again. Returns where, if that is known.
    pub(super) fn handle_reconnect(
        &mut self,
        now: Timestamp,
        index: usize,
    ) -> Option<MapperAddress> {
        self.whereabouts.handle_silent(now, index)
    }

    /// What is to become of the mappers' connections.
    pub(super) fn poll_whereabouts(&mut self, now: Timestamp) -> Option<WhereaboutsOutput> {
        let output = self.whereabouts.poll_output()?;
        match output {
            WhereaboutsOutput::Dial { mapper, .. } => self.begin(now, mapper),
            WhereaboutsOutput::Rest { mapper } => {
                let mapper = &mut self.mappers[mapper];
                (mapper.twin_of, mapper.is_missed) = (None, false);
                mapper.session.rest();
            }
            _ => {}
        }
        Some(output)
    }

    /// A mapper is dialled where it was not before, or is a new one.
    fn begin(&mut self, now: Timestamp, index: usize) {
        if index == self.mappers.len() {
            self.mappers.push(Mapper::new(now, self.key.clone(), &mut self.random));
        }
        self.mappers[index].twin_of = None;
        self.mappers[index].session.begin(now);
    }

    /// Returns whose connections this worker takes, by all that mappers say: a key is good if one of them
    /// says so, and none that it was revoked. One that is away has said so.
    pub(super) fn handle_admission(
        &mut self,
        index: usize,
        admission: Admission,
    ) -> BTreeSet<PublicKey> {
        self.mappers[index].admission = admission;
        let said = || self.mappers.iter().map(|mapper| &mapper.admission);
        let revoked: BTreeSet<_> = said().flat_map(|said| &said.revoked).collect();
        let keys = said().flat_map(|said| &said.keys);
        keys.filter(|key| !revoked.contains(key)).copied().collect()
    }

    pub(super) fn handle_pulse(
        &mut self,
        now: Timestamp,
        index: usize,
        epoch: Epoch,
        instances: u32,
    ) {
        let place = self.random.f64();
        self.mappers[index].session.handle_pulse(now, epoch, instances, place);
    }

    /// Returns whether it had been missed.
    pub(super) fn handle_welcome(&mut self, now: Timestamp, index: usize) -> bool {
        self.whereabouts.handle_welcome(now, index);
        std::mem::take(&mut self.mappers[index].is_missed)
    }

    /// Nothing was heard from it for so long. Returns what people want to know of that.
    pub(super) fn handle_silent(&mut self, index: usize, lasts: Duration) -> ProcessEvent {
        self.mappers[index].is_missed = true;
        let others_answer = self.mappers.iter().any(|mapper| mapper.session.is_welcomed());
        ProcessEvent::MapperSilent { mapper: index, lasts, others_answer }
    }

    /// Registers with that at every mapper; those that know it already are not told again.
    pub(super) fn register(&mut self, now: Timestamp, registration: &Registration) {
        self.sessions().for_each(|session| session.register(now, registration.clone()));
    }

    pub(super) fn handle_load(&mut self, now: Timestamp, load: &Load) {
        self.sessions().for_each(|session| session.handle_load(now, load));
    }

    pub(super) fn handle_error(&mut self, error: Option<&str>) {
        self.sessions().for_each(|session| session.handle_error(error));
    }

    pub(super) fn handle_suspension(&mut self, now: Timestamp, gap: Duration) {
        self.sessions().for_each(|session| session.handle_suspension(now, gap));
    }

    /// Says goodbye to all of them, for good.
    pub(super) fn leave(&mut self) {
        self.sessions().for_each(Session::leave);
        self.mappers.iter_mut().for_each(|mapper| mapper.twin_of = None);
        self.whereabouts.stop();
    }

    fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        self.mappers.iter_mut().map(|mapper| &mut mapper.session)
    }

    /// Those that have answered.
    pub(super) fn welcomed(&self) -> impl Iterator<Item = usize> {
        let mappers = self.mappers.iter().enumerate();
        mappers.filter(|(_, mapper)| mapper.session.is_welcomed()).map(|(index, _)| index)
    }

    /// How many have answered, and how many list this instance.
    pub(super) fn counts(&self) -> (usize, usize) {
        let count = |wanted: fn(&Session) -> bool| {
            self.mappers.iter().filter(|mapper| wanted(&mapper.session)).count()
        };
        (count(Session::is_welcomed), count(Session::is_registered))
    }

    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        let sessions = self.mappers.iter().filter_map(|mapper| mapper.session.poll_timeout());
        let names = self.whereabouts.poll_timeout();
        earliest(earliest(sessions.min(), names), self.outage.poll_timeout())
    }

    /// Returns what people want to know of an outage.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) -> Option<ProcessEvent> {
        self.part_twins(now);
        self.sessions().for_each(|session| session.handle_timeout(now));
        self.whereabouts.handle_timeout(now);
        let any = self.mappers.iter().any(|mapper| mapper.session.is_answered());
        self.outage.handle_answers(now, any).map(ProcessEvent::Outage)
    }

    /// What a session wants done, and with which mapper.
    pub(super) fn poll_output(&mut self) -> Option<(usize, SessionOutput)> {
        let mut mappers = self.mappers.iter_mut().enumerate();
        mappers.find_map(|(index, mapper)| Some((index, mapper.session.poll_output()?)))
    }
}
