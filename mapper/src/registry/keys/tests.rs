use svcmap_proto::control::{Admission, DrainAnswer, RegistrationError, ServiceStanding, ToMapper};
use svcmap_proto::json::{Envelope, open};
use svcmap_proto::names::Incarnation;
use svcmap_proto::principals::Principal;

use super::super::tests::{UNIX_US, identity, load, ms, registration};
use super::super::{Event, Registry};
use super::*;
use crate::config::Config;

/// Who is there: an operator, two workers of the service `s`, a worker of `t`, a client of `s`.
const BOSS: u8 = 1;
const ONE: u8 = 2;
const TWO: u8 = 3;
const OTHER: u8 = 4;
const CLIENT: u8 = 5;
const STRANGER: u8 = 6;

fn public(who: u8) -> PublicKey {
    PublicKey([who; 32])
}

fn principal(name: &str, role: Role, services: &str, who: u8) -> Principal {
    let (name, services) = (name.parse().unwrap(), vec![services.parse().unwrap()]);
    Principal { name, role, services, key: public(who), ends_at_unix_s: None }
}

fn rights() -> Rights {
    let all = [
        principal("boss", Role::Operator, "*", BOSS),
        principal("one", Role::Worker, "s", ONE),
        principal("two", Role::Worker, "s", TWO),
        principal("other", Role::Worker, "t", OTHER),
        principal("client", Role::Client, "s", CLIENT),
    ];
    Rights::new(all.to_vec(), Vec::new())
}

fn registry() -> Registry {
    Registry::new(Config::default(), identity(), ms(0)).with_rights(rights())
}

fn at(who: u8) -> Connection {
    Connection::new(&[who]).of(Some(public(who)))
}

/// What that one is answered.
fn say(registry: &mut Registry, who: u8, message: ToMapper) -> Vec<FromMapper> {
    registry.handle_message(ms(0), UNIX_US, &at(who), "10.0.0.9", message);
    answers(registry, who)
}

fn answers(registry: &mut Registry, who: u8) -> Vec<FromMapper> {
    let outputs = std::iter::from_fn(|| registry.poll_output());
    let answers = outputs.filter_map(|output| match output {
        Output::Reply { to, message } if to == at(who) => Some(message),
        Output::Send { to, frame } if to == at(who) => {
            Some(svcmap_proto::codec::decode(&frame).unwrap())
        }
        _ => None,
    });
    answers.collect()
}

fn register(registry: &mut Registry, who: u8, key: &str, incarnation: u64) -> Vec<FromMapper> {
    say(registry, who, ToMapper::Register(registration(key, incarnation)))
}

fn is_listed(registry: &Registry, key: &str, incarnation: u64) -> bool {
    let key = &registration(key, incarnation).key;
    registry
        .listed(key)
        .is_some_and(|listed| listed.registration.incarnation == Incarnation(incarnation))
}

fn refused(error: RegistrationError) -> Vec<FromMapper> {
    vec![FromMapper::RegistrationRefused(error)]
}

#[test]
fn each_lists_only_instances_of_its_services_and_says_who_it_is() {
    let mut registry = registry();
    let told = register(&mut registry, ONE, "s/a", 1);
    assert!(matches!(told[..], [FromMapper::Admit(_), FromMapper::Registered { .. }]), "{told:?}");
    let again = register(&mut registry, ONE, "s/a", 1);
    assert!(matches!(again[..], [FromMapper::Registered { .. }]), "{again:?}");
    for who in [OTHER, CLIENT, STRANGER] {
        let answer = register(&mut registry, who, "s/b", 1);
        assert_eq!(answer, refused(RegistrationError::NotAllowed));
    }
    let service = "s".parse().unwrap();
    let told = say(&mut registry, CLIENT, ToMapper::Sync { service });
    let [FromMapper::Snapshot { part, .. }] = &told[..] else { panic!("{told:?}") };
    assert_eq!(part.entries[0].key, Some(public(ONE)));
    assert_eq!(part.entries.len(), 1);
}

#[test]
fn nobody_takes_a_name_that_another_has() {
    let mut registry = registry();
    register(&mut registry, ONE, "s/a", 5);
    // Neither with a later life, nor an earlier one, nor the same.
    for incarnation in [9, 1, 5] {
        let answer = register(&mut registry, TWO, "s/a", incarnation);
        assert_eq!(answer, refused(RegistrationError::NameTaken));
    }
    assert!(is_listed(&registry, "s/a", 5));
    // Who has it begins a new life as ever, and an earlier one is told that it is over.
    register(&mut registry, ONE, "s/a", 6);
    assert!(is_listed(&registry, "s/a", 6));
    let replayed = register(&mut registry, ONE, "s/a", 5);
    assert!(matches!(replayed[..], [FromMapper::Replaced { by: Incarnation(6), .. }]));
    // When it has left, the name is free.
    let key = registration("s/a", 6).key;
    say(&mut registry, ONE, ToMapper::Leave { key, incarnation: Incarnation(6) });
    register(&mut registry, TWO, "s/a", 7);
    assert!(is_listed(&registry, "s/a", 7));
}

#[test]
fn nobody_fills_the_registry_alone() {
    let config = Config { instances_max: 4, ..Config::default() };
    let mut registry = Registry::new(config.clone(), identity(), ms(0)).with_rights(rights());
    for name in ["s/a", "s/b"] {
        register(&mut registry, ONE, name, 1);
        assert!(is_listed(&registry, name, 1));
    }
    let third = register(&mut registry, ONE, "s/c", 1);
    assert_eq!(third, refused(RegistrationError::ShareFull));
    // What it has goes on, and the other half is for others.
    register(&mut registry, ONE, "s/a", 2);
    register(&mut registry, TWO, "s/c", 1);
    assert!(is_listed(&registry, "s/a", 2) && is_listed(&registry, "s/c", 1));
    let (key, incarnation) = (registration("s/b", 1).key, Incarnation(1));
    say(&mut registry, ONE, ToMapper::Leave { key, incarnation });
    register(&mut registry, ONE, "s/d", 1);
    assert!(is_listed(&registry, "s/d", 1));
    // Who is alone has all of it.
    let alone = Rights::new(vec![principal("one", Role::Worker, "s", ONE)], Vec::new());
    let mut registry = Registry::new(config, identity(), ms(0)).with_rights(alone);
    for name in ["s/a", "s/b", "s/c", "s/d"] {
        register(&mut registry, ONE, name, 1);
        assert!(is_listed(&registry, name, 1));
    }
}

#[test]
fn nobody_speaks_for_an_instance_of_another() {
    let mut registry = registry();
    register(&mut registry, ONE, "s/a", 5);
    let key = registration("s/a", 5).key;
    let incarnation = Incarnation(5);
    let report = || ToMapper::Report { key: key.clone(), incarnation, load: load(9, 3) };
    let leave = || ToMapper::Leave { key: key.clone(), incarnation };
    for who in [TWO, OTHER, CLIENT, STRANGER] {
        say(&mut registry, who, report());
        say(&mut registry, who, leave());
        let listed = registry.listed(&key).unwrap();
        assert_eq!(listed.registration.load.sequence, 1, "{who}");
        assert_eq!(listed.contact.connection(), &at(ONE));
    }
    // A leave of what is not listed would lock the name.
    let absent = registration("s/b", 5).key;
    for who in [TWO, OTHER, CLIENT, STRANGER] {
        say(&mut registry, who, ToMapper::Leave { key: absent.clone(), incarnation });
    }
    register(&mut registry, ONE, "s/b", 5);
    assert!(is_listed(&registry, "s/b", 5));
    // The instance itself, on another connection of its own, and an operator.
    let again = Connection::new(b"again").of(Some(public(ONE)));
    registry.handle_message(ms(0), UNIX_US, &again, "", report());
    assert_eq!(registry.listed(&key).unwrap().registration.load.sequence, 9);
    say(&mut registry, BOSS, leave());
    assert!(registry.listed(&key).is_none());
}

#[test]
fn nobody_hears_of_what_it_has_nothing_to_do_with() {
    let mut registry = registry();
    register(&mut registry, ONE, "s/a", 5);
    register(&mut registry, OTHER, "t/a", 5);
    let names = |told: &[FromMapper]| match told {
        [FromMapper::Services { names, .. }] => {
            names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
        }
        other => panic!("{other:?}"),
    };
    for (who, known) in [(BOSS, "s t"), (ONE, "s"), (OTHER, "t"), (CLIENT, "s"), (STRANGER, "")] {
        assert_eq!(names(&say(&mut registry, who, ToMapper::List { after: None })), known, "{who}");
    }
    for who in [OTHER, STRANGER] {
        let told = say(&mut registry, who, ToMapper::Sync { service: "s".parse().unwrap() });
        let [FromMapper::Snapshot { part, .. }] = &told[..] else { panic!("{told:?}") };
        assert_eq!((part.standing, part.entries.len()), (ServiceStanding::NotAllowed, 0));
    }
}

/// What a REQ socket of that one is told.
fn ask(registry: &mut Registry, who: Option<u8>, (command, payload): (&str, &str)) -> String {
    let body = format!(r#"{{"command":"{command}","payload":{payload}}}"#);
    let frames = [b"json".to_vec(), Vec::new(), body.as_bytes().to_vec()];
    let from: Envelope = open(&frames).unwrap().0.of(who.map(public));
    registry.handle_request(ms(0), UNIX_US, from, "127.0.0.1", Ok(body.as_bytes())).unwrap();
    let outputs = std::iter::from_fn(|| registry.poll_output());
    let replies = outputs.filter_map(|output| match output {
        Output::JsonReply { body, .. } => Some(String::from_utf8_lossy(&body).into_owned()),
        _ => None,
    });
    replies.collect()
}

#[test]
fn the_same_holds_in_json() {
    let mut registry = registry();
    let register = |service: &str, pid: u32| {
        format!(
            r#"{{"name":"py","service":"{service}","instance":"py",
               "address":"tcp://127.0.0.1:7","pid":{pid}}}"#
        )
    };
    assert!(ask(&mut registry, Some(CLIENT), ("REGISTER", &register("s", 1))).contains("error"));
    assert!(!ask(&mut registry, Some(ONE), ("REGISTER", &register("s", 1))).contains("error"));
    // Another's name by which it reports, for another service as well.
    for (who, service) in [(TWO, "s"), (OTHER, "t")] {
        assert!(
            ask(&mut registry, Some(who), ("REGISTER", &register(service, 1)))
                .contains("with another key")
        );
    }
    let health = ("UPDATE_HEALTH", r#"{"name":"py","load":0.5}"#);
    let deregister = ("DEREGISTER", r#"{"name":"py","pid":1}"#);
    for who in [Some(TWO), Some(OTHER), Some(CLIENT), None] {
        assert!(ask(&mut registry, who, health).contains("not found"));
        ask(&mut registry, who, deregister);
        assert_eq!(registry.services.len(), 1);
    }
    assert!(!ask(&mut registry, Some(ONE), health).contains("error"));
    for body in [
        ("GET_PEER", r#"{"name":"s"}"#),
        ("GET_PEER", r#"{"name":"s/py"}"#),
        ("GET_PEER", r#"{"name":"py"}"#),
        ("LIST_PEERS", r#"{"service":"s"}"#),
    ] {
        let told = [Some(CLIENT), Some(OTHER)].map(|who| ask(&mut registry, who, body));
        assert!(told[0].contains("127.0.0.1:7"), "{told:?}");
        assert!(told[1].contains("nothing to do with"), "{told:?}");
    }
    for body in [("LIST_PEERS", "{}"), ("STATUS", "{}")] {
        let told = [Some(BOSS), Some(CLIENT)].map(|who| ask(&mut registry, who, body));
        assert!(told[0].contains("py"), "{told:?}");
        assert!(told[1].contains("by its name"), "{told:?}");
    }
    // Who has no key is of this machine, and told of whom it can speak with.
    for command in ["LIST_PEERS", "STATUS"] {
        assert!(!ask(&mut registry, None, (command, "{}")).contains("py"), "{command}");
    }
    ask(&mut registry, Some(ONE), deregister);
    assert_eq!(registry.services.len(), 0);
    // Workers of this dialect ask whom to let in.
    let keys = |registry: &mut Registry, who| {
        ask(registry, Some(who), ("LIST_KEYS", r#"{"service":"s"}"#))
    };
    let of_s = keys(&mut registry, ONE);
    assert!(of_s.contains(&public(CLIENT).to_string()), "{of_s}");
    assert!(!of_s.contains(&public(OTHER).to_string()), "{of_s}");
    for who in [CLIENT, OTHER, STRANGER] {
        assert!(keys(&mut registry, who).contains("nothing to do with"));
    }
}

fn admission(told: &[FromMapper]) -> Option<&Admission> {
    told.iter().find_map(|message| match message {
        FromMapper::Admit(admission) => Some(admission),
        _ => None,
    })
}

#[test]
fn workers_hear_whom_to_let_in_before_they_are_listed_and_when_that_changes() {
    let mut registry = registry();
    let hello = |service: &str| {
        let key = Some(registration(&format!("{service}/a"), 1).key);
        ToMapper::Hello(svcmap_proto::control::Hello { oldest: 0, newest: 255, key })
    };
    let told = say(&mut registry, ONE, hello("s"));
    let of_s = [BOSS, ONE, TWO, CLIENT].map(public).to_vec();
    assert_eq!(admission(&told).unwrap().keys, of_s);
    // Who may not serve is told nothing of that.
    for who in [OTHER, CLIENT, STRANGER] {
        assert_eq!(admission(&say(&mut registry, who, hello("s"))), None, "{who}");
    }
    register(&mut registry, ONE, "s/a", 5);
    register(&mut registry, OTHER, "t/a", 5);
    let without =
        rights().after(0, KeyRequest::Revoke { name: "client".parse().unwrap() }).unwrap();
    registry.handle_rights(ms(1), without);
    let outputs: Vec<_> = std::iter::from_fn(|| registry.poll_output()).collect();
    for (who, keys) in [(ONE, vec![BOSS, ONE, TWO]), (OTHER, vec![BOSS, OTHER])] {
        let keys: Vec<_> = keys.into_iter().map(public).collect();
        let told = outputs.iter().find_map(|output| match output {
            Output::Send { to, frame } if *to == at(who) => {
                Some(svcmap_proto::codec::decode(frame).unwrap())
            }
            _ => None,
        });
        let admission = Admission { keys, revoked: vec![public(CLIENT)] };
        assert_eq!(told, Some(FromMapper::Admit(admission)));
    }
}

#[test]
fn who_is_revoked_is_listed_no_more_and_that_is_a_fact() {
    let mut registry = registry();
    register(&mut registry, ONE, "s/a", 5);
    register(&mut registry, TWO, "s/b", 5);
    let without = rights().after(0, KeyRequest::Revoke { name: "one".parse().unwrap() }).unwrap();
    registry.handle_rights(ms(1), without);
    assert!(!is_listed(&registry, "s/a", 5) && is_listed(&registry, "s/b", 5));
    let left = std::iter::from_fn(|| registry.poll_output()).any(|output| {
        matches!(output, Output::Event(Event::Left { key, .. }) if key.instance.as_str() == "a")
    });
    assert!(left);
    let answer = register(&mut registry, ONE, "s/a", 6);
    assert_eq!(answer, refused(RegistrationError::NotAllowed));
}

#[test]
fn only_operators_end_what_others_have_started() {
    let mut registry = registry();
    register(&mut registry, ONE, "s/a", 5);
    let drain = || ToMapper::Drain { key: registration("s/a", 5).key };
    for who in [TWO, CLIENT, STRANGER, ONE] {
        let answer = say(&mut registry, who, drain());
        assert_eq!(answer, [FromMapper::DrainAsked(DrainAnswer::NotAllowed)], "{who}");
    }
    registry.handle_message(ms(0), UNIX_US, &at(BOSS), "", drain());
    assert_eq!(answers(&mut registry, ONE), [FromMapper::Drain { incarnation: Incarnation(5) }]);
    let answer = say(&mut registry, BOSS, drain());
    assert_eq!(answer, [FromMapper::DrainAsked(DrainAnswer::Told)]);
}

#[test]
fn only_operators_change_who_takes_part() {
    let mut registry = registry();
    let revoke = || ToMapper::Keys(KeyRequest::Revoke { name: "client".parse().unwrap() });
    for who in [ONE, CLIENT, STRANGER] {
        let answer = say(&mut registry, who, revoke());
        let refused = KeyAnswer::Refused(KeyRefusal::NotOperator);
        assert_eq!(answer, [FromMapper::Keys(refused)]);
    }
    registry.handle_message(ms(0), UNIX_US, &at(BOSS), "", revoke());
    let wanted = registry.poll_output();
    assert!(matches!(wanted, Some(Output::Keys { from, .. }) if from == at(BOSS)));
    let list = || ToMapper::Keys(KeyRequest::List { skip: 0 });
    let [FromMapper::Keys(KeyAnswer::Listed { principals, .. })] =
        &say(&mut registry, CLIENT, list())[..]
    else {
        panic!("no list")
    };
    assert_eq!(principals, &[principal("client", Role::Client, "s", CLIENT)]);
    // Nobody shuts himself out, and who has to do with some services only gives nothing else.
    let own = ToMapper::Keys(KeyRequest::Revoke { name: "boss".parse().unwrap() });
    let refusal = |refusal| vec![FromMapper::Keys(KeyAnswer::Refused(refusal))];
    assert_eq!(say(&mut registry, BOSS, own), refusal(KeyRefusal::Oneself));
    let mut all = rights().principals().to_vec();
    all.push(principal("deputy", Role::Operator, "s*", STRANGER));
    let mut registry = Registry::new(Config::default(), identity(), ms(0));
    registry = registry.with_rights(Rights::new(all, Vec::new()));
    for (name, services, is_given) in
        [("new", "s", true), ("new", "s-2*", true), ("new", "*", false)]
    {
        let wanted = principal(name, Role::Worker, services, 9);
        registry.handle_message(
            ms(0),
            UNIX_US,
            &at(STRANGER),
            "",
            ToMapper::Keys(KeyRequest::Add(wanted)),
        );
        let is_wanted = matches!(registry.poll_output(), Some(Output::Keys { .. }));
        assert_eq!(is_wanted, is_given, "{services}");
    }
    for (name, is_its) in [("one", true), ("other", false), ("boss", false)] {
        let revoke = ToMapper::Keys(KeyRequest::Revoke { name: name.parse().unwrap() });
        registry.handle_message(ms(0), UNIX_US, &at(STRANGER), "", revoke);
        let is_wanted = matches!(registry.poll_output(), Some(Output::Keys { .. }));
        assert_eq!(is_wanted, is_its, "{name}");
    }
    // In plain text there are none.
    let mut plain = Registry::new(Config::default(), identity(), ms(0));
    let answer = say(&mut plain, BOSS, list());
    assert_eq!(answer, [FromMapper::Keys(KeyAnswer::Refused(KeyRefusal::NoKeys))]);
}
