//! `svcmap status` against a mapper that answers as the test wants.

use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::{
    Entry, FromMapper, Refused, ServiceStanding, SnapshotPart, ToMapper, Welcome,
};
use svcmap_proto::io::{Clock, Event, EventLoop, SocketSettings, bind, router};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, Name};

/// One thread with a ROUTER, until it is dropped.
struct FakeMapper {
    endpoint: Endpoint,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl FakeMapper {
    fn start(mut answer: impl FnMut(ToMapper) -> Option<FromMapper> + Send + 'static) -> Self {
        let (tell, told) = std::sync::mpsc::channel();
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let serve = move || {
            let mut events = EventLoop::new(&[]).unwrap();
            let socket = router(events.context(), SocketSettings::default()).unwrap();
            tell.send(bind(&socket, &"tcp://127.0.0.1:*".parse().unwrap()).unwrap()).unwrap();
            let key = events.add(socket).unwrap();
            while !stopped.load(Ordering::Relaxed) {
                let mut answers = Vec::new();
                let deadline = Clock.now() + Duration::from_millis(20);
                let received = |event: Event<'_>| {
                    if let Event::Received(_, [peer, frame]) = event {
                        let message = codec::decode(frame).unwrap();
                        answers.extend(answer(message).map(|answer| (peer.to_vec(), answer)));
                    }
                };
                events.turn(Some(deadline), received).unwrap();
                for (peer, answer) in answers {
                    events.send(key, [&peer[..], &codec::encode(&answer)]).unwrap();
                }
            }
        };
        let thread = std::thread::Builder::new().spawn(serve).unwrap();
        Self { endpoint: told.recv().unwrap(), stop, thread: Some(thread) }
    }

    /// One that lists the service `resize` with so many instances.
    fn with_instances(count: u16) -> Self {
        Self::start(move |message| match message {
            ToMapper::Hello(_) => Some(welcome()),
            ToMapper::List { .. } => Some(FromMapper::Services {
                names: vec![name("resize")],
                more: false,
                refused: Refused::default(),
                activity: Vec::new(),
            }),
            ToMapper::Sync { service } => Some(snapshot(service, count)),
            _ => None,
        })
    }
}

impl Drop for FakeMapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap();
    }
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn welcome() -> FromMapper {
    FromMapper::Welcome(Welcome {
        epoch: Epoch(1),
        warming: false,
        beat_ms: 1000,
        expiry_ms: 3000,
        publish_ms: 100,
        publish: "tcp://*:5556".parse().unwrap(),
        observed: String::new(),
        highest: None,
    })
}

fn snapshot(service: Name, count: u16) -> FromMapper {
    let count = if service.as_str() == "resize" { count } else { 0 };
    let entry = |number: u16| Entry {
        instance: name(&format!("i-{number}")),
        incarnation: Incarnation(1),
        endpoints: vec![Endpoint::tcp("127.0.0.1", 4000 + number).unwrap()],
        host: HostId(1),
        pid: 7,
        error: None,
        key: None,
        load: Load { slots: 11, concurrency: 1, ..Load::default() },
        age_ms: 20,
    };
    let entries = (0..count).map(entry).collect();
    let part = SnapshotPart {
        epoch: Epoch(1),
        revision: 1,
        warming: false,
        standing: ServiceStanding::Heard,
        part: 0,
        parts: 1,
        entries,
    };
    FromMapper::Snapshot { service, part }
}

/// Runs `svcmap status` with these mappers and arguments.
fn status(mappers: &str, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_svcmap"))
        .env("SVCMAP_MAPPER", mappers)
        .arg("status")
        .args(args)
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// An endpoint at which nobody listens: no other test here asks for ports of that address.
fn nobody() -> Endpoint {
    let listener = std::net::TcpListener::bind("127.9.9.9:0").unwrap();
    Endpoint::tcp("127.9.9.9", listener.local_addr().unwrap().port()).unwrap()
}

#[test]
fn services_and_instances_are_shown() {
    let mapper = FakeMapper::with_instances(2);
    let output = status(mapper.endpoint.as_str(), &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    let header = format!("mapper {} · 1 service · 2 of 2 instances ready\n", mapper.endpoint);
    assert!(shown.starts_with(&header), "{shown}");
    let output = status(mapper.endpoint.as_str(), &["resize"]);
    assert!(text(&output.stdout).contains("127.0.0.1:4001"));
    assert!(!text(&output.stdout).contains('\u{1b}'));
}

#[test]
fn json_is_one_document() {
    let mapper = FakeMapper::with_instances(2);
    let output = status(mapper.endpoint.as_str(), &["--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["instances"].as_array().map(Vec::len), Some(2));
    assert_eq!(json["services"][0]["service"], "resize");
}

#[test]
fn an_unknown_service_is_69() {
    let mapper = FakeMapper::with_instances(2);
    let output = status(mapper.endpoint.as_str(), &["resise"]);
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(
        text(&output.stderr),
        "error: no worker serves `resise`; known: resize\n  fix: svcmap status resize\n"
    );
}

#[test]
fn no_mapper_is_69_and_json_if_wanted() {
    let nobody = nobody();
    let output = status(nobody.as_str(), &["--json"]);
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(text(&output.stdout), "");
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!(json["error"]["code"], "unavailable");
    assert_eq!(json["error"]["exit"], 69);
    let message = format!("no mapper answers at {nobody} (tried 3s)");
    assert_eq!(json["error"]["message"], message);
}

#[test]
fn one_of_two_mappers_is_enough() {
    let (mapper, nobody) = (FakeMapper::with_instances(2), nobody());
    let output = status(&format!("{nobody},{}", mapper.endpoint), &[]);
    assert_eq!(output.status.code(), Some(0));
    let shown = text(&output.stdout);
    assert!(shown.starts_with("1 of 2 mappers answer"), "{shown}");
    assert!(shown.contains(&format!("! the mapper {nobody} does not answer\n")), "{shown}");
}

#[test]
fn another_version_names_both() {
    let mapper = FakeMapper::start(|_| Some(FromMapper::WrongVersion { oldest: 3, newest: 3 }));
    let output = status(mapper.endpoint.as_str(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let error = text(&output.stderr);
    assert!(error.contains("speaks protocol version 3, this svcmap 2"), "{error}");
}

#[test]
fn waiting_ends_when_the_condition_holds_or_the_time_is_over() {
    let mut syncs = 0;
    let mapper = FakeMapper::start(move |message| match message {
        ToMapper::Hello(_) => Some(welcome()),
        ToMapper::List { .. } => Some(FromMapper::Services {
            names: vec![name("resize")],
            more: false,
            refused: Refused::default(),
            activity: Vec::new(),
        }),
        ToMapper::Sync { service } => {
            syncs += 1;
            Some(snapshot(service, syncs))
        }
        _ => None,
    });
    let output = status(mapper.endpoint.as_str(), &["--wait", "resize>=3", "--timeout", "20s"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let nothing = FakeMapper::with_instances(1);
    let output = status(nothing.endpoint.as_str(), &["--wait", "resize>=3", "--timeout", "500ms"]);
    assert_eq!(output.status.code(), Some(69));
    assert_eq!(
        text(&output.stderr),
        "error: still not resize>=3 after 500ms: 1 ready\n  fix: svcmap status resize\n"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    use std::process::Stdio;
    let mapper = FakeMapper::with_instances(2);
    let mut child = Command::new(env!("CARGO_BIN_EXE_svcmap"))
        .args(["status", "--mapper", mapper.endpoint.as_str()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

#[test]
fn usage_errors_are_64_and_help_is_0() {
    let run =
        |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_svcmap")).args(args).output().unwrap();
    assert_eq!(run(&[]).status.code(), Some(64));
    assert_eq!(run(&["frobnicate"]).status.code(), Some(64));
    assert_eq!(run(&["status", "--wait", "x"]).status.code(), Some(64));
    assert_eq!(run(&["--help"]).status.code(), Some(0));
    assert_eq!(run(&["status", "--help"]).status.code(), Some(0));
    assert_eq!(run(&["--version"]).status.code(), Some(0));
    let output = run(&["status", "--frobnicate", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stderr).unwrap();
    assert_eq!((output.status.code(), &json["error"]["code"]), (Some(64), &"usage".into()));
    let output = status("localhost:5555", &[]);
    assert_eq!(output.status.code(), Some(64));
    assert!(text(&output.stderr).starts_with("error: SVCMAP_MAPPER is wrong: `localhost:5555`"));
}
