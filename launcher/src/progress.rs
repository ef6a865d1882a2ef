//! How far something is that takes a while: a bar on a terminal, a line now and then elsewhere.

use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

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
    count: usize,
    noun: &'static str,
    bar: Option<ProgressBar>,
    /// Whether the bar is on the screen: one that is not drawn yet is not to be drawn again.
    is_drawn: Cell<bool>,
    next: Cell<Timestamp>,
}

impl Progress {
    /// So many of these are to come. Nothing is shown yet.
    pub fn new(count: usize, noun: &'static str) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| bar(count, noun));
        let first = if terminal { FIRST } else { LINE_INTERVAL };
        Self { count, noun, bar, is_drawn: Cell::new(false), next: Cell::new(Clock.now() + first) }
    }

    /// So many are over.
    pub fn show(&self, done: usize) {
        let now = Clock.now();
        if self.count < COUNT_MIN || now < self.next.get() {
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
                let line = format!("{done} of {} {}\n", self.count, self.noun);
                let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            }
        }
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

fn bar(count: usize, noun: &str) -> ProgressBar {
    let template = format!("{{bar:30}} {{pos}} of {{len}} {noun}, {{per_sec}}, {{eta}} left");
    let style = ProgressStyle::with_template(&template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(count as u64).with_style(style)
}
