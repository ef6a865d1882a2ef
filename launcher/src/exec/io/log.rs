//! What programs write to stderr, in the worker's log: that of jobs that failed at info, everything
//! else at debug, a few lines a second.

use std::sync::{Mutex, MutexGuard, PoisonError};

use slog::{Level, Logger, debug, info};
use svcmap_proto::io::Clock;

use crate::exec::stderr::{LineLimit, Tail};

/// The log of one worker's programs.
#[derive(Debug)]
pub struct StderrLog {
    log: Logger,
    info: Mutex<LineLimit>,
    debug: Mutex<LineLimit>,
}

impl StderrLog {
    /// Which writes to that.
    pub fn new(log: Logger) -> Self {
        Self { log, info: Mutex::default(), debug: Mutex::default() }
    }

    /// What was written while the job of that log ran, and whether it failed; or while none did.
    pub(super) fn write(&self, log: &Logger, has_failed: bool, words: &Tail) {
        if words.is_empty() {
            return;
        }
        let level = if has_failed { Level::Info } else { Level::Debug };
        for line in words.text().lines().filter(|line| !line.trim().is_empty()) {
            let Some(left_out) = self.limit(level).admit(Clock.now()) else { continue };
            self.tell_left_out(level, left_out);
            match level {
                Level::Info => info!(log, "a program's stderr"; "line" => line),
                _ => debug!(log, "a program's stderr"; "line" => line),
            }
        }
    }

    /// No more will come.
    pub(super) fn finish(&self) {
        for level in [Level::Info, Level::Debug] {
            let left_out = self.limit(level).take_left_out();
            self.tell_left_out(level, left_out);
        }
    }

    fn limit(&self, level: Level) -> MutexGuard<'_, LineLimit> {
        let limit = if level == Level::Info { &self.info } else { &self.debug };
        limit.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell_left_out(&self, level: Level, lines: u64) {
        match level {
            _ if lines == 0 => {}
            Level::Info => info!(self.log, "more of programs' stderr"; "lines_left_out" => lines),
            _ => debug!(self.log, "more of programs' stderr"; "lines_left_out" => lines),
        }
    }
}
