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

Each asks every mapper that the deployment file names, and says which have done it; with one that does not \
answer, say it again later. The file has to be an operator's, as the one is that a mapper makes at its first \
start.")]
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
    /// Let in somebody new: a person, a host, a program. Makes a deployment file
    Add(AddArgs),
    /// Show who may take part: to operators all, to others themselves
    List {
        /// Print one JSON object with principals[]
        #[arg(long)]
        json: bool,
    },
    /// Shut somebody out, at once and for good: connections end, instances are listed no more
    Revoke {
        /// The name that was added
        name: Name,
    },
    /// Give somebody another key: makes a deployment file in place of the former one
    Rotate(RotateArgs),
}

/// `svcmap key add`.
#[derive(Clone, Debug, Args)]
pub struct AddArgs {
    /// What to call it
    #[arg(value_parser = file_name)]
    pub name: Name,
    /// What it may do: a client sends jobs, a worker serves as well, an operator manages keys as well
    #[arg(long, value_name = "ROLE", default_value = "worker")]
    pub role: Role,
    /// With which services: names, 'beginnings*' with commas between them, or all
    #[arg(long, value_name = "NAME", default_value = "*", value_delimiter = ',')]
    pub services: Vec<Services>,
    /// Where to write the file, folders included [default: NAME.toml here]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// A name that is also a file's.
fn file_name(text: &str) -> Result<Name, String> {
    match text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
        true => text.parse().map_err(|error: svcmap_proto::names::NameError| error.to_string()),
        false => Err("begin with a letter or digit: it becomes the name of a file".to_owned()),
    }
}

/// `svcmap key rotate`.
#[derive(Clone, Debug, Args)]
pub struct RotateArgs {
    /// The name that was added
    #[arg(value_parser = file_name)]
    pub name: Name,
    /// How long the former key is good
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = parse::duration)]
    pub keep: Duration,
    /// Where to write the file, folders included [default: NAME.new.toml here]
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}
