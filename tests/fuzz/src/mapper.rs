//! A registry that is told things by a few connections, in both dialects. Whatever it says can be read by
//! whoever it is for, and it lists no more than it may.

use svcmap_mapper::pure::{Connection, Identity, Output, Registry, Rights};
use svcmap_mapper::{Config, Principal, Role};
use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::{FromMapper, KeyAnswer, Publication, ReportRef, topic_service};
use svcmap_proto::json;
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::names::{Endpoint, Epoch, HostId};
use svcmap_proto::time::Timestamp;

use crate::input::{self, Step};
use crate::memory::bounded;
use crate::messages::assert_readable;

/// Few enough that an input gets there.
const INSTANCES_MAX: usize = 5;
const SERVICES_MAX: usize = 3;

/// What a step may allocate, for each byte of it: an answer, and what is published of it.
const TIMES: usize = 1024;

/// And whatever it says, in such bytes: snapshots of all that there is, queues that grow.
const ALWAYS_BYTES: usize = 256;

/// More turns than that at one time are a loop without end.
const TURNS_MAX: usize = 100;

/// Unix time at the start, in microseconds.
const UNIX_US: u64 = 1_800_000_000_000_000;

/// The lower half of the kind of a step says how, the upper half by whom.
const JSON: u8 = 1;
const MANY_FRAMES: u8 = 2;
const SUSPENDED: u8 = 3;

/// The steps of an input, one after the other: where there are keys, and where there are none.
pub(crate) fn read(bytes: &[u8]) {
    for has_keys in [false, true] {
        let mut scene = Scene::new(has_keys);
        for step in input::steps(bytes) {
            bounded(ALWAYS_BYTES + step.body.len(), TIMES, || scene.handle_step(&step));
            bounded(ALWAYS_BYTES, TIMES, || scene.handle_time());
        }
    }
}

/// The key of a connection: the first few are somebody's.
fn key(who: usize) -> Option<PublicKey> {
    (who != PLAIN).then_some(PublicKey([who as u8; 32]))
}

/// Who came without a key.
const PLAIN: usize = 4;

fn rights() -> Rights {
    let principal = |(who, (role, services)): (usize, (Role, &str))| Principal {
        name: format!("p{who}").parse().expect("a name"),
        role,
        services: vec![services.parse().expect("services")],
        key: PublicKey([who as u8; 32]),
        ends_at_unix_s: Some(UNIX_US / 1_000_000 + 5).filter(|_| who == 1),
    };
    let all =
        [(Role::Operator, "*"), (Role::Worker, "*"), (Role::Worker, "s"), (Role::Client, "s")];
    Rights::new(all.into_iter().enumerate().map(principal).collect(), Vec::new())
}

struct Scene {
    registry: Registry,
    now: Timestamp,
    /// Requests in JSON that were not answered.
    unanswered: usize,
}

impl Scene {
    fn new(has_keys: bool) -> Self {
        let config = Config {
            instances_max: INSTANCES_MAX,
            services_max: SERVICES_MAX,
            ..Config::default()
        };
        let now = Timestamp::from_micros(1_000_000);
        let endpoint = |port| Endpoint::tcp("127.0.0.1", port).expect("an endpoint");
        let identity = Identity {
            epoch: Epoch(1),
            host: HostId(1),
            endpoint: endpoint(1),
            publish: endpoint(2),
        };
        let mut registry = Registry::new(config, identity, now);
        if has_keys {
            registry = registry.with_rights(rights());
        }
        Self { registry, now, unanswered: 0 }
    }

    fn handle_step(&mut self, step: &Step<'_>) {
        self.now = self.now + step.pause;
        let (kind, who) = step.halves();
        // One that nobody chose, and one that is long.
        let from = if who == 0 { vec![b'x'; 64] } else { vec![who as u8; 5] };
        let observed = ["", "127.0.0.1", "10.0.0.7", "fe80::1"][who % 4];
        match kind {
            JSON => self.handle_json(&[&from, b"", step.body], who, observed),
            MANY_FRAMES => {
                let frames: Vec<_> = input::frames(step.body).collect();
                let frames: Vec<&[u8]> = frames.iter().map(|frame| &**frame).collect();
                self.handle_json(&[&[&from[..]], &frames[..]].concat(), who, observed);
            }
            SUSPENDED => self.registry.handle_suspension(self.now, step.pause),
            // In plain text there is nothing native where there are keys.
            _ if self.registry.rights().is_some() && who == PLAIN => {}
            _ => {
                self.handle_native(&Connection::new(&from).of(self.user(who)), observed, step.body)
            }
        }
        self.listen();
        assert_eq!(self.unanswered, 0, "one request, one reply");
    }

    fn user(&self, who: usize) -> Option<PublicKey> {
        self.registry.rights().and_then(|_| key(who))
    }

    fn unix_us(&self) -> u64 {
        UNIX_US + self.now.as_micros()
    }

    fn handle_json(&mut self, frames: &[&[u8]], who: usize, observed: &str) {
        let Some((from, body)) = json::open(frames) else { return };
        let from = from.of(self.user(who));
        self.unanswered += 1;
        // What is wrong with it is said as well.
        let _ = self.registry.handle_request(self.now, self.unix_us(), from, observed, body);
    }

    fn handle_native(&mut self, from: &Connection, observed: &str, frame: &[u8]) {
        let report = ReportRef::in_frame(frame);
        if report.is_some_and(|report| self.registry.handle_report(self.now, from, &report)) {
            return;
        }
        let unix_us = self.unix_us();
        match codec::decode(frame) {
            Ok(message) => {
                self.registry.handle_message(self.now, unix_us, from, observed, message);
            }
            Err(DecodeError::Version(_)) => self.registry.refuse_version(from),
            Err(_) => self.registry.count_bad_message(),
        }
    }

    fn handle_time(&mut self) {
        let ended = self.registry.rights().and_then(|rights| rights.at(self.unix_us() / 1_000_000));
        if let Some(rights) = ended {
            self.registry.handle_rights(self.now, rights);
        }
        let mut turns = 0;
        while self.registry.poll_timeout().is_some_and(|at| at <= self.now) {
            self.registry.handle_timeout(self.now);
            self.listen();
            turns += 1;
            assert!(turns < TURNS_MAX, "it is never at rest");
        }
    }

    /// Takes what it says.
    fn listen(&mut self) {
        while let Some(output) = self.registry.poll_output() {
            match output {
                Output::Reply { message, .. } => assert_readable(&message),
                Output::Send { frame, .. } => {
                    let message: FromMapper = codec::decode(&frame).expect("a message");
                    if let FromMapper::Snapshot { part, .. } = message {
                        assert!(part.entries.len() <= INSTANCES_MAX);
                    }
                }
                Output::JsonReply { body, .. } => {
                    json::object(&body).expect("a reply is an object");
                    self.unanswered = self.unanswered.checked_sub(1).expect("nobody asked");
                }
                Output::Publish { topic, frame } => published(&topic, &frame),
                Output::Keys { from, request } => {
                    let rights = self.registry.rights().expect("there are keys");
                    assert!(rights.is_operator(from.user()), "who is none has no say");
                    let answer = match rights.after(self.unix_us() / 1_000_000, request) {
                        Ok(next) => {
                            self.registry.handle_rights(self.now, next);
                            KeyAnswer::Done
                        }
                        Err(refusal) => KeyAnswer::Refused(refusal),
                    };
                    self.registry.answer_keys(&from, answer);
                }
                Output::Event(_) => {}
            }
        }
    }
}

fn published(topic: &[u8], frame: &[u8]) {
    assert!(frame.len() <= limits::CONTROL_BYTES_MAX);
    let (instances, has_service) = match codec::decode(frame).expect("a publication") {
        Publication::Pulse { instances, .. } => (instances as usize, false),
        Publication::Snapshot(part) => (part.entries.len(), true),
        // One that left makes room for the next.
        Publication::Changes(_) => (0, true),
    };
    assert!(instances <= INSTANCES_MAX, "{instances} are listed");
    assert_eq!(topic_service(topic).is_some(), has_service);
}
