//! svcmap's data plane: serve jobs, send jobs.
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod choice;
pub mod config;
pub mod intake;
mod io;
pub mod link;
pub mod outbox;
pub mod outcome;
pub mod peers;
pub mod sender;
pub mod senders;
pub mod server;
pub mod session;
pub mod statistics;

pub use io::{
    Client, ClientBuilder, DrainError, HandlerError, Job, JobBuilder, Notice, StartError,
    SubmitError, Ticket, Worker, WorkerBuilder,
};
pub use outcome::{Cause, Failure, NotDone, Outcome, Reason, Refusal, Reply};
pub use server::DrainReport;
pub use statistics::{Statistics, Tally};
pub use svcmap_proto::names::{Incarnation, InstanceKey, Name};
