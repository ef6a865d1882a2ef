//! The wire format byte by byte.

mod properties;
mod sizes;

use serde::de::{Error as _, value};

use super::*;
use crate::control::*;
use crate::jobs::*;
use crate::keys::PublicKey;
use crate::limits::*;
use crate::load::{Load, Share, State};
use crate::names::*;
use crate::payload::Payloads;
use crate::principals::{Principal, Role};

/// What messages are filled with: for the golden tables 1, 2, 3 and so on, so that no two fields
/// can change places unnoticed; for properties, anything.
#[derive(Clone, Debug)]
struct Filling {
    key: InstanceKey,
    life: Incarnation,
    endpoint: Endpoint,
    /// Whether options are there and flags are set.
    full: bool,
    list_length: usize,
    numbers: Vec<u64>,
    next: usize,
}

impl Filling {
    fn golden() -> Self {
        Self {
            key: InstanceKey { service: name("resize"), instance: name("a-1") },
            life: Incarnation(0x1234),
            endpoint: "tcp://h:1".parse().unwrap(),
            full: true,
            list_length: 1,
            numbers: (1..100).collect(),
            next: 0,
        }
    }

    /// Begins with the first number again, so that it is the same in each message.
    fn load(&self) -> Load {
        let mut f = Self { next: 0, ..self.clone() };
        #[rustfmt::skip]
        let load = Load {
            sequence: f.number(), state: if f.full { State::Draining } else { State::Ready },
            queued: f.small(), queued_high: f.small(), queued_low: f.small(), running: f.small(), promised: f.small(), slots: f.small(),
            concurrency: f.small(), mean_service_us: f.number(), accepted: f.number(),
            done: f.number(), failed: f.number(), rejected: f.number(),
            turned_away: f.number(), oldest_queued_ms: f.small(), since_finish_ms: f.full.then(|| f.small()),
            share: f.full.then(|| Share::new(0.5).unwrap()), failing: f.small() as u16,
        };
        load
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.numbers[(self.next - 1) % self.numbers.len()]
    }

    fn small(&mut self) -> u32 {
        self.number() as u32
    }

    fn byte(&mut self) -> u8 {
        self.number() as u8
    }

    fn attempt(&mut self) -> AttemptId {
        AttemptId { job: self.number(), attempt: self.small() }
    }

    fn list<T>(&mut self, item: fn(&mut Self) -> T) -> Vec<T> {
        (0..self.list_length).map(|_| item(self)).collect()
    }

    fn slot(&mut self) -> OfferedSlot {
        OfferedSlot {
            instance: self.key.instance.clone(),
            incarnation: self.life,
            offer: OfferId(self.number()),
            lifetime_ms: self.small(),
            payload_bytes_max: self.small(),
        }
    }

    fn grant(&mut self) -> Grant {
        let (credits, lifetime_ms) = (self.small(), self.small());
        Grant { credits, lifetime_ms, payload_bytes_max: self.small() }
    }

    fn principal(&mut self) -> Principal {
        Principal {
            name: self.key.instance.clone(),
            role: Role::Worker,
            services: vec!["r*".parse().unwrap()],
            key: PublicKey([0x70; 32]),
            ends_at_unix_s: Some(self.number()),
        }
    }

    fn snapshot_part(&mut self) -> SnapshotPart {
        SnapshotPart {
            epoch: Epoch(self.number()),
            revision: self.number(),
            warming: self.full,
            standing: if self.full { ServiceStanding::Heard } else { ServiceStanding::Unheard },
            part: self.small() as u16,
            parts: self.small() as u16,
            entries: self.list(Self::entry),
        }
    }

    fn entry(&mut self) -> Entry {
        Entry {
            instance: self.key.instance.clone(),
            incarnation: self.life,
            endpoints: vec![self.endpoint.clone(); self.list_length],
            host: HostId(self.number().into()),
            pid: self.small(),
            load: self.load(),
            age_ms: self.small(),
            error: self.full.then(|| "gone".to_owned()),
            key: self.full.then_some(PublicKey([0x70; 32])),
        }
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

trait Message: Serialize + DeserializeOwned + PartialEq + fmt::Debug {}
impl<T: Serialize + DeserializeOwned + PartialEq + fmt::Debug> Message for T {}

/// A message and its bytes, for the golden filling.
type Golden<T> = (fn(&mut Filling) -> T, &'static str);

#[rustfmt::skip]
const TO_WORKER: &[Golden<ToWorker>] = &[
    (|f| ToWorker::Hello(SenderHello {
        oldest: f.byte(), newest: f.byte(), sender: SenderId(f.number().into()),
        connection: f.small(), key: f.key.clone(), incarnation: f.life,
        received_outcomes: f.number(), payload_bytes_max: f.small(), takes_credits: f.full,
        open: f.list(|f| OpenAttempt {
            number: f.number(), attempt: f.attempt(), cancelled: f.full,
        }),
    }), "02 00 01 02 03 04 key life 05 06 01 01 07 08 09 01"),
    (|f| ToWorker::Jobs(JobBatch {
        first_number: f.number(), received_outcomes: f.number(), share: f.small(),
        share_priority: Priority::Low, jobs: f.list(|f| JobHeader {
            attempt: f.attempt(), deadline_ms: Some(f.small()), run_limit_ms: Some(f.small()),
            claim: Claim::Credit, redirects_left: f.byte(), waited_us: f.number(), detachment: if f.full { Detachment::Detached } else { Detachment::Attached },
            priority: Priority::High, metadata_bytes: 0, payload_bytes: 0,
        }),
        payloads: Payloads::default(),
    }), "02 01 01 02 03 00 01 04 05 01 06 01 07 01 08 09 01 02 00 00"),
    (|f| ToWorker::Cancel { attempt: f.attempt() }, "02 02 01 02"),
    (|f| ToWorker::Ping { received_outcomes: f.number() }, "02 03 01"),
    (|f| ToWorker::Received { outcomes: f.number() }, "02 04 01"),
    (|f| ToWorker::Ask(Demand {
        share: f.small(), waited_us: f.number(), payload_bytes: f.small(), pinned: f.full,
        priority: Priority::High,
    }), "02 05 01 02 03 01 02"),
    (|f| ToWorker::Return(Claim::Offer(OfferId(f.number()))), "02 06 02 01"),
    (|f| ToWorker::Offer(f.slot()), "02 07 slot 01 02 03"),
    (|_| ToWorker::Goodbye, "02 08"),
    (|f| ToWorker::TakeBack { attempt: f.attempt() }, "02 09 01 02"),
];

#[rustfmt::skip]
const FROM_WORKER: &[Golden<FromWorker>] = &[
    (|f| FromWorker::WrongVersion { oldest: f.byte(), newest: f.byte() }, "02 00 01 02"),
    (|f| FromWorker::Welcome {
        connection: f.small(), received_jobs: f.number(), payload_bytes_max: f.small(),
        load: f.load(), forgotten: f.list(Filling::attempt),
    }, "02 01 01 02 03 load 01 04 05"),
    (|f| FromWorker::NotHere { key: f.key.clone(), incarnation: f.life }, "02 02 key life"),
    (|_| FromWorker::HelloWanted, "02 03"),
    (|f| FromWorker::Outcomes(OutcomeBatch {
        first_number: f.number(), received_jobs: f.number(), load: f.load(),
        grant: f.full.then(|| f.grant()),
        outcomes: f.list(|f| OutcomeHeader {
            attempt: f.attempt(), verdict: Verdict::Rejected(Reason::Draining),
            residence_us: f.number(), ran_us: f.number(), payload_bytes: 0,
        }),
        payloads: Payloads::default(),
    }), "02 04 01 02 load 01 03 04 05 01 06 07 02 02 08 09 00"),
    (|f| FromWorker::Pong { received_jobs: f.number(), load: f.load() }, "02 05 01 load"),
    (|f| FromWorker::Grant { grant: f.grant(), received_jobs: f.number(), load: f.load() },
        "02 06 01 02 03 04 load"),
    (|f| FromWorker::Offered(f.slot()), "02 07 slot 01 02 03"),
    (|_| FromWorker::Recall, "02 08"),
    (|f| FromWorker::Declined(OfferId(f.number())), "02 09 01"),
    (|_| FromWorker::TurnedAway, "02 0a"),
    (|f| FromWorker::Progress(f.list(|f| ProgressReport {
        attempt: f.attempt(), text: "40 %".to_owned(),
    })), "02 0b 01 01 02 04 34 30 20 25"),
];

#[rustfmt::skip]
const TO_MAPPER: &[Golden<ToMapper>] = &[
    (|f| ToMapper::Hello(Hello {
        oldest: f.byte(), newest: f.byte(), key: f.full.then(|| f.key.clone()),
    }), "02 00 01 02 01 key"),
    (|f| ToMapper::Register(Registration {
        key: f.key.clone(), incarnation: f.life, endpoints: vec![f.endpoint.clone()],
        host: HostId(f.number().into()), pid: f.small(), load: f.load(),
        error: f.full.then(|| "gone".to_owned()),
    }), "02 01 key life 01 'tcp://h:1 01 02 load 01 'gone"),
    (|f| ToMapper::Report { key: f.key.clone(), incarnation: f.life, load: f.load() },
        "02 02 key life load"),
    (|f| ToMapper::Leave { key: f.key.clone(), incarnation: f.life }, "02 03 key life"),
    (|f| ToMapper::Sync { service: f.key.service.clone() }, "02 04 'resize"),
    (|f| ToMapper::List { after: f.full.then(|| f.key.service.clone()) }, "02 05 01 'resize"),
    (|f| ToMapper::Keys(KeyRequest::Rotate {
        name: f.key.instance.clone(), key: PublicKey([0x70; 32]), keep_s: f.small(),
    }), "02 06 03 'a-1 public 01"),
    (|f| ToMapper::Drain { key: f.key.clone() }, "02 07 key"),
    (|f| ToMapper::Waiting { jobs: f.list(|f| (f.key.service.clone(), f.small())) },
        "02 08 01 'resize 01"),
];

#[rustfmt::skip]
const FROM_MAPPER: &[Golden<FromMapper>] = &[
    (|f| FromMapper::WrongVersion { oldest: f.byte(), newest: f.byte() }, "02 00 01 02"),
    (|f| FromMapper::Welcome(Welcome {
        epoch: Epoch(f.number()), warming: f.full, beat_ms: f.small(), expiry_ms: f.small(),
        publish_ms: f.small(), publish: f.endpoint.clone(), observed: "::1".to_owned(),
        highest: f.full.then_some(f.life),
    }), "02 01 01 01 02 03 04 'tcp://h:1 '::1 01 life"),
    (|f| FromMapper::Registered { key: f.key.clone(), incarnation: f.life }, "02 02 key life"),
    (|_| FromMapper::Reregister, "02 03"),
    (|f| FromMapper::Replaced {
        key: f.key.clone(), incarnation: f.life, by: Incarnation(f.number()),
    }, "02 04 key life 01"),
    (|_| FromMapper::RegistrationRefused(RegistrationError::Endpoints), "02 05 02"),
    (|f| FromMapper::Snapshot { service: f.key.service.clone(), part: f.snapshot_part() },
        "02 06 'resize 01 02 01 01 03 04 01 entry 05 06 load 07 01 'gone 01 public"),
    (|f| FromMapper::Services { names: f.list(|f| f.key.service.clone()), more: f.full,
         refused: Refused { registrations: f.number(), messages: f.number() },
         activity: f.list(|f| Activity { service: f.key.service.clone(), waiting: f.number(),
             senders: f.small(), ended_per_s: 0.5 }) },
         "02 07 01 'resize 01 01 02 01 'resize 03 04 00 00 00 3f"),
    (|f| FromMapper::Keys(KeyAnswer::Listed { principals: f.list(Filling::principal), more: f.full }),
        "02 08 00 01 principal 01 01"),
    (|f| FromMapper::Admit(Admission {
        keys: f.list(|_| PublicKey([0x70; 32])), revoked: f.list(|_| PublicKey([0x70; 32])),
    }), "02 09 01 public 01 public"),
    (|f| FromMapper::Drain { incarnation: f.life }, "02 0a life"),
    (|_| FromMapper::DrainAsked(DrainAnswer::CannotBeTold), "02 0b 03"),
];

#[rustfmt::skip]
const PUBLICATION: &[Golden<Publication>] = &[
    (|f| Publication::Pulse { epoch: Epoch(f.number()), instances: f.small() }, "02 00 01 02"),
    (|f| Publication::Snapshot(f.snapshot_part()), "02 01 01 02 01 01 03 04 01 entry 05 06 load 07 01 'gone 01 public"),
    (|f| Publication::Changes(ChangesPart {
        epoch: Epoch(f.number()), previous: f.number(), revision: f.number(),
        part: f.small() as u16, parts: f.small() as u16,
        changes: CHANGE.iter().map(|(change, _)| change(f)).collect(),
    }), "02 02 01 02 03 04 05 04 \
         00 entry 06 07 load 08 01 'gone 01 public 01 'a-1 life load 09 02 'a-1 life 03 'a-1 life"),
];

#[rustfmt::skip]
const CHANGE: &[Golden<Change>] = &[
    (|f| Change::Put(f.entry()), "02 00 entry 01 02 load 03 01 'gone 01 public"),
    (|f| Change::Load {
        instance: f.key.instance.clone(), incarnation: f.life, load: f.load(), age_ms: f.small(),
    }, "02 01 'a-1 life load 01"),
    (|f| Change::Left { instance: f.key.instance.clone(), incarnation: f.life }, "02 02 'a-1 life"),
    (|f| Change::Expired { instance: f.key.instance.clone(), incarnation: f.life },
        "02 03 'a-1 life"),
];

/// Reads the tables' right side: `'text` is text behind its length, a word is what several
/// messages contain, all else is hex.
fn bytes(golden: &str) -> Vec<u8> {
    let part = |part: &str| match (part, part.strip_prefix('\'')) {
        (_, Some(text)) => [&[text.len() as u8], text.as_bytes()].concat(),
        ("key", _) => bytes("'resize 'a-1"),
        ("life", _) => bytes("b4 24"),
        ("load", _) => bytes(
            "01 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 01 10 01 00 00 00 00 00 00 e0 3f 00 11",
        ),
        ("entry", _) => bytes("'a-1 life 01 'tcp://h:1"),
        ("slot", _) => bytes("'a-1 life"),
        ("public", _) => vec![0x70; 32],
        ("principal", _) => bytes("'a-1 01 01 'r* public 01"),
        (hex, _) => vec![u8::from_str_radix(hex, 16).unwrap()],
    };
    golden.split_whitespace().flat_map(part).collect()
}

/// Asks a type for the names of its variants: serde tells them to whoever deserialises it.
struct VariantNames;

impl<'de> Deserializer<'de> for VariantNames {
    type Error = value::Error;

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, value::Error> {
        Err(value::Error::custom(variants.join(" ")))
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, value::Error> {
        Err(value::Error::custom("no enum"))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}

fn variants<T: Message>() -> String {
    T::deserialize(VariantNames).unwrap_err().to_string()
}

fn check<T: Message>(table: &[Golden<T>]) {
    let variants = variants::<T>();
    assert_eq!(variants.split(' ').count(), table.len(), "a line for each of {variants}");
    for ((message, golden), variant) in table.iter().zip(variants.split(' ')) {
        let (message, frame) = (message(&mut Filling::golden()), bytes(golden));
        assert!(format!("{message:?}").starts_with(variant), "{message:?} where {variant} belongs");
        assert_eq!(format!("{:02x?}", encode(&message)), format!("{frame:02x?}"), "{message:?}");
        assert_eq!(decode(&frame), Ok(message));
    }
}

#[test]
fn the_wire_format_stays_as_it_is() {
    check(TO_WORKER);
    check(FROM_WORKER);
    check(TO_MAPPER);
    check(FROM_MAPPER);
    check(PUBLICATION);
    check(CHANGE);
    // The byte of what carries nothing else is its place here.
    assert_eq!(variants::<Role>(), "client worker operator");
    assert_eq!(variants::<ServiceStanding>(), "Unheard Heard NotAllowed");
    assert_eq!(variants::<KeyRequest>(), "List Add Revoke Rotate");
    assert_eq!(variants::<KeyAnswer>(), "Listed Done Refused");
    assert_eq!(
        variants::<KeyRefusal>(),
        "NoKeys NotOperator Beyond Oneself Taken Revoked Unknown LastOperator Rotating Full NotKept"
    );
    assert_eq!(variants::<State>(), "Ready Draining Failing");
    assert_eq!(variants::<Verdict>(), "Done Failed Rejected Abandoned Accepted HandedOver");
    assert_eq!(variants::<Claim>(), "Nothing Credit Offer");
    assert_eq!(
        variants::<Reason>(),
        "Full NoCredit Draining Expired Cancelled TooLarge NoSuchService NotHere NotJson \
         Unreachable NoMapper CannotStart TooManyServices NotAllowed"
    );
    assert_eq!(
        variants::<RegistrationError>(),
        "RegistryFull IncarnationAhead Endpoints ConnectionFull NotAllowed NameTaken ShareFull"
    );
}

/// A message of some type as a frame, and how a frame of that type is read and written again.
struct Sample {
    message: String,
    frame: Vec<u8>,
    again: fn(&[u8]) -> Result<Vec<u8>, DecodeError>,
}

/// Every message with that filling, each of which must survive the way there and back.
fn samples(filling: &Filling) -> Vec<Sample> {
    fn of<T: Message>(table: &[Golden<T>], filling: &Filling, samples: &mut Vec<Sample>) {
        for (message, _) in table {
            let message = message(&mut filling.clone());
            let frame = encode(&message);
            assert_eq!(decode::<T>(&frame).as_ref(), Ok(&message));
            let again = |frame: &[u8]| decode::<T>(frame).map(|message| encode(&message));
            samples.push(Sample { message: format!("{message:?}"), frame, again });
        }
    }
    let mut samples = Vec::new();
    of(TO_WORKER, filling, &mut samples);
    of(FROM_WORKER, filling, &mut samples);
    of(TO_MAPPER, filling, &mut samples);
    of(FROM_MAPPER, filling, &mut samples);
    of(PUBLICATION, filling, &mut samples);
    samples
}
