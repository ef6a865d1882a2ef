//! The table of services and instances, as many columns of it as fit.

use std::time::Duration;

use clap::builder::styling::{AnsiColor, Color as Ansi, Style as AnsiStyle};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use svcmap_proto::status::{Dialect, InstanceRow, ServiceRow};

use super::super::model::Model;
use super::super::rates::figure;
use super::super::rows::{Of, Row, Sort};
use super::LOUD;
use crate::commands::status::render::{age, load, state};
use crate::table::{BAD, OK, WARN};
use crate::table::{Cell, Column, GAP, shown};
use crate::text::time_ms;

const COLUMNS: [Column; 10] = [
    Column::text("SERVICE/INSTANCE"),
    Column::text("STATE"),
    Column::text("LOAD"),
    Column::number("RUN").leaving(5),
    Column::number("QUEUED").leaving(4),
    Column::number("DONE/s").leaving(2),
    Column::number("FAILED/s").leaving(1),
    Column::number("REJECTED/s").leaving(8),
    Column::number("MEAN").leaving(6),
    Column::number("AGE").leaving(7),
];

/// So wide at least, so that nothing moves when a figure gets another digit.
const WIDTHS_MIN: [usize; 10] = [16, 11, 15, 4, 6, 6, 8, 10, 5, 5];

/// The heading and so many rows, less one.
pub(super) fn lines(model: &mut Model, width: usize, height: usize) -> Vec<Line<'static>> {
    let (sort, since) = (model.choice.sort, model.age());
    let since =
        if model.is_stale() || model.paused_for().is_some() { since } else { Duration::ZERO };
    let (columns, titles) = headings(sort);
    let rows: Vec<Vec<Cell>> = model.rows().iter().map(|row| cells(row, since)).collect();
    // Over all rows, not only those of the page: columns stay where they are when it moves.
    let mut widths = WIDTHS_MIN;
    for cells in rows.iter().chain([&titles]) {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let columns_shown = shown(&columns, &widths, Some(width));
    let line = |cells: &[Cell]| -> Line<'static> {
        let mut spans = Vec::new();
        for &index in &columns_shown {
            let (text, width) = (&cells[index].text, widths[index]);
            let padded = match columns[index].right {
                true => format!("{text:>width$}"),
                false => format!("{text:<width$}"),
            };
            spans.push(Span::styled(padded, style(cells[index].style)));
            spans.push(Span::from(" ".repeat(GAP)));
        }
        spans.into()
    };
    let heading = line(&titles).style(Modifier::BOLD);
    let (page, cursor) = model.page(height.saturating_sub(1));
    let rows = page.map(|place| {
        let line = line(&rows[place]);
        if place == cursor { line.style(LOUD) } else { line }
    });
    std::iter::once(heading).chain(rows).take(height).collect()
}

/// The column by which is sorted shows in which direction, and stays.
fn headings(sort: Sort) -> ([Column; 10], Vec<Cell>) {
    let (sorted, arrow) = match sort {
        Sort::Name => (0, "▲"),
        Sort::Load => (2, "▼"),
        Sort::Done => (5, "▼"),
        Sort::Failed => (6, "▼"),
        Sort::Age => (9, "▼"),
    };
    let mut columns = COLUMNS;
    columns[sorted] = columns[sorted].leaving(0);
    let mut titles: Vec<Cell> = columns.iter().map(|column| column.title.into()).collect();
    titles[sorted].text += arrow;
    (columns, titles)
}

fn cells(row: &Row<'_>, since: Duration) -> Vec<Cell> {
    let is_failing = row.rate.is_some_and(|rate| rate.failed > 0.0);
    let failed_style = if is_failing { BAD } else { AnsiStyle::new() };
    let tail = [
        figure(row.rate, |rate| rate.done).into(),
        Cell { text: figure(row.rate, |rate| rate.failed), style: failed_style },
        figure(row.rate, |rate| rate.rejected).into(),
    ];
    let (head, mean_ms, age_s) = match row.of {
        Of::Service { row, is_open, mean_ms } => (service(row, is_open), mean_ms, row.age),
        Of::Instance(row) => {
            let mean_ms = (row.mean_service_ms > 0.0).then_some(row.mean_service_ms);
            (instance(row), mean_ms, row.age)
        }
    };
    let mean = mean_ms.map_or_else(|| "-".to_owned(), time_ms);
    let age = age(age_s + since.as_secs_f64());
    head.into_iter().chain(tail).chain([mean.into(), age.into()]).collect()
}

fn service(row: &ServiceRow, is_open: bool) -> [Cell; 5] {
    let sign = if is_open { "▾" } else { "▸" };
    let (glyph, style) = match row {
        _ if row.is_full() => ("■", WARN),
        _ if row.instances == 0 => (" ", AnsiStyle::new()),
        _ if row.ready == 0 => ("✗", BAD),
        _ if row.ready < row.instances => ("◐", WARN),
        _ => ("●", OK),
    };
    let (count, word) = if row.is_full() { (row.full, "full") } else { (row.ready, "ready") };
    let of = if count < row.instances { format!("/{}", row.instances) } else { String::new() };
    [
        format!("{sign} {}", row.service).into(),
        Cell { text: format!("{glyph} {count}{of} {word}"), style },
        load(row.load, true).into(),
        row.running.to_string().into(),
        row.queued.to_string().into(),
    ]
}

fn instance(row: &InstanceRow) -> [Cell; 5] {
    // A worker of the JSON dialect tells its load, and its slots if it likes.
    let known = |count: u32| match row.dialect {
        Dialect::Json if count == 0 => "-".into(),
        _ => count.to_string().into(),
    };
    [
        format!("    {}", row.instance).into(),
        state(row.state),
        load(row.load, true).into(),
        known(row.running),
        known(row.queued),
    ]
}

/// The terminal's own colours, as all commands have them.
fn style(style: AnsiStyle) -> Style {
    match style.get_fg_color() {
        Some(Ansi::Ansi(AnsiColor::Green)) => Color::Green.into(),
        Some(Ansi::Ansi(AnsiColor::Yellow)) => Color::Yellow.into(),
        Some(Ansi::Ansi(AnsiColor::Red)) => Color::Red.into(),
        _ => Style::new(),
    }
}
