use std::time::Duration;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use svcmap_proto::status::Report;

use super::*;
use crate::commands::top::model::Key;
use crate::commands::top::scene::{Given, at, given, mapper, report, told_by};

fn shop() -> Model {
    let before = [given("ocr/c-7").draining(), given("resize/a-1").done(0), given("resize/b-2")];
    let mut model = Model::new(at(0), report(&before), Duration::from_secs(3));
    let after = [
        given("ocr/c-7").draining().busy(1, 0),
        Given { age_ms: 200, ..given("resize/a-1").done(248).busy(2, 2) },
        given("resize/b-2").busy(2, 2),
    ];
    model.handle_report(at(1000), report(&after));
    model
}

fn drawn(model: &mut Model, width: u16, height: u16) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(model, frame.area(), frame.buffer_mut())).unwrap();
    terminal.backend().buffer().clone()
}

fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let line = |cells: &[ratatui::buffer::Cell]| -> String {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        format!("{}\n", line.trim_end())
    };
    buffer.content.chunks(width).map(line).collect()
}

/// The style of the first cell of the first line with this text.
fn style_of(buffer: &Buffer, what: &str) -> Style {
    let y = text(buffer).lines().position(|line| line.contains(what)).unwrap();
    buffer[(0, u16::try_from(y).unwrap())].style()
}

#[test]
fn the_screen_of_a_terminal_as_it_is_by_default() {
    let expected = "\
● 127.0.0.1:5555  2 services · 2/3 instances ready
310 jobs/s · 0 failed/s · 0 rejected/s · 5 running · 4 queued, oldest 0s
! resize is full: 8 of 8 slots are taken, new jobs wait or are refused
! ocr takes no jobs: no instance is ready
! ocr/c-7 is draining, 1 job left
SERVICE/INSTANCE  STATE        LOAD▼             RUN  QUEUED  DONE/s  FAILED/s
▾ resize          ■ 2 full     ██████████ 100%     4       4     310         0
    a-1           ■ full       ██████████ 100%     2       2     310         0
    b-2           ■ full       ██████████ 100%     2       2       0         0
▾ ocr             ✗ 0/1 ready  ██▌         25%     1       0       0         0
    c-7           ◐ draining   ██▌         25%     1       0       0         0








── events (UTC) ────────────────────────────────────────────────────────────────
03:12:42 2 instances of resize are full


↑↓ move  ⏎ open  / filter  s sort  d drain (asks)  p pause  ? help  q quit
";
    let buffer = drawn(&mut shop(), 80, 24);
    assert_eq!(text(&buffer), expected);
    assert!(style_of(&buffer, "▾ resize").add_modifier.contains(Modifier::REVERSED));
}

#[test]
fn a_wide_one_has_all_columns() {
    let text = text(&drawn(&mut shop(), 120, 24));
    assert!(text.contains("FAILED/s  REJECTED/s   MEAN    AGE\n"), "{text}");
    assert!(text.contains("    310         0           0   38ms   0.2s\n"), "{text}");
}

#[test]
fn a_column_by_which_is_sorted_stays() {
    let mut model = shop();
    for expected in ["SERVICE/INSTANCE▲", "DONE/s▼", "FAILED/s▼", "AGE▼", "LOAD▼"] {
        model.handle_key(Key::Char('s'));
        let text = text(&drawn(&mut model, 80, 24));
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn no_terminal_is_too_small() {
    for (width, height) in
        [(20, 5), (1, 1), (80, 1), (80, 2), (80, 3), (3, 40), (40, 12), (300, 100)]
    {
        for key in ['?', 'x', '/', 'x'] {
            let mut model = shop();
            model.handle_key(Key::End);
            model.handle_key(Key::Char(key));
            drawn(&mut model, width, height);
        }
    }
    let text = text(&drawn(&mut shop(), 20, 5));
    assert!(text.contains("▾ resize"), "{text}");
}

#[test]
fn an_empty_table_says_what_to_do() {
    let mut empty = Model::new(at(0), report(&[]), Duration::from_secs(3));
    assert!(text(&drawn(&mut empty, 80, 24)).contains("yet: svcmap worker --service echo"));
    let mut model = shop();
    "/x".chars().for_each(|key| drop(model.handle_key(Key::Char(key))));
    assert!(text(&drawn(&mut model, 80, 24)).contains("\nnothing has x in its name\n"));
}

#[test]
fn what_is_old_is_grey_and_says_since_when() {
    let mut model = shop();
    assert_ne!(style_of(&drawn(&mut model, 80, 24), "ocr/c-7").fg, Some(Color::DarkGray));
    model.handle_silence(at(5000).now, "no mapper answers at all\u{1b}[2J".to_owned());
    model.handle_time(at(7000).now);
    let buffer = drawn(&mut model, 120, 24);
    let shown = text(&buffer);
    assert!(shown.contains("OLD: as it was 6s ago  ✗ 127.0.0.1:5555 silent for 2s"), "{shown}");
    assert!(shown.contains("! no mapper answers at all\\u{1b}[2J"), "{shown}");
    assert!(shown.contains("6.2s\n"), "ages go on: {shown}");
    for line in ["jobs/s", "    a-1", "c-7"] {
        assert_eq!(style_of(&buffer, line).fg, Some(Color::DarkGray), "{line}");
    }
    // Also the states, which have colours of their own while they are new.
    let table = buffer.content.chunks(120).skip(6).take(6).flatten();
    assert!(table.into_iter().all(|cell| matches!(cell.fg, Color::DarkGray | Color::Reset)));
}

#[test]
fn each_mapper_is_shown_and_whether_they_agree() {
    let mappers = |second| vec![mapper(5555, "complete"), mapper(5557, second)];
    let first = told_by(mappers("complete"), &[given("a/1")]);
    let mut model = Model::new(at(0), first, Duration::from_secs(3));
    let line = |model: &mut Model| text(&drawn(model, 120, 24)).lines().next().unwrap().to_owned();
    assert!(line(&mut model).contains("● 127.0.0.1:5555  ● 127.0.0.1:5557  1 service"));
    let other = Report { mappers_agree: false, ..told_by(mappers("complete"), &[given("a/1")]) };
    model.handle_report(at(500), other);
    assert!(line(&mut model).contains("  2 mappers disagree  "));
    model.handle_report(at(1000), told_by(mappers("silent"), &[given("a/1")]));
    model.handle_time(at(3000).now);
    let line = line(&mut model);
    assert!(line.contains("● 127.0.0.1:5555  ✗ 127.0.0.1:5557 silent for 2s"), "{line}");
    assert!(!line.contains("OLD"), "{line}");
}

#[test]
fn the_last_line_says_what_keys_are_for() {
    let mut model = shop();
    let mut last = |keys: &str| {
        for key in keys.chars() {
            model.handle_key(Key::Char(key));
        }
        text(&drawn(&mut model, 80, 24)).lines().last().unwrap().to_owned()
    };
    assert_eq!(last("d"), "d drains an instance: move to one first");
    assert_eq!(last("jd"), "Let resize/a-1 finish its jobs and end? y/n");
    assert_eq!(last("n"), "not drained");
    assert_eq!(last("/oc"), "/oc▏ Enter, or Esc for all");
    model.handle_key(Key::Enter);
    assert!(text(&drawn(&mut model, 80, 24)).contains("only /oc (Esc: all)"));
    model.handle_key(Key::Char('p'));
    model.handle_time(at(4000).now);
    assert!(text(&drawn(&mut model, 80, 24)).contains("PAUSED for 3s, as it was 3s ago"));
    model.handle_key(Key::Char('?'));
    let help = text(&drawn(&mut model, 80, 24));
    assert!(KEYS.lines().all(|line| help.contains(line)), "{help}");
}
