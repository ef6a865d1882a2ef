//! The handle of a mapper, and of the thread behind it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use svcmap_proto::io::Waker;
use svcmap_proto::names::Endpoint;

use super::builder::MapperBuilder;
use super::monitor::Monitor;

/// Why a mapper ended that nobody had stopped.
#[derive(Debug, thiserror::Error)]
pub enum MapperError {
    /// The system failed it. A new one may fare better.
    #[error("the mapper failed: {0}")]
    System(#[from] io::Error),
    /// It met a bug of its own. Please report what it said.
    #[error("the mapper panicked")]
    Panicked,
}

/// A mapper on a thread of its own. Dropping it stops it.
pub struct Mapper {
    pub(super) endpoint: Endpoint,
    pub(super) publish_endpoint: Endpoint,
    pub(super) plain_endpoint: Option<Endpoint>,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) waker: Waker,
    pub(super) monitor: Monitor,
    /// Taken when it is waited for.
    pub(super) thread: Option<JoinHandle<io::Result<()>>>,
}

impl Mapper {
    /// A mapper with settings.
    pub fn builder() -> MapperBuilder {
        MapperBuilder::default()
    }

    /// Where it listens, with the port that the system chose. The host `*` means all interfaces.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Where it publishes, in the same form.
    pub fn publish_endpoint(&self) -> &Endpoint {
        &self.publish_endpoint
    }

    /// Where it listens in plain text beside its keys, if it does.
    pub fn plain_endpoint(&self) -> Option<&Endpoint> {
        self.plain_endpoint.as_ref()
    }

    /// Asks it to stop. [`Mapper::wait`] waits until it has.
    pub fn stop(&self) {
        self.stopper()();
    }

    /// What [`Mapper::stop`] does, for another thread: a signal's, for example, while this one
    /// waits.
    pub fn stopper(&self) -> impl Fn() + Send + Sync + 'static {
        let (stop, waker) = (Arc::clone(&self.stop), self.waker.clone());
        move || {
            stop.store(true, Ordering::Release);
            waker.wake();
        }
    }

    /// What it counts and whom it lists, for any thread, for as long as it runs.
    pub fn monitor(&self) -> Monitor {
        self.monitor.clone()
    }

    /// Waits until it has ended, after [`Mapper::stop`] or by itself.
    ///
    /// # Errors
    /// If it ended by itself: see [`MapperError`].
    pub fn wait(mut self) -> Result<(), MapperError> {
        self.join()
    }

    fn join(&mut self) -> Result<(), MapperError> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| MapperError::Panicked)?.map_err(MapperError::System)
    }
}

impl Drop for Mapper {
    fn drop(&mut self) {
        self.stop();
        // Whoever drops it does not ask how it ended; the log has it.
        let _ = self.join();
    }
}

impl fmt::Debug for Mapper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, publish_endpoint, .. } = self;
        write!(f, "Mapper({endpoint}, {publish_endpoint})")
    }
}
