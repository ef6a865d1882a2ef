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

pub use history::EVERYBODY;

/// The service that all jobs are for.
pub const SERVICE: &str = "chaos";

/// The command of what a program leaves behind.
pub const LINGER: &str = "linger";

/// The name of a worker.
pub fn worker_name(number: usize) -> String {
    format!("w-{number}")
}
