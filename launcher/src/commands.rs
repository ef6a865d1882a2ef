//! One module for each command.

pub mod completions;
pub mod demo;
pub mod doctor;
pub mod drain;
pub mod init;
pub mod key;
pub mod man;
pub mod mapper;
pub mod plan;
pub mod soak;
pub mod status;
pub mod steer;
pub mod submit;
pub mod top;
pub mod up;
pub mod why;
pub mod worker;
