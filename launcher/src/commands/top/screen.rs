//! Draws the screen of `svcmap top`: from the model to a buffer. Pure.
//!
//! From top to bottom: mappers, sums, warnings, the table, events, keys. A small terminal has fewer of
//! them, and the table last of all goes.

mod table;

use std::time::Duration;

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};

use super::model::{Mode, Model};
use super::rates::figure;
use crate::cli::KEYS;
use crate::commands::status::render::{mappers, warnings};
use crate::commands::status::why_not_ready;
use crate::text::{count, printable_line, time, time_ms};

/// Most lines of warnings and of events. The others are counted, or gone.
const WARNINGS_MAX: usize = 4;
const EVENTS_MAX: usize = 6;

const GREY: Style = Style::new().fg(Color::DarkGray);
const LOUD: Style = Style::new().add_modifier(Modifier::REVERSED);

const FOOT: &str = "↑↓ move  ⏎ open  / filter  s sort  d drain (asks)  p pause  ? help  q quit";

/// Draws all of it.
pub(super) fn draw(model: &mut Model, area: Rect, buffer: &mut Buffer) {
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let is_stale = model.is_stale();
    let mut lines = vec![header(model), greyed(sums(model), is_stale)];
    lines.extend(warning_lines(model, (height / 6).min(WARNINGS_MAX)));
    let events = event_lines(model, (height / 5).min(EVENTS_MAX), width);
    let page = height.saturating_sub(lines.len() + events.len() + 1);
    if model.mode == Mode::Help {
        lines.extend(KEYS.lines().map(Line::from).take(page));
    } else {
        let table = table::lines(model, width, page);
        lines.extend(table.into_iter().map(|line| greyed(line, is_stale)));
        lines.extend(nothing(model));
    }
    lines.resize(height.saturating_sub(events.len() + 1).max(2), Line::default());
    lines.extend(events);
    lines.push(foot(model));
    for (y, line) in (area.top()..area.bottom()).zip(lines) {
        buffer.set_line(area.left(), y, &line, area.width);
    }
}

/// What is old has no colour that it had when it was new.
fn greyed(mut line: Line<'static>, is_stale: bool) -> Line<'static> {
    if is_stale {
        line.spans.iter_mut().for_each(|span| span.style = GREY);
    }
    line
}

/// Who was asked, and whether that is the present. What is not comes first.
fn header(model: &Model) -> Line<'static> {
    let (report, sums) = (model.report(), model.sums());
    let mut parts = Vec::new();
    let ago = time(round(model.age()));
    if let Some(paused) = model.paused_for() {
        let paused = time(round(paused));
        parts.push(Span::styled(format!("PAUSED for {paused}, as it was {ago} ago"), LOUD));
    } else if model.is_stale() {
        parts.push(Span::styled(format!("OLD: as it was {ago} ago"), LOUD));
    }
    parts.extend(report.mappers.iter().map(|mapper| {
        // The scheme is the same for all, and a line has 80 columns.
        let endpoint = mapper.endpoint.as_str().trim_start_matches("tcp://");
        let Some(silent) = model.silent_for(&mapper.endpoint) else {
            return Span::styled(format!("● {endpoint}"), Color::Green);
        };
        // Nobody has answered, and so its last answer is not one to this question.
        let word = if mapper.is_complete() { "silent" } else { mapper.answer };
        Span::styled(format!("✗ {endpoint} {word} for {}", time(round(silent))), Color::Red)
    }));
    if !report.mappers_agree && !model.is_stale() {
        parts.push(Span::from(mappers(&report.mappers, false)));
    }
    let (services, ready) = (count(report.services.len(), "service"), sums.ready);
    let instances = count(sums.instances, "instance");
    parts.push(Span::from(format!("{services} · {ready}/{instances} ready")));
    parts.into_iter().flat_map(|part| [part, Span::from("  ")]).collect()
}

/// Seconds are enough for what goes on.
fn round(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs())
}

fn sums(model: &Model) -> Line<'static> {
    let sums = model.sums();
    let oldest =
        sums.oldest_ms.map_or_else(String::new, |ms| format!(", oldest {}", time_ms(ms.into())));
    let text = format!(
        "{} jobs/s · {} failed/s · {} rejected/s · {} running · {} queued{oldest}",
        figure(sums.rate, |rate| rate.done + rate.failed),
        figure(sums.rate, |rate| rate.failed),
        figure(sums.rate, |rate| rate.rejected),
        sums.running,
        sums.queued,
    );
    text.into()
}

/// Why nobody answers, then what `svcmap status` warns of, then who is not ready.
fn warning_lines(model: &Model, most: usize) -> Vec<Line<'static>> {
    let report = model.report();
    let not_ready = report.instances.iter().filter(|row| !row.state.is_ready()).map(|row| {
        let why = format!("{}/{} is {}", row.service, row.instance, why_not_ready(row));
        printable_line(&why)
    });
    let silence = model.silence.iter().map(|why| printable_line(why));
    let mut all: Vec<String> = silence.chain(warnings(report)).chain(not_ready).collect();
    if all.len() > most && most > 0 {
        let hidden = all.len() - (most - 1);
        all.truncate(most - 1);
        all.push(format!("{hidden} more: svcmap status"));
    }
    let lines = all.into_iter().take(most).enumerate().map(|(place, warning)| {
        let is_news = place == 0 && model.silence.is_some();
        let line = Line::from(vec![Span::styled("! ", Color::Yellow), Span::from(warning)]);
        greyed(line, model.is_stale() && !is_news)
    });
    lines.collect()
}

/// What to do where the table is empty.
fn nothing(model: &Model) -> Option<Line<'static>> {
    let text = match &model.choice.filter[..] {
        _ if !model.rows().is_empty() => return None,
        "" => "nobody serves anything yet: svcmap worker --service echo --builtin echo".to_owned(),
        filter => format!("nothing has {filter} in its name"),
    };
    Some(Line::from(text))
}

fn event_lines(model: &Model, most: usize, width: usize) -> Vec<Line<'static>> {
    // A title and nothing beneath it is of no use.
    if most < 3 {
        return Vec::new();
    }
    let title = format!("── events (UTC) {}", "─".repeat(width.saturating_sub(16)));
    let mut lines = vec![Line::styled(title, GREY)];
    lines.extend(model.events.iter().take(most - 1).cloned().map(Line::from));
    lines.resize(most, Line::default());
    lines
}

fn foot(model: &Model) -> Line<'static> {
    match (&model.mode, &model.note) {
        (Mode::Ask(key), _) => {
            Line::styled(format!("Let {key} finish its jobs and end? y/n"), LOUD)
        }
        (Mode::Filter, _) => Line::from(format!("/{}▏ Enter, or Esc for all", model.choice.filter)),
        (Mode::Help, _) => Line::from("any key leads back"),
        (_, Some(note)) => Line::styled(printable_line(note), LOUD),
        (_, None) if !model.choice.filter.is_empty() => {
            Line::from(format!("only /{} (Esc: all)  {FOOT}", model.choice.filter))
        }
        _ => Line::styled(FOOT, GREY),
    }
}

#[cfg(test)]
#[path = "screen_tests.rs"]
mod tests;
