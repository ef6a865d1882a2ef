//! Real processes, to which everything is done that can be done to them, while jobs go on: killed,
//! stopped, asked to end, started anew. Everybody writes down what happens to each job, and at the
//! end what was promised is compared with that.
//!
//! | module | holds |
//! | --- | --- |
//! | [`plan`] | what is done to whom, and when; pure |
//! | [`history`] | what is written down; pure |
//! | [`check`] | which promises were broken; pure |
//! | [`journal`] | the file |
//! | [`serve`], [`send`] | workers and senders |
//! | [`run`] | a round of it |

pub mod check;
pub mod history;
pub mod journal;
pub mod plan;
pub mod run;
pub mod send;
pub mod serve;

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use svcmap::cli::SupervisedOptions;
use svcmap::io::end_with_parent;

pub use history::EVERYBODY;
use journal::{Journal, watch};

/// The service that all jobs are for.
pub const SERVICE: &str = "chaos";

/// The command of what a program leaves behind.
pub const LINGER: &str = "linger";

/// Who a worker or a sender is, and in which life.
#[derive(Debug, Args)]
pub struct Life {
    #[arg(long)]
    folder: PathBuf,
    #[arg(long)]
    who: String,
    #[arg(long)]
    life: u64,
    #[arg(long)]
    mapper: Vec<String>,
    #[command(flatten)]
    supervised: SupervisedOptions,
}

impl Life {
    /// From here on it ends with whoever started it, and writes down what it does.
    fn begin(&self) -> Result<Arc<Journal>, Box<dyn Error>> {
        self.supervised.supervised.map(end_with_parent).transpose()?;
        let journal = Arc::new(Journal::open(&self.folder, &self.who, self.life)?);
        watch(&journal)?;
        Ok(journal)
    }
}

/// The name of a worker.
pub fn worker_name(number: usize) -> String {
    format!("w-{number}")
}
