//! A simulator of svcmap: discrete events on virtual time, around the very types that ship.
//!
//! | module | holds |
//! | --- | --- |
//! | [`scenario`] | what is simulated |
//! | [`world`] | the course of time |
//! | [`nodes`] | mapper, workers, senders: the pure types of the libraries |
//! | [`ledger`] | the jobs under way, and what is measured of them |
//! | [`network`] | what lies between them |
//! | [`workload`] | the jobs |
//! | [`policies`] | policies that do not ship |
//! | [`theory`] | what queueing theory says |
//! | [`sweep`], [`table`], [`charts`] | one thing at a time, and what comes of it |
//! | [`agreement`] | the soak on real processes beside it |
//! | [`gates`] | systems of which theory knows the answer |
//! | [`goals`] | what svcmap sets out to reach |
//! | [`Pure`] | a sender and servers without a simulator: what a job costs |

pub mod agreement;
pub mod charts;
pub mod gates;
pub mod goals;
pub mod ledger;
mod measured;
pub mod network;
pub mod nodes;
pub mod policies;
mod pure;
pub mod queue;
pub mod scenario;
pub mod starts;
pub mod sweep;
pub mod table;
pub mod theory;
pub mod variants;
pub mod workload;
pub mod world;

pub use ledger::{Damage, Findings};
pub use policies::Rule;
pub use pure::Pure;
pub use scenario::{Feed, Scenario};
pub use world::World;
