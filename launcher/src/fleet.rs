//! All processes of a topology: which are to be there, what is to be done about those that are not, and
//! what was asked for meanwhile. Pure: [`io`] starts and watches them.
//!
//! Mappers come first and go last. A service is a `Crew`; it replaces its members one after another, and
//! each new one has to answer before an old one goes.

mod apply;
pub mod command;
mod crew;
mod error;
pub mod io;
mod launch;
mod lines;
mod member;
pub mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::ffi::OsString;
use std::time::Duration;

use svcmap_proto::names::{Endpoint, InstanceKey, Name};
use svcmap_proto::time::Timestamp;

use self::command::{CommandId, Pending};
use self::crew::Crew;
pub use self::error::CommandError;
pub use self::launch::Launch;
use self::member::Verdict;
pub use self::member::{Member, State, Then, Who};
use crate::commands::mapper::parse_listening_line;
use crate::text::time;
use crate::topology::{Keep, Mapper, Mappers, Restart, Topology};

/// How long services wait for mappers that do not answer yet: workers find a late one by themselves.
const MAPPERS_FIRST: Duration = Duration::from_secs(10);

/// How much longer than its grace a worker may take to end: it says goodbye to everybody.
const GOODBYE: Duration = Duration::from_secs(5);

/// How long a mapper may take to end.
const MAPPER_GRACE: Duration = Duration::from_secs(5);

/// The exit status of a process whose settings are wrong: starting it again is no use.
const USAGE: i32 = 64;

/// See the module.
pub struct Fleet {
    topology: Topology,
    mappers: BTreeMap<Name, OurMapper>,
    crews: BTreeMap<Name, Crew>,
    /// When services are started, if any mapper answers; `None` once that has come.
    mappers_until: Option<Timestamp>,
    /// Whether services have been started.
    is_open: bool,
    /// Whether it is to end.
    is_closing: bool,
    pending: Vec<Pending>,
    /// How often processes of a service, or a mapper, have ended by themselves.
    deaths: BTreeMap<Name, u64>,
    output: VecDeque<Output>,
    random: fastrand::Rng,
}

/// A mapper of this topology.
struct OurMapper {
    spec: Mapper,
    member: Member,
    /// Where it listens and publishes, once it has said so: the system may have chosen the ports.
    endpoints: Option<(Endpoint, Endpoint)>,
    /// With which arguments it is started, as the file says.
    args: Vec<OsString>,
    /// Whether it goes once the services can do without it.
    is_retired: bool,
}

impl OurMapper {
    /// Where it is reached from this machine; `None` as long as only the system knows the port.
    fn reached(&self) -> Option<Endpoint> {
        let said = self.endpoints.as_ref().map(|(bind, _)| bind);
        let bind = said.or(Some(&self.spec.bind).filter(|bind| bind.port() != Some(0)))?;
        Some(reached(bind))
    }
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Start a process.
    Start(Who, Box<Launch>),
    /// Ask it to end.
    Terminate(Who),
    /// End it at once.
    Kill(Who),
    /// People are told.
    Say(Event),
    /// A command is over.
    Answer(CommandId, Result<String, CommandError>),
}

/// Something that people want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// About whom; `None`: about all.
    pub who: Option<Who>,
    /// Whether it is bad.
    pub is_bad: bool,
    /// What.
    pub text: String,
}

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its exit status, unless a signal ended it.
    pub code: Option<i32>,
    /// How, in words.
    pub how: String,
    /// The last line that it wrote.
    pub last_line: Option<String>,
}

impl Fleet {
    /// All of that topology, to be started now.
    pub fn new(topology: Topology, now: Timestamp, seed: u64) -> Self {
        let mut fleet = Self {
            topology,
            mappers: BTreeMap::new(),
            crews: BTreeMap::new(),
            mappers_until: Some(now + MAPPERS_FIRST),
            is_open: false,
            is_closing: false,
            pending: Vec::new(),
            deaths: BTreeMap::new(),
            output: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        };
        fleet.take_mappers(now);
        fleet.handle_timeout(now);
        fleet
    }

    /// What is to be done next, until there is nothing.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.output.pop_front()
    }

    /// Where the mappers are, as far as that is known.
    pub fn mapper_endpoints(&self) -> Vec<Endpoint> {
        match &self.topology.mappers {
            Mappers::Elsewhere(mappers) => mappers.clone(),
            Mappers::Ours(_) => {
                let staying = self.mappers.values().filter(|mapper| !mapper.is_retired);
                staying.filter_map(OurMapper::reached).collect()
            }
        }
    }

    /// The services that go on with former settings, as those of the file did not work.
    pub fn reverted(&self) -> Vec<Name> {
        let reverted = self.crews.iter().filter(|(_, crew)| crew.has_reverted);
        reverted.map(|(name, _)| name.clone()).collect()
    }

    /// How often processes of a service, or a mapper, have ended although nobody wanted it.
    pub fn deaths(&self) -> &BTreeMap<Name, u64> {
        &self.deaths
    }

    /// The topology that counts.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Whether the services have been started.
    pub fn is_open(&self) -> bool {
        self.is_open
    }

    /// Whether everything has ended that was to end.
    pub fn is_over(&self) -> bool {
        self.is_closing && self.members().all(|(_, member)| !member.state.is_alive())
    }

    /// All processes that there should be, mappers first.
    pub fn members(&self) -> impl Iterator<Item = (Who, &Member)> {
        let mappers =
            self.mappers.iter().map(|(name, mapper)| (Who::Mapper(name.clone()), &mapper.member));
        let workers = self.crews.iter().flat_map(|(service, crew)| {
            crew.members
                .iter()
                .map(|(&number, member)| (Who::Worker(self.key(service, number)), member))
        });
        mappers.chain(workers)
    }

    fn key(&self, service: &Name, number: u32) -> InstanceKey {
        InstanceKey {
            service: service.clone(),
            instance: crew::instance(&self.topology.prefix, number),
        }
    }

    /// Where an instance belongs, and its number there.
    fn crew_mut(&mut self, key: &InstanceKey) -> Option<(&mut Crew, u32)> {
        let number = crew::number(&self.topology.prefix, &key.instance)?;
        Some((self.crews.get_mut(&key.service)?, number))
    }

    /// What is known of a process.
    pub(crate) fn member(&self, who: &Who) -> Option<&Member> {
        match who {
            Who::Mapper(name) => Some(&self.mappers.get(name)?.member),
            Who::Worker(key) => {
                let number = crew::number(&self.topology.prefix, &key.instance)?;
                self.crews.get(&key.service)?.members.get(&number)
            }
        }
    }

    /// The same, to be changed.
    fn member_mut(&mut self, who: &Who) -> Option<(&mut Member, Keep)> {
        match who {
            Who::Mapper(name) => {
                let mapper = self.mappers.get_mut(name)?;
                Some((&mut mapper.member, mapper.spec.keep.clone()))
            }
            Who::Worker(key) => {
                let (crew, number) = self.crew_mut(key)?;
                Some((crew.members.get_mut(&number)?, crew.spec.keep.clone()))
            }
        }
    }

    /// A process could not be started: as if it had ended.
    pub fn handle_start_failed(&mut self, now: Timestamp, who: &Who, reason: String) {
        self.handle_end(now, who, End { code: None, how: reason, last_line: None });
    }

    /// A process has written a line to stdout.
    pub fn handle_line(&mut self, now: Timestamp, who: &Who, line: &str) {
        let is_word = match who {
            Who::Mapper(name) => match (parse_listening_line(line), self.mappers.get_mut(name)) {
                (Some(endpoints), Some(mapper)) => {
                    mapper.endpoints = Some(endpoints);
                    true
                }
                _ => false,
            },
            Who::Worker(_) => line.starts_with(wire::REGISTERED),
        };
        let Some((member, _)) = self.member_mut(who) else { return };
        if let (true, State::Starting { since }) = (is_word, member.state) {
            let took = now.since(since);
            member.enter(State::Ready { since: now }, now);
            self.say(Some(who), false, format!("ready after {}", time(took)));
            self.handle_timeout(now);
        }
    }

    /// A process has ended.
    pub fn handle_end(&mut self, now: Timestamp, who: &Who, end: End) {
        let mut random = self.random.fork();
        let Some((member, keep)) = self.member_mut(who) else { return };
        let how = match &end.last_line {
            Some(line) => format!("{}: {line}", end.how),
            None => end.how.clone(),
        };
        let (state, is_bad, text) = match member.state {
            State::Stopping { then, .. } => {
                let state = match then {
                    Then::Again => State::Pausing { until: now },
                    Then::Stopped | Then::Gone => State::Stopped,
                };
                (state, end.code != Some(0), format!("stopped ({})", end.how))
            }
            _ if end.code == Some(0) && keep.restart != Restart::Always => {
                (State::Done, false, "ended with status 0, so it is not started again".to_owned())
            }
            _ if keep.restart == Restart::Never => {
                (State::Failed, true, format!("FAILED: {how}; it is not started again"))
            }
            // A mapper says so as well if somebody has its port, who may go.
            _ if end.code == Some(USAGE) && who.service().is_some() => {
                (State::Failed, true, format!("FAILED: {how}; starting it again is no use"))
            }
            before => {
                let healthy_for = match before {
                    State::Ready { since } => now.since(since),
                    _ => Duration::ZERO,
                };
                let rules = (&keep.backoff, &keep.flap);
                match member.deaths.died(now, healthy_for, rules, &mut random) {
                    Verdict::Again(pause, count) => (
                        State::Pausing { until: now + pause },
                        true,
                        format!("{how}; again in {} ({count} of {})", time(pause), keep.flap.exits),
                    ),
                    Verdict::TooOften => (
                        State::Failed,
                        true,
                        format!(
                            "FAILED: {} ends in {}; last: {how}",
                            keep.flap.exits,
                            time(keep.flap.within)
                        ),
                    ),
                }
            }
        };
        let leaves = member.state.is_leaving();
        if is_bad {
            member.last = Some(how);
        }
        let is_death = !matches!(member.state, State::Stopping { .. }) && state != State::Done;
        member.enter(state, now);
        if leaves {
            self.forget(who);
        }
        if is_death {
            *self.deaths.entry(who.name().clone()).or_default() += 1;
        }
        self.say(Some(who), is_bad, text);
        self.handle_timeout(now);
    }

    fn forget(&mut self, who: &Who) {
        match who {
            Who::Mapper(name) => {
                self.mappers.remove(name);
            }
            Who::Worker(key) => {
                if let Some((crew, number)) = self.crew_mut(key) {
                    crew.members.remove(&number);
                }
            }
        }
    }

    /// When [`Fleet::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let has_mappers = !self.mapper_endpoints().is_empty();
        let members = self.members().filter_map(|(who, member)| match member.state {
            State::Pausing { until } => {
                Some(until).filter(|_| has_mappers || who.service().is_none())
            }
            State::Stopping { kill_at, .. } => Some(kill_at),
            _ => None,
        });
        let is_opening = !self.is_open && !self.is_closing;
        let opening = self.mappers_until.filter(|_| is_opening);
        let rolls = self.crews.values().filter_map(Crew::poll_timeout);
        let pending = self.pending.iter().filter_map(|command| command.deadline);
        members.chain(opening).chain(rolls).chain(pending).min()
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.open(now);
        if self.is_closing {
            self.close_mappers(now);
        } else {
            self.step_crews(now);
            self.retire_mappers(now);
        }
        self.start_due(now);
        self.kill_due(now);
        self.answer(now);
    }

    /// Starts the services, once mappers answer or will not.
    fn open(&mut self, now: Timestamp) {
        if self.is_open || self.is_closing {
            return;
        }
        let mut members = self.mappers.values().map(|mapper| &mapper.member.state);
        let all_answer = members.all(|state| state.is_ready());
        self.mappers_until = self.mappers_until.filter(|until| now < *until);
        let is_late = self.mappers_until.is_none() && !self.mapper_endpoints().is_empty();
        if !all_answer && !is_late {
            return;
        }
        if !all_answer {
            self.say(
                None,
                true,
                "not every mapper answers: the services start all the same".into(),
            );
        }
        self.is_open = true;
        for (name, service) in &self.topology.services {
            self.crews.insert(name.clone(), Crew::new(service.clone()));
        }
    }

    fn step_crews(&mut self, now: Timestamp) {
        // What follows from one step may wait for no event: who was not there is gone at once.
        loop {
            let mut orders = Vec::new();
            for (service, crew) in &mut self.crews {
                orders.extend(crew.step(now).into_iter().map(|order| (service.clone(), order)));
            }
            if orders.is_empty() {
                break;
            }
            for (service, order) in orders {
                self.perform(now, &service, order);
            }
        }
        for (name, crew) in self.crews.iter().filter(|(_, crew)| crew.has_reverted) {
            if let Some(said) = self.topology.services.get_mut(name) {
                said.worker = crew.spec.worker.clone();
            }
        }
        // A service that is in no file any more goes with its last process.
        let topology = &self.topology;
        self.crews
            .retain(|name, crew| topology.services.contains_key(name) || !crew.members.is_empty());
    }

    fn perform(&mut self, now: Timestamp, service: &Name, order: crew::Order) {
        match order {
            crew::Order::Terminate(number) => {
                self.terminate(now, &Who::Worker(self.key(service, number)), Then::Gone);
            }
            crew::Order::Say { is_bad, text } => {
                self.say(None, is_bad, format!("{service}: {text}"));
            }
        }
    }

    /// Asks a process to end, or notes that it is not to be started.
    fn terminate(&mut self, now: Timestamp, who: &Who, then: Then) {
        let Some((member, _)) = self.member_mut(who) else { return };
        let grace = member.grace;
        match member.state {
            State::Stopping { kill_at, .. } => {
                member.state = State::Stopping { kill_at, then };
            }
            state if state.is_alive() => {
                member.enter(State::Stopping { kill_at: now + grace, then }, now);
                self.output.push_back(Output::Terminate(who.clone()));
            }
            _ => match then {
                Then::Stopped => member.enter(State::Stopped, now),
                Then::Gone => self.forget(who),
                Then::Again => member.enter(State::Pausing { until: now }, now),
            },
        }
    }

    fn kill_due(&mut self, now: Timestamp) {
        let due = |(who, member): (Who, &Member)| match member.state {
            State::Stopping { kill_at, .. } if kill_at <= now => Some(who),
            _ => None,
        };
        for who in self.members().filter_map(due).collect::<Vec<_>>() {
            if let Some((Member { state: State::Stopping { kill_at, .. }, .. }, _)) =
                self.member_mut(&who)
            {
                *kill_at = now + GOODBYE;
            }
            self.say(Some(&who), true, "has not ended in time: it is killed".to_owned());
            self.output.push_back(Output::Kill(who));
        }
    }

    fn say(&mut self, who: Option<&Who>, is_bad: bool, text: String) {
        self.output.push_back(Output::Say(Event { who: who.cloned(), is_bad, text }));
    }
}

/// Where it is reached from this machine: a mapper may listen on all addresses.
fn reached(bind: &Endpoint) -> Endpoint {
    match (bind.is_wildcard(), bind.port()) {
        (true, Some(port)) => Endpoint::tcp("127.0.0.1", port).unwrap_or_else(|_| bind.clone()),
        _ => bind.clone(),
    }
}

#[cfg(test)]
#[path = "fleet/fleet_tests.rs"]
mod tests;
