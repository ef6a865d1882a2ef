//! What an operator may ask for, and when it is done.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use svcmap_proto::names::{InstanceKey, Name, NameError};
use svcmap_proto::time::Timestamp;

use super::{CommandError, Fleet, Output, State, Then, Who};
use crate::parse;
use crate::text::some_of;
use crate::topology::INSTANCES_MAX;

/// How long a command waits at least for what it has started.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Names a command until it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommandId(pub u64);

/// Whom a command is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Target {
    /// All instances of a service, or the mapper of that name.
    All(Name),
    /// One instance.
    One(InstanceKey),
}

impl Target {
    /// Of which service, or the mapper's name.
    pub fn name(&self) -> &Name {
        match self {
            Self::All(name) => name,
            Self::One(key) => &key.service,
        }
    }

    /// Which instance, if it is one.
    pub fn instance(&self) -> Option<&Name> {
        self.key().map(|key| &key.instance)
    }

    fn key(&self) -> Option<&InstanceKey> {
        match self {
            Self::All(_) => None,
            Self::One(key) => Some(key),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All(name) => name.fmt(f),
            Self::One(key) => key.fmt(f),
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.contains('/') {
            true => parse::instance_key(text).map(Self::One),
            false => text.parse().map(Self::All).map_err(|error: NameError| error.to_string()),
        }
    }
}

impl TryFrom<String> for Target {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.to_string()
    }
}

/// What an operator asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Those that are not there are started, also those that ended too often.
    Start(Vec<Target>),
    /// They finish their jobs and end, and are not started again.
    Stop(Vec<Target>),
    /// Each is replaced by a new one, without a gap. A mapper is ended and started again.
    Restart(Vec<Target>),
    /// So many instances of that service there are to be.
    Scale(Name, u32),
}

/// A command that is under way.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: CommandId,
    pub(super) until: Vec<Until>,
    /// When nobody waits any longer, if that may take for ever.
    pub(super) deadline: Option<Timestamp>,
}

/// What it waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// Until it is not there any more.
    Ended(Who),
    /// Until it answers.
    Ready(Who),
    /// Until as many instances as wanted answer, and no more are there.
    Filled(Name),
    /// Until its replacement is over.
    Rolled(Name),
}

impl Fleet {
    /// An operator wants something. It is answered when it is done.
    pub fn handle_command(&mut self, now: Timestamp, id: CommandId, command: Command) {
        let begun = match self.is_closing {
            true => Err(CommandError::Closing),
            false => self.begin(now, command),
        };
        match begun {
            Ok(until) => {
                let may_last = |until: &Until| matches!(until, Until::Ready(_) | Until::Filled(_));
                let longest = self.crews.values().map(|crew| crew.spec.rolling.ready_within).max();
                let deadline = now + longest.unwrap_or_default().max(READY_WITHIN);
                let deadline = until.iter().any(may_last).then_some(deadline);
                self.pending.push(Pending { id, until, deadline });
            }
            Err(why) => self.output.push_back(Output::Answer(id, Err(why))),
        }
        self.handle_timeout(now);
    }

    fn begin(&mut self, now: Timestamp, command: Command) -> Result<Vec<Until>, CommandError> {
        self.check_names(&command)?;
        self.check_mappers(&command)?;
        match command {
            Command::Start(targets) => {
                let all = self.resolve(&targets);
                let missing: Vec<Who> = all.into_iter().filter(|who| !self.is_ready(who)).collect();
                missing.iter().for_each(|who| self.start(now, who));
                Ok(missing.into_iter().map(Until::Ready).collect())
            }
            Command::Stop(targets) => {
                let all = self.resolve(&targets);
                for who in &all {
                    self.spare(who);
                    self.terminate(now, who, Then::Stopped);
                }
                Ok(all.into_iter().map(Until::Ended).collect())
            }
            Command::Restart(targets) => {
                let named: Vec<&InstanceKey> = targets.iter().filter_map(Target::key).collect();
                // Who was taken away stays away, unless it is named.
                let is_wanted = |who: &Who| {
                    let is_away = self.member(who).is_some_and(|it| it.state.is_at_rest());
                    !is_away || who.key().is_none_or(|key| named.contains(&key))
                };
                let all = self.resolve(&targets).into_iter();
                let (all, away): (Vec<Who>, Vec<Who>) = all.partition(is_wanted);
                for who in away {
                    self.say(Some(&who), false, "stays away, as it was ended before".to_owned());
                }
                let mut until: Vec<Until> =
                    all.into_iter().map(|who| self.restart(now, who)).collect();
                // Instances of one service are replaced together.
                until.dedup();
                Ok(until)
            }
            Command::Scale(service, instances) => {
                if instances > INSTANCES_MAX {
                    return Err(CommandError::TooMany);
                }
                if let Some(crew) = self.crews.get_mut(&service) {
                    crew.spec.instances = instances;
                }
                if let Some(said) = self.topology.services.get_mut(&service) {
                    said.instances = instances;
                }
                Ok(vec![Until::Filled(service)])
            }
        }
    }

    /// Nothing becomes ready that no mapper lists.
    fn check_mappers(&self, command: &Command) -> Result<(), CommandError> {
        let is_mapper = |target: &Target| match target {
            Target::All(name) => self.mappers.contains_key(name),
            Target::One(_) => false,
        };
        let needs_one = match command {
            Command::Stop(_) => false,
            Command::Scale(..) => true,
            Command::Start(targets) | Command::Restart(targets) => !targets.iter().any(is_mapper),
        };
        match self.missing_mapper() {
            Some(name) if needs_one => Err(CommandError::NoMapper { name: name.clone() }),
            _ => Ok(()),
        }
    }

    /// The first of the mappers, if none of them runs or is going to.
    pub fn missing_mapper(&self) -> Option<&Name> {
        let stays_away = |state: State| state.is_settled() && !state.is_ready();
        let none_comes = self.mappers.values().all(|mapper| stays_away(mapper.member.state));
        self.mappers.keys().next().filter(|_| none_comes)
    }

    /// Nothing is done for some if others are not known.
    fn check_names(&self, command: &Command) -> Result<(), CommandError> {
        let targets = match command {
            Command::Scale(service, _) => &[Target::All(service.clone())][..],
            Command::Start(all) | Command::Stop(all) | Command::Restart(all) => all,
        };
        targets.iter().try_for_each(|target| self.expect(target))?;
        if let Command::Scale(service, _) = command
            && !self.topology.services.contains_key(service)
        {
            return Err(CommandError::OneOnly { mapper: service.clone() });
        }
        let is_service = |target: &Target| self.topology.services.contains_key(target.name());
        let is_opening = !self.is_open && self.missing_mapper().is_none();
        match is_opening && targets.iter().any(is_service) {
            true => Err(CommandError::TooEarly),
            false => Ok(()),
        }
    }

    /// Somebody is called so, or will be.
    ///
    /// # Errors
    /// If nobody is, with the names of those that there are.
    pub fn expect(&self, target: &Target) -> Result<(), CommandError> {
        let (name, services) = (target.name(), &self.topology.services);
        let unknown = |known: Vec<String>| CommandError::Unknown {
            name: target.to_string(),
            known: match known.is_empty() {
                true => "there is none now".to_owned(),
                false => format!("there are {}", some_of(&known)),
            },
        };
        let is_mapper = target.instance().is_none() && self.mappers.contains_key(name);
        if !is_mapper && !services.contains_key(name) {
            let known = self.mappers.keys().chain(services.keys());
            return Err(unknown(known.map(Name::to_string).collect()));
        }
        let Target::One(key) = target else { return Ok(()) };
        let is_peer = |who: &Who| who.service() == Some(name);
        let peers = self.members().filter(|(who, it)| is_peer(who) && !it.state.is_leaving());
        let peers: Vec<String> = peers.map(|(who, _)| who.to_string()).collect();
        // Before services start nobody knows who there will be.
        match !self.is_open || peers.contains(&key.to_string()) {
            true => Ok(()),
            false => Err(unknown(peers)),
        }
    }

    fn is_ready(&self, who: &Who) -> bool {
        self.member(who).is_some_and(|member| member.state.is_ready())
    }

    fn start(&mut self, now: Timestamp, who: &Who) {
        let Some((member, _)) = self.member_mut(who) else { return };
        member.deaths.forgive();
        match member.state {
            State::Starting { .. } => {}
            State::Stopping { .. } => self.terminate(now, who, Then::Again),
            _ => member.enter(State::Pausing { until: now }, now),
        }
    }

    /// A replacement that is under way does not touch that one.
    fn spare(&mut self, who: &Who) {
        let Who::Worker(key) = who else { return };
        if let Some((crew, number)) = self.crew_mut(key) {
            crew.spare(number);
        }
    }

    fn restart(&mut self, now: Timestamp, who: Who) -> Until {
        match &who {
            Who::Mapper(_) => {
                self.terminate(now, &who, Then::Again);
                Until::Ready(who)
            }
            Who::Worker(key) => {
                if let Some((crew, number)) = self.crew_mut(key) {
                    crew.replace([number]);
                }
                Until::Rolled(key.service.clone())
            }
        }
    }

    /// Who is meant.
    fn resolve(&self, targets: &[Target]) -> Vec<Who> {
        let is_meant = |who: &Who| {
            targets.iter().any(|target| match (target, who) {
                (Target::All(name), who) => name == who.name(),
                (Target::One(key), Who::Worker(other)) => key == other,
                (Target::One(_), Who::Mapper(_)) => false,
            })
        };
        let all = self.members().filter(|(who, it)| is_meant(who) && !it.state.is_leaving());
        all.map(|(who, _)| who).collect()
    }

    /// Answers the commands that are done.
    pub(super) fn answer(&mut self, now: Timestamp) {
        let mut pending = std::mem::take(&mut self.pending);
        pending.retain(|command| {
            let outcomes = command.until.iter().map(|until| self.outcome(until));
            let Some(outcomes) = outcomes.collect::<Option<Vec<_>>>() else {
                let is_late = command.deadline.is_some_and(|deadline| deadline <= now);
                if is_late {
                    self.output.push_back(Output::Answer(command.id, Err(CommandError::Late)));
                }
                return !is_late;
            };
            let counts: Result<Vec<u32>, CommandError> = outcomes.into_iter().collect();
            let answer = counts.map(|counts| summary(&command.until, &counts));
            self.output.push_back(Output::Answer(command.id, answer));
            false
        });
        pending.append(&mut self.pending);
        self.pending = pending;
    }

    /// Whether that has come, and how it ended; `None`: not yet.
    fn outcome(&self, until: &Until) -> Option<Result<u32, CommandError>> {
        match until {
            Until::Ended(who) => {
                let is_alive = self.member(who).is_some_and(|member| member.state.is_alive());
                (!is_alive).then_some(Ok(1))
            }
            Until::Ready(who) => match self.member(who) {
                Some(member) if member.state.is_ready() => Some(Ok(1)),
                Some(member) if member.state.is_settled() => Some(Err(failed(who, member))),
                Some(_) => None,
                None => Some(Err(gone(who))),
            },
            Until::Filled(service) => {
                let Some(crew) = self.crews.get(service) else {
                    return Some(Err(gone(service)));
                };
                let members = || crew.members.values();
                let is_full = members().len() == crew.spec.instances as usize;
                if !is_full || members().any(|member| !member.state.is_settled()) {
                    return None;
                }
                let bad = crew.members.iter().find(|(_, member)| member.state == State::Failed);
                Some(match bad {
                    Some((&number, member)) => {
                        Err(failed(&Who::Worker(self.key(service, number)), member))
                    }
                    None => Ok(count(members().filter(|member| member.state.is_ready()))),
                })
            }
            Until::Rolled(service) => match self.crews.get(service) {
                Some(crew) if crew.roll.is_some() => None,
                Some(crew) => {
                    let rolled = crew.rolled.clone().unwrap_or(Ok(0));
                    Some(rolled.map_err(CommandError::NotReplaced))
                }
                None => Some(Err(gone(service))),
            },
        }
    }
}

/// It was taken away while somebody waited for it.
fn gone(who: &impl fmt::Display) -> CommandError {
    CommandError::Ended { who: who.to_string(), state: "gone".to_owned() }
}

fn count<T>(all: impl Iterator<Item = T>) -> u32 {
    u32::try_from(all.count()).unwrap_or(u32::MAX)
}

/// What was done, in words: each of these has come, and was so many.
fn summary(until: &[Until], counts: &[u32]) -> String {
    let mut sums: BTreeMap<String, u32> = BTreeMap::new();
    for (until, count) in until.iter().zip(counts) {
        *sums.entry(until.words()).or_default() += count;
    }
    let all: Vec<_> = sums.iter().map(|(words, count)| format!("{count} {words}")).collect();
    if all.is_empty() { "nothing to do".to_owned() } else { all.join(", ") }
}

impl Until {
    fn words(&self) -> String {
        match self {
            Self::Ended(_) => "stopped".to_owned(),
            Self::Ready(_) => "ready".to_owned(),
            Self::Rolled(_) => "replaced".to_owned(),
            Self::Filled(service) => format!("of {service} ready"),
        }
    }
}

fn failed(who: &Who, member: &super::Member) -> CommandError {
    let (state, last) = (member.state.word(), member.last.as_deref().unwrap_or_default());
    let state = format!("{state}: {last}").trim_end_matches([':', ' ']).to_owned();
    CommandError::Ended { who: who.to_string(), state }
}
