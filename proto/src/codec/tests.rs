//! The wire format byte by byte, and what decoding does with frames that nobody meant well.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use serde::de::{Error as _, value};

use super::*;
use crate::control::*;
use crate::jobs::*;
use crate::limits::*;
use crate::load::{Load, Share, State};
use crate::names::*;

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
            queued: f.small(), running: f.small(), promised: f.small(), slots: f.small(),
            concurrency: f.small(), mean_service_us: f.number(), accepted: f.number(),
            done: f.number(), failed: f.number(), rejected: f.number(),
            oldest_queued_ms: f.small(), since_finish_ms: f.full.then(|| f.small()),
            share: f.full.then(|| Share::new(0.5).unwrap()),
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

    fn snapshot_part(&mut self) -> SnapshotPart {
        SnapshotPart {
            epoch: Epoch(self.number()),
            revision: self.number(),
            warming: self.full,
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
        open: f.list(|f| OpenAttempt { number: f.number(), attempt: f.attempt() }),
    }), "01 00 01 02 03 04 key life 05 06 01 01 07 08 09"),
    (|f| ToWorker::Job(JobHeader {
        number: f.number(), attempt: f.attempt(), deadline_ms: f.small(),
        received_outcomes: f.number(), claim: Claim::Credit, moves_left: f.byte(),
        waited_us: f.number(), share: f.small(),
    }), "01 01 01 02 03 04 05 01 06 07 08"),
    (|f| ToWorker::Cancel { attempt: f.attempt() }, "01 02 01 02"),
    (|f| ToWorker::Ping { received_outcomes: f.number() }, "01 03 01"),
    (|f| ToWorker::Received { outcomes: f.number() }, "01 04 01"),
    (|f| ToWorker::Ask(Demand {
        share: f.small(), waited_us: f.number(), payload_bytes: f.small(), pinned: f.full,
    }), "01 05 01 02 03 01"),
    (|f| ToWorker::Return(Claim::Offer(OfferId(f.number()))), "01 06 02 01"),
    (|f| ToWorker::Offer(f.slot()), "01 07 slot 01 02 03"),
];

#[rustfmt::skip]
const FROM_WORKER: &[Golden<FromWorker>] = &[
    (|f| FromWorker::WrongVersion { oldest: f.byte(), newest: f.byte() }, "01 00 01 02"),
    (|f| FromWorker::Welcome {
        connection: f.small(), received_jobs: f.number(), payload_bytes_max: f.small(),
        load: f.load(), forgotten: f.list(Filling::attempt),
    }, "01 01 01 02 03 load 01 04 05"),
    (|f| FromWorker::NotHere { key: f.key.clone(), incarnation: f.life }, "01 02 key life"),
    (|_| FromWorker::HelloWanted, "01 03"),
    (|f| FromWorker::Outcome(OutcomeHeader {
        number: f.number(), attempt: f.attempt(), verdict: Verdict::Rejected(Reason::Draining),
        received_jobs: f.number(), load: f.load(), here_us: f.number(),
        grant: f.full.then(|| f.grant()),
    }), "01 04 01 02 03 02 02 04 load 05 01 06 07 08"),
    (|f| FromWorker::Pong { received_jobs: f.number(), load: f.load() }, "01 05 01 load"),
    (|f| FromWorker::Grant { grant: f.grant(), received_jobs: f.number(), load: f.load() },
        "01 06 01 02 03 04 load"),
    (|f| FromWorker::Offered(f.slot()), "01 07 slot 01 02 03"),
    (|_| FromWorker::Recall, "01 08"),
    (|f| FromWorker::Declined(OfferId(f.number())), "01 09 01"),
];

#[rustfmt::skip]
const TO_MAPPER: &[Golden<ToMapper>] = &[
    (|f| ToMapper::Hello(Hello {
        oldest: f.byte(), newest: f.byte(), key: f.full.then(|| f.key.clone()),
    }), "01 00 01 02 01 key"),
    (|f| ToMapper::Register(Registration {
        key: f.key.clone(), incarnation: f.life, endpoints: vec![f.endpoint.clone()],
        host: HostId(f.number().into()), pid: f.small(), load: f.load(),
    }), "01 01 key life 01 'tcp://h:1 01 02 load"),
    (|f| ToMapper::Report { key: f.key.clone(), incarnation: f.life, load: f.load() },
        "01 02 key life load"),
    (|f| ToMapper::Leave { key: f.key.clone(), incarnation: f.life }, "01 03 key life"),
    (|f| ToMapper::Sync { service: f.key.service.clone() }, "01 04 'resize"),
    (|f| ToMapper::List { after: f.full.then(|| f.key.service.clone()) }, "01 05 01 'resize"),
];

#[rustfmt::skip]
const FROM_MAPPER: &[Golden<FromMapper>] = &[
    (|f| FromMapper::WrongVersion { oldest: f.byte(), newest: f.byte() }, "01 00 01 02"),
    (|f| FromMapper::Welcome(Welcome {
        epoch: Epoch(f.number()), warming: f.full, beat_ms: f.small(), expiry_ms: f.small(),
        publish_ms: f.small(), publish: f.endpoint.clone(), observed: "::1".to_owned(),
        highest: f.full.then_some(f.life),
    }), "01 01 01 01 02 03 04 'tcp://h:1 '::1 01 life"),
    (|f| FromMapper::Registered { key: f.key.clone(), incarnation: f.life }, "01 02 key life"),
    (|_| FromMapper::Reregister, "01 03"),
    (|f| FromMapper::Replaced {
        key: f.key.clone(), incarnation: f.life, by: Incarnation(f.number()),
    }, "01 04 key life 01"),
    (|_| FromMapper::RegistrationRefused(RegistrationError::Endpoints), "01 05 02"),
    (|f| FromMapper::Snapshot { service: f.key.service.clone(), part: f.snapshot_part() },
        "01 06 'resize 01 02 01 03 04 01 entry 05 06 load 07"),
    (|f| FromMapper::Services { names: f.list(|f| f.key.service.clone()), more: f.full },
        "01 07 01 'resize 01"),
];

#[rustfmt::skip]
const PUBLICATION: &[Golden<Publication>] = &[
    (|f| Publication::Pulse { epoch: Epoch(f.number()), instances: f.small() }, "01 00 01 02"),
    (|f| Publication::Snapshot(f.snapshot_part()), "01 01 01 02 01 03 04 01 entry 05 06 load 07"),
    (|f| Publication::Changes(ChangesPart {
        epoch: Epoch(f.number()), previous: f.number(), revision: f.number(),
        part: f.small() as u16, parts: f.small() as u16,
        changes: CHANGE.iter().map(|(change, _)| change(f)).collect(),
    }), "01 02 01 02 03 04 05 04 \
         00 entry 06 07 load 08 01 'a-1 life load 09 02 'a-1 life 03 'a-1 life"),
];

#[rustfmt::skip]
const CHANGE: &[Golden<Change>] = &[
    (|f| Change::Put(f.entry()), "01 00 entry 01 02 load 03"),
    (|f| Change::Load {
        instance: f.key.instance.clone(), incarnation: f.life, load: f.load(), age_ms: f.small(),
    }, "01 01 'a-1 life load 01"),
    (|f| Change::Left { instance: f.key.instance.clone(), incarnation: f.life }, "01 02 'a-1 life"),
    (|f| Change::Expired { instance: f.key.instance.clone(), incarnation: f.life },
        "01 03 'a-1 life"),
];

/// Reads the tables' right side: `'text` is text behind its length, a word is what several
/// messages contain, all else is hex.
fn bytes(golden: &str) -> Vec<u8> {
    let part = |part: &str| match (part, part.strip_prefix('\'')) {
        (_, Some(text)) => [&[text.len() as u8], text.as_bytes()].concat(),
        ("key", _) => bytes("'resize 'a-1"),
        ("life", _) => bytes("b4 24"),
        ("load", _) => {
            bytes("01 01 02 03 04 05 06 07 08 09 0a 0b 0c 01 0d 01 00 00 00 00 00 00 e0 3f")
        }
        ("entry", _) => bytes("'a-1 life 01 'tcp://h:1"),
        ("slot", _) => bytes("'a-1 life"),
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
    assert_eq!(variants::<State>(), "Ready Draining");
    assert_eq!(variants::<Verdict>(), "Done Failed Rejected Abandoned Accepted HandedOver");
    assert_eq!(variants::<Claim>(), "Nothing Credit Offer");
    assert_eq!(
        variants::<Reason>(),
        "Full NoCredit Draining Expired Cancelled TooLarge NoSuchService NotHere NotJson"
    );
    assert_eq!(variants::<RegistrationError>(), "RegistryFull IncarnationAhead Endpoints");
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

fn names() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9._-]{1,64}".prop_map(|text| name(&text))
}

prop_compose! {
    fn fillings()(
        service in names(),
        instance in names(),
        endpoint in "tcp://([A-Za-z0-9._-]{1,253}|\\[::1\\]|\\*):([0-9]{1,4}|\\*)",
        life: u64,
        full: bool,
        list_length in 0..4_usize,
        // Short and long ones alike.
        numbers in vec((any::<u64>(), 0..64).prop_map(|(number, shift)| number >> shift), 1..60),
    ) -> Filling {
        let key = InstanceKey { service, instance };
        let (life, endpoint) = (Incarnation(life), endpoint.parse().unwrap());
        Filling { key, life, endpoint, full, list_length, numbers, next: 0 }
    }
}

proptest! {
    #[test]
    fn messages_survive_the_way_there_and_back(filling in fillings()) {
        samples(&filling);
    }

    #[test]
    fn a_message_ends_where_it_ends(
        filling in fillings(), cut: Index, more in vec(any::<u8>(), 1..20),
    ) {
        for Sample { message, frame, again } in samples(&filling) {
            let cut = cut.index(frame.len());
            let error = if cut == 0 { DecodeError::Empty } else { DecodeError::Malformed };
            prop_assert_eq!(again(&frame[..cut]), Err(error), "{} of {}", cut, message);
            let longer = [frame, more.clone()].concat();
            prop_assert_eq!(again(&longer), Err(DecodeError::TrailingBytes), "{}", message);
        }
    }

    #[test]
    fn a_changed_message_is_refused_or_is_a_message(
        filling in fillings(), changes in vec(any::<(Index, u8)>(), 1..4),
    ) {
        for Sample { mut frame, again, .. } in samples(&filling) {
            for (index, byte) in &changes {
                let index = index.index(frame.len());
                frame[index] = *byte;
            }
            if let Ok(frame) = again(&frame) {
                prop_assert_eq!(again(&frame), Ok(frame.clone()));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_a_message(bytes in vec(any::<u8>(), 0..300), kind in 0..9_u8) {
        for Sample { again, .. } in samples(&Filling::golden()) {
            for frame in [bytes.clone(), [&[VERSION, kind], &bytes[..]].concat()] {
                if let Ok(frame) = again(&frame) {
                    prop_assert_eq!(again(&frame), Ok(frame.clone()));
                }
            }
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number(filling in fillings(), version: u8) {
        prop_assume!(version != VERSION);
        for Sample { message, mut frame, again } in samples(&filling) {
            frame[0] = version;
            // The answer to a wrong version, or what cannot be told from it.
            let readable = frame.len() == 4 && frame[1] == 0;
            if !readable {
                prop_assert_eq!(again(&frame), Err(DecodeError::Version(version)), "{}", message);
            }
        }
        let (oldest, newest) = (3, 200);
        let frame = [version, 0, oldest, newest];
        prop_assert_eq!(decode(&frame), Ok(FromWorker::WrongVersion { oldest, newest }));
        prop_assert_eq!(decode(&frame), Ok(FromMapper::WrongVersion { oldest, newest }));
    }

    #[test]
    fn parts_keep_everything_in_order_within_their_limits(
        runs in vec((0..3_usize, 0..6000_usize), 0..12),
    ) {
        // Runs of equally long items: a few long ones, or many short ones.
        let run = |(kind, n)| match kind { 0 => vec![vec![0; n]; 20], _ => vec![vec![1; kind]; n] };
        let items: Vec<Vec<u8>> = runs.into_iter().flat_map(run).collect();
        let parts = into_parts(items.clone());
        prop_assert_eq!(parts.concat(), items);
        prop_assert!(!parts.is_empty(), "no items make one empty part");
        let bytes_of = |item: &Vec<u8>| encode(item).len() - 1;
        let bytes: Vec<usize> = parts.iter().map(|p| p.iter().map(bytes_of).sum()).collect();
        for (part, bytes) in parts.iter().zip(&bytes) {
            prop_assert!(*bytes <= PART_BYTES_MAX && part.len() <= LIST_MAX);
            prop_assert!(!part.is_empty() || parts.len() == 1);
        }
        for (index, next) in parts.iter().enumerate().skip(1) {
            let full = bytes[index - 1] + bytes_of(&next[0]) > PART_BYTES_MAX;
            prop_assert!(full || parts[index - 1].len() == LIST_MAX, "a part too many");
        }
    }

    #[test]
    fn a_value_survives_as_a_payload(value: (String, Vec<Option<i64>>), cut: Index, more: u8) {
        let mut payload = encode_value(&value).unwrap();
        prop_assert_eq!(decode_value(&payload), Ok(value));
        type Value = (String, Vec<Option<i64>>);
        prop_assert!(decode_value::<Value>(&payload[..cut.index(payload.len())]).is_err());
        payload.push(more);
        prop_assert!(decode_value::<Value>(&payload).is_err());
    }
}

/// Why decoding these messages fails, each of which has a list of so many of the shortest items.
fn errors_of_lists(n: usize) -> [Option<DecodeError>; 6] {
    fn error<T: Message>(frame: Vec<u8>) -> Option<DecodeError> {
        decode::<T>(&frame).err()
    }
    let list = |before: &str, item: &str, after: &str| {
        [bytes(before), encode(&n).split_off(1), bytes(item).repeat(n), bytes(after)].concat()
    };
    let load = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
    let (of_registration, of_entry) = (format!("0 0 {load}"), format!("0 0 {load} 0"));
    [
        error::<ToWorker>(list("1 0 1 1 1 1 key life 0 0 0", "0 0 0", "")),
        error::<FromWorker>(list(&format!("1 1 1 2 3 {load}"), "0 0", "")),
        error::<ToMapper>(list("1 1 key life", "'tcp://h:1", &of_registration)),
        error::<FromMapper>(list("1 7", "'a", "0")),
        error::<Publication>(list("1 1 0 0 0 0 0 1 'a life", "'tcp://h:1", &of_entry)),
        error::<Publication>(list("1 2 0 0 0 0 0", "2 'a 0", "")),
    ]
}

#[test]
fn every_list_has_its_limit() {
    assert_eq!(errors_of_lists(LIST_MAX), [None; 6]);
    assert_eq!(errors_of_lists(LIST_MAX + 1), [Some(DecodeError::Malformed); 6]);
}

/// Tells of far more items than come.
struct Announced(usize, std::vec::IntoIter<u64>);

impl Iterator for Announced {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.1.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

#[test]
fn a_list_takes_the_room_of_what_came_and_not_of_what_was_announced() {
    for announced in [1000, 1 << 32, usize::MAX] {
        let list = Announced(announced, vec![7, 8, 9].into_iter());
        let items: Vec<u64> = bounded_list(value::SeqDeserializer::<_, value::Error>::new(list))
            .expect("three items");
        assert_eq!(items, [7, 8, 9]);
        assert!(items.capacity() < 10, "room for {} items", items.capacity());
    }
    let mut left = 2 * LIST_MAX;
    let many = std::iter::repeat_n(7_u64, left).inspect(|_| left -= 1);
    assert!(bounded_list::<_, u64>(value::SeqDeserializer::<_, value::Error>::new(many)).is_err());
    assert_eq!(left, LIST_MAX - 1, "it is not read to its end");
    let of_names = [bytes("01 07"), encode(&u64::MAX).split_off(1)].concat();
    assert_eq!(decode::<FromMapper>(&of_names), Err(DecodeError::Malformed));
}

#[test]
fn a_frame_has_its_limit() {
    let FromMapper::Welcome(welcome) = FROM_MAPPER[1].0(&mut Filling::golden()) else {
        unreachable!()
    };
    let frame = |bytes: usize| {
        encode(&FromMapper::Welcome(Welcome { observed: "x".repeat(bytes), ..welcome.clone() }))
    };
    let room = 2 * CONTROL_BYTES_MAX - frame(CONTROL_BYTES_MAX).len();
    assert_eq!(frame(room).len(), CONTROL_BYTES_MAX);
    assert!(decode::<FromMapper>(&frame(room)).is_ok());
    assert_eq!(decode::<FromMapper>(&frame(room + 1)), Err(DecodeError::TooLarge));
    assert_eq!(decode::<FromMapper>(&[]), Err(DecodeError::Empty));
}

#[test]
fn what_our_limits_allow_fits_into_a_frame() {
    let longest = name(&"x".repeat(NAME_BYTES_MAX));
    let host = "x".repeat(ENDPOINT_BYTES_MAX - "tcp://:65535".len());
    let mut filling = Filling {
        key: InstanceKey { service: longest.clone(), instance: longest.clone() },
        life: Incarnation(u64::MAX),
        endpoint: Endpoint::tcp(&host, 65535).unwrap(),
        list_length: ENDPOINTS_MAX,
        numbers: vec![u64::MAX],
        ..Filling::golden()
    };
    // What surrounds a part, with two bytes more for the number of its entries.
    let part = SnapshotPart { entries: Vec::new(), ..filling.snapshot_part() };
    let surroundings = encode(&FromMapper::Snapshot { service: longest, part }).len() + 2;
    assert!(PART_BYTES_MAX + surroundings <= CONTROL_BYTES_MAX, "{surroundings} bytes more");
    assert!(encode(&filling.entry()).len() < PART_BYTES_MAX);
    // 14 bytes for each open attempt: numbers far beyond what a sender reaches in years.
    let (number, attempt) = ((1 << 42) - 1, AttemptId { job: (1 << 42) - 1, attempt: 9999 });
    let ToWorker::Hello(hello) = TO_WORKER[0].0(&mut filling) else { unreachable!() };
    let open = vec![OpenAttempt { number, attempt }; OPEN_ATTEMPTS_MAX];
    let hello = encode(&ToWorker::Hello(SenderHello { open, ..hello }));
    assert!(decode::<ToWorker>(&hello).is_ok(), "{} bytes", hello.len());
}
