//! The handle of a worker, and of the thread behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use svcmap_proto::names::{Endpoint, InstanceKey};

use super::client::Client;
use super::monitor::Monitor;
use super::shared::{Command, Shared};
use crate::server::DrainReport;

/// The grace of a worker that is dropped: a program that ends is not to hang.
const DROP_GRACE: Duration = Duration::from_secs(1);

/// A drain that could not be finished in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the worker's thread had ended before")]
pub struct DrainError;

/// An I/O thread; stopped when the last handle to it is dropped.
#[derive(Debug)]
pub(super) struct Thread {
    pub(super) shared: Arc<Shared>,
    pub(super) handle: Mutex<Option<JoinHandle<Option<DrainReport>>>>,
}

impl Thread {
    /// Waits for the thread's end. `None` if it had ended before, or was not serving.
    fn join(&self) -> Option<DrainReport> {
        let handle = self.handle.lock().unwrap_or_else(PoisonError::into_inner).take();
        handle.and_then(|handle| handle.join().ok()).flatten()
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.shared.command(Command::Stop);
        self.join();
    }
}

/// Serves jobs, and sends some: see the crate's first page.
///
/// [`Worker::drain`] is the way to stop without losing anything. Dropping it drains as well, with a grace
/// of a second, and at once in a panic.
#[derive(Debug)]
#[must_use = "it serves until it is dropped"]
pub struct Worker {
    pub(super) key: InstanceKey,
    pub(super) endpoint: Endpoint,
    pub(super) thread: Arc<Thread>,
}

impl Worker {
    /// Under which name it serves.
    pub fn key(&self) -> &InstanceKey {
        &self.key
    }

    /// Where it listens for jobs. The host `*` means all interfaces.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// A handle that sends jobs over this worker's connections.
    pub fn client(&self) -> Client {
        Client { shared: Arc::clone(&self.thread.shared), _thread: None }
    }

    /// What it counts, for any thread, for as long as it runs.
    pub fn monitor(&self) -> Monitor {
        Monitor { shared: Arc::clone(&self.thread.shared) }
    }

    /// Waits until a mapper lists it, at most so long. Returns whether one does.
    pub fn wait_registered(&self, limit: Duration) -> bool {
        self.thread.shared.status.wait(limit, |status| status.registered > 0)
    }

    /// Waits until it has ended by itself, at most so long. Returns whether it has.
    pub fn wait_ended(&self, limit: Duration) -> bool {
        self.thread.shared.status.wait(limit, |status| status.ended)
    }

    /// Takes no more jobs, says so, and hands back what waits and can go elsewhere if another
    /// instance is ready; finishes what is left within `grace`, hands back what was not started by
    /// then, and leaves.
    ///
    /// # Errors
    /// If its thread had ended before.
    pub fn drain(self, grace: Duration) -> Result<DrainReport, DrainError> {
        self.thread.shared.command(Command::Drain(grace));
        self.thread.join().ok_or(DrainError)
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.thread.shared.command(Command::Drain(DROP_GRACE));
            self.thread.join();
        }
    }
}
