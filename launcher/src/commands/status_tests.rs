use std::collections::BTreeMap;

use svcmap_proto::control::{Activity, Entry};
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey, MapperAddress};

use super::*;
use crate::control::MapperAnswer;

const PLAIN: Screen = Screen { width: None, bars: false };
const TERMINAL: Screen = Screen { width: Some(80), bars: true };

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn load(running: u32, queued: u32, slots: u32) -> Load {
    Load { running, queued, slots, concurrency: 4, ..Load::default() }
}

fn mapper(port: u16, answer: Answer) -> MapperAnswer {
    let endpoint = Endpoint::tcp("127.0.0.1", port).unwrap();
    MapperAnswer {
        at: MapperAddress::of(&endpoint),
        answer,
        refused: svcmap_proto::control::Refused::default(),
    }
}

const COMPLETE: Answer = Answer::Complete { warming: false };

fn view(mappers: Vec<MapperAnswer>, instances: &[(&str, &str, Load, u32)]) -> View {
    let mut view = View { mappers, agree: true, ..View::default() };
    for (number, (service, instance, load, age_ms)) in instances.iter().enumerate() {
        let key = InstanceKey { service: name(service), instance: name(instance) };
        let number = u16::try_from(number).unwrap();
        let entry = Entry {
            instance: key.instance.clone(),
            incarnation: Incarnation(1_700_000_000_000_000),
            endpoints: vec![Endpoint::tcp("127.0.0.1", 40_000 + number).unwrap()],
            host: HostId(1),
            pid: 4000 + u32::from(number),
            error: None,
            key: None,
            load: *load,
            age_ms: *age_ms,
        };
        view.services.insert(key.service.clone());
        view.instances.insert(key, entry);
    }
    view
}

fn shop() -> View {
    let draining = Load { state: State::Draining, ..load(2, 1, 11) };
    let resize = Load { done: 310, mean_service_us: 38_400, ..load(4, 7, 11) };
    let resize = Load { queued_high: 2, queued_low: 1, ..resize };
    let two = vec![mapper(5555, COMPLETE), mapper(5557, COMPLETE)];
    view(
        two,
        &[
            ("mail", "m-1", load(0, 0, 11), 300),
            ("ocr", "c-6", load(3, 0, 11), 100),
            ("ocr", "c-7", draining, 100),
            ("resize", "a-1", resize, 200),
            ("resize", "b-2", resize, 100),
            ("thumbnail", "t-1", load(1, 0, 16), 12_400),
        ],
    )
}

fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

#[test]
fn services_on_a_terminal() {
    let text = plain(&services(&report(&shop(), None), TERMINAL));
    assert_eq!(
        text,
        "\
2 mappers agree · 4 services · 5 of 6 instances ready
! resize is full: 22 of 22 slots are taken, new jobs wait or are refused

SERVICE    READY  RUNNING  QUEUED  PROMISED  SLOTS  LOAD              AGE
resize       2/2        8      14         0     22  ██████████ 100%  0.2s
ocr          1/2        5       1         0     22  ██▋         27%  0.1s
thumbnail    1/1        1       0         0     16  ▋            6%   12s
mail         1/1        0       0         0     11               0%  0.3s

NOT READY
ocr/c-7  draining, 3 jobs left

next: svcmap status resize (instances) · --json · --wait 'resize>=1'
"
    );
    assert!(text.lines().all(|line| line.chars().count() <= 80));
}

#[test]
fn who_is_set_aside_is_shown_with_its_last_error_until_it_has_done_a_job() {
    let aside = Load { state: State::Failing, failing: 1000, ..load(0, 0, 11) };
    let mut view = view(
        vec![mapper(5555, COMPLETE)],
        &[("a", "a-1", load(0, 0, 11), 0), ("a", "a-2", aside, 0), ("a", "a-3", load(0, 0, 11), 0)],
    );
    for (number, entry) in view.instances.values_mut().enumerate().skip(1) {
        entry.error = Some(format!("gone {number}\u{1b}[2J\n"));
    }
    let report = report(&view, None);
    let text = plain(&services(&report, TERMINAL));
    assert!(text.contains("\na            1/3 ") || text.contains("\na          1/3 "), "{text}");
    assert!(text.contains("\na/a-2  failing: gone 1 [2J\na/a-3  failing: gone 2 [2J\n"), "{text}");
    let text = instances(&report, &name("a"), PLAIN);
    assert!(plain(&text).contains("\na-2  failing: gone 1 [2J\n"), "{text}");
    assert!(plain(&text).contains("✗ failing"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
    let rows = json["instances"].as_array().unwrap();
    let states: Vec<_> = rows.iter().map(|row| row["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["failing", "failing", "ready"]);
    assert_eq!(
        (&rows[0]["failing"], &rows[0]["error"]),
        (&1000.into(), &"gone 1\u{1b}[2J\n".into())
    );
}

#[test]
fn where_nobody_does_better_it_is_said_that_jobs_fail() {
    let fails = Load { failing: 990, failed: 50, ..load(0, 0, 11) };
    let said = |loads: &[Load]| {
        let names = ["a-1", "a-2", "a-3"];
        let all: Vec<_> =
            loads.iter().zip(names).map(|(load, name)| ("a", name, *load, 0)).collect();
        let report = report(&view(vec![mapper(5555, COMPLETE)], &all), None);
        let (all, one) = (services(&report, TERMINAL), instances(&report, &name("a"), PLAIN));
        (report.services[0].failing, plain(&all), plain(&one))
    };
    let (failing, all, one) = said(&[fails; 3]);
    let warning = "! of the last jobs of a most failed at each of the 3 instances that take them\n";
    assert!(all.contains(warning) && one.contains(warning), "{all}{one}");
    assert!(
        one.contains(
            "\na-2  most of its last jobs failed or could not be started: its log says of what\n"
        ),
        "{one}"
    );
    assert_eq!(failing, 3);
    let often = Load { failing: 400, ..fails };
    let (failing, _, one) = said(&[often, load(0, 0, 11), load(0, 0, 11)]);
    assert!(failing == 0 && one.contains("\na-1  many of its last jobs failed"), "{one}");
    let seldom = Load { failing: 200, ..fails };
    assert!(!said(&[often, seldom, seldom]).2.contains("many of"), "as at its peers");
    let (failing, all, _) = said(&[load(0, 0, 11), fails]);
    assert!(all.contains("! of the last jobs of a most failed at 1 of the 2 instances"), "{all}");
    assert_eq!(failing, 1);
    assert!(said(&[fails]).1.contains(" most failed at the only instance that takes them\n"));
    // Who is set aside takes none, and is told of as such.
    let aside = Load { state: State::Failing, ..fails };
    let (failing, all, _) = said(&[aside, Load { failing: 499, ..fails }]);
    assert!(failing == 0 && !all.contains("of the last jobs"), "{all}");
}

#[test]
fn services_off_a_terminal_have_no_bars() {
    let text = plain(&services(&report(&shop(), None), PLAIN));
    assert!(
        text.contains("\nocr          1/2        5       1         0     22   27%  0.1s\n"),
        "{text}"
    );
}

#[test]
fn a_narrow_terminal_loses_columns_and_not_lines() {
    let narrow = Screen { width: Some(50), bars: false };
    let text = plain(&services(&report(&shop(), None), narrow));
    assert!(text.contains("\nSERVICE    READY  RUNNING  QUEUED  PROMISED  LOAD\n"), "{text}");
}

#[test]
fn the_instances_of_a_service() {
    let report = report(&shop(), Some(&name("resize")));
    let text = plain(&instances(&report, &name("resize"), TERMINAL));
    assert_eq!(
        text,
        "\
resize · 2 mappers agree · 2 of 2 instances ready
8 running · 14 queued (4 high, 2 low) · 0 promised · 22 slots · 620 done · 0 failed · 0 rejected
! resize is full: 22 of 22 slots are taken, new jobs wait or are refused

INSTANCE  STATE   RUN  QUEUED  PROMISED  LOAD  DONE  FAILED  ENDPOINT
a-1       ■ full    4       7         0  100%   310       0  127.0.0.1:40003
b-2       ■ full    4       7         0  100%   310       0  127.0.0.1:40004

next: svcmap submit resize --data TEXT · svcmap status resize --json
"
    );
}

#[test]
fn what_the_json_dialect_does_not_tell_is_not_taken_for_nothing() {
    let share = svcmap_proto::load::Share::new(0.5);
    let json = Load { share, ..Load::default() };
    let all = [("count", "py-1", json, 0), ("count", "w-1", load(1, 0, 4), 0)];
    let report = report(&view(vec![mapper(5555, COMPLETE)], &all), None);
    let text = plain(&instances(&report, &name("count"), PLAIN));
    let said = "\nof 1 instance only the load is known, as the JSON dialect has it\n";
    assert!(text.contains(said), "{text}");
}

#[test]
fn the_slots_that_make_up_the_load_are_all_in_columns() {
    let promised = Load { promised: 5, ..load(0, 0, 11) };
    let report = report(&view(vec![mapper(5555, COMPLETE)], &[("a", "a-1", promised, 0)]), None);
    let all = plain(&services(&report, PLAIN));
    assert!(
        all.contains("\na          1/1        0       0         5     11   45%  0.0s\n"),
        "{all}"
    );
    let one = plain(&instances(&report, &name("a"), PLAIN));
    assert!(one.contains("  0       0         5     11   45%     0"), "{one}");
}

#[test]
fn who_fails_is_seen_on_the_narrowest_terminal() {
    let failed = Load { done: 10, failed: 7, rejected: 2, ..load(0, 0, 11) };
    let report = report(&view(vec![mapper(5555, COMPLETE)], &[("a", "a-1", failed, 0)]), None);
    let table = |width| {
        let text = plain(&instances(&report, &name("a"), Screen { width, bars: false }));
        text.lines().skip(3).take(2).collect::<Vec<_>>().join("\n")
    };
    let all = table(None);
    assert!(all.contains("  DONE  FAILED  REJECTED  MEAN"), "{all}");
    assert!(all.contains("    10       7         2    0s"), "{all}");
    assert_eq!(
        table(Some(55)),
        "INSTANCE  STATE    RUN  QUEUED  LOAD  DONE  FAILED\n\
         a-1       ● ready    0       0    0%    10       7"
    );
    assert_eq!(
        table(Some(46)).lines().next(),
        Some("INSTANCE  STATE    RUN  QUEUED  LOAD  FAILED")
    );
}

#[test]
fn who_cannot_be_reached_is_not_ready() {
    let full = load(4, 7, 11);
    let all =
        [("a", "a-1", load(0, 0, 11), 0), ("a", "a-2", load(0, 0, 11), 0), ("a", "a-3", full, 0)];
    let mut report = report(&view(vec![mapper(5555, COMPLETE)], &all), None);
    assert_eq!(report.services[0].unreachable, None);
    for row in &mut report.instances {
        row.reachable = Some(row.instance.as_str() == "a-1");
    }
    report.count_reached();
    let row = &report.services[0];
    assert_eq!((row.ready, row.full, row.unreachable), (1, 0, Some(2)));
    let text = plain(&instances(&report, &name("a"), PLAIN));
    assert!(
        text.starts_with(
            "a · mapper tcp://127.0.0.1:5555 · 1 of 3 instances ready · 2 unreachable\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("a-2       ✗ unreachable") && text.contains("a-3       ✗ unreachable"),
        "{text}"
    );
}

#[test]
fn a_service_that_ended_comes_last() {
    let mut view = shop();
    view.services.insert(name("aged"));
    let text = plain(&services(&report(&view, None), PLAIN));
    let row = |service: &str| text.find(&format!("\n{service} ")).unwrap();
    assert!(row("aged") > row("mail") && row("mail") > row("resize"), "{text}");
    assert!(text.contains("next: svcmap status resize"), "{text}");
    let mut ended = View { agree: true, ..View::default() };
    ended.services.insert(name("aged"));
    let text = plain(&services(&report(&ended, None), PLAIN));
    assert!(text.ends_with("next: svcmap worker --service echo --builtin echo\n"), "{text}");
}

#[test]
fn stuck_needs_jobs_that_wait_while_nothing_finishes() {
    let stuck = Load { oldest_queued_ms: 41_000, since_finish_ms: Some(41_000), ..load(4, 1, 11) };
    assert_eq!(Shown::of(&stuck), Shown::Stuck);
    assert_eq!(Shown::of(&Load { since_finish_ms: None, ..stuck }), Shown::Stuck);
    // A job that has just begun after a quiet hour.
    let fresh = Load { since_finish_ms: Some(3_600_000), ..load(1, 0, 11) };
    assert_eq!(Shown::of(&fresh), Shown::Ready);
    // Jobs that take minutes.
    assert_eq!(Shown::of(&Load { mean_service_us: 60_000_000, ..stuck }), Shown::Ready);
    let report = report(&view(vec![mapper(5555, COMPLETE)], &[("ocr", "c-7", stuck, 0)]), None);
    let text = plain(&services(&report, PLAIN));
    assert!(text.contains("ocr/c-7  stuck: 4 running, no handler finished for 41s\n"), "{text}");
    assert!(text.contains("! ocr takes no jobs: no instance is ready\n"), "{text}");
}

#[test]
fn draining_goes_over_full() {
    let draining = Load { state: State::Draining, ..load(4, 7, 11) };
    assert_eq!(Shown::of(&draining), Shown::Draining);
    assert_eq!(Shown::of(&load(0, 0, 0)), Shown::Full);
}

#[test]
fn mappers_that_say_less_are_named() {
    let warming = Answer::Complete { warming: true };
    let mappers = vec![mapper(5555, warming), mapper(5557, Answer::Silent)];
    let text = plain(&services(&report(&view(mappers, &[]), None), PLAIN));
    assert_eq!(
        text,
        "\
1 of 2 mappers answer · 0 services · 0 of 0 instances ready
! the mapper tcp://127.0.0.1:5555 has just started: others may still register
! the mapper tcp://127.0.0.1:5557 does not answer

next: svcmap worker --service echo --builtin echo
"
    );
}

#[test]
fn many_that_are_not_ready_are_counted() {
    let draining = Load { state: State::Draining, ..load(0, 0, 1) };
    let names: Vec<String> = (10..40).map(|n| format!("i-{n}")).collect();
    let rows: Vec<_> = names.iter().map(|name| ("a", name.as_str(), draining, 0)).collect();
    let text = services(&report(&view(vec![mapper(5555, COMPLETE)], &rows), None), PLAIN);
    assert!(text.contains("and 10 more: svcmap status --json\n"), "{text}");
}

#[test]
fn json_has_both_lists_and_the_names_of_the_columns() {
    let json: serde_json::Value =
        serde_json::from_str(&report(&shop(), Some(&name("resize"))).to_json()).unwrap();
    assert_eq!(json["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(json["services"][0]["ready"], 2);
    let instance = &json["instances"][0];
    let expected: BTreeMap<&str, serde_json::Value> = [
        ("instance", "a-1".into()),
        ("service", "resize".into()),
        ("endpoint", "tcp://127.0.0.1:40003".into()),
        ("pid", 4003.into()),
        ("state", "full".into()),
        ("queued", 7.into()),
        ("queued_high", 2.into()),
        ("queued_low", 1.into()),
        ("running", 4.into()),
        ("slots", 11.into()),
        ("load", 1.0.into()),
        ("age", 0.2.into()),
        ("age_ms", 200.into()),
        ("done", 310.into()),
        ("incarnation", 1_700_000_000_000_000_u64.into()),
        ("mean_service_ms", 38.4.into()),
    ]
    .into();
    for (key, value) in expected {
        assert_eq!(instance[key], value, "{key}");
    }
    let empty = report(&view(vec![], &[]), None).to_json();
    let empty: serde_json::Value = serde_json::from_str(&empty).unwrap();
    assert!(empty["services"].is_array() && empty["instances"].is_array());
}

#[test]
fn an_unknown_service_comes_with_what_may_have_been_meant() {
    let service = name("resise");
    let failure = unknown_service(&service, &report(&shop(), Some(&service)));
    assert_eq!(failure.message, "no worker serves `resise`; known: mail, ocr, resize, thumbnail");
    assert_eq!(failure.fix.as_deref(), Some("svcmap status resize"));
    assert_eq!(failure.exit.code(), 69);
    let short = unknown_service(&name("orc"), &report(&shop(), None));
    assert_eq!(short.fix.as_deref(), Some("svcmap status ocr"));
    let nobody = unknown_service(&service, &report(&view(vec![], &[]), None));
    assert_eq!(nobody.message, "no worker serves `resise`");
    assert_eq!(nobody.fix.as_deref(), Some("svcmap worker --service resise …"));
}

#[test]
fn conditions_count_ready_instances() {
    let report = report(&shop(), None);
    let wanted = |text: &str| vec![text.parse::<Wanted>().unwrap()];
    assert!(unmet(&wanted("resize>=2"), &report).is_none());
    assert!(unmet(&wanted("nobody>=0"), &report).is_none());
    let conditions = wanted("ocr>=2");
    let failure = unmet(&conditions, &report).unwrap().message_after(Duration::from_secs(30));
    assert_eq!(failure.message, "still not ocr>=2 after 30s: 1 ready");
}

#[test]
fn absurd_numbers_do_not_overflow() {
    let most = Load {
        running: u32::MAX,
        queued: u32::MAX,
        promised: u32::MAX,
        slots: u32::MAX,
        done: u64::MAX,
        accepted: u64::MAX,
        mean_service_us: u64::MAX,
        ..Load::default()
    };
    let rows = [("a", "1", most, u32::MAX), ("a", "2", most, u32::MAX)];
    let report = report(&view(vec![mapper(5555, COMPLETE)], &rows), None);
    assert!(services(&report, TERMINAL).contains("100%"));
    assert!(!instances(&report, &name("a"), TERMINAL).is_empty());
}

#[test]
fn what_waits_at_senders_is_told_of_also_where_nobody_serves() {
    let mut view = shop();
    for (service, waiting, senders, ended_per_s) in [
        ("resize", 40, 2, 12.34),
        ("mail", 3, 1, f32::NAN),
        ("resise", 5, 1, 0.0),
        ("gone", 0, 0, 0.0),
    ] {
        let service = name(service);
        let activity = Activity { service: service.clone(), waiting, senders, ended_per_s };
        view.activity.insert(service, activity);
    }
    let report = report(&view, None);
    let text = plain(&services(&report, TERMINAL));
    for line in [
        "\n! resize is full: 22 of 22 slots are taken, 40 wait at 2 senders\n",
        "\n! resise has no instance, and of its jobs 5 wait at 1 sender\n",
        "\n! of the jobs of mail 3 wait at 1 sender: svcmap why mail\n",
        "\nresise       0/0 ",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }
    assert!(!text.contains("gone") && !report.known.contains("resise"), "{text}");
    let text = plain(&instances(&report, &name("resize"), TERMINAL));
    assert!(text.contains(" rejected · 12/s · 40 wait at 2 senders\n"), "{text}");
    let alone = super::report(&View { instances: BTreeMap::new(), ..view.clone() }, None);
    let text = plain(&services(&alone, TERMINAL));
    assert!(text.ends_with("\nnext: svcmap worker --service mail …\n"), "{text}");
    let row = report.service(&name("mail")).unwrap();
    assert_eq!((row.waiting, row.waiting_senders, row.ended_per_s), (3, 1, 0.0));
}
