use svcmap_proto::names::HostId;

use super::*;
use crate::testing::*;

const LIFE: Incarnation = Incarnation(9);

fn registration() -> Registration {
    Registration {
        key: key(),
        incarnation: LIFE,
        endpoints: vec!["tcp://10.0.0.1:1".parse().unwrap()],
        host: HostId(1),
        pid: 1,
        error: None,
        load: Load::default(),
    }
}

fn welcome(epoch: u64) -> FromMapper {
    FromMapper::Welcome(Welcome {
        epoch: Epoch(epoch),
        warming: false,
        beat_ms: 1000,
        expiry_ms: 3000,
        publish_ms: 100,
        publish: "tcp://*:1".parse().unwrap(),
        observed: String::new(),
        highest: None,
    })
}

fn registered() -> FromMapper {
    FromMapper::Registered { key: key(), incarnation: LIFE }
}

/// What it sends now, by kind.
fn sent(session: &mut Session) -> Vec<&'static str> {
    std::iter::from_fn(|| session.poll_output())
        .filter_map(|output| match output {
            SessionOutput::Send(ToMapper::Hello(_)) => Some("hello"),
            SessionOutput::Send(ToMapper::Register(_)) => Some("register"),
            SessionOutput::Send(ToMapper::Report { .. }) => Some("report"),
            SessionOutput::Send(ToMapper::Leave { .. }) => Some("leave"),
            SessionOutput::Send(_) => Some("something else"),
            _ => None,
        })
        .collect()
}

/// A session that the mapper lists since the start of the test.
fn listed() -> Session {
    let mut session = Session::new(Some(key()));
    session.handle_connected(at(0));
    session.handle_message(at(0), welcome(1));
    session.register(at(0), registration());
    session.handle_message(at(0), registered());
    assert_eq!(sent(&mut session), ["hello", "register"]);
    assert!(session.is_registered());
    session
}

fn load(queued: u32) -> Load {
    Load { queued, slots: 8, mean_service_us: 40_000, ..Load::default() }
}

#[test]
fn it_is_listed_with_the_load_that_it_has() {
    let mut session = Session::new(Some(key()));
    session.handle_connected(at(0));
    session.handle_message(at(0), welcome(1));
    let has_room = Load { sequence: 1, ..load(0) };
    session.register(at(0), Registration { load: has_room, ..registration() });
    let registered_with = |session: &mut Session| {
        std::iter::from_fn(|| session.poll_output()).find_map(|output| match output {
            SessionOutput::Send(ToMapper::Register(registration)) => Some(registration.load),
            _ => None,
        })
    };
    assert_eq!(registered_with(&mut session), Some(has_room));
    // The next time with what it has by then.
    let busy = Load { sequence: 2, ..load(3) };
    session.handle_load(at(1), &busy);
    session.handle_message(at(1), FromMapper::Reregister);
    session.handle_message(at(1), welcome(1));
    assert_eq!(registered_with(&mut session), Some(busy));
}

#[test]
fn every_beat_it_says_that_it_is_alive() {
    let mut session = listed();
    for beat in 1..=3 {
        session.handle_timeout(at(1000 * beat - 1));
        assert_eq!(sent(&mut session), [""; 0]);
        assert_eq!(session.poll_timeout(), Some(at(1000 * beat)));
        session.handle_timeout(at(1000 * beat));
        assert_eq!(sent(&mut session), ["report"]);
    }
}

#[test]
fn a_changed_load_is_reported_once_per_service_time_and_a_crossing_at_once() {
    let mut session = listed();
    // From idle to low is a crossing.
    session.handle_load(at(500), &load(1));
    assert_eq!(sent(&mut session), ["report"]);
    // Within a level it waits: here for the publish interval, which is longer than a service time.
    session.handle_load(at(510), &load(2));
    assert_eq!(sent(&mut session), [""; 0]);
    assert_eq!(session.poll_timeout(), Some(at(600)));
    session.handle_timeout(at(600));
    assert_eq!(sent(&mut session), ["report"]);
    // A burst of crossings is one report.
    session.handle_load(at(601), &load(4));
    session.handle_load(at(602), &load(6));
    assert_eq!(sent(&mut session), [""; 0]);
    session.handle_load(at(605), &load(8));
    assert_eq!(sent(&mut session), ["report"]);
    // Nothing new: the next beat.
    session.handle_load(at(700), &load(8));
    assert_eq!(session.poll_timeout(), Some(at(1605)));
}

#[test]
fn reports_of_very_many_do_not_overwhelm_the_mapper() {
    let mut session = listed();
    session.handle_pulse(at(0), Epoch(1), 10_000, 0.5);
    // Half a second for each of them, instead of the 100 ms that the mapper wants at least.
    session.handle_load(at(300), &load(1));
    assert_eq!(sent(&mut session), ["report"]);
    session.handle_load(at(310), &load(2));
    assert_eq!(session.poll_timeout(), Some(at(800)));
    session.handle_timeout(at(800));
    assert_eq!(sent(&mut session), ["report"]);
    // What matters is not held up by that, but by its own kind.
    session.handle_load(at(810), &load(4));
    assert_eq!(sent(&mut session), ["report"]);
    session.handle_load(at(820), &load(8));
    assert_eq!((sent(&mut session), session.poll_timeout()), (vec![], Some(at(1310))));
    session.handle_timeout(at(1310));
    assert_eq!(sent(&mut session), ["report"]);
    // However many there are, a beat is the longest silence.
    session.handle_pulse(at(1320), Epoch(1), u32::MAX, 0.5);
    session.handle_load(at(1330), &load(0));
    assert_eq!(session.poll_timeout(), Some(at(2310)));
}

#[test]
fn what_is_not_answered_is_asked_again() {
    let mut session = Session::new(Some(key()));
    session.register(at(0), registration());
    session.handle_connected(at(0));
    for second in 1..=2 {
        assert_eq!(sent(&mut session), ["hello"]);
        session.handle_timeout(at(1000 * second));
    }
    sent(&mut session);
    session.handle_message(at(2500), welcome(1));
    for second in 1..=2 {
        assert_eq!(sent(&mut session), ["register"]);
        session.handle_timeout(at(2500 + 1000 * second));
    }
}

#[test]
fn a_mapper_that_forgot_it_or_begins_a_new_life_is_told_again() {
    let mut session = listed();
    session.handle_message(at(100), FromMapper::Reregister);
    assert_eq!(sent(&mut session), ["hello"]);
    session.handle_message(at(101), welcome(1));
    assert_eq!(sent(&mut session), ["register"]);
    session.handle_message(at(102), registered());
    // The pulse of a new life: each at its own place in a spread of half a millisecond for each.
    session.handle_pulse(at(200), Epoch(2), 1000, 0.5);
    assert_eq!(session.poll_timeout(), Some(at(450)));
    session.handle_timeout(at(450));
    assert_eq!(sent(&mut session), ["hello"]);
    session.handle_message(at(451), welcome(2));
    assert_eq!(sent(&mut session), ["register"]);
    assert_eq!(session.epoch(), Some(Epoch(2)));
}

#[test]
fn a_lost_connection_starts_over_and_says_nothing_meanwhile() {
    let mut session = listed();
    session.handle_disconnected();
    session.handle_load(at(5000), &load(8));
    assert_eq!((sent(&mut session), session.poll_timeout()), (vec![], None));
    session.handle_connected(at(6000));
    session.handle_message(at(6001), welcome(1));
    assert_eq!(sent(&mut session), ["hello", "register"]);
}

#[test]
fn who_is_replaced_says_no_more() {
    let mut session = listed();
    let by = Incarnation(10);
    let other = FromMapper::Replaced { key: key(), incarnation: Incarnation(3), by };
    session.handle_message(at(1), other);
    assert!(session.is_registered(), "that was about a former life");
    session.handle_message(at(2), FromMapper::Replaced { key: key(), incarnation: LIFE, by });
    assert_eq!(session.poll_output(), Some(SessionOutput::Replaced(by)));
    session.handle_disconnected();
    session.handle_connected(at(3));
    session.handle_timeout(at(9999));
    assert_eq!(sent(&mut session), [""; 0]);
}

#[test]
fn it_says_goodbye_to_a_mapper_that_answers() {
    let mut session = listed();
    session.leave();
    assert_eq!(sent(&mut session), ["leave"]);
    let mut away = listed();
    away.handle_disconnected();
    away.leave();
    assert_eq!(sent(&mut away), [""; 0]);
}

#[test]
fn what_jobs_fail_of_is_told_when_it_changes_and_only_then() {
    let mut session = listed();
    let told = |session: &mut Session| -> Vec<_> {
        let register = |output| match output {
            SessionOutput::Send(ToMapper::Register(registration)) => Some(registration.error),
            _ => None,
        };
        std::iter::from_fn(|| session.poll_output()).filter_map(register).collect()
    };
    session.handle_error(None);
    assert_eq!(told(&mut session), []);
    session.handle_error(Some("gone"));
    session.handle_error(Some("gone"));
    assert_eq!(told(&mut session), [Some("gone".to_owned())]);
    assert!(session.is_registered());
    // A mapper that is away is told when it is back.
    session.handle_disconnected();
    session.handle_error(Some("worse"));
    assert_eq!(told(&mut session), []);
    session.handle_connected(at(1));
    session.handle_message(at(1), welcome(1));
    assert_eq!(told(&mut session), [Some("worse".to_owned())]);
    session.handle_error(None);
    assert_eq!(told(&mut session), [None]);
}
