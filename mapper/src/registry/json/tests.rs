use std::time::Duration;

use svcmap_proto::control::{self, Change, FromMapper, Publication, ToMapper};

use super::super::tests::{UNIX_US, identity, load, ms, registration};
use super::super::{Config, Connection, Event};
use super::*;

fn registry() -> Registry {
    Registry::new(Config::default(), identity(), ms(0))
}

/// What a client on this host is told, and what else comes of it.
fn outputs(registry: &mut Registry, now: Timestamp, text: &str) -> (String, Vec<Output>) {
    outputs_at(registry, now, UNIX_US + now.since(ms(0)).as_micros() as u64, text)
}

fn outputs_at(
    registry: &mut Registry,
    now: Timestamp,
    unix_us: u64,
    text: &str,
) -> (String, Vec<Output>) {
    let frames: [&[u8]; 3] = [b"client", b"", text.as_bytes()];
    let (from, body) = svcmap_proto::json::open(&frames).unwrap();
    let _ = registry.handle_request(now, unix_us, from, "127.0.0.1", body);
    let mut outputs: Vec<_> = std::iter::from_fn(|| registry.poll_output()).collect();
    let Some(Output::JsonReply { body, .. }) = outputs.pop() else { panic!("{outputs:?}") };
    (String::from_utf8(body.to_vec()).unwrap(), outputs)
}

fn ask(registry: &mut Registry, now: Timestamp, command: &str, payload: &str) -> String {
    let text = format!(r#"{{"command":"{command}","payload":{payload}}}"#);
    outputs(registry, now, &text).0
}

fn register(registry: &mut Registry, now: Timestamp, name: &str, pid: u32) -> String {
    let worker = format!(r#"{{"name":"{name}","address":"tcp://127.0.0.1:6001","pid":{pid}}}"#);
    ask(registry, now, "REGISTER", &worker)
}

fn health(registry: &mut Registry, now: Timestamp, name: &str, load: f64) -> String {
    ask(registry, now, "UPDATE_HEALTH", &format!(r#"{{"name":"{name}","load":{load}}}"#))
}

fn peer(registry: &mut Registry, now: Timestamp, name: &str) -> String {
    ask(registry, now, "GET_PEER", &format!(r#"{{"name":"{name}"}}"#))
}

fn native(registry: &mut Registry, now: Timestamp, message: ToMapper) -> Vec<Output> {
    // Of many, each comes on a connection of its own.
    let from = Connection::new(&registry.services.len().to_be_bytes());
    registry.handle_message(now, UNIX_US, &from, "10.0.0.9", message);
    std::iter::from_fn(|| registry.poll_output()).collect()
}

/// What is published until then.
fn changes(registry: &mut Registry, until: Timestamp) -> Vec<Change> {
    let mut changes = Vec::new();
    while let Some(at) = registry.poll_timeout().filter(|at| *at <= until) {
        registry.handle_timeout(at);
        while let Some(output) = registry.poll_output() {
            if let Some(Publication::Changes(part)) = output.publication() {
                changes.extend(part.changes);
            }
        }
    }
    changes
}

const OK: &str = r#"{"status":"ok"}"#;
const NOT_FOUND: &str = r#"{"status":"error","message":"not found"}"#;
/// As long as it has not run for long.
const PEER_NOT_FOUND: &str = r#"{"status":"error","message":"peer not found: this mapper has just started, try again in a moment"}"#;

#[test]
fn the_original_commands_and_their_replies() {
    let mut registry = registry();
    let registered = register(&mut registry, ms(0), "w1", 7);
    assert_eq!(registered, r#"{"status":"ok","message":"registered w1"}"#);
    assert_eq!(
        peer(&mut registry, ms(500), "w1"),
        r#"{"status":"ok","peer":{"address":"tcp://127.0.0.1:6001","pid":7,"load":0.0,"last_seen":1700000000.0}}"#
    );
    assert_eq!(health(&mut registry, ms(1250), "w1", 0.35), OK);
    assert_eq!(
        outputs(&mut registry, ms(2000), r#"{"command":"LIST_PEERS"}"#).0,
        r#"{"status":"ok","peers":{"w1":{"address":"tcp://127.0.0.1:6001","pid":7,"load":0.35,"last_seen":1700000001.25}}}"#
    );
    assert_eq!(health(&mut registry, ms(2000), "w2", 0.1), NOT_FOUND);
    assert_eq!(peer(&mut registry, ms(2000), "w2"), PEER_NOT_FOUND);
    assert_eq!(peer(&mut registry, ms(2000), "w1/w2"), PEER_NOT_FOUND);
    let unknown = r#"{"status":"error","message":"unknown command"}"#;
    assert_eq!(ask(&mut registry, ms(2000), "PING", "{}"), unknown);
    let nonsense = outputs(&mut registry, ms(2000), "{").0;
    assert!(nonsense.starts_with(r#"{"status":"error","message":""#), "{nonsense}");
    let wildcard = r#"{"name":"a","address":"tcp://*:1","pid":1}"#;
    let refused = ask(&mut registry, ms(2000), "REGISTER", wildcard);
    assert!(refused.contains("none of them a wildcard"), "{refused}");
}

#[test]
fn a_mapper_that_has_just_started_calls_nobody_unknown() {
    let mut registry = registry();
    for (now, words) in [
        (0, "peer not found: this mapper has just started, try again in a moment"),
        (29_999, "peer not found: this mapper has just started, try again in a moment"),
        (30_000, "peer not found"),
    ] {
        let expected = format!(r#"{{"status":"error","message":"{words}"}}"#);
        assert_eq!(peer(&mut registry, ms(now), "nobody"), expected, "at {now} ms");
    }
}

#[test]
fn silence_ends_a_lease_of_its_own() {
    let mut registry = registry();
    register(&mut registry, ms(0), "w1", 7);
    let brief = r#"{"name":"w2","address":"tcp://h:1","pid":8,"expiry_s":2}"#;
    ask(&mut registry, ms(0), "REGISTER", brief);
    health(&mut registry, ms(1500), "w2", 0.5);
    changes(&mut registry, ms(3400));
    assert_ne!(peer(&mut registry, ms(3400), "w2"), PEER_NOT_FOUND);
    changes(&mut registry, ms(29_900));
    assert_eq!(peer(&mut registry, ms(29_900), "w2"), PEER_NOT_FOUND);
    assert_ne!(peer(&mut registry, ms(29_900), "w1"), PEER_NOT_FOUND);
    let expired = changes(&mut registry, ms(31_000));
    assert!(matches!(expired[..], [Change::Expired { .. }]), "{expired:?}");
    assert_eq!(health(&mut registry, ms(31_000), "w1", 0.5), NOT_FOUND);
    assert!(registry.names.is_empty());
}

#[test]
fn one_name_is_one_process() {
    let mut registry = registry();
    register(&mut registry, ms(0), "w1", 7);
    health(&mut registry, ms(100), "w1", 0.95);
    let first = changes(&mut registry, ms(900));
    // The same process says it once more: only its load starts anew.
    register(&mut registry, ms(1000), "w1", 7);
    let again = changes(&mut registry, ms(1900));
    let Change::Load { incarnation, load, .. } = again[0] else { panic!("{again:?}") };
    assert_eq!((again.len(), load.ratio()), (1, 0.0));
    assert!(matches!(&first[0], Change::Put(entry) if entry.incarnation == incarnation));
    // Another process takes its place at once, be the clock what it may.
    register(&mut registry, ms(0), "w1", 9);
    let replaced = changes(&mut registry, ms(3000));
    let [Change::Put(entry)] = &replaced[..] else { panic!("{replaced:?}") };
    assert!(entry.incarnation > incarnation && entry.pid == 9);
    // It serves something else from now on, and nothing under its former key.
    let moved =
        r#"{"name":"w1","address":"tcp://127.0.0.1:6001","pid":9,"service":"video","slots":4}"#;
    ask(&mut registry, ms(3000), "REGISTER", moved);
    let moved = changes(&mut registry, ms(4000));
    assert!(moved.iter().any(|change| matches!(change, Change::Left { .. })), "{moved:?}");
    assert_eq!(
        registry.peers(Asked { now: ms(4000), unix_us: 0, is_local: true, is_plain: false }).len(),
        1
    );
    assert_eq!(peer(&mut registry, ms(4000), "w1"), peer(&mut registry, ms(4000), "video/w1"));
}

#[test]
fn who_leaves_is_gone_and_a_late_word_removes_no_successor() {
    let mut registry = registry();
    register(&mut registry, ms(0), "w1", 7);
    register(&mut registry, ms(10), "w1", 8);
    let leave = |registry: &mut Registry, pid| {
        ask(registry, ms(20), "DEREGISTER", &format!(r#"{{"name":"w1","pid":{pid}}}"#))
    };
    assert_eq!(leave(&mut registry, 7), OK);
    assert_ne!(peer(&mut registry, ms(20), "w1"), PEER_NOT_FOUND);
    assert_eq!(leave(&mut registry, 8), OK);
    assert_eq!(peer(&mut registry, ms(20), "w1"), PEER_NOT_FOUND);
    assert_eq!(leave(&mut registry, 8), OK, "it may not know that it has left");
    // It comes back at once, and above the life that left.
    register(&mut registry, ms(20), "w1", 8);
    assert_ne!(peer(&mut registry, ms(20), "w1"), PEER_NOT_FOUND);
}

#[test]
fn a_clock_that_was_days_ahead_keeps_nobody_away() {
    let mut registry = registry();
    let mut register_at = |unix_us, name: &str| {
        let text = format!(
            r#"{{"command":"REGISTER","payload":{{"name":"{name}","address":"tcp://h:1","pid":1}}}}"#
        );
        outputs_at(&mut registry, ms(0), unix_us, &text).0
    };
    let registered = |name| format!(r#"{{"status":"ok","message":"registered {name}"}}"#);
    assert_eq!(register_at(UNIX_US + 2 * 86_400_000_000, "a"), registered("a"));
    assert_eq!(register_at(UNIX_US, "b"), registered("b"));
    assert_eq!(register_at(UNIX_US + 1, "b"), registered("b"), "the same process");
    assert_eq!(register_at(UNIX_US + 2, "c"), registered("c"));
}

#[test]
fn a_service_is_its_better_instance() {
    let mut registry = registry();
    for (instance, queued) in [("s/a", 7), ("s/b", 2), ("s/c", 8)] {
        let mut said = registration(instance, 5);
        (said.load, said.pid) = (load(1, queued), queued);
        native(&mut registry, ms(0), ToMapper::Register(said));
    }
    let pid_and_load = r#""pid":2,"load":0.25"#;
    for _ in 0..20 {
        let better = peer(&mut registry, ms(1), "s");
        assert!(
            better.contains(pid_and_load),
            "the full one is out, and of two the better: {better}"
        );
    }
    assert!(peer(&mut registry, ms(1), "s/c").contains(r#""load":1.0"#));
    assert!(outputs(&mut registry, ms(1), r#"{"command":"LIST_PEERS"}"#).0.contains(r#""s/c":{"#));
    // When all are full, an original client still wants to know how full.
    for instance in ["s/a", "s/b"] {
        let (key, incarnation) = (registration(instance, 5).key, Incarnation(5));
        native(&mut registry, ms(2), ToMapper::Report { key, incarnation, load: load(2, 8) });
    }
    assert!(peer(&mut registry, ms(3), "s").contains(r#""load":1.0"#));
}

#[test]
fn rather_a_full_one_than_one_that_drains() {
    let mut registry = registry();
    for (instance, queued, state) in
        [("s/full", 8, State::Ready), ("s/leaving", 1, State::Draining)]
    {
        let mut said = registration(instance, 5);
        said.load = Load { state, ..load(1, queued) };
        native(&mut registry, ms(0), ToMapper::Register(said));
        assert!(peer(&mut registry, ms(1), "s").contains(r#""load":1.0"#));
    }
    let (key, incarnation) = (registration("s/full", 5).key, Incarnation(5));
    native(&mut registry, ms(2), ToMapper::Leave { key, incarnation });
    assert!(peer(&mut registry, ms(3), "s").contains(r#""load":0.125"#), "there is no other");
}

#[test]
fn native_and_json_replace_each_other_and_only_the_native_is_told() {
    let mut registry = registry();
    native(&mut registry, ms(0), ToMapper::Register(registration("w1/w1", 5)));
    let worker = r#"{"command":"REGISTER","payload":{"name":"w1","address":"tcp://h:1","pid":7}}"#;
    let (_, told) = outputs(&mut registry, ms(1), worker);
    let [Output::Reply { message: FromMapper::Replaced { by, .. }, .. }, Output::Event(_)] =
        told[..]
    else {
        panic!("{told:?}")
    };
    let told = native(&mut registry, ms(2), ToMapper::Register(registration("w1/w1", by.0 + 1)));
    let [Output::Event(Event::Replaced { .. }), Output::Reply { .. }] = &told[..] else {
        panic!("{told:?}")
    };
    // Its name went with it.
    assert_eq!(health(&mut registry, ms(3), "w1", 0.5), NOT_FOUND);
}

#[test]
fn status_is_what_people_are_told() {
    let mut registry = registry();
    register(&mut registry, ms(0), "w1", 7);
    health(&mut registry, ms(0), "w1", 0.95);
    native(&mut registry, ms(0), ToMapper::Register(registration("s/a", 5)));
    let status = outputs(&mut registry, ms(250), r#"{"command":"STATUS"}"#).0;
    for part in [
        r#"{"status":"ok","mappers":[{"endpoint":"tcp://*:5555","answer":"complete","warming":true,"refused":{"registrations":0,"messages":0}}]"#,
        r#""mappers_agree":true,"services":[{"service":"w1","instances":1,"ready":1,"full":1,"#,
        r#"{"service":"w1","instance":"w1","endpoint":"tcp://127.0.0.1:6001","pid":7,"#,
        r#""state":"full","dialect":"json","#,
        r#""load":0.95,"age":0.25,"#,
        r#""state":"ready","dialect":"native","#,
    ] {
        assert!(status.contains(part), "{part} in {status}");
    }
}

#[test]
fn a_long_list_is_sent_to_a_client_once_in_a_while() {
    let mut registry = registry();
    let is_sent = |registry: &mut Registry, now, command: &str| {
        let answer = outputs(registry, now, &format!(r#"{{"command":"{command}"}}"#)).0;
        let try_again = answer.contains("try again");
        assert_eq!(try_again, answer.starts_with(r#"{"status":"error""#));
        !try_again
    };
    for number in 0..SHORT_LIST {
        let said = registration(&format!("s/i-{number}"), 5);
        native(&mut registry, ms(0), ToMapper::Register(said));
    }
    assert!((0..9).all(|_| is_sent(&mut registry, ms(0), "STATUS")), "it is short");
    native(&mut registry, ms(0), ToMapper::Register(registration("s/one-more", 5)));
    assert!(is_sent(&mut registry, ms(0), "STATUS"));
    assert!(!is_sent(&mut registry, ms(99), "STATUS"));
    assert!(!is_sent(&mut registry, ms(99), "LIST_PEERS"));
    assert_ne!(peer(&mut registry, ms(99), "s"), PEER_NOT_FOUND, "what is short is always said");
    assert!(is_sent(&mut registry, ms(100), "LIST_PEERS"));
}

#[test]
fn a_worker_on_another_host_is_reached_from_there_only() {
    let mut registry = registry();
    register(&mut registry, ms(0), "here", 7);
    let frames: [&[u8]; 3] = [
        b"c",
        b"",
        br#"{"command":"REGISTER","payload":{"name":"there","address":"tcp://127.0.0.1:1","pid":7}}"#,
    ];
    let (from, body) = svcmap_proto::json::open(&frames).unwrap();
    registry.handle_request(ms(0), UNIX_US, from, "10.0.0.9", body).unwrap();
    let hosts = ["here", "there"].map(|name| registry.named(name).unwrap().1.registration.host);
    assert_eq!(hosts, [identity().host, HostId::default()]);
    assert_eq!(registry.leases.poll_timeout(), Some(ms(0) + Duration::from_secs(30)));
    // Nobody else is handed an address that means another host there.
    let ask = |registry: &mut Registry, observed: &str, name: &str| {
        let body = format!(r#"{{"command":"GET_PEER","payload":{{"name":"{name}"}}}}"#);
        let frames: [&[u8]; 3] = [b"c", b"", body.as_bytes()];
        let (from, body) = svcmap_proto::json::open(&frames).unwrap();
        registry.handle_request(ms(0), UNIX_US, from, observed, body).unwrap();
        let replies = std::iter::from_fn(|| registry.poll_output()).filter_map(|out| match out {
            Output::JsonReply { body, .. } => Some(String::from_utf8(body.to_vec()).unwrap()),
            _ => None,
        });
        replies.last().unwrap()
    };
    for (observed, name) in [("10.0.0.9", "here"), ("10.0.0.9", "there"), ("127.0.0.1", "there")] {
        let reply = ask(&mut registry, observed, name);
        assert!(reply.contains("peer not reachable"), "{observed} {name}: {reply}");
    }
    assert!(ask(&mut registry, "127.0.0.1", "here").contains("tcp://127.0.0.1:6001"));
    // Of several, one that can be reached.
    let elsewhere = registration("here/elsewhere", 5);
    native(&mut registry, ms(0), ToMapper::Register(elsewhere.clone()));
    let reply = ask(&mut registry, "10.0.0.9", "here");
    assert!(reply.contains(elsewhere.endpoints[0].as_str()), "{reply}");
}

#[test]
fn in_a_full_registry_those_make_way_that_were_never_heard_again() {
    let config = Config { instances_max: 3, ..Config::default() };
    let mut registry = Registry::new(config, identity(), ms(0));
    for (at, name) in ["first", "heard", "last"].iter().enumerate() {
        register(&mut registry, ms(at as u64), name, 7);
    }
    health(&mut registry, ms(10), "heard", 0.5);
    native(&mut registry, ms(11), ToMapper::Register(registration("s/a", 1)));
    assert_eq!(peer(&mut registry, ms(12), "first"), PEER_NOT_FOUND);
    assert_ne!(peer(&mut registry, ms(12), "last"), PEER_NOT_FOUND);
    // Registering again is a word as well.
    register(&mut registry, ms(13), "last", 7);
    let refused = register(&mut registry, ms(14), "more", 7);
    assert!(refused.contains("the mapper's registry is full"), "{refused}");
    assert_ne!(peer(&mut registry, ms(15), "heard"), PEER_NOT_FOUND);
    assert_eq!(registry.refused.registrations, 1);
}

#[test]
fn empty_services_make_way_and_then_those_of_whom_nobody_heard_again() {
    let config = Config { services_max: 2, ..Config::default() };
    let mut registry = Registry::new(config, identity(), ms(0));
    register(&mut registry, ms(0), "typo", 7);
    ask(&mut registry, ms(1), "DEREGISTER", r#"{"name":"typo","pid":7}"#);
    changes(&mut registry, ms(100));
    register(&mut registry, ms(100), "silent", 7);
    let outputs = native(&mut registry, ms(101), ToMapper::Register(registration("s/a", 1)));
    let is_last_word = |output: &Output| {
        let Some(Publication::Snapshot(part)) = output.publication() else { return false };
        let Output::Publish { topic, .. } = output else { return false };
        *topic == control::topic(&"typo".parse().unwrap()) && part.entries.is_empty()
    };
    assert!(outputs.iter().any(is_last_word), "{outputs:?}");
    assert_ne!(peer(&mut registry, ms(102), "silent"), PEER_NOT_FOUND);
    native(&mut registry, ms(103), ToMapper::Register(registration("t/a", 1)));
    assert_eq!(peer(&mut registry, ms(104), "silent"), PEER_NOT_FOUND);
    assert!(
        registry.revisions.len() == 2 && !registry.revisions.contains(&"silent".parse().unwrap())
    );
    let refused = register(&mut registry, ms(105), "more", 7);
    assert!(refused.contains("the mapper's registry is full"), "{refused}");
}

#[test]
fn the_instances_of_a_service_are_listed_with_their_room() {
    let mut registry = registry();
    for (name, service) in [("a", "video"), ("b", "video"), ("c", "audio")] {
        let worker = format!(
            r#"{{"name":"{name}","service":"{service}","address":"tcp://h:1","pid":7,"slots":3}}"#
        );
        ask(&mut registry, ms(0), "REGISTER", &worker);
    }
    let list = |registry: &mut Registry, service: &str| {
        ask(registry, ms(0), "LIST_PEERS", &format!(r#"{{"service":"{service}"}}"#))
    };
    let peer = r#"{"address":"tcp://h:1","pid":7,"load":0.0,"last_seen":1700000000.0,"slots":3}"#;
    assert_eq!(
        list(&mut registry, "video"),
        format!(r#"{{"status":"ok","warming":true,"peers":{{"a":{peer},"b":{peer}}}}}"#)
    );
    let nobody = r#"{"status":"ok","warming":true,"peers":{}}"#;
    assert_eq!(list(&mut registry, "nobody"), nobody);
}

#[test]
fn who_gives_results_is_told_so_and_stays_so() {
    let mut registry = registry();
    let worker = r#"{"name":"w","address":"tcp://h:1","pid":7,"slots":3,"results":true}"#;
    ask(&mut registry, ms(0), "REGISTER", worker);
    assert_eq!(health(&mut registry, ms(1), "w", 0.5), OK);
    let load = registry.services.iter().next().unwrap().registration.load;
    let share = load.share.unwrap();
    assert_eq!((share.get(), share.gives_results(), load.open_max()), (0.5, true, 3));
}

#[test]
fn who_speaks_json_cannot_be_told_to_end() {
    let mut registry = registry();
    register(&mut registry, ms(0), "resize", 7);
    let (key, _) = registry.named("resize").unwrap();
    let drain = ToMapper::Drain { key: key.clone() };
    let outputs = native(&mut registry, ms(1), drain);
    let answer = FromMapper::DrainAsked(control::DrainAnswer::CannotBeTold);
    assert_eq!(outputs.last().and_then(Output::answer), Some(answer));
}
