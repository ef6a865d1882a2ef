//! Asking mappers what they know, and telling them who left.
//!
//! A `Conversation` with one mapper is pure; [`ask`] holds one with each mapper at a time.

mod error;
mod io;

pub use error::{ControlError, Here};
pub(crate) use io::open;
pub use io::{
    ask, ask_all, ask_for_keys, ask_for_principals, ask_to_drain, log_silence, no_mapper,
};

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::{
    Activity, Entry, FromMapper, Hello, Refused, ServiceStanding, SnapshotPart, ToMapper, Welcome,
};
use svcmap_proto::limits;
use svcmap_proto::names::{Epoch, Incarnation, InstanceKey, MapperAddress, Name};
use svcmap_proto::time::Timestamp;

/// How long a mapper may take to answer everything, connecting included.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long the others may take once one mapper has answered: they should be as near.
pub const STRAGGLER_PATIENCE: Duration = Duration::from_secs(1);

/// Snapshots that are asked for at once: enough to fill the line, too few to fill any queue.
const SYNCS_MAX: usize = 64;

/// What is not answered is asked again when nothing has come for so long, and then for twice as long:
/// a mapper answers only so much at once, and drops what is more.
const REPEAT: Duration = Duration::from_millis(100);

/// What is to be told and asked. Everybody is also asked for the list of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Question {
    /// Lives that are over, as a supervisor knows.
    pub left: Vec<(InstanceKey, Incarnation)>,
    /// Whose instances to ask for.
    pub scope: Scope,
    /// Whose answers to wait for.
    pub wait: Wait,
}

/// Whose answers to wait for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Wait {
    /// All mappers', within the time for them: who does not answer is part of the picture.
    #[default]
    All,
    /// The first's that lists an instance, the one of that name if there is one; else all.
    Found(Option<Name>),
}

/// Whose instances to ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Nobody's. The list of services then only says that what was told has arrived.
    #[default]
    Nothing,
    /// Those of one service.
    Service(Name),
    /// Those of all services.
    Everything,
}

/// What all mappers together know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct View {
    /// How each mapper answered, in the order in which they were named.
    pub mappers: Vec<MapperAnswer>,
    /// Whether all that answered list the same lives.
    pub agree: bool,
    /// All services, those without instances included.
    pub services: BTreeSet<Name>,
    /// The instances that were asked for; of each the newest that any mapper knows.
    pub instances: BTreeMap<InstanceKey, Entry>,
    /// Services that were asked for, and that a mapper says nothing of: who asks may not use them.
    pub denied: BTreeSet<Name>,
    /// What happens in services; of what several mappers say the most.
    pub activity: BTreeMap<Name, Activity>,
    /// What each mapper said, in the same order.
    pub listings: Vec<Listing>,
}

/// What one mapper said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listing {
    /// How it greeted; `None` if it did not.
    pub welcome: Option<Welcome>,
    /// What it knows of the services that were asked for.
    pub standings: BTreeMap<Name, ServiceStanding>,
    /// The instances of those.
    pub instances: BTreeMap<InstanceKey, Entry>,
    /// What happens in services.
    pub activity: Vec<Activity>,
}

impl Listing {
    /// The instances of one service.
    pub fn of(&self, service: &Name) -> impl Iterator<Item = &Entry> {
        let all = self.instances.iter();
        all.filter(move |(key, _)| key.service == *service).map(|(_, entry)| entry)
    }
}

/// How one mapper answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapperAnswer {
    /// Which mapper.
    pub at: MapperAddress,
    /// How.
    pub answer: Answer,
    /// What it has refused since its start, if it said so.
    pub refused: Refused,
}

/// How far an answer got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Everything came.
    Complete {
        /// The mapper has started lately and may not know everybody yet.
        warming: bool,
    },
    /// Something came, but not all in time.
    Partial,
    /// Nothing came in time.
    Silent,
    /// It speaks other protocol versions, from the oldest to the newest.
    WrongVersion(u8, u8),
}

impl Answer {
    /// Whether everything came.
    pub fn is_complete(self) -> bool {
        matches!(self, Self::Complete { .. })
    }
}

/// One exchange with one mapper: HELLO, who left, then page by page and service by service.
#[derive(Debug)]
struct Conversation {
    question: Question,
    output: VecDeque<ToMapper>,
    progress: Progress,
    refused: Refused,
    services: BTreeSet<Name>,
    /// Services that are known from a page and not asked for yet.
    unasked: VecDeque<Name>,
    /// Services that were asked for, with what came so far.
    asked: BTreeMap<Name, Assembly>,
    listing: Listing,
    /// From where on the list of services is not known.
    listed_to: Option<Name>,
    /// When it was last heard or asked again, and for how long it may be silent from then on.
    heard_at: Timestamp,
    patience: Duration,
}

/// How far a conversation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Silent,
    Greeted { warming: bool },
    Listed { warming: bool },
    WrongVersion(u8, u8),
}

/// The parts of one snapshot, until all are there.
#[derive(Debug, Default)]
struct Assembly {
    parts: BTreeMap<u16, Vec<Entry>>,
    /// Epoch, revision and number of parts: what all parts of one snapshot share.
    of: Option<(u64, u64, u16)>,
}

impl Conversation {
    fn new(question: Question) -> Self {
        Self {
            question,
            output: VecDeque::new(),
            progress: Progress::Silent,
            refused: Refused::default(),
            services: BTreeSet::new(),
            unasked: VecDeque::new(),
            asked: BTreeMap::new(),
            listing: Listing::default(),
            listed_to: None,
            heard_at: Timestamp::default(),
            patience: REPEAT,
        }
    }

    /// A connection is there. After a lost one everything starts again: the mapper may be another.
    fn handle_connected(&mut self, now: Timestamp) {
        if self.is_over() {
            return;
        }
        *self = Self::new(std::mem::take(&mut self.question));
        self.heard_at = now;
        self.output.push_back(ToMapper::Hello(Hello {
            oldest: codec::VERSION_OLDEST,
            newest: codec::VERSION,
            key: None,
        }));
    }

    fn handle_frame(&mut self, now: Timestamp, frame: &[u8]) {
        (self.heard_at, self.patience) = (now, REPEAT);
        match codec::decode(frame) {
            Ok(FromMapper::WrongVersion { oldest, newest }) => {
                self.progress = Progress::WrongVersion(oldest, newest);
            }
            Ok(FromMapper::Welcome(welcome)) if self.progress == Progress::Silent => {
                self.handle_welcome(welcome);
            }
            Ok(FromMapper::Services { names, more, refused, activity }) => {
                self.refused = refused;
                // Only the first page tells, which may come twice.
                if !activity.is_empty() {
                    self.listing.activity = activity;
                }
                self.handle_services(names, more);
            }
            Ok(FromMapper::Snapshot { service, part }) => self.handle_part(&service, part),
            Err(DecodeError::Version(version)) => {
                self.progress = Progress::WrongVersion(version, version);
            }
            // Nothing else is an answer to what was asked.
            Ok(_) | Err(_) => {}
        }
    }

    /// When [`Conversation::handle_timeout`] is due.
    fn poll_timeout(&self) -> Option<Timestamp> {
        // Before there is a connection, that is made again and again.
        let waits = self.progress != Progress::Silent && !self.is_over();
        waits.then_some(self.heard_at + self.patience)
    }

    /// Asks again for what is not answered.
    fn handle_timeout(&mut self, now: Timestamp) {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return;
        }
        (self.heard_at, self.patience) = (now, 2 * self.patience);
        if let Progress::Greeted { .. } = self.progress {
            self.output.push_back(ToMapper::List { after: self.listed_to.clone() });
        }
        let syncs = self.asked.keys().map(|service| ToMapper::Sync { service: service.clone() });
        self.output.extend(syncs);
    }

    fn poll_output(&mut self) -> Option<ToMapper> {
        self.output.pop_front()
    }

    fn is_over(&self) -> bool {
        match self.progress {
            Progress::Silent | Progress::Greeted { .. } => false,
            Progress::Listed { .. } => self.unasked.is_empty() && self.asked.is_empty(),
            Progress::WrongVersion(..) => true,
        }
    }

    /// Whether no other mapper needs to be heard.
    fn is_enough(&self) -> bool {
        let Wait::Found(instance) = &self.question.wait else { return false };
        let is_it = |key: &InstanceKey| instance.as_ref().is_none_or(|name| key.instance == *name);
        self.is_over() && self.listing.instances.keys().any(is_it)
    }

    fn answer(&self) -> Answer {
        match self.progress {
            Progress::Silent => Answer::Silent,
            Progress::Listed { warming } if self.is_over() => Answer::Complete { warming },
            Progress::Greeted { .. } | Progress::Listed { .. } => Answer::Partial,
            Progress::WrongVersion(oldest, newest) => Answer::WrongVersion(oldest, newest),
        }
    }

    /// Which mapper it is.
    fn epoch(&self) -> Option<Epoch> {
        self.listing.welcome.as_ref().map(|welcome| welcome.epoch)
    }

    fn is_complete(&self) -> bool {
        self.answer().is_complete()
    }

    fn handle_welcome(&mut self, welcome: Welcome) {
        self.progress = Progress::Greeted { warming: welcome.warming };
        self.listing.welcome = Some(welcome);
        for (key, incarnation) in &self.question.left {
            let (key, incarnation) = (key.clone(), *incarnation);
            self.output.push_back(ToMapper::Leave { key, incarnation });
        }
        self.output.push_back(ToMapper::List { after: None });
        if let Scope::Service(service) = &self.question.scope {
            self.unasked.push_back(service.clone());
            self.sync_more();
        }
    }

    fn handle_services(&mut self, names: Vec<Name>, more: bool) {
        let Progress::Greeted { warming } = self.progress else { return };
        let last = names.last().cloned();
        for name in names {
            // A mapper that lists more than it can hold is not believed for ever.
            let is_new =
                self.services.len() < limits::SERVICES_MAX && self.services.insert(name.clone());
            if is_new && self.question.scope == Scope::Everything {
                self.unasked.push_back(name);
            }
        }
        match last {
            Some(last) if more && self.services.len() < limits::SERVICES_MAX => {
                self.listed_to = Some(last.clone());
                self.output.push_back(ToMapper::List { after: Some(last) });
            }
            _ => self.progress = Progress::Listed { warming },
        }
        self.sync_more();
    }

    fn handle_part(&mut self, service: &Name, part: SnapshotPart) {
        let Some(assembly) = self.asked.get_mut(service) else { return };
        self.listing.standings.insert(service.clone(), part.standing);
        let Some(entries) = assembly.add(part) else { return };
        self.asked.remove(service);
        for entry in entries {
            if self.listing.instances.len() < limits::INSTANCES_MAX {
                let instance = entry.instance.clone();
                let instances = &mut self.listing.instances;
                instances.insert(InstanceKey { service: service.clone(), instance }, entry);
            }
        }
        self.sync_more();
    }

    fn sync_more(&mut self) {
        while self.asked.len() < SYNCS_MAX {
            let Some(service) = self.unasked.pop_front() else { return };
            self.asked.insert(service.clone(), Assembly::default());
            self.output.push_back(ToMapper::Sync { service });
        }
    }
}

impl Assembly {
    /// Adds a part, and returns all entries once every part is there.
    fn add(&mut self, part: SnapshotPart) -> Option<Vec<Entry>> {
        if part.parts > limits::PARTS_MAX || part.part >= part.parts {
            return None;
        }
        let of = Some((part.epoch.0, part.revision, part.parts));
        if self.of != of {
            *self = Self { of, parts: BTreeMap::new() };
        }
        self.parts.insert(part.part, part.entries);
        if self.parts.len() < usize::from(part.parts) {
            return None;
        }
        Some(std::mem::take(&mut self.parts).into_values().flatten().collect())
    }
}

/// Puts the mappers' answers together: the union, and of each instance the newest word. One that has
/// answered at two addresses is one.
fn merge(conversations: Vec<(MapperAddress, Conversation)>) -> View {
    let mut view = View { agree: true, ..View::default() };
    let mut first_lives = None;
    // Of those with one mapper the first counts that is complete, or else the first.
    let mut met: BTreeMap<Epoch, usize> = BTreeMap::new();
    for (place, (_, conversation)) in conversations.iter().enumerate() {
        let Some(epoch) = conversation.epoch() else { continue };
        let best = met.entry(epoch).or_insert(place);
        if !conversations[*best].1.is_complete() && conversation.is_complete() {
            *best = place;
        }
    }
    for (place, (at, conversation)) in conversations.into_iter().enumerate() {
        if conversation.epoch().is_some_and(|epoch| met[&epoch] != place) {
            continue;
        }
        let answer = conversation.answer();
        let is_complete = answer.is_complete();
        view.mappers.push(MapperAnswer { at, answer, refused: conversation.refused });
        if is_complete {
            let entries = conversation.listing.instances.iter();
            let lives: Vec<(InstanceKey, Incarnation)> =
                entries.map(|(key, entry)| (key.clone(), entry.incarnation)).collect();
            view.agree &= first_lives.get_or_insert_with(|| lives.clone()) == &lives;
        }
        view.services.extend(conversation.services);
        let Listing { standings, instances, .. } = &conversation.listing;
        let denied = standings.iter().filter(|(_, it)| **it == ServiceStanding::NotAllowed);
        view.denied.extend(denied.map(|(service, _)| service.clone()));
        for (key, entry) in instances {
            let newer = view.instances.get(key).is_none_or(|known| is_newer(entry, known));
            if newer {
                view.instances.insert(key.clone(), entry.clone());
            }
        }
        for activity in &conversation.listing.activity {
            let known = view.activity.entry(activity.service.clone());
            let known = known.or_insert_with(|| activity.clone());
            known.waiting = known.waiting.max(activity.waiting);
            known.senders = known.senders.max(activity.senders);
            known.ended_per_s = known.ended_per_s.max(activity.ended_per_s);
        }
        view.listings.push(conversation.listing);
    }
    view
}

/// The higher (incarnation, load sequence) is believed; of equal ones the one heard last.
fn is_newer(entry: &Entry, known: &Entry) -> bool {
    let order = |e: &Entry| (e.incarnation, e.load.sequence, std::cmp::Reverse(e.age_ms));
    order(entry) > order(known)
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
