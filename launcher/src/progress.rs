//! How far something is that takes a while: a bar on a terminal, a line now and then elsewhere.

use std::cell::Cell;
use std::fmt::Write;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

use crate::text::rate;

/// How often the bar moves while nothing happens.
pub const INTERVAL: Duration = Duration::from_millis(200);

/// What is over sooner needs no bar.
const FIRST: Duration = Duration::from_secs(1);

/// Time between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Fewer are not worth a bar.
const COUNT_MIN: usize = 3;

/// See the module.
pub struct Progress {
    /// How many there are to come, if that is known.
    count: Option<usize>,
    noun: &'static str,
    bar: Option<ProgressBar>,
    /// Whether the bar is on the screen: one that is not drawn yet is not to be drawn again.
    is_drawn: Cell<bool>,
    /// Whether there are lines below it.
    has_lines: Cell<bool>,
    next: Cell<Timestamp>,
}

impl Progress {
    /// So many of these are to come, if that is known. Nothing is shown yet.
    pub fn new(count: Option<usize>, noun: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| bar(count, noun));
        let first = if terminal { FIRST } else { LINE_INTERVAL };
        let (is_drawn, has_lines) = (Cell::new(false), Cell::new(false));
        Self { count, noun, bar, is_drawn, has_lines, next: Cell::new(Clock.now() + first) }
    }

    /// How many there are to come, if that is known.
    pub fn count(&self) -> Option<usize> {
        self.count
    }

    /// It has turned out how many there are.
    pub fn set_count(&mut self, count: usize) {
        self.count = Some(count);
        if let Some(bar) = &self.bar {
            bar.set_length(count as u64);
            bar.set_style(style(self.count, self.noun, self.has_lines.get()));
        }
    }

    /// So many are over.
    pub fn show(&self, done: usize) {
        let now = Clock.now();
        if self.count.is_some_and(|count| count < COUNT_MIN) || now < self.next.get() {
            return;
        }
        match &self.bar {
            Some(bar) => {
                self.is_drawn.set(true);
                bar.set_position(done as u64);
            }
            None => {
                self.next.set(now + LINE_INTERVAL);
                // A closed stderr only means that nobody looks.
                let of = self.count.map(|count| format!(" of {count}")).unwrap_or_default();
                let line = format!("{done}{of} {}\n", self.noun);
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            }
        }
    }

    /// Shows these lines below the bar, if there is a terminal, in place of those that were there.
    pub fn show_below(&self, lines: &[String]) {
        let Some(bar) = &self.bar else { return };
        if lines.is_empty() && !self.has_lines.get() {
            return;
        }
        if self.has_lines.replace(!lines.is_empty()) == lines.is_empty() {
            bar.set_style(style(self.count, self.noun, !lines.is_empty()));
        }
        self.is_drawn.set(true);
        bar.set_message(lines.join("\n"));
    }

    /// Does something that writes to the terminal.
    pub fn suspend<T>(&self, write: impl FnOnce() -> T) -> T {
        match &self.bar {
            Some(bar) if self.is_drawn.get() => bar.suspend(write),
            _ => write(),
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = self.bar.as_ref().filter(|_| self.is_drawn.get()) {
            bar.finish_and_clear();
        }
    }
}

fn bar(count: Option<usize>, noun: &str) -> ProgressBar {
    let bar = count.map_or_else(ProgressBar::no_length, |count| ProgressBar::new(count as u64));
    bar.with_style(style(count, noun, false))
}

fn style(count: Option<usize>, noun: &str, has_lines: bool) -> ProgressStyle {
    let bar = match count {
        Some(count) if count < COUNT_MIN => String::new(),
        Some(_) => format!("{{bar:30}} {{pos}} of {{len}} {noun}, {{rate}}, {{eta}} left"),
        None => format!("{{spinner}} {{pos}} {noun}, {{rate}}, {{elapsed}}"),
    };
    let template = match (has_lines, bar.is_empty()) {
        (true, true) => "{msg}".to_owned(),
        (true, false) => bar + "\n{msg}",
        (false, _) => bar,
    };
    let style = ProgressStyle::with_template(&template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("rate", |state: &ProgressState, text: &mut dyn Write| {
        // Nobody is told whether there was room to write.
        let _ = text.write_str(&rate(state.per_sec()));
    })
}
