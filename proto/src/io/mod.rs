//! The outside: sockets, signals, the clock, and the one event loop that waits for them all.
//!
//! Nothing outside the modules named `io` touches any of these.

mod clock;
mod connections;
pub mod curve;
mod event_loop;
mod frames;
mod key_files;
#[cfg(feature = "log")]
mod log;
mod look_up;
mod own_address;
mod probe;
mod random;
mod raw;
mod slot;
mod sockets;
mod spin;
mod zap;

pub use clock::{Clock, host_id, host_id_doubt, node_name};
pub use connections::{ConnectionTrouble, Connections};
pub use event_loop::{Event, EventLoop, Heard, SendError, SocketKey, Waker};
pub use frames::payloads;
pub use key_files::KeyFileError;
#[cfg(feature = "log")]
pub use log::log_logger;
pub use look_up::{look_up, look_up_all};
pub use own_address::own_address;
pub use probe::{Probe, probe};
pub use random::{random_u64, random_u128};
pub use sockets::{
    BindError, Socket, SocketSettings, bind, connect, dealer, libzmq, libzmq_doubt, publisher,
    raise_open_files_limit, router, selective_publisher, subscriber,
};
pub use spin::Spin;
pub use zap::{Admitted, ZapError, user};
