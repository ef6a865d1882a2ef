//! The screen of `svcmap doctor`, and its JSON.

use std::fmt::Write as _;

use clap::builder::styling::{AnsiColor, Style};
use serde_json::json;

use super::{Check, Level};
use crate::text::{count, printable_line};

/// Nothing that others wrote moves the cursor.
pub(super) fn make_printable(check: &mut Check) {
    check.message = printable_line(&check.message);
    check.group = printable_line(&check.group);
    for command in check.remedy.iter_mut().flat_map(|remedy| &mut remedy.commands) {
        *command = printable_line(command);
    }
}

/// All checks in their groups, each finding with its remedy; only findings, if `short`.
pub(super) fn screen(checks: &[Check], short: bool) -> String {
    let mut text = String::new();
    let mut group = "";
    for check in checks.iter().filter(|check| !short || check.level != Level::Ok) {
        if check.group != group {
            let _ = writeln!(text, "{}", check.group);
            group = &check.group;
        }
        push(&mut text, check);
    }
    let of = |level| checks.iter().filter(|check| check.level == level).count();
    let (failed, warnings) = (of(Level::Fail), count(of(Level::Warn), "warning"));
    let _ = writeln!(text, "{failed} failed, {warnings}, {} ok", of(Level::Ok));
    if !short {
        let next = match failed {
            0 => "svcmap status",
            _ => "svcmap doctor --short (to paste)",
        };
        let _ = writeln!(text, "\nnext: {next} · svcmap doctor --json");
    }
    text
}

fn push(text: &mut String, check: &Check) {
    let (word, style) = match check.level {
        Level::Ok => ("ok  ", AnsiColor::Green.on_default()),
        Level::Warn => ("warn", AnsiColor::Yellow.on_default()),
        Level::Fail => ("FAIL", AnsiColor::Red.on_default().bold()),
    };
    let id = check.id.map(|id| format!("  [{id}]")).unwrap_or_default();
    let _ = writeln!(text, "  {style}{word}{style:#}  {}{id}", check.message);
    let Some(remedy) = &check.remedy else { return };
    let _ = writeln!(text, "        {}", remedy.text);
    let fix: Style = AnsiColor::Green.on_default();
    for command in &remedy.commands {
        let _ = writeln!(text, "        {fix}fix:{fix:#} {command}");
    }
}

/// One JSON object and a line end.
pub(super) fn json(checks: &[Check], short: bool) -> String {
    let of = |level| checks.iter().filter(|check| check.level == level).count();
    let shown: Vec<&Check> =
        checks.iter().filter(|check| !short || check.level != Level::Ok).collect();
    let all = json!({
        "failed": of(Level::Fail),
        "warnings": of(Level::Warn),
        "ok": of(Level::Ok),
        "checks": shown,
    });
    format!("{all:#}\n")
}
