//! What the benchmarks share. Whatever is compared is measured in turn, in rounds: the machine has
//! other things to do, and a median with its spread says how much that mattered.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

mod cache;
mod fleet;
mod jobs;
mod raw;
mod rounds;
mod usage;

pub use cache::Cache;
pub use fleet::Fleet;
pub use jobs::Jobs;
pub use raw::{Again, RawEcho, RawPair, raw_echo};
pub use rounds::{Pair, Round, Rounds, round, spread};
pub use usage::{cpu_time, own_memory_kb, system_calls};
