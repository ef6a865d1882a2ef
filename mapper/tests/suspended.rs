//! A mapper in a process of its own that is stopped for longer than the expiry: it must expire
//! nobody for its own sleep.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use svcmap_mapper::Mapper;
use svcmap_proto::codec;
use svcmap_proto::control::{Change, FromMapper, Publication, Registration, ToMapper};
use svcmap_proto::io::Clock;
use svcmap_proto::load::Load;
use svcmap_proto::names::{HostId, Incarnation, InstanceKey};

const BEAT: Duration = Duration::from_millis(200);

/// The other process: this test's own executable, which runs nothing but this.
#[test]
#[ignore = "runs as a process of its own, started by the test below"]
fn child() {
    let builder = Mapper::builder().bind("tcp://127.0.0.1:0").publish("tcp://127.0.0.1:0");
    let mapper = builder.beat(BEAT).start().unwrap();
    println!("\nlistening {} {}", mapper.endpoint(), mapper.publish_endpoint());
    // Until the parent closes its end, or is gone.
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

/// Ends the child with the test, whatever the test meets.
struct Process(Child);

impl Process {
    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start() -> (Process, String, String) {
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["child", "--exact", "--ignored", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
    let line = lines.map_while(Result::ok).find(|line| line.starts_with("listening "));
    let line = line.expect("the mapper's addresses");
    let mut words = line.split(' ').skip(1).map(str::to_owned);
    (process, words.next().unwrap(), words.next().unwrap())
}

#[test]
fn a_stopped_mapper_expires_nobody_when_it_goes_on() {
    let (process, endpoint, publish_endpoint) = start();
    let context = zmq::Context::new();
    let worker = context.socket(zmq::DEALER).unwrap();
    worker.set_rcvtimeo(10_000).unwrap();
    worker.connect(&endpoint).unwrap();
    let sub = context.socket(zmq::SUB).unwrap();
    sub.set_rcvtimeo(10_000).unwrap();
    sub.set_subscribe(b"").unwrap();
    sub.connect(&publish_endpoint).unwrap();
    let publication = || -> Publication {
        codec::decode(&sub.recv_multipart(0).expect("a publication in time")[1]).unwrap()
    };

    let key = InstanceKey { service: "s".parse().unwrap(), instance: "a".parse().unwrap() };
    let registration = Registration {
        key,
        incarnation: Incarnation(1),
        endpoints: vec!["tcp://127.0.0.1:7000".parse().unwrap()],
        host: HostId(1),
        pid: 1,
        error: None,
        load: Load::default(),
    };
    worker.send(codec::encode(&ToMapper::Register(registration)), 0).unwrap();
    let answer: FromMapper = codec::decode(&worker.recv_bytes(0).unwrap()).unwrap();
    assert!(matches!(answer, FromMapper::Registered { .. }));
    while !matches!(publication(), Publication::Pulse { instances: 1, .. }) {}

    process.signal("-STOP");
    let expired_at = Clock.now() + 6 * BEAT;
    // What it had published comes, and then nothing, for twice the expiry.
    while Clock.now() < expired_at {
        let left = expired_at.since(Clock.now()).as_millis();
        sub.set_rcvtimeo(i32::try_from(left).unwrap() + 1).unwrap();
        let _ = sub.recv_multipart(0);
    }
    sub.set_rcvtimeo(10_000).unwrap();
    process.signal("-CONT");
    let resumed_at = Clock.now();

    // The worker says nothing more. The mapper knew it for a beat at most before it was stopped,
    // so it must list it for nearly two more, and not for ever.
    while !matches!(publication(), Publication::Pulse { .. }) {}
    let expired = |publication| match publication {
        Publication::Changes(part) => {
            part.changes.iter().any(|change| matches!(change, Change::Expired { .. }))
        }
        _ => false,
    };
    while !expired(publication()) {}
    let listed_for = Clock.now().since(resumed_at);
    assert!(listed_for >= BEAT, "expired {listed_for:?} after the mapper went on");
}
