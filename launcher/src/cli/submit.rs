//! What may stand behind `svcmap submit`.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use svcmap_proto::names::Name;
use svcmap_worker::Priority;

use super::MapperOption;
use crate::commands::submit::Template;
use crate::parse;

/// Headings of the help: there is much to choose from, and most jobs need little of it.
const INPUT: &str = "What is sent";
const OUTPUT: &str = "What becomes of results";
const LIMITS: &str = "Limits of a job";
const BATCH: &str = "Batches";

/// `svcmap submit`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("payload").required(true)
    .args(["data", "files", "lines", "files_from"]))]
#[command(group = clap::ArgGroup::new("list").args(["lines", "files_from"]))]
#[command(group = clap::ArgGroup::new("resumes").args(["resume", "resume_failed"]))]
#[command(override_usage = "\
svcmap submit [OPTIONS] <SERVICE> <FILE>...
       svcmap submit [OPTIONS] <SERVICE> <--data <TEXT>|--lines <FILE>|--files-from <FILE>>")]
#[command(after_help = "\
Examples:
  svcmap submit echo --data hello
  svcmap submit sum *.jpg
  tar c . | svcmap submit sum -                      (one job: all of stdin)
  svcmap submit fetch --lines urls.txt --json-lines  (one job for each line)
  find . -type f -print0 | svcmap submit sum --files-from - --null
  svcmap submit gz --files-from list --output '{name}.gz' --joblog log
  svcmap submit gz --files-from list --output '{name}.gz' --joblog log --resume
  svcmap submit nap --data 50ms --count 1000
  svcmap submit film movie.mkv --follow > small.mkv  (shows how far it is)
  svcmap submit backup --data /home --detach         (waits for no result)

Exit codes: 0 if all are done, else the worst of: 1 if one failed, is unknown or can never be taken, \
75 if one was refused for a reason that may pass (try again later), 69 if nobody was there for one.
130, 143 or 129 after SIGINT (Ctrl-C), SIGTERM or SIGHUP: the first takes back what was not begun \
and gives what runs the --grace, a second SIGINT or SIGTERM ends all at once. A closed stdout does \
as the first signal does; it is no failure by itself, what went wrong until then is.
On a terminal, control characters in results are shown and not obeyed.")]
pub struct SubmitArgs {
    /// The service
    pub service: Name,
    /// Which mappers know the workers.
    #[command(flatten)]
    pub mapper: MapperOption,

    /// One job for each file, and one line `FILE: result` for each; - sends all of stdin as one job
    /// and prints its result untouched
    #[arg(value_name = "FILE", help_heading = INPUT)]
    pub files: Vec<PathBuf>,
    /// Send this text and print the result untouched
    #[arg(long, value_name = "TEXT", help_heading = INPUT)]
    pub data: Option<String>,
    /// One job for each line of this file (-: stdin), without its newline; each result ends its line
    #[arg(long, value_name = "FILE", help_heading = INPUT)]
    pub lines: Option<PathBuf>,
    /// One job for each file that is named on a line of this file (-: stdin)
    #[arg(long, value_name = "FILE", help_heading = INPUT)]
    pub files_from: Option<PathBuf>,
    /// Lines end with NUL instead of newline, as find -print0 writes them
    #[arg(long, requires = "list", help_heading = INPUT)]
    pub null: bool,
    /// Send each job so many times; then each result ends its line
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse::count::<NonZeroU32>)]
    #[arg(help_heading = INPUT)]
    pub count: NonZeroU32,

    /// Print each result when it comes, instead of in the order of the jobs
    #[arg(long, help_heading = OUTPUT)]
    pub unordered: bool,
    /// Write each result to a file, whole or not at all, instead of printing it. {path} is the name
    /// of the input, {name} that without its folder, {stem} that without its last ending, {number}
    /// the number of the job, from 1; {{ and }} are braces. Folders are made
    #[arg(long, value_name = "TEMPLATE", help_heading = OUTPUT)]
    pub output: Option<Template>,
    /// Replace files of --output that exist
    #[arg(long, requires = "output", help_heading = OUTPUT)]
    pub overwrite: bool,
    /// Print one JSON object with outcomes[] and totals, at the end
    #[arg(long, help_heading = OUTPUT)]
    pub json: bool,
    /// Print one JSON object for each job, when its outcome comes
    #[arg(long, conflicts_with = "json", help_heading = OUTPUT)]
    pub json_lines: bool,

    /// Limit its wait for a worker with room, until it is sent there; 0 refuses at once
    /// [default: as long as somebody serves the service]
    #[arg(long, value_name = "TIME", value_parser = parse::duration, help_heading = LIMITS)]
    pub hold: Option<Duration>,
    /// Limit how long it runs, from its start to its end: its worker ends it then [default: none]
    #[arg(long, value_name = "TIME", value_parser = parse::duration_nonzero)]
    #[arg(help_heading = LIMITS)]
    pub run_limit: Option<Duration>,
    /// Limit all jobs together, from now on: by then each has its outcome, and a list is read no
    /// further [default: none]
    #[arg(long, value_name = "TIME", value_parser = parse::duration_nonzero)]
    #[arg(help_heading = LIMITS)]
    pub deadline: Option<Duration>,
    /// Largest payload or result, up to 256MiB; at both ends, the workers' and submit's
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = parse::payload_bytes)]
    #[arg(help_heading = LIMITS)]
    pub payload_max: usize,
    /// Send to this instance only
    #[arg(long, value_name = "NAME", help_heading = LIMITS)]
    pub instance: Option<Name>,
    /// Jobs may run twice: try again elsewhere when a worker dies
    #[arg(long, help_heading = LIMITS)]
    pub idempotent: bool,

    /// Wait for no results, only until a worker has each job, which is when it has a place for it: it is
    /// done then whatever becomes of this command. What comes of it is in the log and the counts of its
    /// worker, and nowhere else; one that is stopped loses what it does not end within its grace
    #[arg(long, conflicts_with_all = ["output", "retries", "follow"], help_heading = BATCH)]
    pub detach: bool,
    /// Before which other jobs these go, wherever jobs wait: low, normal or high
    #[arg(long, value_name = "CLASS", default_value = "normal", help_heading = BATCH)]
    pub priority: Priority,
    /// Write down what became of each job, one JSON line each: when it comes, or before its result is
    /// printed in its turn
    #[arg(long, value_name = "FILE", help_heading = BATCH)]
    pub joblog: Option<PathBuf>,
    /// Go on where the job log ends. What is done or failed is not run again, nor what is unknown, as
    /// it may have run, unless with --idempotent; what was refused or interrupted is
    #[arg(long, requires = "joblog", help_heading = BATCH)]
    pub resume: bool,
    /// The same, and what failed or is unknown is run again, too
    #[arg(long, requires = "joblog", conflicts_with = "resume", help_heading = BATCH)]
    pub resume_failed: bool,
    /// Show on stderr how far jobs are that run, as far as their programs say: below the bar on a
    /// terminal, else as lines `NAME: 40 %`, each second those of up to ten jobs
    #[arg(long, help_heading = BATCH)]
    pub follow: bool,
    /// Run a job that failed so many times again
    #[arg(long, value_name = "N", default_value = "0", help_heading = BATCH)]
    pub retries: u32,
    /// Begin no more jobs once so many are not done, and exit with 1 when those that run have ended
    #[arg(long, value_name = "N", value_parser = parse::count::<NonZeroU64>, help_heading = BATCH)]
    pub stop_after: Option<NonZeroU64>,
    /// How long jobs that run may go on after a signal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse::duration)]
    #[arg(help_heading = BATCH)]
    pub grace: Duration,
}

impl SubmitArgs {
    /// Whether stdout gets JSON, and so do errors.
    pub fn is_json(&self) -> bool {
        self.json || self.json_lines
    }

    /// Whether something is read from stdin more than once.
    pub fn reads_stdin_twice(&self) -> bool {
        self.files.iter().filter(|file| is_stdin(file)).count() > 1
    }
}

/// Whether a name means stdin.
pub fn is_stdin(file: &std::path::Path) -> bool {
    file.as_os_str() == "-"
}
