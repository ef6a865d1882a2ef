use svcmap_proto::control::{ServiceStanding, Welcome};
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, HostId};

use svcmap_proto::time::Timestamp;

use super::error::start_command;
use super::*;
use crate::errors::Failure;

/// When everything happens that takes no time.
const AT: Timestamp = Timestamp::from_micros(1_000_000_000);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn key(text: &str) -> InstanceKey {
    let (service, instance) = text.split_once('/').unwrap();
    InstanceKey { service: name(service), instance: name(instance) }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::tcp("127.0.0.1", port).unwrap()
}

fn at(port: u16) -> MapperAddress {
    MapperAddress::of(&endpoint(port))
}

fn entry(instance: &str, incarnation: u64, sequence: u64) -> Entry {
    Entry {
        instance: name(instance),
        incarnation: Incarnation(incarnation),
        endpoints: vec![endpoint(7)],
        host: HostId(1),
        pid: 1,
        error: None,
        key: None,
        load: Load { sequence, ..Load::default() },
        age_ms: 0,
    }
}

fn welcome() -> FromMapper {
    welcome_of(1)
}

fn welcome_of(epoch: u64) -> FromMapper {
    FromMapper::Welcome(Welcome {
        epoch: Epoch(epoch),
        warming: false,
        beat_ms: 1000,
        expiry_ms: 3000,
        publish_ms: 100,
        publish: endpoint(5556),
        observed: String::new(),
        highest: None,
    })
}

fn services(names: &[&str], more: bool) -> FromMapper {
    let names = names.iter().map(|n| name(n)).collect();
    FromMapper::Services { names, more, refused: Refused::default(), activity: Vec::new() }
}

fn snapshot(service: &str, part: u16, parts: u16, entries: Vec<Entry>) -> FromMapper {
    let part = SnapshotPart {
        epoch: Epoch(1),
        revision: 1,
        warming: false,
        standing: ServiceStanding::Heard,
        part,
        parts,
        entries,
    };
    FromMapper::Snapshot { service: name(service), part }
}

/// A conversation in which the mapper says these things, and what it was sent meanwhile.
fn conversation(question: Question, answers: &[FromMapper]) -> (Conversation, Vec<ToMapper>) {
    let mut talk = Conversation::new(question);
    talk.handle_connected(AT);
    for answer in answers {
        talk.handle_frame(AT, &codec::encode(answer));
    }
    let sent = std::iter::from_fn(|| talk.poll_output()).collect();
    (talk, sent)
}

fn everything() -> Question {
    Question { scope: Scope::Everything, ..Question::default() }
}

#[test]
fn all_pages_and_all_parts_are_awaited() {
    let (talk, sent) = conversation(
        everything(),
        &[
            welcome(),
            services(&["a"], true),
            services(&["b"], false),
            snapshot("a", 1, 2, vec![entry("2", 1, 1)]),
            snapshot("a", 0, 2, vec![entry("1", 1, 1)]),
        ],
    );
    assert_eq!(talk.answer(), Answer::Partial);
    let lists = sent.iter().filter(|message| matches!(message, ToMapper::List { .. })).count();
    let syncs = sent.iter().filter(|message| matches!(message, ToMapper::Sync { .. })).count();
    assert_eq!((lists, syncs), (2, 2));
    let (mut talk, _) = (talk, ());
    talk.handle_frame(AT, &codec::encode(&snapshot("b", 0, 1, vec![])));
    assert_eq!(talk.answer(), Answer::Complete { warming: false });
    assert_eq!(talk.listing.instances.len(), 2);
    assert_eq!(talk.services.len(), 2);
}

#[test]
fn who_left_is_told_before_the_question_that_proves_it() {
    let left = vec![(key("a/1"), Incarnation(7))];
    let (talk, sent) = conversation(
        Question { left, ..Question::default() },
        &[welcome(), services(&["a"], false)],
    );
    assert!(matches!(
        &sent[..],
        [ToMapper::Hello(_), ToMapper::Leave { .. }, ToMapper::List { after: None }]
    ));
    assert_eq!(talk.answer(), Answer::Complete { warming: false });
}

#[test]
fn what_is_not_answered_is_asked_again_and_nothing_else_is() {
    let at = |ms| AT + Duration::from_millis(ms);
    let (mut talk, _) = conversation(everything(), &[welcome()]);
    assert_eq!(talk.poll_timeout(), Some(at(100)));
    talk.handle_timeout(at(99));
    assert_eq!(talk.poll_output(), None);
    talk.handle_timeout(at(100));
    assert_eq!(talk.poll_output(), Some(ToMapper::List { after: None }));
    // Less and less often, until something comes.
    assert_eq!(talk.poll_timeout(), Some(at(300)));
    talk.handle_frame(at(200), &codec::encode(&services(&["a", "b"], true)));
    talk.handle_frame(at(200), &codec::encode(&snapshot("a", 0, 1, vec![])));
    while talk.poll_output().is_some() {}
    assert_eq!(talk.poll_timeout(), Some(at(300)));
    talk.handle_timeout(at(300));
    let asked: Vec<_> = std::iter::from_fn(|| talk.poll_output()).collect();
    let after = Some(name("b"));
    assert_eq!(asked, [ToMapper::List { after }, ToMapper::Sync { service: name("b") }]);
    talk.handle_frame(at(301), &codec::encode(&snapshot("b", 0, 1, vec![])));
    talk.handle_frame(at(301), &codec::encode(&services(&[], false)));
    assert!(talk.is_over());
    assert_eq!(talk.poll_timeout(), None);
    // Whom nobody answers at all has no connection, which libzmq looks after.
    assert_eq!(Conversation::new(everything()).poll_timeout(), None);
}

#[test]
fn many_services_are_asked_for_a_few_at_a_time() {
    let names: Vec<String> = (0..200).map(|n| format!("s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (mut talk, mut sent) = conversation(everything(), &[welcome(), services(&names, false)]);
    let mut answered = 0;
    while let Some(message) = sent.pop() {
        assert!(talk.asked.len() <= SYNCS_MAX);
        if let ToMapper::Sync { service } = message {
            talk.handle_frame(AT, &codec::encode(&snapshot(service.as_str(), 0, 1, vec![])));
            answered += 1;
        }
        sent.extend(std::iter::from_fn(|| talk.poll_output()));
    }
    assert_eq!(answered, 200);
    assert!(talk.is_over());
}

#[test]
fn one_mapper_that_lists_who_is_wanted_is_enough() {
    let answers = [welcome(), services(&["a"], false), snapshot("a", 0, 1, vec![entry("1", 1, 1)])];
    let is_enough = |wait: Wait, answers: &[FromMapper]| {
        let scope = Scope::Service(name("a"));
        conversation(Question { scope, wait, ..Question::default() }, answers).0.is_enough()
    };
    assert!(is_enough(Wait::Found(None), &answers));
    assert!(is_enough(Wait::Found(Some(name("1"))), &answers));
    assert!(!is_enough(Wait::Found(Some(name("2"))), &answers), "another mapper may list it");
    assert!(!is_enough(Wait::All, &answers), "who is silent is to be seen");
    assert!(!is_enough(Wait::Found(None), &answers[..2]), "it has not said yet");
    let nobody = [welcome(), services(&["a"], false), snapshot("a", 0, 1, vec![])];
    assert!(!is_enough(Wait::Found(None), &nobody));
}

#[test]
fn a_lost_connection_starts_again() {
    let (mut talk, _) = conversation(everything(), &[welcome(), services(&["a"], false)]);
    talk.handle_connected(AT);
    assert_eq!(talk.answer(), Answer::Silent);
    assert!(matches!(talk.poll_output(), Some(ToMapper::Hello(_))));
}

#[test]
fn another_version_is_told_apart_from_silence() {
    let answer = FromMapper::WrongVersion { oldest: 3, newest: 4 };
    let (talk, _) = conversation(everything(), &[answer]);
    assert_eq!(talk.answer(), Answer::WrongVersion(3, 4));
    let error = ControlError::WrongVersion { mapper: at(5555), oldest: 3, newest: 4 };
    let failure = Failure::from(error);
    assert_eq!(
        failure.message,
        "the mapper at tcp://127.0.0.1:5555 speaks protocol version 3 to 4, this svcmap 2"
    );
    assert_eq!(failure.exit.code(), 1);
}

#[test]
fn nonsense_is_ignored() {
    let mut talk = Conversation::new(everything());
    talk.handle_connected(AT);
    talk.handle_frame(AT, &[]);
    talk.handle_frame(AT, &[codec::VERSION, 200, 1]);
    talk.handle_frame(AT, &codec::encode(&services(&["a"], false)));
    talk.handle_frame(AT, &codec::encode(&snapshot("a", 0, 1, vec![])));
    assert_eq!(talk.answer(), Answer::Silent);
    let mut assembly = Assembly::default();
    let FromMapper::Snapshot { part, .. } = snapshot("a", 2, 2, vec![]) else { return };
    assert!(assembly.add(part).is_none() && assembly.parts.is_empty());
}

#[test]
fn the_union_believes_the_newest_word() {
    let talk = |epoch: u64, entries: Vec<Entry>| {
        let answers = [welcome_of(epoch), services(&["a"], false), snapshot("a", 0, 1, entries)];
        conversation(everything(), &answers).0
    };
    let view = merge(vec![
        (at(1), talk(1, vec![entry("x", 2, 1), entry("y", 1, 5)])),
        (at(2), talk(2, vec![entry("x", 1, 9), entry("y", 1, 6)])),
        (at(3), Conversation::new(everything())),
    ]);
    assert_eq!(view.instances[&key("a/x")].incarnation, Incarnation(2));
    assert_eq!(view.instances[&key("a/y")].load.sequence, 6);
    assert!(!view.agree);
    assert_eq!(view.mappers[2].answer, Answer::Silent);
    let same = merge(vec![
        (at(1), talk(1, vec![entry("x", 1, 1)])),
        (at(2), talk(2, vec![entry("x", 1, 2)])),
    ]);
    assert!(same.agree);
    let twice = merge(vec![(at(1), talk(7, vec![])), (at(2), talk(7, vec![]))]);
    assert_eq!(twice.mappers.len(), 1, "one mapper at two addresses");
    // The way to one of them may break off.
    let half = conversation(everything(), &[welcome_of(7)]).0;
    let best = merge(vec![(at(1), half), (at(2), talk(7, vec![entry("x", 1, 1)]))]);
    assert_eq!((best.mappers.len(), &best.mappers[0].at, best.instances.len()), (1, &at(2), 1));
}

#[test]
fn nobody_there_names_who_was_asked_and_what_to_start() {
    let mappers = vec![at(5555), at(5557)];
    let nobody = |topology| {
        let mappers = mappers.clone();
        Failure::from(ControlError::NoMapper { mappers, tried: PATIENCE, topology })
    };
    assert_eq!(nobody(Here::NotKept).fix.as_deref(), Some("svcmap up"));
    assert_eq!(nobody(Here::Kept).fix.as_deref(), Some("svcmap ps"));
    let failure = nobody(Here::Other);
    assert_eq!(
        failure.message,
        "no mapper answers at tcp://127.0.0.1:5555, tcp://127.0.0.1:5557 (tried 3s)"
    );
    assert_eq!(failure.exit.code(), 69);
    assert_eq!(failure.fix.as_deref(), Some("svcmap mapper --bind tcp://127.0.0.1:5555"));
    assert_eq!(
        start_command(&Endpoint::tcp("10.0.0.5", 5555).unwrap()),
        "on 10.0.0.5:  svcmap mapper --bind tcp://10.0.0.5:5555"
    );
}
