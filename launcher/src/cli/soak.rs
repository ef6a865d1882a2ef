//! What may stand behind `svcmap soak`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use svcmap_proto::names::{Endpoint, Name};
use svcmap_worker::Policy;

use super::{KeysOption, SupervisedOptions};
use crate::distribution::Distribution;
use crate::parse;

/// What a soak puts on its workers.
#[derive(Clone, Debug, Args)]
pub struct LoadOptions {
    /// How workers are chosen: svcmap, no-credits, p2c-own-piggyback, p2c-own, p2c, least-own,
    /// least, round-robin, random, threshold or threshold-named
    #[arg(long, value_name = "NAME", default_value_t)]
    pub policy: Policy,
    /// Mean time that a job takes
    #[arg(long, value_name = "TIME", default_value = "10ms")]
    #[arg(value_parser = parse::duration_nonzero)]
    pub service_time: Duration,
    /// How these times are distributed
    #[arg(long, value_name = "KIND", default_value = "exponential")]
    pub distribution: Distribution,
    /// Size of each job; it is filled up with blanks
    #[arg(long, value_name = "SIZE", default_value = "1B", value_parser = parse::payload_bytes)]
    pub payload: usize,
    /// How long it is measured
    #[arg(long, value_name = "N", default_value = "60", value_parser = seconds())]
    pub seconds: u32,
    /// How long a job waits for a worker with room [default: what a full queue takes for svcmap and no-credits, else 0]
    #[arg(long, value_name = "TIME", value_parser = parse::duration)]
    pub hold: Option<Duration>,
    /// How many workers a job is tried at [default: 5 for svcmap and no-credits, else 1]
    #[arg(long, value_name = "N", value_parser = parse::count::<NonZeroU32>)]
    pub tries: Option<NonZeroU32>,
    /// The same number gives the same jobs
    #[arg(long, value_name = "N", default_value = "1")]
    pub seed: u64,
}

/// Longest soak: all of its jobs are kept in memory until its end.
const SECONDS_MAX: i64 = 3600;

fn seconds() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=SECONDS_MAX)
}

/// `svcmap soak`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap soak
  svcmap soak --policy least --seconds 20
  svcmap soak --utilisation 1.1 --json soak.json --plot soak.svg

FAR is the share of first attempts that found their worker full, FRR that of jobs refused while a \
worker had room. In overload FRR is what svcmap does on purpose: jobs wait with their senders for one \
hold and are then refused, while queues stay short. All processes run on this machine and end with it.")]
pub struct SoakArgs {
    /// Use the mapper of a deployment instead of one of its own; the workers and senders are its own
    #[arg(long, value_name = "ENDPOINT", value_parser = parse::peer)]
    pub mapper: Option<Endpoint>,
    /// How that mapper is protected.
    #[command(flatten)]
    pub keys: KeysOption,
    /// Offered load / capacity; above 1 it is too much
    #[arg(long, value_name = "SHARE", default_value = "0.9", value_parser = parse::utilisation)]
    pub utilisation: f64,
    /// How many send
    #[arg(long, value_name = "N", default_value = "8", value_parser = processes())]
    pub senders: u32,
    /// How many serve
    #[arg(long, value_name = "N", default_value = "16", value_parser = processes())]
    pub workers: u32,
    /// Jobs that run at once at each worker
    #[arg(long, value_name = "N", default_value = "1", value_parser = parse::count::<NonZeroU32>)]
    pub concurrency: NonZeroU32,
    /// Jobs that may wait at each worker
    #[arg(long, value_name = "N", default_value = "10")]
    pub queue: u32,
    /// Time between publications of load [default: the mean service time, 10ms to 1s]
    #[arg(long, value_name = "TIME", conflicts_with = "mapper")]
    #[arg(value_parser = parse::duration_nonzero)]
    pub publish_interval: Option<Duration>,
    /// How often workers report at least
    #[arg(long, value_name = "TIME", default_value = "1s", conflicts_with = "mapper")]
    #[arg(value_parser = parse::duration_nonzero)]
    pub beat: Duration,
    /// The jobs.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Write all figures to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Draw how long jobs waited
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
}

/// Most processes of one kind: more say nothing that these do not.
const PROCESSES_MAX: i64 = 256;

fn processes() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..=PROCESSES_MAX)
}

/// `svcmap soak-sender`, which a soak starts.
#[derive(Clone, Debug, Args)]
pub struct SoakSenderArgs {
    /// How it is protected.
    #[command(flatten)]
    pub keys: KeysOption,
    /// The mapper
    #[arg(long)]
    pub mapper: Endpoint,
    /// Whom to send to
    #[arg(long)]
    pub service: Name,
    /// When to begin, on this machine's clock
    #[arg(long)]
    pub start_us: u64,
    /// Time from then until it is measured
    #[arg(long, value_parser = parse::duration)]
    pub warm_up: Duration,
    /// Jobs in each second
    #[arg(long)]
    pub rate: f64,
    /// Where to write what happened
    #[arg(long)]
    pub records: PathBuf,
    /// The jobs.
    #[command(flatten)]
    pub load: LoadOptions,
    /// Set by a supervisor.
    #[command(flatten)]
    pub supervised: SupervisedOptions,
}
