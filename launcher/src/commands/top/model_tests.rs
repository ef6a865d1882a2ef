use svcmap_proto::status::MapperRow;

use super::*;
use crate::commands::top::rows::{Of, Sort};
use crate::commands::top::scene::{Given, at, given, mapper, report, told_by};

const GOOD_FOR: Duration = Duration::from_secs(3);

fn model(all: &[Given]) -> Model {
    Model::new(at(0), report(all), GOOD_FOR)
}

fn press(model: &mut Model, keys: &str) -> Option<Action> {
    keys.chars().fold(None, |_, key| match key {
        '\n' => model.handle_key(Key::Enter),
        '\u{1b}' => model.handle_key(Key::Escape),
        key => model.handle_key(Key::Char(key)),
    })
}

/// The rows, with `>` before that of the cursor.
fn rows(model: &mut Model) -> Vec<String> {
    let (_, cursor) = model.page(1000);
    let name = |(index, row): (usize, &Row<'_>)| {
        let name = match row.of {
            Of::Service { row, is_open, .. } => {
                format!("{}{}", row.service, if is_open { "" } else { "…" })
            }
            Of::Instance(row) => format!("{}/{}", row.service, row.instance),
        };
        if index == cursor { format!(">{name}") } else { name }
    };
    model.rows().iter().enumerate().map(name).collect()
}

fn done_rate(model: &Model) -> Option<f64> {
    model.sums().rate.map(|rate| rate.done)
}

/// So many of one service.
fn many(count: usize) -> Vec<Given> {
    let name = |number| -> &'static str { format!("ocr/c-{number:03}").leak() };
    (0..count).map(|number| given(name(number))).collect()
}

#[test]
fn a_rate_is_what_one_life_did_between_what_it_said() {
    let mut model = model(&[given("a/1").done(100)]);
    assert_eq!(done_rate(&model), None);
    model.handle_report(at(1000), report(&[given("a/1").done(150)]));
    assert_eq!(done_rate(&model), Some(50.0));
    // It was said half a second before it came.
    let late = Given { age_ms: 500, ..given("a/1").done(200) };
    model.handle_report(at(2500), report(&[late]));
    assert_eq!(done_rate(&model), Some(50.0));
    // The same said again is no news.
    model.handle_report(at(3500), report(&[Given { age_ms: 1500, ..late }]));
    assert_eq!(done_rate(&model), Some(50.0));
    // A new life counts from 0, and another that joins is no rate either.
    let new = Given { life: 2, ..given("a/1").done(7) };
    model.handle_report(at(4500), report(&[new, given("a/2").done(1_000_000)]));
    assert_eq!(done_rate(&model), None);
    model.handle_report(at(5500), report(&[Given { life: 2, ..given("a/1").done(3) }]));
    assert_eq!(done_rate(&model), Some(0.0), "a counter that shrinks");
}

#[test]
fn the_cursor_stays_on_its_instance_wherever_that_goes() {
    let mut model = model(&[given("a/1").busy(1, 0), given("a/2"), given("b/1")]);
    assert_eq!(rows(&mut model), [">a", "a/1", "a/2", "b", "b/1"]);
    press(&mut model, "jj");
    assert_eq!(rows(&mut model), ["a", "a/1", ">a/2", "b", "b/1"]);
    let turned = [given("a/1"), given("a/2").busy(1, 0), given("b/1").busy(2, 2)];
    model.handle_report(at(1000), report(&turned));
    assert_eq!(rows(&mut model), ["b", "b/1", "a", ">a/2", "a/1"]);
    // When it has left, the cursor is where it was.
    model.handle_report(at(2000), report(&[turned[0], turned[2]]));
    assert_eq!(rows(&mut model), ["b", "b/1", "a", ">a/1"]);
    for _ in 0..9 {
        model.handle_key(Key::Up);
    }
    assert_eq!(rows(&mut model)[0], ">b");
    model.handle_key(Key::End);
    assert_eq!(rows(&mut model)[3], ">a/1");
    // On the first row it is on the first, whichever that is.
    model.handle_key(Key::Home);
    model.handle_report(at(2500), report(&[given("a/1").busy(1, 0), given("b/1")]));
    assert_eq!(rows(&mut model)[0], ">a");
    model.handle_report(at(3000), report(&[]));
    assert_eq!(rows(&mut model), [""; 0]);
    assert_eq!(press(&mut model, "jk\nsd"), None);
}

#[test]
fn while_paused_nothing_changes_and_then_it_goes_on() {
    let mut model = model(&[given("a/1").done(0)]);
    press(&mut model, "p");
    model.handle_report(at(1000), report(&[given("a/1").done(10), given("b/1").busy(2, 2)]));
    model.handle_time(at(9000).now);
    assert_eq!(rows(&mut model), [">a", "a/1"]);
    assert_eq!((model.paused_for(), model.events.len()), (Some(Duration::from_secs(9)), 0));
    press(&mut model, "p");
    model.handle_report(at(10_000), report(&[given("a/1").done(100), given("b/1")]));
    assert_eq!(rows(&mut model), [">a", "a/1", "b", "b/1"]);
    assert_eq!((done_rate(&model), model.events[0].as_str()), (Some(10.0), "03:12:51 b/1 came"));
}

#[test]
fn services_with_many_instances_are_closed_until_somebody_opens_them() {
    let (mut forty, mut more) = (model(&many(40)), model(&many(41)));
    assert_eq!((rows(&mut forty).len(), rows(&mut more)), (41, vec![">ocr…".to_owned()]));
    press(&mut more, "\njj");
    assert_eq!((rows(&mut more).len(), &rows(&mut more)[2]), (42, &">ocr/c-001".to_owned()));
    press(&mut more, "\n");
    assert_eq!(rows(&mut more), [">ocr…"]);
    // A page has the cursor on it.
    press(&mut more, "\n");
    more.handle_key(Key::End);
    let (page, cursor) = more.page(10);
    assert_eq!((page, cursor), (32..42, 41));
    more.handle_key(Key::PageUp);
    let (page, cursor) = more.page(10);
    assert_eq!((page, cursor), (31..41, 31));
    assert!(more.page(0).0.is_empty());
}

#[test]
fn a_filter_shows_what_has_its_text() {
    let mut model = model(&[&many(41)[..], &[given("mail/c-001"), given("sum/1")]].concat());
    press(&mut model, "/c-001");
    assert_eq!(model.mode, Mode::Filter);
    assert_eq!(rows(&mut model), [">mail", "mail/c-001", "ocr", "ocr/c-001"]);
    model.handle_key(Key::Backspace);
    press(&mut model, "q\n");
    assert_eq!((rows(&mut model), &model.mode), (vec![], &Mode::Table));
    press(&mut model, "\u{1b}/ocr\n");
    assert_eq!(rows(&mut model), [">ocr…"], "its name says nothing of instances");
    press(&mut model, "\u{1b}");
    assert_eq!(rows(&mut model).len(), 5);
}

#[test]
fn each_order_is_that_of_its_figure() {
    let first = [given("b/1"), given("a/1"), given("a/2"), given("c/1").draining()];
    let mut model = model(&first);
    assert_eq!(rows(&mut model), [">c", "c/1", "a", "a/1", "a/2", "b", "b/1"], "attention first");
    let age = Given { age_ms: 100, ..given("a/1") };
    let then = [given("b/1").done(9), age, given("a/2").done(5).failed(1), given("c/1").draining()];
    model.handle_report(at(1000), report(&then));
    let mut order = |sort| {
        model.choice.sort = sort;
        rows(&mut model).concat().replace('>', "")
    };
    assert_eq!(order(Sort::Name), "aa/1a/2bb/1cc/1");
    assert_eq!(order(Sort::Done), "bb/1aa/2a/1cc/1");
    assert_eq!(order(Sort::Failed), "aa/2a/1cc/1bb/1");
    assert_eq!(order(Sort::Age), "aa/1a/2cc/1bb/1");
    press(&mut model, "s");
    assert_eq!(model.choice.sort, Sort::Load);
}

#[test]
fn nobody_is_drained_without_a_y() {
    let mut model = model(&[given("a/1")]);
    assert_eq!((press(&mut model, "dy"), &model.mode), (None, &Mode::Table), "a service is not");
    press(&mut model, "jd");
    let Mode::Ask(key) = model.mode.clone() else { unreachable!() };
    assert_eq!((key.to_string().as_str(), press(&mut model, "n")), ("a/1", None));
    assert_eq!(press(&mut model, "y"), None);
    assert_eq!(press(&mut model, "dy"), Some(Action::Drain(key)));
    assert_eq!(press(&mut model, "?q"), None, "any key leads back");
    assert_eq!(press(&mut model, "q"), Some(Action::Quit));
    press(&mut model, "/q");
    assert_eq!(model.handle_key(Key::Interrupt), Some(Action::Quit));
}

#[test]
fn what_nobody_tells_stays_and_is_old() {
    let mut model = model(&[given("a/1")]);
    let endpoint = mapper(5555, "").endpoint;
    model.handle_time(at(2900).now);
    assert!(!model.is_stale());
    model.handle_time(at(3100).now);
    assert!(model.is_stale(), "nothing has come for too long");
    model.handle_report(at(4000), report(&[given("a/1")]));
    assert!(!model.is_stale());
    model.handle_silence(at(5000).now, "gone".to_owned());
    model.handle_silence(at(8000).now, "gone".to_owned());
    assert!(model.is_stale());
    assert_eq!(model.silent_for(&endpoint), Some(Duration::from_secs(3)));
    let part = told_by(vec![mapper(5555, "partial")], &[]);
    model.handle_report(at(9000), part);
    assert_eq!((model.is_stale(), rows(&mut model).len(), model.events.len()), (true, 2, 0));
    assert_eq!(model.age(), Duration::from_secs(5));
    model.handle_report(at(9500), report(&[given("a/1")]));
    assert_eq!((model.is_stale(), model.silent_for(&endpoint)), (false, None));
    // One of two that answers is enough, and the other one's silence is told.
    let two = vec![mapper(5555, "silent"), mapper(5557, "complete")];
    model.handle_report(at(9600), told_by(two, &[given("b/1")]));
    model.handle_time(at(10_600).now);
    assert_eq!((model.is_stale(), rows(&mut model)), (false, vec![">b".into(), "b/1".into()]));
    assert_eq!(model.silent_for(&endpoint), Some(Duration::from_secs(1)));
}

#[test]
fn events_tell_what_is_no_longer_as_before() {
    let first = [given("a/1"), given("a/2"), given("b/1"), given("c/1").draining()];
    let mut model = model(&first);
    assert!(model.events.is_empty(), "nothing has happened yet");
    let then = [
        given("a/1").busy(2, 2),
        given("a/2").busy(2, 2),
        Given { life: 2, ..given("b/1") },
        given("d/1").failing(),
    ];
    model.handle_report(at(1000), report(&then));
    let mut events: Vec<&str> = model.events.iter().map(String::as_str).collect();
    events.sort_unstable();
    let expected = [
        "03:12:42 2 instances of a are full",
        "03:12:42 b/1 came again, as a new process",
        "03:12:42 c/1 left, after draining",
        "03:12:42 d/1 came",
    ];
    assert_eq!(events, expected);
    let mut next = then;
    (next[0], next[1], next[3]) = (given("a/1").failing(), given("a/2").busy(1, 0), given("d/1"));
    model.handle_report(at(2000), report(&next));
    assert_eq!(model.events[1], "03:12:43 d/1 is ready again");
    assert_eq!(model.events[0], "03:12:43 a/1 is failing: no such [2J host");
    // Who has just started does not know everybody yet.
    let warming = MapperRow { warming: true, ..mapper(5555, "complete") };
    model.handle_report(at(3000), told_by(vec![warming], &[next[0]]));
    model.handle_report(at(4000), report(&next[..3]));
    assert_eq!(model.events.len(), 7);
    assert_eq!(model.events[0], "03:12:45 d/1 left");
}

#[test]
fn a_busy_service_that_is_full_again_and_again_is_told_once_a_minute() {
    let (free, full) = (report(&[given("a/1")]), report(&[given("a/1").busy(2, 2)]));
    let mut model = Model::new(at(0), free.clone(), GOOD_FOR);
    for second in (0..120).step_by(2) {
        model.handle_report(at(second * 1000), full.clone());
        model.handle_report(at(second * 1000 + 1000), free.clone());
    }
    assert_eq!(model.events, ["03:13:41 a/1 is full", "03:12:41 a/1 is full"]);
}
