//! A real mapper on ports that the system chooses, and plain ZeroMQ sockets that speak to it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use slog::{Drain, Logger, OwnedKVList, Record, o};
use svcmap_mapper::{ConfigError, Mapper, StartError};
use svcmap_proto::codec;
use svcmap_proto::control::{
    Change, FromMapper, Hello, PULSE_TOPIC, Publication, Registration, SnapshotPart, ToMapper,
    Welcome, topic,
};
use svcmap_proto::io::{BindError, Clock};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey, Name};

/// Longest wait for anything: far beyond what a busy machine needs.
const LIMIT_MS: i32 = 10_000;

const BEAT: Duration = Duration::from_millis(100);

fn mapper() -> Mapper {
    mapper_with(Logger::root(slog::Discard, o!()))
}

fn mapper_with(logger: Logger) -> Mapper {
    let builder = Mapper::builder().bind("tcp://127.0.0.1:0").publish("tcp://127.0.0.1:0");
    builder.beat(BEAT).publish_interval(BEAT / 2).logger(logger).start().unwrap()
}

fn socket(context: &zmq::Context, kind: zmq::SocketType, endpoint: &Endpoint) -> zmq::Socket {
    let socket = context.socket(kind).unwrap();
    socket.set_rcvtimeo(LIMIT_MS).unwrap();
    socket.set_sndtimeo(LIMIT_MS).unwrap();
    socket.set_linger(0).unwrap();
    socket.connect(endpoint.as_str()).unwrap();
    socket
}

/// A worker or client, as a mapper sees it.
struct Peer(zmq::Socket);

impl Peer {
    fn of(context: &zmq::Context, mapper: &Mapper) -> Self {
        Self(socket(context, zmq::DEALER, mapper.endpoint()))
    }

    fn send(&self, message: &ToMapper) {
        self.0.send(codec::encode(message), 0).unwrap();
    }

    fn receive(&self) -> FromMapper {
        codec::decode(&self.0.recv_bytes(0).expect("an answer in time")).unwrap()
    }

    fn ask(&self, message: &ToMapper) -> FromMapper {
        self.send(message);
        self.receive()
    }

    fn hello(&self, key: Option<InstanceKey>) -> Welcome {
        match self.ask(&ToMapper::Hello(Hello {
            oldest: codec::VERSION,
            newest: codec::VERSION,
            key,
        })) {
            FromMapper::Welcome(welcome) => welcome,
            other => unreachable!("{other:?}"),
        }
    }

    fn sync(&self, service: &str) -> SnapshotPart {
        match self.ask(&ToMapper::Sync { service: name(service) }) {
            FromMapper::Snapshot { part, .. } => part,
            other => unreachable!("{other:?}"),
        }
    }
}

/// Waits on a SUB socket for the first publication that is the right one.
fn await_publication<T>(sub: &zmq::Socket, right: impl Fn(Publication) -> Option<T>) -> T {
    let deadline = Clock.now() + Duration::from_millis(LIMIT_MS.unsigned_abs().into());
    while Clock.now() < deadline {
        let frames = sub.recv_multipart(0).expect("a publication in time");
        let [_topic, frame] = &frames[..] else { unreachable!("{frames:?}") };
        if let Some(found) = right(codec::decode(frame).unwrap()) {
            return found;
        }
    }
    unreachable!("the right publication did not come")
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key(instance: &str) -> InstanceKey {
    InstanceKey { service: name("resize"), instance: name(instance) }
}

fn registration(instance: &str, incarnation: u64) -> Registration {
    Registration {
        key: key(instance),
        incarnation: Incarnation(incarnation),
        endpoints: vec!["tcp://127.0.0.1:7000".parse().unwrap()],
        host: HostId(1),
        pid: 42,
        error: None,
        load: Load { sequence: 1, slots: 4, ..Load::default() },
    }
}

#[test]
fn an_instance_is_welcomed_listed_published_and_leaves() {
    let mapper = mapper();
    let context = zmq::Context::new();
    let worker = Peer::of(&context, &mapper);
    let sub = socket(&context, zmq::SUB, mapper.publish_endpoint());
    sub.set_subscribe(&topic(&name("resize"))).unwrap();

    let welcome = worker.hello(Some(key("a")));
    assert_eq!(welcome.publish, *mapper.publish_endpoint());
    assert_eq!((welcome.beat_ms, welcome.expiry_ms, welcome.publish_ms), (100, 300, 50));
    assert_eq!((welcome.observed.as_str(), welcome.highest), ("127.0.0.1", None));
    assert!(welcome.warming);
    let registered = worker.ask(&ToMapper::Register(registration("a", 5)));
    assert_eq!(registered, FromMapper::Registered { key: key("a"), incarnation: Incarnation(5) });

    let client = Peer::of(&context, &mapper);
    let part = client.sync("resize");
    assert_eq!((part.epoch, part.parts, part.entries.len()), (welcome.epoch, 1, 1));
    assert_eq!((part.entries[0].instance.as_str(), part.entries[0].pid), ("a", 42));
    assert_eq!(client.hello(Some(key("a"))).highest, Some(Incarnation(5)));
    let names = client.ask(&ToMapper::List { after: None });
    assert_eq!(
        names,
        FromMapper::Services {
            names: vec![name("resize")],
            more: false,
            refused: Default::default(),
            activity: Vec::new(),
        }
    );

    let revision = await_publication(&sub, |publication| match publication {
        Publication::Snapshot(part) if part.entries.len() == 1 => Some(part.revision),
        _ => None,
    });
    worker.send(&ToMapper::Leave { key: key("a"), incarnation: Incarnation(5) });
    let left = Change::Left { instance: name("a"), incarnation: Incarnation(5) };
    await_publication(&sub, |publication| match publication {
        Publication::Changes(part) if part.revision > revision => Some(part.changes),
        _ => None,
    })
    .into_iter()
    .find(|change| *change == left)
    .expect("its leave among the changes");
    // A question that was just answered is not answered again, but another's is.
    assert!(Peer::of(&context, &mapper).sync("resize").entries.is_empty());
}

#[test]
fn silence_expires_and_the_pulse_goes_on() {
    let mapper = mapper();
    let context = zmq::Context::new();
    let sub = socket(&context, zmq::SUB, mapper.publish_endpoint());
    for prefix in [PULSE_TOPIC, b"resize/"] {
        sub.set_subscribe(prefix).unwrap();
    }
    let worker = Peer::of(&context, &mapper);
    worker.ask(&ToMapper::Register(registration("a", 5)));
    let pulse = |wanted| {
        move |publication| match publication {
            Publication::Pulse { instances, .. } if instances == wanted => Some(()),
            _ => None,
        }
    };
    await_publication(&sub, pulse(1));
    await_publication(&sub, |publication| match publication {
        Publication::Changes(part) => {
            part.changes.into_iter().find(|change| matches!(change, Change::Expired { .. }))
        }
        _ => None,
    });
    await_publication(&sub, pulse(0));
    // It was not dead after all.
    let load = Load { sequence: 2, slots: 4, ..Load::default() };
    let report = ToMapper::Report { key: key("a"), incarnation: Incarnation(5), load };
    assert_eq!(worker.ask(&report), FromMapper::Reregister);
}

#[test]
fn the_replaced_process_is_told() {
    let mapper = mapper();
    let context = zmq::Context::new();
    let [old, new] = [(); 2].map(|()| Peer::of(&context, &mapper));
    old.ask(&ToMapper::Register(registration("a", 5)));
    new.ask(&ToMapper::Register(registration("a", 6)));
    let (incarnation, by) = (Incarnation(5), Incarnation(6));
    assert_eq!(old.receive(), FromMapper::Replaced { key: key("a"), incarnation, by });
}

#[test]
fn strangers_are_answered_or_counted_and_nobody_else_notices() {
    let lines = Lines::default();
    let mapper = mapper_with(Logger::root(lines.clone().fuse(), o!()));
    let context = zmq::Context::new();
    let stranger = Peer::of(&context, &mapper);
    let mut other_version = codec::encode(&ToMapper::List { after: None });
    other_version[0] = codec::VERSION + 1;
    stranger.0.send(other_version, 0).unwrap();
    let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
    assert_eq!(stranger.receive(), FromMapper::WrongVersion { oldest, newest });

    // Fewer than what a connection is ended for.
    for _ in 0..40 {
        stranger.0.send(&[codec::VERSION, 99][..], 0).unwrap();
        stranger.0.send_multipart([&b"a"[..], b"b"], 0).unwrap();
    }
    stranger.0.send_multipart(vec!["x"; 1000], 0).unwrap();
    stranger.0.send(&b""[..], 0).unwrap();
    let mut unreachable = registration("a", 1);
    unreachable.endpoints.clear();
    let answer = stranger.ask(&ToMapper::Register(unreachable));
    assert!(matches!(answer, FromMapper::RegistrationRefused(_)), "{answer:?}");
    assert_eq!(stranger.hello(None).highest, None);

    mapper.stop();
    mapper.wait().unwrap();
    // A summary may wait for the next beat, so not all of it needs to be there.
    let summaries = lines.with("refused messages");
    assert!((1..10).contains(&summaries.len()), "{summaries:?}");
    assert!(summaries.iter().any(|line| line.contains("wrong version 1")), "{summaries:?}");
    assert!(!lines.with("refused registrations").is_empty());
}

#[test]
fn mappers_start_and_stop_cleanly_and_say_why_they_cannot() {
    let mapper = mapper();
    let taken = mapper.endpoint().clone();
    let second = || Mapper::builder().bind(taken.as_str()).publish("tcp://127.0.0.1:0").start();
    assert!(matches!(second(), Err(StartError::Bind(BindError::InUse(e))) if e == taken));
    let result = Mapper::builder().bind("localhost").start();
    assert!(matches!(result, Err(StartError::Endpoint(_))));
    let result = Mapper::builder().beat(Duration::ZERO).start();
    assert!(matches!(result, Err(StartError::Config(ConfigError::Beat))));

    // A peer that is connected and does not read holds nothing up.
    let context = zmq::Context::new();
    let idle = Peer::of(&context, &mapper);
    idle.hello(None);
    (0..100).for_each(|_| idle.send(&ToMapper::Sync { service: name("resize") }));
    let stopping_at = Clock.now();
    drop(mapper);
    assert!(Clock.now().since(stopping_at) < Duration::from_secs(5));
    // The port is free again at once.
    second().unwrap().stop();
}

#[test]
fn a_mapper_on_all_interfaces_warns_and_hands_out_a_wildcard() {
    let lines = Lines::default();
    let logger = Logger::root(lines.clone().fuse(), o!());
    let builder = Mapper::builder().bind("tcp://*:0").publish("tcp://0.0.0.0:0").logger(logger);
    let mapper = builder.start().unwrap();
    assert_eq!(mapper.endpoint().host(), "*");
    let port = mapper.endpoint().port().unwrap();
    let context = zmq::Context::new();
    let endpoint = Endpoint::tcp("127.0.0.1", port).unwrap();
    let client = Peer(socket(&context, zmq::DEALER, &endpoint));
    let welcome = client.hello(None);
    assert!(welcome.publish.is_wildcard());
    assert_eq!(welcome.observed, "127.0.0.1", "a mapped address is to be normalised");
    assert_eq!(lines.with("whoever reaches").len(), 1);
}

/// A log in memory: message and values, one string per line.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    fn with(&self, text: &str) -> Vec<String> {
        let lines = self.0.lock().unwrap();
        lines.iter().filter(|line| line.contains(text)).cloned().collect()
    }
}

impl Drain for Lines {
    type Ok = ();
    type Err = slog::Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), slog::Never> {
        struct Values(String);
        impl slog::Serializer for Values {
            fn emit_arguments(
                &mut self,
                key: slog::Key,
                value: &std::fmt::Arguments<'_>,
            ) -> slog::Result {
                self.0.push_str(&format!(" {key}={value}"));
                Ok(())
            }
        }
        let mut values = Values(record.msg().to_string());
        slog::KV::serialize(&record.kv(), record, &mut values).unwrap();
        self.0.lock().unwrap().push(values.0);
        Ok(())
    }
}
