//! The outside of a worker: its thread, its sockets, its handlers, and the handles that users hold.

mod builder;
mod client;
mod mappers;
mod node;
mod notice;
mod pool;
mod progress;
mod report;
mod serving;
mod shared;
mod sockets;
mod ticket;
mod trouble;
mod worker;

pub use builder::{ClientBuilder, WorkerBuilder};
pub use client::{Client, JobBuilder, SubmitError};
pub use notice::{Notice, StartError};
pub use pool::{HandlerError, Job};
pub use sockets::default_instance;
pub use ticket::Ticket;
pub use worker::{DrainError, Worker};
