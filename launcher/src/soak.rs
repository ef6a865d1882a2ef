//! The soak's pure half: what its senders write down, what follows from that, and how it looks.
//!
//! | module | holds |
//! | --- | --- |
//! | [`records`] | what a sender writes down of each job |
//! | [`join`] | from all senders' records to the figures of [`measurement`](crate::measurement) |
//! | [`render`] | the figures for people |
//! | [`chart`] | the picture |

pub mod chart;
pub mod join;
pub mod records;
pub mod render;
