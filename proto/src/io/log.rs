//! The way from slog, which svcmap's libraries log with, to the crate `log`.

use slog::{Drain, Level, Logger, o};
use slog_stdlog::StdLog;

/// A logger for workers, clients and mappers that hands what they log to the crate `log`, and so to
/// whatever the program has set up there: `env_logger`, `tracing-subscriber` with its `tracing-log`, or
/// another. Values follow the message, as in `registered, mapper: tcp://127.0.0.1:5555`.
///
/// What `log` has no use for at its level, [`log::max_level`], is not even formatted. In a release build
/// slog leaves out what is below info, unless the program asks for more with a feature of the crate
/// `slog`, such as `release_max_level_debug`.
pub fn log_logger() -> Logger {
    Logger::root(StdLog.filter(|record| is_wanted(record.level())).ignore_res(), o!())
}

fn is_wanted(level: Level) -> bool {
    // Levels of slog count from one more, as it has one above error.
    level.as_usize() <= log::max_level() as usize + 1
}
