mod counted;
mod published;

use svcmap_proto::codec::decode;
use svcmap_proto::control::{Change, Registration, topic};
use svcmap_proto::load::Load;
use svcmap_proto::names::HostId;

use super::*;

/// The wall clock of all tests, in microseconds.
pub(super) const UNIX_US: u64 = 1_700_000_000_000_000;

const SECOND: Duration = Duration::from_secs(1);

pub(super) fn ms(ms: u64) -> Timestamp {
    Timestamp::from_micros(ms * 1000)
}

fn key(text: &str) -> InstanceKey {
    let (service, instance) = text.split_once('/').unwrap();
    InstanceKey { service: service.parse().unwrap(), instance: instance.parse().unwrap() }
}

pub(super) fn registration(text: &str, incarnation: u64) -> Registration {
    Registration {
        key: key(text),
        incarnation: Incarnation(incarnation),
        endpoints: vec!["tcp://10.0.0.1:7000".parse().unwrap()],
        host: HostId(1),
        pid: 2,
        error: None,
        load: load(1, 0),
    }
}

pub(super) fn load(sequence: u64, queued: u32) -> Load {
    Load { sequence, queued, slots: 8, ..Load::default() }
}

pub(super) fn identity() -> Identity {
    Identity {
        epoch: Epoch(7),
        host: HostId(1),
        endpoint: "tcp://*:5555".parse().unwrap(),
        publish: "tcp://*:5556".parse().unwrap(),
    }
}

fn registry() -> Registry {
    registry_with(Config::default())
}

fn registry_with(config: Config) -> Registry {
    Registry::new(config, identity(), ms(0))
}

impl Registry {
    /// One message, from the connection of that name, and what comes of it.
    fn say(&mut self, now: Timestamp, from: &str, message: ToMapper) -> Vec<Output> {
        self.handle_message(now, UNIX_US, &Connection::new(from.as_bytes()), "10.0.0.9", message);
        self.drain()
    }

    fn say_register(
        &mut self,
        now: Timestamp,
        from: &str,
        key: &str,
        incarnation: u64,
    ) -> Vec<Output> {
        self.say(now, from, ToMapper::Register(registration(key, incarnation)))
    }

    fn say_report(
        &mut self,
        now: Timestamp,
        from: &str,
        text: &str,
        inc: u64,
        load: Load,
    ) -> Vec<Output> {
        let incarnation = Incarnation(inc);
        self.say(now, from, ToMapper::Report { key: key(text), incarnation, load })
    }

    fn say_leave(&mut self, now: Timestamp, text: &str, incarnation: u64) -> Vec<Output> {
        let incarnation = Incarnation(incarnation);
        self.say(now, "c", ToMapper::Leave { key: key(text), incarnation })
    }

    fn sync(&mut self, now: Timestamp, service: &str) -> SnapshotOf {
        let service = service.parse().unwrap();
        let outputs = self.say(now, "c", ToMapper::Sync { service });
        match outputs.last().and_then(Output::answer) {
            Some(FromMapper::Snapshot { part, .. }) => SnapshotOf {
                revision: part.revision,
                warming: part.warming,
                parts: part.parts,
                incarnations: part.entries.iter().map(|e| e.incarnation.0).collect(),
                ages_ms: part.entries.iter().map(|e| e.age_ms).collect(),
            },
            other => unreachable!("{other:?}"),
        }
    }

    /// Everything that is due until then, at the time when it is due.
    fn run_until(&mut self, end: Timestamp) -> Vec<(Timestamp, Output)> {
        let mut all = Vec::new();
        while let Some(at) = self.poll_timeout().filter(|at| *at <= end) {
            self.handle_timeout(at);
            all.extend(self.drain().into_iter().map(|output| (at, output)));
        }
        all
    }

    fn changes_until(&mut self, end: Timestamp) -> Vec<Change> {
        let changes = |(_, output): (_, Output)| match output.publication() {
            Some(Publication::Changes(part)) => part.changes,
            _ => Vec::new(),
        };
        self.run_until(end).into_iter().flat_map(changes).collect()
    }

    pub(super) fn drain(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.poll_output()).collect()
    }
}

impl Output {
    /// What it publishes.
    pub(super) fn publication(&self) -> Option<Publication> {
        match self {
            Output::Publish { frame, .. } => Some(decode(frame).unwrap()),
            _ => None,
        }
    }

    /// What it answers.
    pub(super) fn answer(&self) -> Option<FromMapper> {
        match self {
            Output::Reply { message, .. } => Some(message.clone()),
            Output::Send { frame, .. } => Some(decode(frame).unwrap()),
            _ => None,
        }
    }
}

struct SnapshotOf {
    revision: u64,
    warming: bool,
    parts: u16,
    incarnations: Vec<u64>,
    ages_ms: Vec<u32>,
}

fn replies(outputs: &[Output]) -> Vec<(&[u8], &FromMapper)> {
    let replies = outputs.iter().filter_map(|output| match output {
        Output::Reply { to, message } => Some((to.as_bytes(), message)),
        _ => None,
    });
    replies.collect()
}

fn replaced(text: &str, incarnation: u64, by: u64) -> FromMapper {
    let (incarnation, by) = (Incarnation(incarnation), Incarnation(by));
    FromMapper::Replaced { key: key(text), incarnation, by }
}

#[test]
fn hello_is_answered_with_all_that_a_caller_must_know() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    let hello = |text| Hello { oldest: 1, newest: 9, key: Some(key(text)) };
    let outputs = registry.say(ms(4999), "c", ToMapper::Hello(hello("s/a")));
    let welcome = Welcome {
        epoch: Epoch(7),
        warming: true,
        beat_ms: 1000,
        expiry_ms: 3000,
        publish_ms: 10,
        publish: "tcp://*:5556".parse().unwrap(),
        observed: "10.0.0.9".to_owned(),
        highest: Some(Incarnation(5)),
    };
    assert_eq!(replies(&outputs), [(&b"c"[..], &FromMapper::Welcome(welcome.clone()))]);
    let outputs = registry.say(ms(5000), "c", ToMapper::Hello(hello("s/b")));
    let welcome = Welcome { warming: false, highest: None, ..welcome };
    assert_eq!(replies(&outputs)[0].1, &FromMapper::Welcome(welcome));
    // Who left must be outdone as well.
    registry.say_leave(ms(5000), "s/a", 5);
    let outputs = registry.say(ms(5000), "c", ToMapper::Hello(hello("s/a")));
    assert!(matches!(replies(&outputs)[0].1,
        FromMapper::Welcome(w) if w.highest == Some(Incarnation(5))));
}

#[test]
fn a_caller_of_another_version_is_told_so() {
    let hello = Hello { oldest: VERSION + 1, newest: VERSION + 3, key: None };
    let outputs = registry().say(ms(0), "c", ToMapper::Hello(hello));
    assert!(matches!(replies(&outputs)[0].1, FromMapper::WrongVersion { oldest: 2, newest: 2 }));
}

#[test]
fn the_higher_incarnation_wins_and_the_lower_is_told() {
    let mut registry = registry();
    registry.say_register(ms(0), "old", "s/a", 5);
    let outputs = registry.say_register(ms(1), "new", "s/a", 6);
    assert_eq!(replies(&outputs)[0], (&b"old"[..], &replaced("s/a", 5, 6)));
    assert!(matches!(replies(&outputs)[1], (b"new", FromMapper::Registered { .. })));
    let outputs = registry.say_register(ms(2), "old", "s/a", 5);
    assert_eq!(replies(&outputs), [(&b"old"[..], &replaced("s/a", 5, 6))]);
    let outputs = registry.say_report(ms(3), "old", "s/a", 5, load(9, 9));
    assert_eq!(replies(&outputs), [(&b"old"[..], &replaced("s/a", 5, 6))]);
    assert_eq!(registry.say_report(ms(4), "old", "s/a", 5, load(10, 9)), [], "told again too soon");
    assert_eq!(registry.sync(ms(5), "s").incarnations, [6]);
}

#[test]
fn the_same_incarnation_updates_and_answers_go_to_its_new_connection() {
    let mut registry = registry();
    registry.say_register(ms(0), "first", "s/a", 5);
    registry.say_report(ms(10), "first", "s/a", 5, load(4, 2));
    let again = registry.say_register(ms(20), "second", "s/a", 5);
    assert_eq!(replies(&again).len(), 1);
    assert!(!again.iter().any(|output| matches!(output, Output::Event(_))), "nothing is new");
    registry.run_until(ms(900));
    let instance = registry.listed(&key("s/a")).unwrap();
    assert_eq!(instance.registration.load, load(4, 2), "an old load came back");
    let outputs = registry.say_register(ms(910), "third", "s/a", 6);
    assert_eq!(replies(&outputs)[0].0, b"second");
}

#[test]
fn registrations_that_cannot_be_listed_are_refused() {
    let config = Config { instances_max: 2, services_max: 2, ..Config::default() };
    let mut registry = registry_with(config);
    let mut refused = |registration| {
        let outputs = registry.say(ms(0), "w", ToMapper::Register(registration));
        match *replies(&outputs) {
            [(_, FromMapper::RegistrationRefused(error))] => Some(*error),
            _ => None,
        }
    };
    let with = |endpoints: &[&str]| Registration {
        endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
        ..registration("s/a", 1)
    };
    let unreachable = Some(RegistrationError::Endpoints);
    assert_eq!(refused(with(&[])), unreachable);
    assert_eq!(refused(with(&["tcp://h:1"; 5])), unreachable);
    assert_eq!(refused(with(&["tcp://h:1", "tcp://*:1"])), unreachable);
    assert_eq!(refused(with(&["tcp://h:0"])), unreachable);
    assert_eq!(refused(with(&["tcp://h:*"])), unreachable);

    let limit = UNIX_US + limits::INCARNATION_AHEAD_US_MAX;
    assert_eq!(refused(registration("s/a", limit + 1)), Some(RegistrationError::IncarnationAhead));
    assert_eq!(refused(registration("s/a", limit)), None);

    assert_eq!(refused(registration("s/b", 1)), None);
    assert_eq!(refused(registration("s/c", 1)), Some(RegistrationError::RegistryFull));
    assert_eq!(refused(registration("s/b", 2)), None, "it is listed already");
}

#[test]
fn services_are_limited_as_well() {
    let config = Config { services_max: 1, ..Config::default() };
    let mut registry = registry_with(config);
    registry.say_register(ms(0), "w", "s/a", 1);
    let outputs = registry.say_register(ms(0), "w", "t/a", 1);
    assert!(matches!(replies(&outputs)[0].1, FromMapper::RegistrationRefused(_)));
    assert!(registry.sync(ms(0), "t").incarnations.is_empty());
}

#[test]
fn an_unknown_reporter_is_asked_to_register_once_a_second() {
    let mut registry = registry();
    let outputs = registry.say_report(ms(0), "w", "s/a", 5, load(1, 0));
    assert_eq!(replies(&outputs), [(&b"w"[..], &FromMapper::Reregister)]);
    assert_eq!(registry.say_report(ms(999), "w", "s/a", 5, load(1, 0)), []);
    assert_eq!(registry.say_report(ms(1000), "w", "s/a", 5, load(1, 0)).len(), 1);
    // A life that is above the listed one never registered.
    registry.say_register(ms(3000), "w", "s/a", 4);
    let outputs = registry.say_report(ms(3000), "w", "s/a", 5, load(1, 0));
    assert_eq!(replies(&outputs), [(&b"w"[..], &FromMapper::Reregister)]);
}

#[test]
fn silence_expires_an_instance_on_time_and_reports_keep_it() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.say_register(ms(0), "w", "s/b", 5);
    registry.run_until(ms(2000));
    assert_eq!(registry.say_report(ms(2000), "w", "s/b", 5, load(1, 0)), []);
    let outputs = registry.run_until(ms(4999));
    let expired = Event::Expired { key: key("s/a"), incarnation: Incarnation(5) };
    let events = outputs.iter().filter(|(_, output)| matches!(output, Output::Event(_)));
    assert_eq!(events.collect::<Vec<_>>(), [&(ms(3000), Output::Event(expired))]);
    assert_eq!(registry.sync(ms(4999), "s").incarnations, [5]);
    let outputs = registry.run_until(ms(5000));
    assert!(outputs.iter().any(|(_, o)| matches!(o, Output::Event(Event::Expired { .. }))));
    // It was only unheard, so it may come back as it was.
    assert!(matches!(
        replies(&registry.say_register(ms(5001), "w", "s/a", 5))[..],
        [(_, FromMapper::Registered { .. })]
    ));
}

#[test]
fn a_suspended_mapper_expires_nobody_for_its_own_sleep() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.run_until(ms(1000));
    registry.handle_suspension(ms(60_000), 58 * SECOND);
    registry.handle_timeout(ms(60_000));
    assert_eq!(registry.sync(ms(60_000), "s").incarnations, [5]);
    registry.run_until(ms(61_000));
    assert!(registry.sync(ms(61_000), "s").incarnations.is_empty());
}

#[test]
fn no_lease_ends_while_what_renews_it_may_wait_unread() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.say_register(ms(0), "w", "s/b", 5);
    registry.run_until(ms(1000));
    // Nothing was read to its end for two seconds, until now.
    registry.handle_unread(2 * SECOND);
    registry.run_until(ms(4500));
    assert_eq!(registry.sync(ms(4500), "s").incarnations, [5, 5]);
    registry.say_report(ms(4500), "w", "s/a", 5, load(2, 0));
    // Now all is read.
    registry.handle_unread(Duration::ZERO);
    assert!(registry.poll_timeout() <= Some(ms(4500)));
    registry.handle_timeout(ms(4500));
    assert_eq!(registry.sync(ms(4600), "s").incarnations, [5]);
    // However long that goes on, the dead do not stay for longer than an expiry.
    registry.handle_unread(60 * SECOND);
    registry.run_until(ms(10_499));
    assert_eq!(registry.sync(ms(10_499), "s").incarnations, [5]);
    registry.run_until(ms(10_500));
    assert!(registry.sync(ms(10_600), "s").incarnations.is_empty());
}

#[test]
fn who_left_stays_away_until_a_later_life_comes() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.run_until(ms(100));
    assert!(matches!(
        registry.say_leave(ms(101), "s/a", 5)[..],
        [Output::Event(Event::Left { .. })]
    ));
    let left = Change::Left { instance: key("s/a").instance, incarnation: Incarnation(5) };
    assert_eq!(registry.changes_until(ms(200)), [left]);

    for incarnation in [4, 5] {
        let outputs = registry.say_register(ms(300), "w", "s/a", incarnation);
        assert_eq!(replies(&outputs), [(&b"w"[..], &replaced("s/a", incarnation, 5))]);
    }
    let outputs = registry.say_report(ms(300), "w", "s/a", 5, load(9, 0));
    assert_eq!(replies(&outputs), [(&b"w"[..], &replaced("s/a", 5, 5))]);
    assert!(registry.sync(ms(300), "s").incarnations.is_empty());
    assert_eq!(registry.changes_until(ms(1000)), []);

    registry.say_register(ms(1000), "w", "s/a", 6);
    assert_eq!(registry.sync(ms(1000), "s").incarnations, [6]);
}

#[test]
fn only_the_life_that_is_named_leaves() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    for other in [4, 6, u64::MAX] {
        assert_eq!(registry.say_leave(ms(1), "s/a", other), []);
    }
    assert_eq!(registry.sync(ms(1), "s").incarnations, [5]);
}

#[test]
fn a_leave_after_expiry_is_still_news_and_is_told_once() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 5);
    registry.run_until(ms(4000));
    registry.say_leave(ms(4000), "s/a", 5);
    let left = Change::Left { instance: key("s/a").instance, incarnation: Incarnation(5) };
    assert_eq!(registry.changes_until(ms(4500)), [left]);
    assert_eq!(registry.say_leave(ms(4500), "s/a", 5), []);
    assert_eq!(registry.changes_until(ms(5000)), []);
    // One from the far future would lock the name.
    assert_eq!(registry.say_leave(ms(5000), "s/b", u64::MAX), []);
    assert!(matches!(
        replies(&registry.say_register(ms(5000), "w", "s/b", 1))[..],
        [(_, FromMapper::Registered { .. })]
    ));
}

#[test]
fn sync_answers_for_unknown_services_and_knows_the_age_of_loads() {
    let mut registry = registry();
    let unknown = registry.sync(ms(0), "s");
    assert_eq!((unknown.revision, unknown.parts, unknown.warming), (1, 1, true));
    registry.say_register(ms(0), "w", "s/a", 5);
    assert_eq!(registry.sync(ms(250), "s").ages_ms, [250]);
    registry.say_report(ms(300), "w", "s/a", 5, load(1, 0));
    assert_eq!(registry.sync(ms(301), "s").ages_ms, [1], "the same load is true again");
}

#[test]
fn services_are_listed_in_pages() {
    let mut registry = registry();
    let total = activity::NAMES_MAX + 3;
    for number in 0..total {
        registry.say_register(ms(0), &format!("w{}", number / 64), &format!("s{number:04}/a"), 1);
    }
    let mut names = Vec::new();
    loop {
        let outputs = registry.say(ms(0), "c", ToMapper::List { after: names.last().cloned() });
        let [(_, FromMapper::Services { names: page, more, .. })] = replies(&outputs)[..] else {
            unreachable!("{outputs:?}");
        };
        assert!(svcmap_proto::codec::encode(replies(&outputs)[0].1).len() < 60_000);
        names.extend(page.iter().cloned());
        if !more {
            break;
        }
    }
    assert_eq!(names.len(), total);
    assert!(names.is_sorted());
}

#[test]
fn an_answer_is_given_once_to_whoever_asks_again_and_again() {
    let mut registry = registry();
    registry.say_register(ms(0), "w", "s/a", 1);
    let sync = |service: &str| ToMapper::Sync { service: service.parse().unwrap() };
    let list = || ToMapper::List { after: None };
    for (now, expected) in [(0, 1), (49, 0), (50, 1), (51, 0)] {
        assert_eq!(registry.say(ms(now), "c", sync("s")).len(), expected, "at {now} ms");
        assert_eq!(registry.say(ms(now), "c", list()).len(), expected, "at {now} ms");
    }
    assert_eq!(registry.say(ms(51), "c", sync("t")).len(), 1, "another service");
    assert_eq!(registry.say(ms(51), "d", sync("s")).len(), 1, "another cache");
}

#[test]
fn one_connection_has_its_share_and_takes_it_along() {
    let mut registry = registry();
    let is_listed = |outputs: &[Output]| match replies(outputs)[..] {
        [(_, FromMapper::Registered { .. })] => true,
        [(_, FromMapper::RegistrationRefused(RegistrationError::ConnectionFull))] => false,
        _ => unreachable!("{outputs:?}"),
    };
    for number in 0..limits::INSTANCES_PER_CONNECTION_MAX {
        assert!(is_listed(&registry.say_register(ms(0), "w", &format!("s/{number}"), 1)));
    }
    assert!(!is_listed(&registry.say_register(ms(0), "w", "s/x", 1)));
    assert_eq!(registry.refused.registrations, 1);
    assert!(is_listed(&registry.say_register(ms(0), "w", "s/0", 1)), "it is listed already");
    assert!(is_listed(&registry.say_register(ms(0), "v", "s/x", 1)), "another connection");
    // Who reports or registers elsewhere, or leaves, makes room.
    registry.say_report(ms(1), "v", "s/0", 1, load(1, 0));
    registry.say_register(ms(1), "v", "s/1", 1);
    registry.say_leave(ms(1), "s/2", 1);
    for number in 100..103 {
        assert!(is_listed(&registry.say_register(ms(2), "w", &format!("s/{number}"), 1)));
    }
    assert!(!is_listed(&registry.say_register(ms(2), "w", "s/y", 1)));
}

#[test]
fn a_large_snapshot_is_encoded_once_for_all_who_ask_at_once() {
    let mut registry = registry();
    for number in 0..1000 {
        registry.say_register(ms(0), &number.to_string(), &format!("s/{number}"), 1);
    }
    registry.run_until(ms(100));
    let mut asked = 0;
    let mut ask = |registry: &mut Registry, now| {
        asked += 1;
        let sync = ToMapper::Sync { service: "s".parse().unwrap() };
        let outputs = registry.say(now, &format!("c{asked}"), sync);
        let frames = outputs.into_iter().filter_map(|output| match output {
            Output::Send { frame, .. } => Some(frame),
            _ => None,
        });
        frames.collect::<Vec<_>>()
    };
    let first = ask(&mut registry, ms(100));
    let is_same = |other: Vec<std::sync::Arc<[u8]>>| {
        first.iter().zip(&other).all(|(one, other)| std::sync::Arc::ptr_eq(one, other))
    };
    assert!(is_same(ask(&mut registry, ms(104))));
    assert!(!is_same(ask(&mut registry, ms(105))), "its ages go on");
    // What was published since is in it.
    registry.say_leave(ms(106), "s/7", 1);
    let (second, published_at) = loop {
        let at = registry.poll_timeout().unwrap();
        let second = ask(&mut registry, at);
        if !registry.changes_until(at).is_empty() {
            break (second, at);
        }
    };
    let third = ask(&mut registry, published_at);
    assert!(!std::sync::Arc::ptr_eq(&second[0], &third[0]));
    let entries = third.iter().map(|frame| match decode(frame) {
        Ok(FromMapper::Snapshot { part, .. }) => part.entries.len(),
        other => unreachable!("{other:?}"),
    });
    assert_eq!(entries.sum::<usize>(), 999);
}

#[test]
fn who_is_to_end_is_told_where_it_reports() {
    let mut registry = registry();
    registry.say_register(ms(0), "a", "s/a", 3);
    let drain = |text| ToMapper::Drain { key: key(text) };
    let outputs = registry.say(ms(1), "c", drain("s/a"));
    let told = FromMapper::Drain { incarnation: Incarnation(3) };
    let answered = FromMapper::DrainAsked(DrainAnswer::Told);
    assert_eq!(replies(&outputs), [(&b"a"[..], &told), (&b"c"[..], &answered)]);
    let outputs = registry.say(ms(2), "c", drain("s/b"));
    assert_eq!(replies(&outputs), [(&b"c"[..], &FromMapper::DrainAsked(DrainAnswer::Unknown))]);
}

#[test]
fn jobs_that_wait_and_jobs_that_end_are_told_with_the_first_page() {
    let mut registry = registry();
    let activity = |registry: &mut Registry, now| -> Vec<(String, u64, u32, f32)> {
        let outputs = registry.say(ms(now), "asks", ToMapper::List { after: None });
        let [(_, FromMapper::Services { names, activity, .. })] = replies(&outputs)[..] else {
            unreachable!("{outputs:?}");
        };
        assert!(!names.iter().any(|name| name.as_str() == "nobody"), "it is known to none");
        let row = |it: &svcmap_proto::control::Activity| {
            (it.service.to_string(), it.waiting, it.senders, it.ended_per_s)
        };
        activity.iter().map(row).collect()
    };
    registry.say_register(ms(0), "w", "s/a", 1);
    let jobs = vec![("nobody".parse().unwrap(), 7), ("s".parse().unwrap(), 2)];
    registry.say(ms(0), "sends", ToMapper::Waiting { jobs });
    let row = |name: &str, waiting, senders, rate| (name.to_owned(), waiting, senders, rate);
    assert_eq!(activity(&mut registry, 100), [row("nobody", 7, 1, 0.0), row("s", 2, 1, 0.0)]);
    for second in 1..=4 {
        let load = Load { done: 20 * second, ..load(second, 0) };
        registry.say_report(ms(1000 * second), "w", "s/a", 1, load);
        registry.run_until(ms(1000 * second));
    }
    // Its sender has not said it again for longer than an expiry.
    let [(service, 0, 0, rate)] = &activity(&mut registry, 4100)[..] else { panic!() };
    assert!(service == "s" && (15.0..=20.0).contains(rate), "{rate}");
}
