use svcmap_proto::control::{Activity, Entry, ServiceStanding, Welcome};
use svcmap_proto::load::{Load, Share, State};
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, MapperAddress, Name};

use super::*;
use crate::commands::status::Report;
use crate::control::{Answer, Listing, MapperAnswer, View};

const HOST: HostId = HostId(1);
const BUSY: Verdict = Verdict::Busy;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn load(jobs: u32) -> Load {
    let mean_service_us = 100_000;
    Load {
        sequence: 1,
        queued: jobs,
        slots: 11,
        concurrency: 4,
        mean_service_us,
        ..Load::default()
    }
}

/// A view of one mapper that lists these.
fn view(instances: &[(&str, Load)]) -> View {
    let mut listing = Listing {
        welcome: Some(Welcome {
            epoch: Epoch(1),
            warming: false,
            beat_ms: 1000,
            expiry_ms: 3000,
            publish_ms: 100,
            publish: "tcp://127.0.0.1:2".parse().unwrap(),
            observed: String::new(),
            highest: None,
        }),
        standings: [(name("work"), ServiceStanding::Heard)].into(),
        ..Listing::default()
    };
    for (port, (instance, load)) in (1000..).zip(instances) {
        let entry = Entry {
            instance: name(instance),
            incarnation: Incarnation(1),
            endpoints: vec![Endpoint::tcp("127.0.0.1", port).unwrap()],
            host: HOST,
            pid: 1,
            load: *load,
            age_ms: 10,
            error: None,
            key: None,
        };
        let key = InstanceKey { service: name("work"), instance: name(instance) };
        listing.instances.insert(key, entry);
    }
    let mapper = MapperAnswer {
        at: MapperAddress::of(&"tcp://127.0.0.1:1".parse().unwrap()),
        answer: Answer::Complete { warming: false },
        refused: Default::default(),
    };
    View {
        mappers: vec![mapper],
        agree: true,
        services: [name("work")].into(),
        instances: listing.instances.clone(),
        listings: vec![listing],
        ..View::default()
    }
}

/// What becomes of them where those cannot be reached.
fn judged(instances: &[(&str, Load)], lost: &[&str], seed: u64) -> Why {
    let view = view(instances);
    let mut report: Report = status::report(&view, None);
    for row in &mut report.instances {
        row.reachable = Some(!lost.contains(&row.instance.as_str()));
    }
    judge(&name("work"), &view, &report, HOST, seed)
}

fn verdict(why: &Why, instance: &str) -> Verdict {
    why.instances.iter().find(|row| row.known.instance.as_str() == instance).unwrap().verdict
}

#[test]
fn the_less_loaded_of_two_is_chosen_whatever_the_seed() {
    for seed in 0..50 {
        let why = judged(&[("a", load(3)), ("b", load(1))], &[], seed);
        assert_eq!((why.chosen, why.turns.len()), (Some(name("b")), 1), "{seed}");
    }
    let why = judged(&[("a", load(3)), ("b", load(1))], &[], 7);
    assert_eq!((verdict(&why, "a"), verdict(&why, "b")), (Verdict::Possible, Verdict::Chosen));
    // The same seed, the same choice.
    let equals: Vec<_> = ["a", "b", "c", "d"].map(|name| (name, load(0))).into();
    let chosen = |seed| judged(&equals, &[], seed).chosen;
    assert!((0..50).all(|seed| chosen(seed) == chosen(seed)));
    assert!((0..50).any(|seed| chosen(seed) != chosen(0)));
}

#[test]
fn one_that_cannot_be_reached_is_turned_to_in_vain() {
    let all = [("a", load(3)), ("b", load(0))];
    for seed in 0..50 {
        let why = judged(&all, &["b"], seed);
        assert_eq!(why.chosen, Some(name("a")), "{seed}");
        assert_eq!(verdict(&why, "b"), Verdict::Unreachable);
    }
    let nobody = judged(&all, &["a", "b"], 7);
    assert_eq!(nobody.chosen, None);
}

#[test]
fn who_drains_or_is_set_aside_is_of_no_use_and_who_is_full_only_later() {
    let all = [
        ("full", load(11)),
        ("draining", Load { state: State::Draining, ..load(0) }),
        ("failing", Load { state: State::Failing, ..load(0) }),
        ("good", load(0)),
    ];
    let why = judged(&all, &[], 7);
    assert_eq!(why.chosen, Some(name("good")));
    let usable = |instance| {
        why.instances.iter().find(|row| row.known.instance == name(instance)).unwrap().usable
    };
    assert_eq!(
        ["full", "draining", "failing", "good"].map(|name| (verdict(&why, name), usable(name))),
        [
            (Verdict::Full, true),
            (Verdict::Draining, false),
            (Verdict::Failing, false),
            (Verdict::Chosen, true)
        ]
    );
    assert_eq!(judged(&all[..3], &[], 7).chosen, None);
}

#[test]
fn where_all_handlers_have_a_job_the_next_one_waits_though_there_are_slots() {
    let all = [("a", load(4)), ("b", Load { concurrency: 1, ..load(1) })];
    let mut view = view(&all);
    let (service, waiting, senders) = (name("work"), 54, 3);
    let activity = Activity { service, waiting, senders, ended_per_s: 2.0 };
    view.activity.insert(name("work"), activity);
    let report = status::report(&view, None);
    let why = judge(&name("work"), &view, &report, HOST, 7);
    assert_eq!((&why.chosen, verdict(&why, "a"), verdict(&why, "b")), (&None, BUSY, BUSY));
    assert_eq!((why.waiting, why.waiting_senders), (54, 3));
    let screen = render::screen(&why, None, None);
    let first = screen.lines().next().unwrap();
    assert!(
        first.ends_with("and its job waits. Waiting already: 54 jobs at 3 senders."),
        "{first}"
    );
    let said = "has a job: the next one waits for the first that is free\n";
    assert!(screen.contains(&format!("b  its handler {said}")), "{screen}");
    assert!(screen.contains("a  all its 4 handlers have a job: the next"), "{screen}");
    assert!(screen.contains("\nnext: svcmap worker --service work …"), "{screen}");
    // However many there are, a line stays a line.
    let names: Vec<String> = (0..300).map(|number| format!("many-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), load(4))).collect();
    let why = judged(&many, &[], 7);
    let screen = render::screen(&why, None, None);
    let first = screen.lines().next().unwrap();
    assert!(why.chosen.is_none() && first.len() < 250, "{first}");
    // One handler that is free is another matter.
    let why = judged(&[("a", load(4)), ("b", load(3))], &[], 7);
    assert_eq!((verdict(&why, "a"), verdict(&why, "b")), (BUSY, Verdict::Chosen));
}

#[test]
fn a_worker_of_the_json_dialect_is_chosen_by_what_it_says_of_itself() {
    let json = |share| Load { sequence: 1, share: Share::new(share), ..Load::default() };
    let why = judged(&[("old", json(0.5)), ("busy", json(0.95))], &[], 7);
    assert_eq!(why.chosen, Some(name("old")));
    assert_eq!(verdict(&why, "busy"), Verdict::Full);
    assert!(why.instances.iter().any(|row| row.json_only), "{why:?}");
}

#[test]
fn what_others_wrote_moves_no_cursor() {
    let mut view =
        view(&[("a", Load { state: State::Failing, failing: 500, failed: 5, ..load(0) })]);
    for entry in view.instances.values_mut() {
        entry.error = Some("gone\u{1b}[2J\nnext: rm".to_owned());
    }
    let report = status::report(&view, None);
    let why = judge(&name("work"), &view, &report, HOST, 7);
    let screen = render::screen(&why, None, None);
    let said = "jobs fail there: 5 failed and 0 done since its start; takes none for a while; gone";
    assert!(screen.contains(&format!("\na  {said}")), "{screen}");
    assert!(!screen.contains("\u{1b}[2J") && !screen.contains("\nnext: rm"), "{screen}");
}
