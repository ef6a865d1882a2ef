//! What may stand behind `svcmap key`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use svcmap_proto::names::Name;
use svcmap_proto::principals::{Role, Services};

use super::KeysOption;
use crate::parse;

/// `svcmap key`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap key add alice --role client --services 'resize*'
  svcmap key list
  svcmap key revoke alice

Each asks all mappers that the deployment file names; that file has to be an operator's, as the one
is that a mapper makes at its first start.")]
pub struct KeyArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: KeyCommand,
    /// The deployment file of who says so [default: $SVCMAP_DEPLOYMENT, else
    /// ~/.config/svcmap/svcmap.toml]
    #[arg(long, value_name = "FILE", global = true)]
    pub deployment: Option<PathBuf>,
}

impl KeyArgs {
    /// The same as other commands have it.
    pub fn keys(&self) -> KeysOption {
        KeysOption { deployment: self.deployment.clone(), insecure: false }
    }
}

/// One variant for each.
#[derive(Clone, Debug, Subcommand)]
pub enum KeyCommand {
    /// Let in somebody new: makes a deployment file for him
    Add(AddArgs),
    /// Show who may take part; to who is no operator, himself
    List {
        /// Print one JSON object with principals[]
        #[arg(long)]
        json: bool,
    },
    /// Shut somebody out, at once and for good: connections end, instances are listed no more
    Revoke {
        /// Whom
        name: Name,
    },
    /// Give somebody another key: makes a new deployment file for him, in place of the one that he has
    Rotate(RotateArgs),
}

/// `svcmap key add`.
#[derive(Clone, Debug, Args)]
pub struct AddArgs {
    /// What to call him, or the host
    pub name: Name,
    /// What he may do: a client sends jobs, a worker serves as well, an operator manages keys as well
    #[arg(long, value_name = "ROLE", default_value = "worker")]
    pub role: Role,
    /// With which services: names, 'beginnings*' with commas between them, or all
    #[arg(long, value_name = "NAME", default_value = "*", value_delimiter = ',')]
    pub services: Vec<Services>,
    /// Where to write the file [default: NAME.toml here]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// `svcmap key rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// Whom
    pub name: Name,
    /// How long his former key is good
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse::duration)]
    pub keep: Duration,
    /// Where to write the file [default: NAME.toml here]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
