//! Messages of the control plane: between a mapper and everybody else.
//!
//! On the ROUTER each message is one frame. On PUB it is two: the topic, then the message.
//!
//! # What is told once
//! A message may be lost with its connection, and PUB may drop any. None of it matters for long:
//!
//! | message | if it gets lost |
//! | --- | --- |
//! | `Hello`, `Register` | repeated each second until answered; so their answers need not be repeated |
//! | `Report` | the next one says it, a beat later at the latest |
//! | `Leave` | the lease ends after an expiry; a supervisor tells the same |
//! | `Sync`, `List`, `Keys`, `Drain` to a mapper | whoever asks asks again |
//! | `Waiting` | the next one says it, a second later |
//! | `Admit` | it comes again after the next WELCOME, which follows every new connection |
//! | `Drain` to an instance | whoever wants it sees that it is still listed, and says it again |
//! | `Reregister`, `Replaced` | each report of an instance that is not listed is answered so, once a second |
//! | `RegistrationRefused` | each registration is answered |
//! | changes, `Left` and `Expired` among them | a gap in the revisions makes the cache ask for a snapshot |
//! | snapshots, the pulse | the next one comes within a beat (every 5 beats above 256 instances) |
//!
//! New variants go to the end and none is ever reordered: the variant's index is the kind byte.
//! [`Hello`], [`Registration`] and [`FromMapper::WrongVersion`] never change their form.

mod borrowed;
mod keys;

use serde::{Deserialize, Serialize};

pub use borrowed::{ChangeRef, EntryRef, ReportRef};
pub use keys::{Admission, KeyAnswer, KeyRefusal, KeyRequest};

use crate::codec::{bounded_error, bounded_list};
use crate::keys::PublicKey;
use crate::load::Load;
use crate::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, Name};

/// What a worker or client says to a mapper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToMapper {
    /// First on every connection, and after every new epoch. Answered by [`FromMapper::Welcome`].
    Hello(Hello),
    /// List this instance. Answered by [`FromMapper::Registered`] or a reason why not.
    Register(Registration),
    /// I am alive, and this is my load. Answered only if something is wrong.
    Report {
        /// Who reports.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// Its load now.
        load: Load,
    },
    /// That life of that instance is over, as itself or its supervisor knows. Not answered.
    Leave {
        /// Who left.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// Send a snapshot of this service. Answered by [`FromMapper::Snapshot`], in parts.
    Sync {
        /// Of which service.
        service: Name,
    },
    /// Which services are there? Answered by [`FromMapper::Services`].
    List {
        /// Only those that sort after this one: the way to the next page.
        after: Option<Name>,
    },
    /// Who may take part? Answered by [`FromMapper::Keys`].
    Keys(KeyRequest),
    /// That instance is to finish its jobs and end, as an operator wants it. Answered by
    /// [`FromMapper::DrainAsked`].
    Drain {
        /// Which one.
        key: InstanceKey,
    },
    /// So many jobs of these services wait here for room at a worker, and have for a while; those with the
    /// most, at most [`crate::limits::WAITING_SERVICES_MAX`]. Said again each second while any do. Not answered.
    Waiting {
        /// Of which services, and how many.
        #[serde(deserialize_with = "bounded_list")]
        jobs: Vec<(Name, u32)>,
    },
}

/// The start of a conversation with a mapper.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest protocol version that the caller speaks.
    pub oldest: u8,
    /// Newest protocol version that the caller speaks.
    pub newest: u8,
    /// The name under which the caller is going to register, if it serves.
    pub key: Option<InstanceKey>,
}

/// What a worker says of itself once.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Registration {
    /// Its service and name.
    pub key: InstanceKey,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where senders reach it, best first; at most [`crate::limits::ENDPOINTS_MAX`].
    #[serde(deserialize_with = "bounded_list")]
    pub endpoints: Vec<Endpoint>,
    /// On which machine it runs.
    pub host: HostId,
    /// Its process id there.
    pub pid: u32,
    /// Its load now.
    pub load: Load,
    /// Why its last job failed, while it is set aside for that; at most
    /// [`crate::limits::ERROR_BYTES_MAX`]. Text from elsewhere: whoever shows it makes it harmless.
    #[serde(deserialize_with = "bounded_error")]
    pub error: Option<String>,
}

/// What a mapper answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum FromMapper {
    /// The message was of a protocol version that this mapper does not speak.
    WrongVersion {
        /// Oldest version that it does speak.
        oldest: u8,
        /// Newest version that it does speak.
        newest: u8,
    },
    /// Answers [`ToMapper::Hello`].
    Welcome(Welcome),
    /// The instance is listed.
    Registered {
        /// Which one.
        key: InstanceKey,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// The mapper does not know that instance: say HELLO and register again.
    Reregister,
    /// Another life of that name is listed and has the higher incarnation: stop.
    Replaced {
        /// Whose name it is.
        key: InstanceKey,
        /// The incarnation that was replaced.
        incarnation: Incarnation,
        /// The incarnation that is listed.
        by: Incarnation,
    },
    /// The instance is not listed, and registering again unchanged is no use.
    RegistrationRefused(RegistrationError),
    /// Answers [`ToMapper::Sync`].
    Snapshot {
        /// Of which service.
        service: Name,
        /// The state, or a part of it.
        part: SnapshotPart,
    },
    /// Answers [`ToMapper::List`], in the order of names.
    Services {
        /// The names.
        #[serde(deserialize_with = "bounded_list")]
        names: Vec<Name>,
        /// Whether there are more after the last.
        more: bool,
        /// What the mapper has refused since its start.
        refused: Refused,
        /// The services where most happens, at most [`crate::limits::ACTIVITIES_MAX`]; on the first page only.
        #[serde(deserialize_with = "bounded_list")]
        activity: Vec<Activity>,
    },
    /// Answers [`ToMapper::Keys`].
    Keys(KeyAnswer),
    /// To a worker, if everything is encrypted: whose connections it is to take from now on. After each
    /// WELCOME, and when that changes.
    Admit(Admission),
    /// To an instance: an operator wants it to finish its jobs and to end. It may be said several times.
    Drain {
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// Answers [`ToMapper::Drain`].
    DrainAsked(DrainAnswer),
}

/// What became of the wish that an instance should end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DrainAnswer {
    /// It was told. It leaves when it has finished.
    Told,
    /// It is not listed.
    Unknown,
    /// Whoever asks is no operator for its service.
    NotAllowed,
    /// It speaks JSON, in which a mapper says nothing that it was not asked for.
    CannotBeTold,
}

/// What happens in a service, besides what its instances say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activity {
    /// Which one. Nobody has to serve it.
    pub service: Name,
    /// Jobs that have waited at their senders for a while.
    pub waiting: u64,
    /// At so many senders.
    pub senders: u32,
    /// Jobs that ended in a second, done or failed, as a mean over the last beats.
    pub ended_per_s: f32,
}

/// What a mapper has refused since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Registrations: see [`RegistrationError`].
    pub registrations: u64,
    /// Messages that were none.
    pub messages: u64,
}

/// What the mapper dictates: both sides need no settings that must agree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// This life of the mapper.
    pub epoch: Epoch,
    /// It has started lately and does not know everybody yet: conclude nothing from absence.
    pub warming: bool,
    /// Longest silence that a worker should allow itself, in milliseconds.
    pub beat_ms: u32,
    /// Silence after which an instance is no longer listed, in milliseconds.
    pub expiry_ms: u32,
    /// Shortest time between two publications of changes, in milliseconds: reports that come more
    /// often are of no use.
    pub publish_ms: u32,
    /// Where it publishes. The host `*` means the host that the caller dialled.
    pub publish: Endpoint,
    /// The address at which it sees the caller, without port; empty if it does not know.
    pub observed: String,
    /// The highest incarnation that it lists for the name in HELLO.
    pub highest: Option<Incarnation>,
}

/// Why a registration was refused.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, thiserror::Error,
)]
pub enum RegistrationError {
    /// Mends itself when instances leave, or with another mapper.
    #[error("the mapper's registry is full")]
    RegistryFull,
    /// The clock of one of the two machines is wrong.
    #[error("the incarnation lies more than a day ahead of the mapper's clock: set the clocks")]
    IncarnationAhead,
    /// An instance that cannot be reached is of no use.
    #[error("an instance needs 1 to 4 endpoints, none of them a wildcard")]
    Endpoints,
    /// One connection may not fill the registry: use one for each process.
    #[error(
        "this connection has registered {} instances already",
        crate::limits::INSTANCES_PER_CONNECTION_MAX
    )]
    ConnectionFull,
    /// Another name, or another key.
    #[error("its key may not serve that service: `svcmap key list` has what it may")]
    NotAllowed,
    /// Nobody takes it away from who has it.
    #[error("an instance with another key has that name: choose another, or wait until it is gone")]
    NameTaken,
    /// Nobody fills the registry alone.
    #[error("its key has half of the mapper's registry already, and is not the only one")]
    ShareFull,
}

/// One instance as a mapper lists it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name within the service.
    pub instance: Name,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Where senders reach it, best first.
    #[serde(deserialize_with = "bounded_list")]
    pub endpoints: Vec<Endpoint>,
    /// On which machine it runs.
    pub host: HostId,
    /// Its process id there.
    pub pid: u32,
    /// Its newest load.
    pub load: Load,
    /// How long ago the mapper heard that, in milliseconds.
    pub age_ms: u32,
    /// What its registration says.
    #[serde(deserialize_with = "bounded_error")]
    pub error: Option<String>,
    /// Who it is, if it is known by a key: whoever dials it speaks with nobody else.
    pub key: Option<PublicKey>,
}

/// What a mapper publishes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Publication {
    /// The mapper is alive.
    Pulse {
        /// Which life of it. Only a reason to say HELLO: the epoch to believe is WELCOME's.
        epoch: Epoch,
        /// Instances that it lists: after a restart they spread their registrations accordingly.
        instances: u32,
    },
    /// The full state of a service, or a part of it.
    Snapshot(SnapshotPart),
    /// What changed in a service, or a part of it.
    Changes(ChangesPart),
}

/// What a mapper knows of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceStanding {
    /// It has never heard of it, or has forgotten it.
    #[default]
    Unheard,
    /// Somebody serves it, or did until lately.
    Heard,
    /// Whoever asks has nothing to do with it.
    NotAllowed,
}

/// A part of the full state of a service. It means something once all parts are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SnapshotPart {
    /// Which life of the mapper.
    pub epoch: Epoch,
    /// The service's newest revision.
    pub revision: u64,
    /// Whether the mapper is warming: who is missing here may still be alive.
    pub warming: bool,
    /// What it knows of the service.
    pub standing: ServiceStanding,
    /// This part's number, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// The instances of this part.
    #[serde(deserialize_with = "bounded_list")]
    pub entries: Vec<Entry>,
}

/// A part of what changed in a service. It is applied once all parts are there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChangesPart {
    /// Which life of the mapper.
    pub epoch: Epoch,
    /// The revision to which these changes apply.
    pub previous: u64,
    /// The revision to which they lead.
    pub revision: u64,
    /// This part's number, from 0.
    pub part: u16,
    /// How many parts there are.
    pub parts: u16,
    /// The changes of this part, one at most for each instance.
    #[serde(deserialize_with = "bounded_list")]
    pub changes: Vec<Change>,
}

/// One change in a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Change {
    /// The instance is new, or anything about it may have changed.
    Put(Entry),
    /// Only its load changed.
    Load {
        /// Whose load.
        instance: Name,
        /// Which life of it.
        incarnation: Incarnation,
        /// Its newest load.
        load: Load,
        /// How long ago the mapper heard that, in milliseconds.
        age_ms: u32,
    },
    /// It left, by its own or its supervisor's word: a fact.
    Left {
        /// Who left.
        instance: Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// This mapper no longer hears it: an opinion.
    Expired {
        /// Who is silent.
        instance: Name,
        /// Which life of it.
        incarnation: Incarnation,
    },
}

impl Change {
    /// Which instance changed.
    pub fn instance(&self) -> &Name {
        match self {
            Change::Put(entry) => &entry.instance,
            Change::Load { instance, .. }
            | Change::Left { instance, .. }
            | Change::Expired { instance, .. } => instance,
        }
    }
}

/// The topic of the mapper's pulse. No service can have it: no name is empty.
pub const PULSE_TOPIC: &[u8] = b"/";

/// The topic of a service: its name and a byte that no name contains, so that subscribing to
/// `resize` does not bring `resize-2`.
pub fn topic(service: &Name) -> Vec<u8> {
    let mut topic = Vec::with_capacity(service.as_str().len() + 1);
    topic.extend_from_slice(service.as_str().as_bytes());
    topic.push(b'/');
    topic
}

/// The service of a topic; `None` for [`PULSE_TOPIC`] and anything that is no topic.
pub fn topic_service(topic: &[u8]) -> Option<Name> {
    let (last, name) = topic.split_last()?;
    (*last == b'/').then(|| std::str::from_utf8(name).ok()?.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_are_not_prefixes_of_each_other() {
        let [short, long] = ["resize", "resize-2"].map(|n| topic(&n.parse().unwrap()));
        assert!(!long.starts_with(&short));
        assert_eq!(topic_service(&short).unwrap().as_str(), "resize");
        assert_eq!(topic_service(PULSE_TOPIC), None);
        assert_eq!(topic_service(b"resize"), None);
        assert_eq!(topic_service(b""), None);
    }
}
