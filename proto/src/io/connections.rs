//! The connections to a listening socket: how many there are from each address, and those that could not be
//! accepted, most often as the process is out of files.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use zmq::{Message, SocketEvent};

use super::event_loop::{EventLoop, SocketKey};
use super::raw::{ends, shut_down};
use super::sockets::{Socket, open_files_limit};
use crate::limits;
use crate::rarely::Rarely;
use crate::time::Timestamp;

/// See the module.
#[derive(Debug)]
pub struct Connections {
    key: SocketKey,
    /// From where each came, by the number of its file.
    addresses: BTreeMap<i32, IpAddr>,
    counts: BTreeMap<IpAddr, u64>,
    address_max: u64,
    failures: Rarely,
    crowds: Rarely,
}

/// What is to be said of them.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionTrouble {
    /// One waits and could not be accepted.
    #[error(
        "no connection can be accepted: {error} ({times} times): this process may open {open_files} \
        files, raise `ulimit -n` where it is started"
    )]
    Accept {
        /// Why.
        error: io::Error,
        /// How often that was so since it was last said.
        times: u64,
        /// How many files there may be.
        open_files: u64,
    },
    /// One was ended, as there are so many from its address.
    #[error(
        "{address} has {count} connections, as many as one address may have: more are ended \
        ({times} times)"
    )]
    Crowd {
        /// From where.
        address: IpAddr,
        /// How many it has.
        count: u64,
        /// How often that was so since it was last said.
        times: u64,
    },
}

/// Most connections from one address, of a process that may open so many files: nobody takes all of them
/// alone.
fn address_max(files: u64) -> u64 {
    let for_others = limits::FILES_FOR_OTHERS.max(files / 8).min(files / 2);
    limits::CONNECTIONS_PER_ADDRESS_MAX.min(files - for_others)
}

impl Connections {
    /// Watches what becomes of the connections to `socket`.
    ///
    /// # Errors
    /// If the process is out of files or sockets.
    pub fn watch(event_loop: &mut EventLoop, socket: &Socket) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let endpoint = format!("inproc://connections-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let kinds = [SocketEvent::ACCEPTED, SocketEvent::ACCEPT_FAILED, SocketEvent::DISCONNECTED];
        let kinds = kinds.iter().map(|kind| i32::from(kind.to_raw())).sum();
        let watch = || {
            socket.monitor(&endpoint, kinds)?;
            let watcher = event_loop.context().socket(zmq::PAIR)?;
            watcher.set_linger(0)?;
            // At a limit libzmq would stand still until this thread reads.
            watcher.set_rcvhwm(0)?;
            watcher.connect(&endpoint)?;
            Ok(watcher)
        };
        let watcher = watch().map_err(|error: zmq::Error| io::Error::other(error.message()))?;
        Ok(Self {
            key: event_loop.add(watcher)?,
            addresses: BTreeMap::new(),
            counts: BTreeMap::new(),
            address_max: address_max(open_files_limit()),
            failures: Rarely::default(),
            crowds: Rarely::default(),
        })
    }

    /// Which socket of the loop tells of them.
    pub fn key(&self) -> SocketKey {
        self.key
    }

    /// What came from there. `Some` if something is to be said now.
    pub fn handle_event(
        &mut self,
        now: Timestamp,
        frames: &[Message],
    ) -> Option<ConnectionTrouble> {
        // Two bytes say what happened, and four where, or why.
        let (kind, value) = frames.first()?.split_first_chunk::<2>()?;
        let value = i32::from_ne_bytes(*value.first_chunk::<4>()?);
        match SocketEvent::from_raw(u16::from_ne_bytes(*kind)) {
            SocketEvent::ACCEPTED => self.handle_accepted(now, value),
            SocketEvent::DISCONNECTED => {
                self.forget(value);
                None
            }
            _ => {
                let times = self.failures.admit(now)?;
                let (error, open_files) = (io::Error::from_raw_os_error(value), open_files_limit());
                Some(ConnectionTrouble::Accept { error, times, open_files })
            }
        }
    }

    fn handle_accepted(&mut self, now: Timestamp, connection: i32) -> Option<ConnectionTrouble> {
        // Its number was another's before.
        self.forget(connection);
        // Who is gone already has none.
        let (_, address) = ends(connection)?;
        self.addresses.insert(connection, address);
        let count = self.counts.entry(address).or_default();
        *count += 1;
        if *count <= self.address_max {
            return None;
        }
        let count = *count - 1;
        shut_down(connection);
        let times = self.crowds.admit(now)?;
        Some(ConnectionTrouble::Crowd { address, count, times })
    }

    fn forget(&mut self, connection: i32) {
        let Some(address) = self.addresses.remove(&connection) else { return };
        if let Some(count) = self.counts.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_leaves_some_files_for_others() {
        for (files, most) in [(0, 0), (64, 32), (128, 64), (1024, 896), (20_000, 16_384)] {
            assert_eq!(address_max(files), most, "{files}");
        }
    }
}
