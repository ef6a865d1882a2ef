//! The outside of a mapper: its thread, its sockets, and the handle that users hold.

mod builder;
mod key_file;
mod mapper;
mod monitor;
mod node;
mod received;

pub use builder::{MapperBuilder, StartError};
pub use mapper::{Mapper, MapperError};
pub use monitor::Monitor;
