//! svcmap's data plane: serve jobs, send jobs.
//!
//! A [`Worker`] serves one service with a handler and sends jobs through its [`Worker::client`]; a
//! [`Client`] only sends. Either has one I/O thread of its own, which talks to the mappers and to
//! other workers; handlers run on a pool beside it and never block it.
//!
//! ```no_run
//! use svcmap_worker::{Job, Outcome, Worker};
//! # fn resize(image: &[u8]) -> Result<Vec<u8>, std::io::Error> { Ok(image.to_vec()) }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // serve
//! let worker = Worker::builder("resize")
//!     .mapper("tcp://10.0.0.5:5555")
//!     .concurrency(4)
//!     .queue(60)
//!     .serve(|job: &Job| resize(job.payload()))?;
//!
//! // send
//! let client = worker.client();
//! let ticket = client.submit("thumbnail", b"an image")?;
//! match ticket.wait() {
//!     Outcome::Done(reply) => println!("{} bytes", reply.len()),
//!     other => println!("{other}"),
//! }
//!
//! worker.drain(std::time::Duration::from_secs(10))?;
//! # Ok(())
//! # }
//! ```
//!
//! Handlers have [four shapes](WorkerBuilder::serve), and payloads are bytes, or values as JSON or
//! postcard ([`value`]).
//!
//! Every ticket gets exactly one [`Outcome`]. A job waits as long as somebody serves its service,
//! unless it has limits: a [`hold`](JobBuilder::hold), a [`run_limit`](JobBuilder::run_limit), a
//! [`deadline`](JobBuilder::deadline). A handler that waits for a job of its own service, while all
//! its instances are full, waits for ever without one.
//!
//! Each connection is an open file or two. The limit of those is the process's own affair: one that
//! talks to hundreds of others raises it before it starts.
//!
//! What happens is logged with slog, to the logger that [`WorkerBuilder::logger`] and
//! [`ClientBuilder::logger`] are given, and to nobody without one. Programs that log with the crate
//! `log` or with tracing turn the feature `log` on and give `log_logger()`.
//!
//! Everything outside the module `io` is pure, so that a simulator can drive it: no socket, no
//! clock, no thread, no log. What it needs beyond what is documented here stands in `pure`, which
//! promises nothing to anybody else. In the source:
//!
//! | module | holds |
//! | --- | --- |
//! | `process` | all of it put together: what `io` drives |
//! | `session` | one mapper's view of this process: register, report, leave |
//! | `whereabouts` | which address of which name each mapper is dialled at |
//! | `peers` | the cache: who is there, and how loaded |
//! | `sender` | the sending half: `outbox`, `link`s, `choice` |
//! | `server` | the serving half: `intake`, `credits`, `handover`, `senders`, `clients` |
//! | `health` | whether this instance sets itself aside, as its jobs fail |
//! | `json` | what clients of the JSON dialect say, and what they are told |
//! | `observation` | a sender's decisions one by one, for those who measure |
//! | `outcome` | how a job ends |
//! | `answer`, `payload`, [`value`] | what a handler returns, and what can be sent |
//! | `statistics`, `metrics` | what a sender counts, and a worker |
//! | [`config`] | settings, their defaults and limits |
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod addresses;
mod answer;
mod choice;
mod clients;
pub mod config;
mod credits;
mod handover;
mod health;
mod intake;
mod io;
mod json;
mod link;
mod metrics;
mod observation;
mod outbox;
mod outcome;
mod payload;
mod peers;
mod process;
#[doc(hidden)]
pub mod pure;
mod rep;
mod sender;
mod senders;
mod server;
mod session;
mod slots;
mod statistics;
#[cfg(test)]
mod testing;
pub mod value;
mod whereabouts;

pub use addresses::IntoAddresses;
pub use answer::{HandlerError, IntoAnswer};
pub use choice::{Policy, PolicyError};
pub use io::{
    Cancelled, Client, ClientBuilder, DrainError, Job, JobBuilder, JobContext, Monitor, NotTaken,
    Notice, Responder, StartError, SubmitError, Ticket, Worker, WorkerBuilder, default_instance,
};
pub use metrics::{Histogram, Metrics, Served};
pub use observation::Observation;
pub use outbox::JobId;
pub use outcome::{Cause, Failure, NotDone, Outcome, Reason, Refusal, Reply};
pub use payload::IntoPayload;
pub use server::DrainReport;
pub use statistics::{Statistics, Tally};
pub use svcmap_proto::deployment::Deployment;
pub use svcmap_proto::io::KeyFileError;
#[cfg(feature = "log")]
pub use svcmap_proto::io::log_logger;
pub use svcmap_proto::jobs::Priority;
pub use svcmap_proto::load::{Load, State};
pub use svcmap_proto::metadata::{Metadata, MetadataError};
pub use svcmap_proto::names::{Endpoint, Incarnation, InstanceKey, Name, SenderId};
pub use svcmap_proto::refusals::BadMessage;
pub use value::ValueError;
