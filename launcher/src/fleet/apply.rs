//! Another topology in the place of the one that runs, with the least disturbance; and the end of all.

use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

use super::crew::Crew;
use super::{CommandError, Fleet, Member, OurMapper, Output, Then, Who};
use crate::topology::{Topology, changes};

impl Fleet {
    /// From now on that is what there should be.
    ///
    /// # Errors
    /// If it cannot take the place of what there is; then nothing has changed.
    pub fn handle_topology(&mut self, now: Timestamp, new: Topology) -> Result<(), String> {
        if self.is_closing {
            return Err("everything is being stopped".to_owned());
        }
        if new.prefix != self.topology.prefix {
            return Err(
                "another `prefix` needs a new start: every instance gets another name".into()
            );
        }
        let replaced: Vec<String> = changes(Some(&self.topology), &new)
            .into_iter()
            .filter(|change| change.is_replaced)
            .map(|change| change.subject)
            .collect();
        self.topology = new;
        self.take_mappers(now);
        if self.is_open {
            self.take_services(now, &replaced);
        }
        self.handle_timeout(now);
        Ok(())
    }

    /// The mappers are to be those of the topology.
    pub(super) fn take_mappers(&mut self, now: Timestamp) {
        let wanted = self.topology.our_mappers().cloned().unwrap_or_default();
        for (name, mapper) in &mut self.mappers {
            mapper.is_retired = !wanted.contains_key(name);
        }
        for (name, spec) in wanted {
            let args = self.topology.mapper_args(&spec, &spec.bind, &spec.publish);
            let Some(mapper) = self.mappers.get_mut(&name) else {
                let (member, endpoints, is_retired) = (Member::new(now), None, false);
                let mapper = OurMapper { spec, member, endpoints, args, is_retired };
                self.mappers.insert(name, mapper);
                continue;
            };
            let before = std::mem::replace(&mut mapper.spec, spec);
            let is_alike = std::mem::replace(&mut mapper.args, args) == mapper.args;
            let has_moved =
                (&before.bind, &before.publish) != (&mapper.spec.bind, &mapper.spec.publish);
            if has_moved {
                mapper.endpoints = None;
            }
            if !is_alike || mapper.member.state.is_leaving() {
                self.terminate(now, &Who::Mapper(name), Then::Again);
            }
        }
    }

    fn take_services(&mut self, now: Timestamp, replaced: &[String]) {
        let gone = self.crews.keys().filter(|name| !self.topology.services.contains_key(*name));
        for name in gone.cloned().collect::<Vec<_>>() {
            self.end_service(now, &name);
        }
        for (name, service) in &self.topology.services {
            let crew = self.crews.entry(name.clone()).or_insert_with(|| Crew::new(service.clone()));
            let is_replaced = replaced.iter().any(|subject| subject == name.as_str());
            crew.take(service.clone(), is_replaced);
        }
    }

    /// Ends the mappers that are in no file any more, once no service is being replaced: who serves goes on
    /// by one of them until then.
    pub(super) fn retire_mappers(&mut self, now: Timestamp) {
        if self.crews.values().any(|crew| crew.roll.is_some()) {
            return;
        }
        let is_due = |mapper: &OurMapper| mapper.is_retired && !mapper.member.state.is_leaving();
        let due = self.mappers.iter().filter(|(_, mapper)| is_due(mapper));
        for name in due.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.terminate(now, &Who::Mapper(name), Then::Gone);
        }
    }

    fn end_service(&mut self, now: Timestamp, name: &Name) {
        let Some(crew) = self.crews.get_mut(name) else { return };
        crew.spec.instances = 0;
        (crew.roll, crew.rolled) = (None, Some(Err(format!("{name} is in no file any more"))));
        let numbers: Vec<u32> = crew.members.keys().copied().collect();
        for number in numbers {
            self.terminate(now, &Who::Worker(self.key(name, number)), Then::Gone);
        }
    }

    /// Everything is to end: first who serves, then the mappers.
    pub fn handle_close(&mut self, now: Timestamp) {
        self.is_closing = true;
        for command in std::mem::take(&mut self.pending) {
            self.output.push_back(Output::Answer(command.id, Err(CommandError::Closing)));
        }
        let workers = self.members().map(|(who, _)| who).filter(|who| who.service().is_some());
        for who in workers.collect::<Vec<_>>() {
            self.terminate(now, &who, Then::Stopped);
        }
        self.handle_timeout(now);
    }

    /// Ends the mappers once nobody needs them.
    pub(super) fn close_mappers(&mut self, now: Timestamp) {
        let is_worker_left =
            self.members().any(|(who, member)| who.service().is_some() && member.state.is_alive());
        if is_worker_left {
            return;
        }
        for name in self.mappers.keys().cloned().collect::<Vec<_>>() {
            self.terminate(now, &Who::Mapper(name), Then::Stopped);
        }
    }
}
