//! The outside of a worker: its thread, its sockets, its handlers, and the handles that users hold.

mod builder;
mod cancellation;
mod client;
mod context;
mod handler;
mod job;
mod job_builder;
mod look_up;
mod mappers;
mod monitor;
mod node;
mod notice;
mod pool;
mod progress;
mod report;
mod responder;
mod serving;
mod shared;
mod sockets;
mod ticket;
mod trouble;
mod worker;

pub use builder::{ClientBuilder, WorkerBuilder};
pub use cancellation::Cancelled;
pub use client::{Client, SubmitError};
pub use context::JobContext;
pub use job::Job;
pub use job_builder::{JobBuilder, NotTaken};
pub use monitor::Monitor;
pub use notice::{Notice, StartError};
pub use responder::Responder;
pub use sockets::default_instance;
pub use ticket::Ticket;
pub use worker::{DrainError, Worker};
