//! The conversations with all mappers, and what people want to know of them.

use std::collections::BTreeSet;
use std::time::Duration;

use svcmap_proto::control::{Admission, FromMapper, Registration};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Epoch, InstanceKey};
use svcmap_proto::time::{Timestamp, earliest};

use super::ProcessEvent;
use crate::session::{Outage, Session, SessionOutput};

#[derive(Debug)]
struct Mapper {
    session: Session,
    /// It was said that nothing is heard from it.
    is_missed: bool,
    /// Whose connections this worker takes, as it said last.
    admission: Admission,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mappers {
    mappers: Vec<Mapper>,
    outage: Outage,
    random: fastrand::Rng,
}

impl Mappers {
    /// So many, dialled `now`. `key` is the instance that will register, if one will.
    pub(super) fn new(
        now: Timestamp,
        mappers: usize,
        key: Option<&InstanceKey>,
        mut random: fastrand::Rng,
    ) -> Self {
        let mut mapper = || {
            let session = Session::new(now, key.cloned(), random.u64(..));
            Mapper { session, is_missed: false, admission: Admission::default() }
        };
        let mappers = (0..mappers).map(|_| mapper()).collect();
        Self { mappers, outage: Outage::new(now), random }
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
        is_loss.then_some(ProcessEvent::MapperLost { mapper: index })
    }

    pub(super) fn handle_message(&mut self, now: Timestamp, index: usize, message: FromMapper) {
        self.mappers[index].session.handle_message(now, message);
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
    pub(super) fn handle_welcome(&mut self, index: usize) -> bool {
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

    /// Says goodbye to all of them.
    pub(super) fn leave(&mut self) {
        self.sessions().for_each(Session::leave);
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
        earliest(sessions.min(), self.outage.poll_timeout())
    }

    /// Returns what people want to know of an outage.
    pub(super) fn handle_timeout(&mut self, now: Timestamp) -> Option<ProcessEvent> {
        self.sessions().for_each(|session| session.handle_timeout(now));
        let any = self.mappers.iter().any(|mapper| mapper.session.is_answered());
        self.outage.handle_answers(now, any).map(ProcessEvent::Outage)
    }

    /// What a session wants done, and with which mapper.
    pub(super) fn poll_output(&mut self) -> Option<(usize, SessionOutput)> {
        let mut mappers = self.mappers.iter_mut().enumerate();
        mappers.find_map(|(index, mapper)| Some((index, mapper.session.poll_output()?)))
    }
}
