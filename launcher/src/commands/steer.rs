//! `svcmap ps`, `logs`, `start`, `stop`, `restart` and `scale`: what is asked of a running `svcmap up`.

use std::process::ExitCode;

use clap::builder::styling::Style;

use crate::cli::{LogsArgs, PsArgs, RunningUp, ScaleArgs, TargetArgs};
use crate::errors::{Error, print_note, print_out};
use crate::fleet::command::Command;
use crate::fleet::io::client::{ask, processes};
use crate::fleet::wire::{Process, Reply, Request};
use crate::io::stdout_columns;
use crate::table::{BAD, Cell, Column, OK, WARN, render};
use crate::text::{printable_line, printable_path, time_ms};

/// Starts what does not run.
///
/// # Errors
/// If it does not become ready, or there is no such thing.
pub fn start(args: &TargetArgs) -> Result<ExitCode, Error> {
    order(&args.up, Command::Start(args.targets.clone()))
}

/// Ends processes gracefully.
///
/// # Errors
/// If there is no such thing.
pub fn stop(args: &TargetArgs) -> Result<ExitCode, Error> {
    order(&args.up, Command::Stop(args.targets.clone()))
}

/// Replaces processes one after another.
///
/// # Errors
/// If a new one does not become ready, or there is no such thing.
pub fn restart(args: &TargetArgs) -> Result<ExitCode, Error> {
    order(&args.up, Command::Restart(args.targets.clone()))
}

/// Changes how many instances there are.
///
/// # Errors
/// If a new one does not become ready, or there is no such service.
pub fn scale(args: &ScaleArgs) -> Result<ExitCode, Error> {
    order(&args.up, Command::Scale(args.service.clone(), args.instances))
}

/// Has something done, and shows what happens meanwhile.
fn order(up: &RunningUp, command: Command) -> Result<ExitCode, Error> {
    let mut answers = ask(up.file.as_deref(), &Request::Do(command))?;
    if answers.is_elsewhere {
        print_note(&format!("of {}:", printable_path(&answers.path)));
    }
    loop {
        match answers.receive()? {
            Reply::Line { line, .. } => print_out(&format!("{}\n", printable_line(&line)))?,
            Reply::Done(text) => {
                print_out(&format!("{text}\n"))?;
                return Ok(ExitCode::SUCCESS);
            }
            _ => {}
        }
    }
}

/// Shows what processes have written.
///
/// # Errors
/// If there is no such process.
pub fn logs(args: &LogsArgs) -> Result<ExitCode, Error> {
    let request =
        Request::Logs { targets: args.targets.clone(), lines: args.lines, follow: args.follow };
    let mut answers = ask(args.up.file.as_deref(), &request)?;
    loop {
        match answers.receive()? {
            Reply::Line { from, line } => {
                print_out(&format!("{from} | {}\n", printable_line(&line)))?;
            }
            Reply::LeftOut(lines) => {
                print_out(&format!("({lines} lines were left out: they came too fast)\n"))?;
            }
            Reply::Done(_) => return Ok(ExitCode::SUCCESS),
            _ => {}
        }
    }
}

/// Shows the processes.
///
/// # Errors
/// If no `svcmap up` runs.
pub fn list(args: &PsArgs) -> Result<ExitCode, Error> {
    let (path, all) = processes(args.up.file.as_deref())?;
    if args.json {
        let value = serde_json::json!({ "file": path, "processes": all });
        print_out(&format!("{value:#}\n"))?;
    } else {
        print_out(&screen(&path.display().to_string(), &all))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn screen(path: &str, all: &[Process]) -> String {
    const COLUMNS: [Column; 6] = [
        Column::text("NAME"),
        Column::text("STATE"),
        Column::number("SINCE"),
        Column::number("PID").leaving(3),
        Column::number("DEATHS").leaving(2),
        Column::text("LAST").leaving(1),
    ];
    let rows: Vec<Vec<Cell>> = all.iter().map(row).collect();
    let ready = all.iter().filter(|process| process.state == "ready").count();
    let mut text = format!("{path} · {ready} of {} ready\n\n", all.len());
    text += &render(&COLUMNS, &rows, stdout_columns());
    let of = |state: &str| all.iter().find(|process| process.state == state);
    text += &match (of("failed"), of("stopped").or_else(|| of("done"))) {
        (Some(Process { name, .. }), _) => {
            format!("\nnext: svcmap logs {name} · svcmap start {name}\n")
        }
        (None, Some(Process { name, .. })) => format!("\nnext: svcmap start {name}\n"),
        (None, None) => "\nnext: svcmap status · svcmap logs · svcmap restart NAME\n".to_owned(),
    };
    text
}

fn row(process: &Process) -> Vec<Cell> {
    let (glyph, style) = match process.state.as_str() {
        "ready" => ("●", OK),
        "failed" => ("✗", BAD),
        "stopped" | "done" => ("○", Style::new()),
        _ => ("◐", WARN),
    };
    let last = process.last.as_deref().map(printable_line).unwrap_or_default();
    vec![
        process.name.clone().into(),
        Cell { text: format!("{glyph} {}", process.state), style },
        time_ms(process.since_ms as f64).into(),
        process.pid.map_or("-".to_owned(), |pid| pid.to_string()).into(),
        process.deaths.to_string().into(),
        last.into(),
    ]
}
