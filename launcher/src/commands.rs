//! One module for each command.

pub mod demo;
pub mod doctor;
pub mod key;
pub mod mapper;
pub mod soak;
pub mod status;
pub mod submit;
pub mod why;
pub mod worker;
