//! What svcmap's processes say to each other, and the one event loop that speaks it.
//!
//! Everything outside [`io`] is pure: plain values, no socket, no clock, no thread.
//!
//! | module | holds |
//! | --- | --- |
//! | [`names`] | who: services, instances, incarnations, senders, endpoints |
//! | [`load`] | what an instance says of itself |
//! | [`control`] | messages between mapper and everybody |
//! | [`jobs`] | messages between senders and workers |
//! | [`codec`] | messages to frames and back |
//! | [`keys`] | who somebody is, and what proves it |
//! | [`deployment`] | the file that holds them |
//! | [`metadata`] | what a sender says of a job beside its payload |
//! | [`payload`] | the bytes of jobs and results, in frames beside their message |
//! | [`json`] | the JSON dialect: its framing, and which JSON is taken |
//! | [`limits`] | every limit of the wire, with its reason |
//! | [`status`] | what is known of all services, as people and scripts are told |
//! | [`backoff`] | pauses between tries |
//! | [`refusals`] | counts of what was refused |
//! | [`time`] | points in time, as pure types see them |
//! | [`io`] | sockets, signals, clock: the event loop |
#![deny(missing_docs)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod backoff;
pub mod codec;
pub mod conduct;
pub mod control;
pub mod deployment;
pub mod io;
pub mod jobs;
pub mod json;
pub mod keys;
pub mod limits;
pub mod load;
pub mod metadata;
pub mod names;
pub mod payload;
pub mod principals;
pub mod rarely;
pub mod refusals;
pub mod status;
pub mod time;
