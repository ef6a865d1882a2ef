//! Connections that a listening socket could not accept: most often as the process is out of files.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use zmq::{Message, SocketEvent};

use super::event_loop::{EventLoop, SocketKey};
use super::sockets::{Socket, open_files_limit};
use crate::rarely::Rarely;
use crate::time::Timestamp;

/// Hears of those of one socket.
#[derive(Debug)]
pub struct Accepts {
    key: SocketKey,
    rarely: Rarely,
}

/// A connection that waits and could not be accepted.
#[derive(Debug, thiserror::Error)]
#[error(
    "no connection can be accepted: {error} ({times} times): this process may open {open_files} \
    files, raise `ulimit -n` where it is started"
)]
pub struct AcceptFailure {
    error: io::Error,
    times: u64,
    open_files: u64,
}

impl Accepts {
    /// Listens to what becomes of the connections to `socket`.
    ///
    /// # Errors
    /// If the process is out of files or sockets.
    pub fn watch(event_loop: &mut EventLoop, socket: &Socket) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let endpoint = format!("inproc://accepts-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let watch = || {
            socket.monitor(&endpoint, i32::from(SocketEvent::ACCEPT_FAILED.to_raw()))?;
            let watcher = event_loop.context().socket(zmq::PAIR)?;
            watcher.set_linger(0)?;
            watcher.connect(&endpoint)?;
            Ok(watcher)
        };
        let watcher = watch().map_err(|error: zmq::Error| io::Error::other(error.message()))?;
        Ok(Self { key: event_loop.add(watcher)?, rarely: Rarely::default() })
    }

    /// Which socket of the loop tells of them.
    pub fn key(&self) -> SocketKey {
        self.key
    }

    /// What came from there. `Some` if that is to be said now.
    pub fn handle_event(&mut self, now: Timestamp, frames: &[Message]) -> Option<AcceptFailure> {
        // Two bytes say what happened, which is always the same, and four the error number.
        let number = frames.first()?.get(2..6)?.try_into().ok()?;
        let error = io::Error::from_raw_os_error(i32::from_ne_bytes(number));
        let times = self.rarely.admit(now)?;
        Some(AcceptFailure { error, times, open_files: open_files_limit() })
    }
}
