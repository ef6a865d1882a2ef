//! The screens of `svcmap status`: from facts to text.
//!
//! Totals before rows, exceptions first, a glyph and a word and never colour alone; the last line
//! is the next command.

use std::fmt::Write as _;

use clap::builder::styling::Style;
use svcmap_proto::control::Refused;
use svcmap_proto::names::Name;

use crate::table::{BAD, Cell, Column, OK, WARN, render};
use crate::text::{count, printable_line, time_ms};
use svcmap_proto::status::{Dialect, InstanceRow, MapperRow, Report, ServiceRow, Shown};

/// Cells of a full bar.
const BAR_CELLS: usize = 10;

/// Instances listed as not ready before the rest is only counted: a screen stays a screen.
const NOT_READY_MAX: usize = 20;

/// What the output can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Screen {
    /// Columns; `None` off a terminal, where nothing is left out.
    pub width: Option<usize>,
    /// Whether to draw bars.
    pub bars: bool,
}

const SERVICES: [Column; 8] = [
    Column::text("SERVICE"),
    Column::number("READY"),
    Column::number("RUNNING"),
    Column::number("QUEUED"),
    Column::number("PROMISED").leaving(1),
    Column::number("SLOTS").leaving(2),
    Column::text("LOAD"),
    Column::number("AGE").leaving(3),
];

/// `svcmap status`: one line for each service.
pub fn services(report: &Report, screen: Screen) -> String {
    let ready: usize = report.services.iter().map(|row| row.ready).sum();
    let mut text = format!(
        "{} · {} · {ready} of {} ready\n",
        mappers(&report.mappers, report.mappers_agree),
        count(report.services.len(), "service"),
        count(report.instances.len(), "instance"),
    );
    push_warnings(&mut text, report);
    let start = "\nnext: svcmap worker --service echo --builtin echo\n";
    if report.services.is_empty() {
        text.push_str(start);
        return text;
    }
    let rows: Vec<Vec<Cell>> = report.services.iter().map(|row| service_row(row, screen)).collect();
    text.push('\n');
    text.push_str(&render(&SERVICES, &rows, screen.width));
    push_not_ready(&mut text, report);
    // Those that have ended come last, and have no instances to show.
    match report.services.first() {
        Some(ServiceRow { service, instances: 0, waiting: 1.., .. }) => {
            let _ = writeln!(text, "\nnext: svcmap worker --service {service} …");
        }
        None | Some(ServiceRow { instances: 0, .. }) => text.push_str(start),
        Some(ServiceRow { service, .. }) => {
            let more = format!("svcmap status {service} (instances)");
            let _ = writeln!(text, "\nnext: {more} · --json · --wait '{service}>=1'");
        }
    }
    text
}

fn service_row(row: &ServiceRow, screen: Screen) -> Vec<Cell> {
    let ready = format!("{}/{}", row.ready, row.instances);
    vec![
        row.service.as_str().into(),
        Cell { text: ready, style: if row.ready < row.instances { WARN } else { Style::new() } },
        row.running.to_string().into(),
        row.queued.to_string().into(),
        row.promised.to_string().into(),
        row.slots.to_string().into(),
        Cell {
            text: load(row.load, screen.bars),
            style: if row.is_full() { WARN } else { Style::new() },
        },
        age(row.age).into(),
    ]
}

/// Who fails is the last to leave, with who it is and how it is.
const INSTANCES: [Column; 14] = [
    Column::text("INSTANCE"),
    Column::text("STATE"),
    Column::number("RUN"),
    Column::number("QUEUED"),
    Column::number("PROMISED").leaving(4),
    Column::number("SLOTS").leaving(6),
    Column::number("LOAD"),
    Column::number("DONE").leaving(2),
    Column::number("FAILED").leaving(1),
    Column::number("REJECTED").leaving(9),
    Column::number("MEAN").leaving(8),
    Column::number("AGE").leaving(5),
    Column::number("PID").leaving(7),
    Column::text("ENDPOINT").leaving(3),
];

/// `svcmap status SERVICE`: one line for each of its instances.
pub fn instances(report: &Report, service: &Name, screen: Screen) -> String {
    let Some(total) = report.service(service) else { return String::new() };
    let mut text = format!(
        "{service} · {} · {} of {} ready{}\n{} running · {} queued{} · {} promised · {} slots · \
         {} done · {} failed · {} rejected{}{}{}\n",
        mappers(&report.mappers, report.mappers_agree),
        total.ready,
        count(total.instances, "instance"),
        not_reached(total),
        total.running,
        total.queued,
        classes(total),
        total.promised,
        total.slots,
        total.done,
        total.failed,
        total.rejected,
        turned_away(total.turned_away),
        ended(total),
        waiting(total).map(|waiting| format!(" · {waiting}")).unwrap_or_default(),
    );
    push_silent(&mut text, report);
    push_warnings(&mut text, report);
    push_unreachable(&mut text, report);
    let rows: Vec<Vec<Cell>> = report.instances.iter().map(instance_row).collect();
    text.push('\n');
    text.push_str(&render(&INSTANCES, &rows, screen.width));
    push_failing(&mut text, report);
    let next = match total.ready {
        0 => format!("svcmap worker --service {service} …"),
        _ => format!("svcmap submit {service} --data TEXT"),
    };
    let _ = writeln!(text, "\nnext: {next} · svcmap status {service} --json");
    text
}

/// Worth a word only where it is so.
fn not_reached(total: &ServiceRow) -> String {
    let unreachable = total.unreachable.unwrap_or(0);
    if unreachable > 0 { format!(" · {unreachable} unreachable") } else { String::new() }
}

/// Worth a word only where not all are alike.
fn classes(total: &ServiceRow) -> String {
    match (total.queued_high, total.queued_low) {
        (0, 0) => String::new(),
        (high, low) => format!(" ({high} high, {low} low)"),
    }
}

/// Worth a word only where it happens.
fn turned_away(senders: u64) -> String {
    if senders > 0 { format!(" · {senders} senders turned away") } else { String::new() }
}

/// The same.
fn ended(total: &ServiceRow) -> String {
    match total.ended_per_s {
        rate if rate > 0.0 => format!(" · {}", crate::text::rate(rate)),
        _ => String::new(),
    }
}

/// What has found no room, if anything has not.
fn waiting(total: &ServiceRow) -> Option<String> {
    let senders = || count(total.waiting_senders, "sender");
    (total.waiting > 0).then(|| format!("{} wait at {}", total.waiting, senders()))
}

/// Who tells nothing that could be added up.
fn push_silent(text: &mut String, report: &Report) {
    let silent = report.instances.iter().filter(|row| row.dialect == Dialect::Json).count();
    if silent > 0 {
        let of = count(silent, "instance");
        let _ = writeln!(text, "of {of} only the load is known, as the JSON dialect has it");
    }
}

/// Who cannot be reached from here, and why.
fn push_unreachable(text: &mut String, report: &Report) {
    let all = report.instances.iter().filter(|row| row.reachable == Some(false));
    for row in all.take(NOT_READY_MAX) {
        let from = row.from.as_deref().unwrap_or("here");
        let why = row.unreachable.as_deref().unwrap_or("nobody answers");
        let name = &row.instance;
        let _ = writeln!(text, "{WARN}!{WARN:#} {name} cannot be reached from {from}: {why}");
    }
}

fn instance_row(row: &InstanceRow) -> Vec<Cell> {
    // The scheme is the same for all, and a line has 80 columns.
    let endpoint = row.endpoint.as_ref().map_or("-", |e| e.as_str().trim_start_matches("tcp://"));
    // A worker of the JSON dialect tells its load, and its slots if it likes.
    let known = |count: u64| match row.dialect {
        Dialect::Json if count == 0 => "-".into(),
        _ => count.to_string().into(),
    };
    let failed =
        Cell { style: if row.failed > 0 { BAD } else { Style::new() }, ..known(row.failed) };
    // Whose jobs could not even be started has no mean.
    let mean = match row.mean_service_ms {
        0.0 if row.done == 0 => "-".to_owned(),
        ms => time_ms(ms),
    };
    vec![
        row.instance.as_str().into(),
        if row.reachable == Some(false) {
            Cell { text: "✗ unreachable".to_owned(), style: BAD }
        } else {
            state(row.state)
        },
        known(row.running.into()),
        known(row.queued.into()),
        known(row.promised.into()),
        known(row.slots.into()),
        load(row.load, false).into(),
        known(row.done),
        failed,
        known(row.rejected),
        mean.into(),
        age(row.age).into(),
        row.pid.to_string().into(),
        endpoint.into(),
    ]
}

/// A glyph and the word.
pub(crate) fn state(state: Shown) -> Cell {
    let (glyph, style) = match state {
        Shown::Stuck | Shown::Failing => ("✗", BAD),
        Shown::Draining => ("◐", WARN),
        Shown::Full => ("■", WARN),
        Shown::Ready => ("●", OK),
    };
    Cell { text: format!("{glyph} {}", state.word()), style }
}

/// `mapper tcp://127.0.0.1:5555`, `2 mappers agree`, `1 of 2 mappers answers`.
pub(crate) fn mappers(rows: &[MapperRow], agree: bool) -> String {
    match (rows, rows.iter().filter(|mapper| mapper.is_complete()).count()) {
        ([only], _) => format!("mapper {}", only.at()),
        (all, complete) if complete < all.len() => {
            format!("{complete} of {} answer", count(all.len(), "mapper"))
        }
        (all, _) if agree => format!("{} mappers agree", all.len()),
        (all, _) => format!("{} mappers disagree", all.len()),
    }
}

fn push_warnings(text: &mut String, report: &Report) {
    for warning in warnings(report) {
        let _ = writeln!(text, "{WARN}!{WARN:#} {warning}");
    }
}

/// What to say of mappers and services, each in one line.
pub(crate) fn warnings(report: &Report) -> impl Iterator<Item = String> {
    let services = report.services.iter();
    let services =
        services.flat_map(|row| service_warning(row).into_iter().chain(failing_warning(row)));
    let refused = report.mappers.iter().filter_map(refused_warning);
    let mappers = report.mappers.iter().filter_map(mapper_warning);
    mappers.chain(refused).chain(services).map(|warning| printable_line(&warning))
}

/// What to say of a mapper that has not told everything.
pub(crate) fn mapper_warning(mapper: &MapperRow) -> Option<String> {
    let (MapperRow { answer, warming, .. }, endpoint) = (mapper, mapper.at());
    match *answer {
        "silent" => Some(format!("the mapper {endpoint} does not answer")),
        "partial" => Some(format!("the mapper {endpoint} did not answer everything in time")),
        "wrong version" => Some(format!("the mapper {endpoint} is of another protocol version")),
        _ if *warming => {
            Some(format!("the mapper {endpoint} has just started: others may still register"))
        }
        _ => None,
    }
}

fn refused_warning(mapper: &MapperRow) -> Option<String> {
    let Refused { registrations, messages } = mapper.refused;
    let endpoint = mapper.at();
    (registrations + messages > 0).then(|| {
        format!(
            "the mapper {endpoint} has refused {registrations} registrations and {messages} bad \
             messages: its log says why"
        )
    })
}

fn service_warning(row: &ServiceRow) -> Option<String> {
    let service = &row.service;
    match row {
        _ if row.is_full() => Some(format!(
            "{service} is full: {} of {} slots are taken, {}",
            row.running + row.queued + row.promised,
            row.slots,
            waiting(row).as_deref().unwrap_or("new jobs wait or are refused")
        )),
        _ if row.instances == 0 => Some(match waiting(row) {
            Some(waiting) => format!("{service} has no instance, and of its jobs {waiting}"),
            None => format!("{service} has no instance left"),
        }),
        _ if row.ready == 0 => Some(match waiting(row) {
            Some(waiting) => format!("{service} takes no jobs, no instance is ready: {waiting}"),
            None => format!("{service} takes no jobs: no instance is ready"),
        }),
        _ => waiting(row)
            .map(|waiting| format!("of the jobs of {service} {waiting}: svcmap why {service}")),
    }
}

/// Jobs fail, and who takes them goes on, as nobody does better.
pub(crate) fn failing_warning(row: &ServiceRow) -> Option<String> {
    let ServiceRow { service, ready, failing, .. } = row;
    let whose = match (failing, ready) {
        (0, _) => return None,
        (1, 1) => "the only instance that takes them".to_owned(),
        (some, all) if some == all => format!("each of the {all} instances that take them"),
        (some, all) => format!("{some} of the {all} instances that take them"),
    };
    Some(format!("of the last jobs of {service} most failed at {whose}"))
}

fn push_not_ready(text: &mut String, report: &Report) {
    let all: Vec<&InstanceRow> =
        report.instances.iter().filter(|row| !row.state.is_ready()).collect();
    if all.is_empty() {
        return;
    }
    text.push_str("\nNOT READY\n");
    let shown = &all[..all.len().min(NOT_READY_MAX)];
    let names: Vec<String> =
        shown.iter().map(|row| format!("{}/{}", row.service, row.instance)).collect();
    let width = names.iter().map(String::len).max().unwrap_or(0);
    for (row, name) in shown.iter().zip(names) {
        let _ = writeln!(text, "{name:<width$}  {}", printable_line(&why_not_ready(row)));
    }
    if all.len() > shown.len() {
        let _ = writeln!(text, "and {} more: svcmap status --json", all.len() - shown.len());
    }
}

/// What the jobs of those fail of that are set aside for it, and whose jobs fail beside.
fn push_failing(text: &mut String, report: &Report) {
    let is_shown = |row: &&InstanceRow| {
        row.state == Shown::Failing || row.fails_most() || report.fails_more(row)
    };
    let failing = report.instances.iter().filter(is_shown);
    for (place, row) in failing.take(NOT_READY_MAX).enumerate() {
        let gap = if place == 0 { "\n" } else { "" };
        let _ = writeln!(text, "{gap}{}  {}", row.instance, why_not_ready(row));
    }
}

/// How an instance is that takes nothing, or should not.
pub(crate) fn why_not_ready(row: &InstanceRow) -> String {
    let jobs = u64::from(row.running) + u64::from(row.queued);
    match (row.state, row.since_finish_ms) {
        (Shown::Stuck, Some(ms)) => {
            let silence = time_ms(f64::from(ms));
            format!("stuck: {} running, no handler finished for {silence}", row.running)
        }
        (Shown::Stuck, None) => {
            format!("stuck: {} running, no handler has ever finished", row.running)
        }
        (Shown::Failing, _) => format!("failing: {}", error(row)),
        (Shown::Ready | Shown::Full, _) => {
            let share = if row.fails_most() { "most" } else { "many" };
            format!("{share} of its last jobs failed or could not be started: its log says of what")
        }
        (state, _) => format!("{}, {} left", state.word(), count(jobs, "job")),
    }
}

/// What its last job failed of. That is text from elsewhere: nothing of it may move the cursor.
pub(crate) fn error(row: &InstanceRow) -> String {
    let error = row.error.as_deref().unwrap_or_default().replace(char::is_control, " ");
    error.trim().to_owned()
}

/// `██▌          27%`, or ` 27%`. Never 100 % while there is room, never 0 % while there is work.
pub(crate) fn load(load: f64, bar: bool) -> String {
    let percent = match load * 100.0 {
        some if some > 0.0 && some < 1.0 => 1.0,
        most if most > 99.0 && most < 100.0 => 99.0,
        other => other.round(),
    };
    if !bar {
        return format!("{percent:>3}%");
    }
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (load * (BAR_CELLS * 8) as f64).floor() as usize;
    let filled = format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8]);
    format!("{filled:<BAR_CELLS$} {percent:>3}%")
}

/// An age: nobody needs it to the millisecond.
pub(crate) fn age(seconds: f64) -> String {
    if seconds < 10.0 { format!("{seconds:.1}s") } else { time_ms(seconds * 1000.0) }
}
