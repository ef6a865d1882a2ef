//! The screen of `svcmap why`.

use std::fmt::Write as _;

use svcmap_proto::names::Name;
use svcmap_proto::status::Dialect;

use super::verdict::{Row, TurnRow, Verdict, Why};
use crate::commands::status::{mapper_warning, mappers};
use crate::table::{BAD, Cell, Column, OK, WARN, render};
use crate::text::{count, printable_line, some_of, time_ms};

/// Reasons come below: they are longer than a column.
const COLUMNS: [Column; 6] = [
    Column::text(""),
    Column::text("INSTANCE"),
    Column::text("VERDICT"),
    Column::number("BUSY/SLOTS"),
    Column::number("MEAN").leaving(2),
    Column::number("AGE").leaving(1),
];

/// Who is chosen, and why each other one is not, or that one.
pub(super) fn screen(why: &Why, only: Option<&Name>, width: Option<usize>) -> String {
    let mut text = headline(why);
    for warning in why.mappers.iter().filter_map(mapper_warning) {
        let _ = writeln!(text, "{WARN}!{WARN:#} {}", printable_line(&warning));
    }
    if !why.mappers_agree {
        let said = mappers(&why.mappers, why.mappers_agree);
        let _ = writeln!(text, "{WARN}!{WARN:#} {said}: a sender takes whoever any of them lists");
    }
    let is_shown = |row: &&Row| only.is_none_or(|only| row.known.instance == *only);
    let shown = || why.instances.iter().filter(is_shown);
    let rows: Vec<Vec<Cell>> = shown().map(row).collect();
    text.push('\n');
    text.push_str(&render(&COLUMNS, &rows, width));
    text.push('\n');
    let longest = shown().map(|row| row.known.instance.as_str().len()).max();
    for row in shown() {
        let (name, longest) = (row.known.instance.as_str(), longest.unwrap_or(0));
        let said = format!("{name:<longest$}  {}", row.reason);
        let _ = writeln!(text, "{}", printable_line(&said));
    }
    let _ = writeln!(text, "\nnext: {} · svcmap why {} --json", next(why), why.service);
    text
}

fn headline(why: &Why) -> String {
    let service = &why.service;
    let passed = why.turns.iter().filter(|turn| why.chosen.as_ref() != Some(&turn.instance));
    let passed: Vec<&str> = passed.map(|turn| turn.instance.as_str()).collect();
    let first = some_of(&passed);
    match (&why.chosen, passed.is_empty()) {
        (Some(chosen), true) => {
            format!("A sender of {service} that starts here now chooses {chosen}.\n")
        }
        (Some(chosen), false) => format!(
            "A sender of {service} that starts here now turns to {first} in vain, and chooses \
             {chosen}.\n"
        ),
        (None, false) if why.turns.iter().any(|turn| is_reached(why, turn)) => format!(
            "A sender of {service} that starts here now turns to {first}, and its job waits.{}\n",
            waiting(why)
        ),
        (None, _) => format!(
            "No instance takes a job of {service} from here now: it waits. {} known.{}\n",
            count(why.instances.len(), "instance"),
            waiting(why)
        ),
    }
}

/// What waits before it.
fn waiting(why: &Why) -> String {
    let senders = || count(why.waiting_senders, "sender");
    match why.waiting {
        0 => String::new(),
        jobs => format!(" Waiting already: {} at {}.", count(jobs, "job"), senders()),
    }
}

/// Whether somebody is there to whom the sender turns.
fn is_reached(why: &Why, turn: &TurnRow) -> bool {
    let mut rows = why.instances.iter().filter(|row| row.known.instance == turn.instance);
    rows.any(|row| row.known.reachable != Some(false))
}

fn row(row: &Row) -> Vec<Cell> {
    let Row { known, verdict, .. } = row;
    let style = match verdict {
        Verdict::Chosen | Verdict::Possible => OK,
        Verdict::Busy | Verdict::Full | Verdict::Draining => WARN,
        Verdict::Failing | Verdict::Stuck | Verdict::Unreachable | Verdict::Unused => BAD,
    };
    let busy = u64::from(known.running) + u64::from(known.queued) + u64::from(known.promised);
    let busy = match known.dialect {
        Dialect::Json if known.slots == 0 => format!("{:.0}%", known.load * 100.0),
        _ => format!("{busy}/{}", known.slots),
    };
    let mean = match known.mean_service_ms {
        0.0 => "-".to_owned(),
        ms => time_ms(ms),
    };
    vec![
        if *verdict == Verdict::Chosen { "→" } else { "" }.into(),
        known.instance.as_str().into(),
        Cell { text: verdict.word().to_owned(), style },
        busy.into(),
        mean.into(),
        time_ms(known.age_ms.into()).into(),
    ]
}

/// What mends what stands in the way, or shows more.
fn next(why: &Why) -> String {
    let any = |verdict| why.instances.iter().any(|row| row.verdict == verdict);
    let is_taken = |row: &Row| matches!(row.verdict, Verdict::Busy | Verdict::Full);
    match why.chosen {
        None if why.instances.iter().all(is_taken) => {
            format!("svcmap worker --service {} …", why.service)
        }
        _ if any(Verdict::Unreachable) || !why.mappers_agree => "svcmap doctor".to_owned(),
        _ => format!("svcmap status {}", why.service),
    }
}
