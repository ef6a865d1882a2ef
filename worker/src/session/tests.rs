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
    let mut session = Session::new(at(0), Some(key()), 1);
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
    let mut session = Session::new(at(0), Some(key()), 1);
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
        session.handle_message(at(1000 * beat - 500), welcome(1));
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
    session.handle_message(at(700), welcome(1));
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
    let mut session = Session::new(at(0), Some(key()), 1);
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
    assert_eq!(session.epoch, Some(Epoch(2)));
}

#[test]
fn a_lost_connection_starts_over_and_says_nothing_meanwhile() {
    let mut session = listed();
    session.handle_disconnected(at(4000));
    session.handle_load(at(5000), &load(8));
    assert_eq!(sent(&mut session), [""; 0]);
    session.handle_connected(at(6000));
    session.handle_message(at(6001), welcome(1));
    assert_eq!(sent(&mut session), ["hello", "register"]);
}

#[test]
fn who_is_to_end_says_so_and_goes_on_until_it_does() {
    let mut session = listed();
    session.handle_message(at(1), FromMapper::Drain { incarnation: Incarnation(3) });
    assert_eq!(session.poll_output(), None, "that was about a former life");
    session.handle_message(at(2), FromMapper::Drain { incarnation: LIFE });
    assert_eq!(session.poll_output(), Some(SessionOutput::DrainWanted));
    assert!(session.is_registered());
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
    session.handle_disconnected(at(3));
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
    away.handle_disconnected(at(1));
    away.leave();
    assert_eq!(sent(&mut away), [""; 0]);
}

/// Does what is due until then, and says what was wanted at which time, in ms: no reports.
fn wanted_until(session: &mut Session, until: u64) -> Vec<(u64, SessionOutput)> {
    let mut wanted = Vec::new();
    let mut now = Timestamp::default();
    loop {
        while let Some(output) = session.poll_output() {
            if !matches!(output, SessionOutput::Send(ToMapper::Report { .. })) {
                wanted.push((now.since(at(0)).as_millis() as u64, output));
            }
        }
        match session.poll_timeout() {
            Some(due) if due <= at(until) => now = due,
            _ => return wanted,
        }
        session.handle_timeout(now);
    }
}

fn is_hello(output: &SessionOutput) -> bool {
    matches!(output, SessionOutput::Send(ToMapper::Hello(_)))
}

#[test]
fn a_mapper_that_says_nothing_is_asked_and_then_dialled_again() {
    let mut session = listed();
    // Pulses come all the time: that the other connection lives means nothing.
    session.handle_pulse(at(1400), Epoch(1), 1, 0.5);
    let asked = wanted_until(&mut session, 1500);
    assert!(matches!(&asked[..], [(1500, hello)] if is_hello(hello)), "{asked:?}");
    // Whatever it answers is a word.
    session.handle_message(at(1501), welcome(1));
    session.handle_pulse(at(2900), Epoch(1), 1, 0.5);
    let asked = wanted_until(&mut session, 3100);
    assert!(matches!(&asked[..], [(3001, hello)] if is_hello(hello)), "{asked:?}");
    session.handle_pulse(at(4400), Epoch(1), 1, 0.5);
    assert!(session.is_registered());
    let given_up = wanted_until(&mut session, 4501);
    let silent = SessionOutput::Silent(ms(3000));
    assert_eq!(given_up, [(4501, silent), (4501, SessionOutput::Reconnect)]);
    assert!(!session.is_welcomed());
    // The new connection is there, and everything starts over.
    session.handle_connected(at(4510));
    session.handle_message(at(4511), welcome(1));
    assert_eq!(sent(&mut session), ["hello", "register"]);
    session.handle_message(at(4512), registered());
    assert!(session.is_registered());
}

#[test]
fn new_connections_to_a_mapper_that_is_away_are_made_ever_more_seldom() {
    let mut session = listed();
    session.handle_disconnected(at(100));
    let wanted = wanted_until(&mut session, 600_000);
    let times = |kind: fn(&SessionOutput) -> bool| -> Vec<u64> {
        wanted.iter().filter(|(_, output)| kind(output)).map(|(at, _)| *at).collect()
    };
    let reconnects = times(|output| *output == SessionOutput::Reconnect);
    let said = times(|output| matches!(output, SessionOutput::Silent(_)));
    assert_eq!(reconnects[0], 3100);
    let pauses: Vec<_> = reconnects.windows(2).map(|two| two[1] - two[0]).collect();
    for (pause, longest) in pauses.iter().zip([3000, 6000, 12_000, 24_000, 30_000, 30_000]) {
        assert!((longest * 3 / 4..=longest).contains(pause), "{pauses:?}");
    }
    assert!((20..30).contains(&reconnects.len()), "{reconnects:?}");
    assert_eq!(said.len(), 5, "the first, the second, the fourth and so on: {said:?}");
    // One word, and the next silence is short again.
    session.handle_connected(at(600_000));
    session.handle_message(at(600_001), welcome(1));
    wanted_until(&mut session, 600_001);
    session.handle_disconnected(at(600_002));
    let wanted = wanted_until(&mut session, 603_002);
    assert_eq!(wanted.last(), Some(&(603_002, SessionOutput::Reconnect)));
}

#[test]
fn a_connection_that_is_half_open_from_the_start_is_given_up_as_well() {
    let mut session = Session::new(at(0), None, 1);
    session.handle_connected(at(100));
    let wanted = wanted_until(&mut session, 3100);
    assert_eq!(wanted.iter().filter(|(_, output)| is_hello(output)).count(), 3);
    assert_eq!(wanted.last(), Some(&(3100, SessionOutput::Reconnect)));
}

#[test]
fn pulses_that_cease_are_a_new_subscription_and_nothing_else() {
    let mut session = listed();
    let mut subscriptions = Vec::new();
    session.handle_pulse(at(500), Epoch(1), 1, 0.5);
    for second in 1..=120 {
        // The mapper answers what it is asked.
        session.handle_message(at(1000 * second), welcome(1));
        let wanted = wanted_until(&mut session, 1000 * second + 999);
        assert!(wanted.iter().all(|(_, output)| *output == SessionOutput::Resubscribe));
        subscriptions.extend(wanted.iter().map(|(at, _)| *at));
    }
    assert_eq!(subscriptions[0], 3500);
    assert!((6..10).contains(&subscriptions.len()), "{subscriptions:?}");
    assert!(session.is_registered());
    session.handle_pulse(at(121_000), Epoch(1), 1, 0.5);
    session.handle_message(at(123_000), welcome(1));
    assert_eq!(wanted_until(&mut session, 124_000), [(124_000, SessionOutput::Resubscribe)]);
}

#[test]
fn what_was_not_heard_while_this_process_was_suspended_means_nothing() {
    let mut session = listed();
    session.handle_suspension(at(60_000), ms(59_000));
    let asked = wanted_until(&mut session, 60_500);
    assert!(matches!(&asked[..], [(60_500, hello)] if is_hello(hello)), "{asked:?}");
    // Suspended again, with the question open: time for its answer was not up.
    session.handle_suspension(at(90_000), ms(29_500));
    assert_eq!(wanted_until(&mut session, 91_000), []);
}

#[test]
fn questions_of_very_many_do_not_overwhelm_the_mapper() {
    let mut session = listed();
    session.handle_pulse(at(0), Epoch(1), 60_000, 0.5);
    session.handle_pulse(at(2900), Epoch(1), 60_000, 0.5);
    session.handle_pulse(at(5800), Epoch(1), 60_000, 0.5);
    let asked = wanted_until(&mut session, 6000);
    assert!(matches!(&asked[..], [(6000, hello)] if is_hello(hello)), "{asked:?}");
}

#[test]
fn a_refused_registration_is_tried_again_and_said_ever_more_seldom() {
    for error in [RegistrationError::RegistryFull, RegistrationError::IncarnationAhead] {
        let mut session = Session::new(at(0), Some(key()), 1);
        session.register(at(0), registration());
        session.handle_connected(at(0));
        let (mut tries, mut said, mut now) = (Vec::new(), 0, at(0));
        while !session.is_registered() {
            while let Some(output) = session.poll_output() {
                match output {
                    SessionOutput::Send(ToMapper::Hello(_)) => {
                        session.handle_message(now, welcome(1));
                        session.handle_pulse(now, Epoch(1), 1, 0.5);
                    }
                    SessionOutput::Send(ToMapper::Register(_)) => {
                        tries.push(now.since(at(0)).as_millis());
                        // After ten tries there is room.
                        let refused = FromMapper::RegistrationRefused(error);
                        let answer = if tries.len() < 11 { refused } else { registered() };
                        session.handle_message(now, answer);
                    }
                    SessionOutput::RegistrationRefused(why) => {
                        assert_eq!(why, error);
                        said += 1;
                    }
                    _ => {}
                }
            }
            now = session.poll_timeout().unwrap();
            session.handle_pulse(now, Epoch(1), 1, 0.5);
            session.handle_timeout(now);
        }
        let pauses: Vec<_> = tries.windows(2).map(|two| two[1] - two[0]).collect();
        for (pause, longest) in pauses.iter().zip([1000, 2000, 4000, 8000, 16_000, 30_000, 30_000])
        {
            assert!((longest * 3 / 4..=longest + 1).contains(pause), "{pauses:?}");
        }
        assert_eq!(said, 4, "1, 2, 4 and 8 of 10");
    }
}

#[test]
fn a_mapper_of_another_version_may_be_replaced() {
    let mut session = Session::new(at(0), None, 1);
    session.handle_connected(at(0));
    let (mut hellos, mut said, mut now) = (0, 0, at(0));
    while now < at(300_000) {
        while let Some(output) = session.poll_output() {
            match output {
                SessionOutput::Send(ToMapper::Hello(_)) => {
                    hellos += 1;
                    let other = FromMapper::WrongVersion { oldest: 99, newest: 99 };
                    session.handle_message(now, other);
                }
                SessionOutput::WrongVersion { .. } => said += 1,
                other => panic!("{other:?}"),
            }
        }
        assert!(session.is_answered());
        now = session.poll_timeout().unwrap();
        session.handle_timeout(now);
    }
    assert!((12..18).contains(&hellos) && (4..=5).contains(&said), "{hellos} {said}");
    session.handle_message(now, welcome(1));
    assert!(session.is_welcomed());
}

#[test]
fn a_changed_address_is_registered_at_once_and_the_same_one_is_not() {
    let mut session = listed();
    session.register(at(10), registration());
    assert_eq!(sent(&mut session), [""; 0]);
    let moved = vec!["tcp://10.0.0.2:1".parse().unwrap()];
    session.register(at(20), Registration { endpoints: moved.clone(), ..registration() });
    assert_eq!(sent(&mut session), ["register"]);
    session.handle_message(at(21), registered());
    assert!(session.is_registered());
    // So is a new life of a worker whose clock was wrong, and nothing about the former one counts.
    let life = Incarnation(10);
    let anew = Registration { incarnation: life, endpoints: moved, ..registration() };
    session.register(at(25), anew);
    assert_eq!(sent(&mut session), ["register"]);
    session.handle_message(at(26), registered());
    assert!(!session.is_registered());
    session.handle_message(at(26), FromMapper::Registered { key: key(), incarnation: life });
    assert!(session.is_registered());
    sent(&mut session);
    // The mapper itself sees another address, on a connection that a router on the way took over.
    let seen = Welcome { observed: "10.0.0.3".to_owned(), ..crate::testing::welcome() };
    session.handle_message(at(30), FromMapper::Welcome(seen.clone()));
    assert_eq!(session.poll_output(), Some(SessionOutput::Welcomed(seen)));
}

#[test]
fn it_says_goodbye_on_a_connection_that_was_made_again_a_moment_ago() {
    let mut session = listed();
    session.handle_disconnected(at(1));
    session.handle_connected(at(1));
    assert_eq!(sent(&mut session), ["hello"]);
    session.leave();
    assert_eq!(sent(&mut session), ["leave"]);
    let mut away = Session::new(at(0), Some(key()), 1);
    away.handle_connected(at(0));
    assert_eq!(sent(&mut away), ["hello"]);
    // Nobody can have listed it.
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
    session.handle_disconnected(at(1));
    session.handle_error(Some("worse"));
    assert_eq!(told(&mut session), []);
    session.handle_connected(at(1));
    session.handle_message(at(1), welcome(1));
    assert_eq!(told(&mut session), [Some("worse".to_owned())]);
    session.handle_error(None);
    assert_eq!(told(&mut session), [None]);
}
