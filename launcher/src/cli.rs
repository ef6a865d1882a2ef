//! What may stand on the command line. Help texts are written here and nowhere else.

mod doctor;
mod key;
mod pages;
mod soak;
mod submit;
mod top;
mod topology;
mod why;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use svcmap_proto::names::{Endpoint, Incarnation, Name};

pub use self::doctor::DoctorArgs;
pub use self::key::{AddArgs, KeyArgs, KeyCommand, RotateArgs};
pub use self::pages::{CompletionsArgs, ManArgs, shown};
pub use self::soak::{LoadOptions, SoakArgs, SoakSenderArgs};
pub use self::submit::{SubmitArgs, is_stdin};
pub use self::top::{KEYS, TopArgs};
pub use self::topology::{
    DrainArgs, InitArgs, LogsArgs, PlanArgs, PsArgs, RunningUp, ScaleArgs, TargetArgs, UpArgs,
};
pub use self::why::WhyArgs;
use crate::access::{self, Access, Said};
use crate::errors::{self, Exit, Failure};
use crate::fleet::command::Target;
use crate::fleet::io::client::mappers_here;
use crate::http;
use crate::logging::LogOptions;
use crate::parse::{self, Wanted};
use crate::text;

/// Most programs' help is bold and underlined; colours tell literals from placeholders as well.
const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// Processes that find each other and hand each other jobs without drowning anyone.
#[derive(Debug, Parser)]
#[command(name = "svcmap", version, styles = STYLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 fine, 64 bad usage, 69 nobody there (no mapper, no worker that can be reached), \
75 refused for a reason that may pass (try again later), 1 other.
Results go to stdout, the log and errors to stderr.")]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// How the log looks.
    #[command(flatten)]
    pub log: LogOptions,
}

impl Cli {
    /// Whether errors are JSON, too.
    pub fn json(&self) -> bool {
        match &self.command {
            Command::Status(args) => args.json,
            Command::Why(args) => args.json,
            Command::Doctor(args) => args.json,
            Command::Submit(args) => args.is_json(),
            Command::Ps(args) => args.json,
            Command::Key(args) => matches!(args.command, KeyCommand::List { json: true }),
            _ => false,
        }
    }
}

/// One variant for each command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See it work: a mapper, workers and a sender on this machine, in some 10 seconds
    Demo,
    /// Run a mapper: it knows who is alive and how loaded they are
    Mapper(MapperArgs),
    /// Serve jobs, with a program or a built-in handler
    Worker(WorkerArgs),
    /// Send jobs and print their results
    Submit(SubmitArgs),
    /// Show services and their instances
    Status(StatusArgs),
    /// Watch services and their instances, second by second
    Top(TopArgs),
    /// Explain which instance a sender would choose here, and why not the others
    Why(WhyArgs),
    /// Look for what goes wrong in practice, and say what mends it
    Doctor(DoctorArgs),
    /// Write a topology file that runs, with all that may stand in one
    Init(InitArgs),
    /// Check a topology file, and show what it would change
    Plan(PlanArgs),
    /// Run all processes of a topology file, and keep them running
    Up(UpArgs),
    /// Show the processes of a running `svcmap up`
    Ps(PsArgs),
    /// Show what processes of a running `svcmap up` have written
    Logs(LogsArgs),
    /// Start what was stopped, or ended too often
    Start(TargetArgs),
    /// Let processes finish their jobs and end; they are not started again
    ///
    /// What ends everything is the end of `svcmap up` itself: Ctrl-C there, or SIGTERM to its process.
    Stop(TargetArgs),
    /// Replace instances one after another, without a gap
    Restart(TargetArgs),
    /// Say how many instances of a service there are to be
    Scale(ScaleArgs),
    /// Let instances finish their jobs and end, wherever they run
    Drain(DrainArgs),
    /// Say who may take part, where all is encrypted
    Key(KeyArgs),
    /// Measure how often senders choose by knowledge that is wrong, and what it costs
    Soak(SoakArgs),
    /// Print what completes commands and flags in a shell
    Completions(CompletionsArgs),
    /// Print or write manual pages
    Man(ManArgs),
    /// One of the soak's senders
    #[command(hide = true)]
    SoakSender(SoakSenderArgs),
    /// Run a worker's programs, and end all that they started
    #[command(hide = true)]
    ExecChild,
}

/// Which mappers are meant.
#[derive(Clone, Debug, Args)]
pub struct MapperOption {
    /// The mapper; several with commas between them, or a host name that has several addresses
    /// [default: $SVCMAP_MAPPER, else those of a `svcmap up` that runs here, else those of the
    /// deployment file, else tcp://127.0.0.1:5555]
    #[arg(long, value_name = "ENDPOINT", value_delimiter = ',', value_parser = parse::peer)]
    pub mapper: Vec<Endpoint>,
    /// How it is protected.
    #[command(flatten)]
    pub keys: KeysOption,
}

/// With what everything is encrypted.
#[derive(Clone, Debug, Default, Args)]
pub struct KeysOption {
    /// The deployment file, with which everything is encrypted [default: $SVCMAP_DEPLOYMENT, else
    /// ~/.config/svcmap/svcmap.toml if it is there and knows the mapper]
    #[arg(long, value_name = "FILE")]
    pub deployment: Option<PathBuf>,
    /// Do without encryption, beyond this machine as well: whoever is on the network can read all and
    /// take part
    #[arg(long, conflicts_with = "deployment")]
    pub insecure: bool,
}

impl KeysOption {
    /// The flags that say the same to another command.
    pub fn flags(&self) -> Vec<String> {
        let file = self.deployment.iter().map(|path| path.display().to_string());
        let mut flags: Vec<_> = file.flat_map(|path| ["--deployment".to_owned(), path]).collect();
        flags.extend(self.insecure.then(|| "--insecure".to_owned()));
        flags
    }

    /// How to get at the mappers of which these were named.
    ///
    /// # Errors
    /// See [`Access::resolve`].
    pub fn access_to(&self, mappers: Vec<Endpoint>) -> Result<Access, Failure> {
        let mut said = Said { mappers, file: self.file(), insecure: self.insecure };
        if said.mappers.is_empty()
            && said.file.is_none()
            && !said.insecure
            && let Some(here) = mappers_here()?
        {
            said = here;
        }
        Access::resolve(said, access::default_file().as_deref())
    }

    /// The file that was named, by the flag or the environment.
    pub fn file(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(access::DEPLOYMENT_VARIABLE).map(PathBuf::from);
        let named = self.deployment.clone().or_else(variable);
        named.filter(|path| !self.insecure && !path.as_os_str().is_empty())
    }
}

impl MapperOption {
    /// The mappers that are meant and how to get at them, from the flags, the environment or the
    /// deployment file.
    ///
    /// # Errors
    /// If the environment variable holds something else than endpoints, or see [`Access::resolve`].
    pub fn access(&self) -> Result<Access, Failure> {
        let variable = std::env::var_os(parse::MAPPER_VARIABLE);
        self.keys.access_to(parse::mappers(&self.mapper, variable.as_deref())?)
    }
}

/// Where a process tells of itself.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct HttpOption {
    /// Serve metrics and health by HTTP, and of a mapper a live page at /: a port is one on loopback,
    /// and any other address, such as 0.0.0.0:9100, is given in full. Whoever reaches it can read all
    /// there is, without a key, and change nothing [default: no HTTP]
    #[arg(long, value_name = "ADDR", value_parser = http::address)]
    pub http: Option<SocketAddr>,
}

/// What a supervisor adds when it starts this executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct SupervisedOptions {
    /// End at once when this process, the parent, has ended
    #[arg(long, value_name = "PPID", hide = true)]
    pub supervised: Option<u32>,
    /// Which life of the instance this is, as the supervisor counts them
    #[arg(long, value_name = "N", hide = true, value_parser = incarnation)]
    pub incarnation: Option<Incarnation>,
    /// How many files its programs may open: the supervisor has raised its own limit
    #[arg(long, value_name = "N", hide = true)]
    pub open_files: Option<u64>,
}

fn incarnation(text: &str) -> Result<Incarnation, std::num::ParseIntError> {
    text.parse().map(Incarnation)
}

/// `svcmap mapper`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap mapper
  svcmap mapper --bind tcp://0.0.0.0:5555

Beyond this machine all is encrypted: its first start makes the deployment file, with which workers \
and senders get in, and says where. The first line on stdout says where it listens. SIGINT, SIGTERM \
or SIGHUP ends it, a second SIGINT or SIGTERM at once.")]
pub struct MapperArgs {
    /// Where workers and clients talk to it
    #[arg(long, value_name = "ENDPOINT", default_value = parse::MAPPER_DEFAULT)]
    pub bind: Endpoint,
    /// Where it publishes what changed [default: the port after that of --bind]
    #[arg(long, value_name = "ENDPOINT")]
    pub publish: Option<Endpoint>,
    /// How often workers report at least; three missed reports end a listing
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse::duration_nonzero)]
    pub beat: Duration,
    /// Time between publications of load [default: each service's mean service time, 10ms to 1s]
    #[arg(long, value_name = "TIME", value_parser = parse::duration_nonzero)]
    pub publish_interval: Option<Duration>,
    /// The host that a new deployment file names for it [default: that of --bind, else an address of
    /// this machine]
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Where it listens in plain text as well, for JSON from processes of this machine that cannot
    /// encrypt: whoever is on this machine takes part there
    #[arg(long, value_name = "ENDPOINT", conflicts_with = "insecure")]
    pub plain_bind: Option<Endpoint>,
    /// Where it tells of itself.
    #[command(flatten)]
    pub http: HttpOption,
    /// How it is protected.
    #[command(flatten)]
    pub keys: KeysOption,
    /// Set by a supervisor.
    #[command(flatten)]
    pub supervised: SupervisedOptions,
}

impl MapperArgs {
    /// Where it publishes. It has to be reached by whoever reaches the other endpoint, so it is
    /// beside that unless something else is said.
    pub fn publish(&self) -> Endpoint {
        self.publish.clone().unwrap_or_else(|| parse::beside(&self.bind))
    }
}

/// `svcmap status`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap status
  svcmap status resize --json
  svcmap status resize/2
  svcmap status --wait 'resize>=3' --timeout 1m")]
pub struct StatusArgs {
    /// Show the instances of this service, or this one
    #[arg(value_name = "SERVICE[/INSTANCE]")]
    pub of: Option<Target>,
    /// Which mappers to ask.
    #[command(flatten)]
    pub mapper: MapperOption,
    /// Print one JSON object with services[] and instances[]
    #[arg(long)]
    pub json: bool,
    /// Wait until so many instances are ready, such as 'resize>=3'; may be repeated
    #[arg(long, value_name = "CONDITION")]
    pub wait: Vec<Wanted>,
    /// How long --wait waits
    #[arg(long, value_name = "TIME", default_value = "30s", requires = "wait")]
    #[arg(value_parser = parse::duration_nonzero)]
    pub timeout: Duration,
}

/// `svcmap worker`.
#[derive(Clone, Debug, Args)]
#[command(group = clap::ArgGroup::new("handler").required(true).args(["exec", "exec_loop", "builtin"]))]
#[command(after_help = "\
Examples:
  svcmap worker --service sum --exec sha256sum
  svcmap worker --service half --exec 'convert - -resize 50% -' --concurrency 4
  svcmap worker --service shout --exec-loop 'python3 shout.py' --concurrency 2
  svcmap worker --service nap --builtin sleep    (svcmap submit nap --data 50ms)

A program of --exec-loop writes {\"ready\":true} and a line end to stdout when it can take jobs. Each \
job is a line of JSON with its \"bytes\" on stdin, and then so many bytes; so is each answer, with \
\"bytes\" or with \"error\" and \"code\". docs/programs.md has one that is complete.

How far a job is, a program says to stderr (--exec: a line that begins with `progress: `) or before its \
answer (--exec-loop: {\"progress\":\"40 %\"} and a line end), for svcmap submit --follow.

SIGINT, SIGTERM or SIGHUP drains it within the grace, a second SIGINT or SIGTERM ends it at once.
Programs end with their job or with the worker, and so does all that they started.")]
pub struct WorkerArgs {
    /// What it serves
    #[arg(long, value_name = "NAME")]
    pub service: Name,
    /// Its own name within the service; another process that has it drains and ends
    /// [default: HOST-PID-RANDOM]
    #[arg(long, value_name = "NAME")]
    pub instance: Option<Name>,
    /// Which mappers to register with.
    #[command(flatten)]
    pub mapper: MapperOption,
    /// Run this program for each job: payload on stdin, result on stdout, exit status 0 is success.
    /// Quotes work as in a shell, but no shell runs
    #[arg(long, value_name = "CMD")]
    pub exec: Option<String>,
    /// Keep this program running, one for each job that runs at once, and give it one job after
    /// another: no job waits for its start. It is started again when it dies
    #[arg(long, value_name = "CMD")]
    pub exec_loop: Option<String>,
    /// Serve without a program, for trying out
    #[arg(long, value_name = "KIND")]
    pub builtin: Option<Builtin>,
    /// Jobs that run at once
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse::count::<NonZeroU32>)]
    pub concurrency: NonZeroU32,
    /// Jobs that may wait for a handler
    #[arg(long, value_name = "N", default_value = "10")]
    pub queue: u32,
    /// Where senders reach it [default: a free port, on loopback if its mapper is there]
    #[arg(long, value_name = "ENDPOINT")]
    pub bind: Option<Endpoint>,
    /// Under which host or endpoint others reach it; up to 4, with commas between them
    #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = parse::advertised)]
    pub advertise: Vec<Endpoint>,
    /// How long it finishes jobs after a signal
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse::duration)]
    pub grace: Duration,
    /// How much later a program is killed that has not ended at SIGTERM: at its job's deadline or run
    /// limit, when it is cancelled, and at the end of the grace
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse::duration)]
    pub kill_after: Duration,
    /// How long a job may run here, from the start of its handler on; a shorter limit of its own counts
    #[arg(long, value_name = "TIME", value_parser = parse::duration_nonzero)]
    pub run_limit: Option<Duration>,
    /// Largest payload or result, up to 256MiB; at both ends, the workers' and submit's
    #[arg(long, value_name = "BYTES", default_value = "1MiB", value_parser = parse::payload_bytes)]
    pub payload_max: usize,
    /// Where it tells of itself.
    #[command(flatten)]
    pub http: HttpOption,
    /// Set by a supervisor.
    #[command(flatten)]
    pub supervised: SupervisedOptions,
}

/// Handlers that need no program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Builtin {
    /// Returns the payload
    Echo,
    /// Sleeps for the time that the payload says, such as 50ms
    Sleep,
    /// Computes for the time that the payload says, such as 50ms
    Spin,
    /// Sleeps for the time that the payload says, and tells when: for `svcmap soak`
    #[value(hide = true)]
    Timed,
}

impl Builtin {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Sleep => "sleep",
            Self::Spin => "spin",
            Self::Timed => "timed",
        }
    }
}

/// Parses a command line, or says on stdout or stderr why there is nothing to run: then returns
/// what to exit with (0 for help and version, 64 otherwise).
///
/// # Errors
/// The exit code.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Cli, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    let error = match Cli::try_parse_from(&args) {
        Ok(cli) => return Ok(cli),
        Err(error) => error,
    };
    if !error.use_stderr() {
        // Help for a reader that is gone is no failure.
        let _ = error.print();
        return Err(ExitCode::SUCCESS);
    }
    let json = args.iter().any(|arg| arg == "--json" || arg == "--json-lines");
    // What clap quotes goes to the terminal as it is; some of it may be names of files.
    let is_printable = args.iter().all(|arg| text::is_printable(&arg.to_string_lossy()));
    if json || !is_printable {
        errors::print(&usage_failure(&error, &args), json);
    } else {
        let _ = error.print();
    }
    Err(Exit::Usage.into())
}

/// clap's text in our form: what is wrong, without its own `error:` and without the hint for help.
fn usage_failure(error: &clap::Error, args: &[OsString]) -> Failure {
    let known = Cli::command();
    let name = args.get(1).and_then(|arg| known.find_subcommand(arg)).map(clap::Command::get_name);
    let command = name.map_or_else(|| "svcmap".to_owned(), |name| format!("svcmap {name}"));
    let text = error.render().to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(|line| line.trim().trim_start_matches("error: "))
        .take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more"))
        .filter(|line| !line.is_empty())
        .collect();
    Failure::usage(lines.join("; ").replace(":; ", ": ")).fix(format!("{command} --help"))
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
