//! The one file that everybody writes to.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use svcmap::io::pause_until;
use svcmap_proto::io::Clock;

use super::history::{Event, Line};

/// Its name in the folder of a round.
pub const FILE: &str = "history";

/// Time between two looks at whether this process gets a processor.
pub const LOOK: Duration = Duration::from_millis(50);

/// How much later than wanted it may get one without a word.
pub const LATE: Duration = Duration::from_millis(200);

/// Writes for one life of one process.
#[derive(Debug)]
pub struct Journal {
    file: File,
    who: String,
    life: u64,
}

impl Journal {
    /// For that life.
    ///
    /// # Errors
    /// If there is no such folder.
    pub fn open(folder: &Path, who: &str, life: u64) -> std::io::Result<Self> {
        let file = File::options().append(true).create(true).open(folder.join(FILE))?;
        Ok(Self { file, who: who.to_owned(), life })
    }

    /// Writes down what happens now.
    pub fn write(&self, event: Event) {
        self.write_of(&self.who, self.life, event);
    }

    /// The same of somebody else.
    ///
    /// # Panics
    /// If it cannot be written: nothing that follows would mean anything.
    pub fn write_of(&self, who: &str, life: u64, event: Event) {
        let at_us = Clock.now().as_micros();
        let line = Line { at_us, who: who.to_owned(), life, event };
        let mut bytes = serde_json::to_vec(&line).expect("an event is JSON");
        bytes.push(b'\n');
        // One call: what is appended in one is not mixed with what others append.
        (&self.file).write_all(&bytes).expect("the history can be written");
    }
}

/// Writes down from now on when this process gets no processor, on a thread of its own.
///
/// # Errors
/// If the system gives no thread.
pub fn watch(journal: &Arc<Journal>) -> std::io::Result<()> {
    let journal = Arc::clone(journal);
    let look = move || {
        loop {
            let due = Clock.now() + LOOK;
            pause_until(due);
            if Clock.now().since(due) > LATE {
                journal.write(Event::Late { from_us: due.as_micros() });
            }
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(look).map(drop)
}

/// Reads all of it, in the order of time. The last line of a killed process may be cut: it is left
/// out.
///
/// # Errors
/// If it cannot be read.
pub fn read(folder: &Path) -> std::io::Result<Vec<Line>> {
    let text = std::fs::read(folder.join(FILE))?;
    let lines = text.split(|byte| *byte == b'\n');
    let mut lines: Vec<Line> = lines.filter_map(|line| serde_json::from_slice(line).ok()).collect();
    lines.sort_by_key(|line| line.at_us);
    Ok(lines)
}
