//! The log on stderr. Writing it never holds up whoever logs: what does not fit is dropped, and
//! how much that was is logged in its place.

mod escaped;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};
use slog::{Drain, Level, LevelFilter, Logger, Never, OwnedKVList, Record, b, o, record};
use slog_async::{AsyncCore, AsyncGuard};

use self::escaped::Escaped;
use crate::io::within;

/// Records that may wait for a slow stderr: a burst of some thousand messages gets through whole.
const RECORDS_MAX: usize = 16_384;

/// How long what was logged may take to be written at the end: a stderr that nobody reads must not
/// keep a process alive.
const LAST_RECORDS: Duration = Duration::from_secs(1);

/// How the log looks and how much it says.
#[derive(Clone, Debug, Args)]
pub struct LogOptions {
    /// How the log on stderr looks: human or json
    #[arg(long, value_name = "FORMAT", default_value = "human", global = true)]
    #[arg(help_heading = "Log", hide_possible_values = true)]
    pub log_format: LogFormat,
    /// How much the log says: error, warn, info or debug
    #[arg(long, value_name = "LEVEL", default_value = "info", global = true)]
    #[arg(help_heading = "Log", hide_possible_values = true)]
    pub log_level: LogLevel,
}

impl LogOptions {
    /// The flags that say the same to another command.
    pub fn flags(&self) -> [String; 2] {
        let word = |value: clap::builder::PossibleValue| value.get_name().to_owned();
        let format = self.log_format.to_possible_value().map(word).unwrap_or_default();
        let level = self.log_level.to_possible_value().map(word).unwrap_or_default();
        [format!("--log-format={format}"), format!("--log-level={level}")]
    }
}

/// How the log looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people, in colour on a terminal.
    Human,
    /// One JSON object per line.
    Json,
}

/// How much the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogLevel {
    /// What failed.
    Error,
    /// And what looks wrong.
    Warn,
    /// And what happened.
    Info,
    /// And why.
    Debug,
}

impl From<LogLevel> for slog::Level {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => slog::Level::Error,
            LogLevel::Warn => slog::Level::Warning,
            LogLevel::Info => slog::Level::Info,
            LogLevel::Debug => slog::Level::Debug,
        }
    }
}

/// Runs `command` with a log. When this returns, everything that was logged has been written, unless
/// nobody reads it.
pub fn with<T>(options: &LogOptions, command: impl FnOnce(&Logger) -> T) -> T {
    let level = options.log_level.into();
    // A stderr that is closed is no reason to stop: its errors are ignored.
    let (drain, guard) = match options.log_format {
        LogFormat::Human => {
            let decorator = slog_term::TermDecorator::new().stderr().build();
            let format = slog_term::FullFormat::new(Escaped(decorator))
                .use_utc_timestamp()
                .use_original_order()
                .build();
            in_background(format.ignore_res())
        }
        LogFormat::Json => {
            let format = slog_json::Json::new(std::io::stderr()).add_default_keys().build();
            in_background(format.ignore_res())
        }
    };
    // In front: what nobody wants takes no place, and whoever would log it can know.
    let log = Logger::root(LevelFilter::new(drain, level).ignore_res(), o!());
    let result = command(&log);
    drop(log);
    // Last: it waits until the background thread has written what is left.
    within(LAST_RECORDS, move || drop(guard));
    result
}

/// Records that did not fit, in the life of this process.
static LINES_DROPPED: AtomicU64 = AtomicU64::new(0);

/// Log lines that stderr did not take in time.
pub fn lines_dropped() -> u64 {
    LINES_DROPPED.load(Ordering::Relaxed)
}

/// Hands records to a thread that writes them. What does not fit is counted, and that is said once there is
/// room again.
struct Background {
    core: AsyncCore,
    unsaid: AtomicU64,
}

impl Drain for Background {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
        let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
        if unsaid > 0 && !self.say(unsaid, values) {
            self.unsaid.fetch_add(unsaid, Ordering::Relaxed);
        }
        if self.core.log(record, values).is_err() {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            LINES_DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }
}

impl Background {
    fn say(&self, lines: u64, values: &OwnedKVList) -> bool {
        let what = format_args!("log lines were left out: stderr did not take them in time");
        self.core.log(&record!(Level::Warning, "", &what, b!("lines" => lines)), values).is_ok()
    }
}

fn in_background<D>(drain: D) -> (Background, AsyncGuard)
where
    D: Drain<Err = Never, Ok = ()> + Send + 'static,
{
    let core = AsyncCore::custom(drain).chan_size(RECORDS_MAX).thread_name("log".to_owned());
    let (core, guard) = core.build_with_guard();
    (Background { core, unsaid: AtomicU64::new(0) }, guard)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex, mpsc};

    use slog::{info, warn};

    use super::*;

    /// Notes each record, after a word on its first.
    struct Notes {
        go: Mutex<mpsc::Receiver<()>>,
        lines: Arc<Mutex<Vec<String>>>,
    }

    impl Drain for Notes {
        type Ok = ();
        type Err = Never;

        fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
            // Later ones come when nobody says anything any more.
            let _ = self.go.lock().unwrap().recv();
            self.lines.lock().unwrap().push(record.msg().to_string());
            Ok(())
        }
    }

    #[test]
    fn what_is_left_out_is_counted_and_said_once_there_is_room() {
        let (say, go) = mpsc::channel();
        let lines = Arc::default();
        let drain = Notes { go: Mutex::new(go), lines: Arc::clone(&lines) };
        let (core, guard) = AsyncCore::custom(drain).chan_size(2).build_with_guard();
        let log = Logger::root(Background { core, unsaid: AtomicU64::new(0) }.ignore_res(), o!());
        let before = lines_dropped();
        // One may be with the drain, and two wait for it.
        (0..10).for_each(|_| info!(log, "a line"));
        let dropped = lines_dropped() - before;
        assert!((7..=8).contains(&dropped), "{dropped}");
        drop(say);
        let said =
            || lines.lock().unwrap().iter().any(|line| line.starts_with("log lines were left out"));
        while !said() {
            warn!(log, "another line");
            std::thread::yield_now();
        }
        drop(log);
        drop(guard);
    }
}
