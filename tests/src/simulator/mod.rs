//! A simulator of svcmap: discrete events on virtual time, around the very types that ship.
//!
//! | module | holds |
//! | --- | --- |
//! | [`scenario`] | what is simulated |
//! | [`world`] | the course of time |
//! | [`nodes`] | mapper, workers, senders: the pure types of the libraries |
//! | [`network`] | what lies between them |
//! | [`workload`] | the jobs |
//! | [`policies`] | policies that do not ship |
//! | [`theory`] | what queueing theory says |
//! | [`agreement`] | the soak on real processes beside it |
//! | [`gates`] | systems of which theory knows the answer |

pub mod agreement;
pub mod gates;
pub mod network;
pub mod nodes;
pub mod policies;
pub mod queue;
pub mod scenario;
pub mod theory;
pub mod workload;
pub mod world;

pub use policies::Rule;
pub use scenario::{Feed, Scenario};
pub use world::{Findings, World};
