//! The log on stderr. Writing it never holds up whoever logs: what does not fit is dropped, and
//! how much that was is logged in its place.

mod escaped;

use std::time::Duration;

use clap::{Args, ValueEnum};
use slog::{Drain, LevelFilter, Logger, o};
use slog_async::{Async, OverflowStrategy};

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
            in_background(LevelFilter::new(format, level).ignore_res())
        }
        LogFormat::Json => {
            let format = slog_json::Json::new(std::io::stderr()).add_default_keys().build();
            in_background(LevelFilter::new(format, level).ignore_res())
        }
    };
    let log = Logger::root(drain.ignore_res(), o!());
    let result = command(&log);
    drop(log);
    // Last: it waits until the background thread has written what is left.
    within(LAST_RECORDS, move || drop(guard));
    result
}

fn in_background<D>(drain: D) -> (Async, slog_async::AsyncGuard)
where
    D: Drain<Err = slog::Never, Ok = ()> + Send + 'static,
{
    Async::new(drain)
        .chan_size(RECORDS_MAX)
        .overflow_strategy(OverflowStrategy::DropAndReport)
        .thread_name("log".to_owned())
        .build_with_guard()
}
