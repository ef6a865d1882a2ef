//! svcmap's control plane: who is alive, and how loaded they are.
//!
//! A [`Mapper`] runs on a thread of its own. Workers register with it and report to it; senders
//! look services up and follow what it publishes. It never touches a job, and several mappers need
//! not know of each other. It logs with slog, to the logger that [`MapperBuilder::logger`] is given, and
//! to nobody without one. Programs that log with the crate `log` or with tracing turn the feature `log`
//! on and give `log_logger()`.
//!
//! ```
//! use std::time::Duration;
//! use svcmap_mapper::Mapper;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let mapper = Mapper::builder()
//!     .bind("tcp://127.0.0.1:0") // 0: a port that the system chooses
//!     .publish("tcp://127.0.0.1:0")
//!     .beat(Duration::from_millis(500))
//!     .start()?;
//! println!("workers register at {}", mapper.endpoint());
//! mapper.stop();
//! mapper.wait()?;
//! # Ok(())
//! # }
//! ```
//!
//! Everything outside the module `io` is pure, so that a simulator can drive it: no socket, no
//! clock, no thread, no log. What it needs beyond what is documented here stands in `pure`, which
//! promises nothing to anybody else. In the source:
//!
//! | module | holds |
//! | --- | --- |
//! | [`config`] | settings, their defaults and limits |
//! | `registry` | all decisions: messages and time in, messages out |
//! | `rights` | who may do what, by the keys of a deployment |
//! | `leases` | who was heard when, and who is silent |
//! | `revisions` | what is published of each service, and when |
//! | `backlog` | what connections could not take at once |
//! | [`metrics`], `listed` | what it counts, and who is listed, for who asks |
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod backlog;
pub mod config;
mod demand;
mod io;
mod json;
mod leases;
mod listed;
pub mod metrics;
#[doc(hidden)]
pub mod pure;
mod registry;
mod revisions;
mod rights;

pub use config::{Config, ConfigError};
pub use io::{Mapper, MapperBuilder, MapperError, Monitor, StartError};
pub use listed::Listed;
pub use metrics::Metrics;
pub use svcmap_proto::deployment::MapperFile;
#[cfg(feature = "log")]
pub use svcmap_proto::io::log_logger;
pub use svcmap_proto::principals::{Principal, Role, Services};
