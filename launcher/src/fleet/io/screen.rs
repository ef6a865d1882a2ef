//! What `svcmap up` writes: its own lines and those of its processes, on a thread of its own, so that a
//! terminal that stands still holds up nobody.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::Builder;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Style};

use crate::io::within;
use crate::logging::LogFormat;
use crate::text::printable_line;
use crate::topology::OWN_NAME;

/// Lines that wait for a slow terminal: with the longest ones 64 MiB.
const LINES_MAX: usize = 4096;

/// How long the last lines may take.
const LAST_LINES: Duration = Duration::from_secs(1);

/// Columns of the longest name that others are lined up with.
const NAME_COLUMNS_MAX: usize = 24;

/// See the module.
pub(super) struct Screen {
    format: LogFormat,
    columns: usize,
    left_out: u64,
    lines: Option<SyncSender<String>>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl Screen {
    /// One whose names are these.
    pub(super) fn new<'a>(
        format: LogFormat,
        names: impl Iterator<Item = &'a str>,
    ) -> std::io::Result<Self> {
        let (lines, taken) = sync_channel(LINES_MAX);
        let writer = Builder::new().name("screen".to_owned()).spawn(move || write(&taken))?;
        let columns =
            names.map(str::len).max().unwrap_or(0).clamp(OWN_NAME.len(), NAME_COLUMNS_MAX);
        Ok(Self { format, columns, left_out: 0, lines: Some(lines), writer: Some(writer) })
    }

    /// A line of that process.
    pub(super) fn line(&mut self, from: &str, line: &str, is_bad: bool) {
        if self.left_out > 0 {
            let text =
                format!("{} lines were left out: nobody reads them fast enough", self.left_out);
            if self.send(self.shown(OWN_NAME, &text, true)) {
                self.left_out = 0;
            }
        }
        if !self.send(self.shown(from, line, is_bad)) {
            self.left_out += 1;
        }
    }

    fn send(&self, line: String) -> bool {
        let Some(lines) = &self.lines else { return true };
        // Whoever read it is gone: nothing is missed.
        !matches!(lines.try_send(line), Err(TrySendError::Full(_)))
    }

    fn shown(&self, from: &str, line: &str, is_bad: bool) -> String {
        match self.format {
            LogFormat::Human => {
                let style = match (from == OWN_NAME, is_bad) {
                    (true, true) => AnsiColor::Yellow.on_default(),
                    (true, false) => Style::new().bold(),
                    (false, _) => color_of(from),
                };
                format!("{style}{from:<0$} |{style:#} {1}\n", self.columns, printable_line(line))
            }
            LogFormat::Json => {
                // A line that is a record by itself stays one.
                let record = serde_json::from_str::<serde_json::Value>(line);
                let record = record.ok().filter(serde_json::Value::is_object);
                let value = match record {
                    Some(record) => serde_json::json!({ "from": from, "record": record }),
                    None => serde_json::json!({ "from": from, "line": line }),
                };
                format!("{value}\n")
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.lines = None;
        if let Some(writer) = self.writer.take() {
            within(LAST_LINES, move || drop(writer.join()));
        }
    }
}

/// Each name keeps its colour.
fn color_of(name: &str) -> Style {
    const ALL: [AnsiColor; 5] = [
        AnsiColor::Cyan,
        AnsiColor::Green,
        AnsiColor::Magenta,
        AnsiColor::Blue,
        AnsiColor::BrightCyan,
    ];
    let sum: usize = name.bytes().map(usize::from).sum();
    ALL[sum % ALL.len()].on_default()
}

fn write(lines: &Receiver<String>) {
    let mut out = anstream::stdout();
    while let Ok(line) = lines.recv() {
        // Nobody reads it any more: the processes go on.
        if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}
