//! Asks a worker, or a client, how it is.

use std::fmt;
use std::sync::Arc;

use super::shared::{Command, Shared};
use crate::metrics::Metrics;

/// Asks a worker or a client how it is, from any thread and as long as that runs, also while it drains. Its I/O
/// thread calls what it is given with the answer, and does nothing else meanwhile: hand the answer on, and no
/// more. What is given is dropped without a call once the other has ended, which this does not keep it from.
#[derive(Clone, Debug)]
pub struct Monitor {
    pub(super) shared: Arc<Shared>,
}

impl Monitor {
    /// What it has counted, and how it is. Wait for the answer before you ask again.
    pub fn metrics(&self, reply: impl FnOnce(Metrics) + Send + 'static) {
        self.shared.command(Command::Metrics(Reply(Box::new(reply))));
    }
}

/// What is done with an answer, on the I/O thread.
pub(super) struct Reply(pub(super) Box<dyn FnOnce(Metrics) + Send>);

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reply").finish_non_exhaustive()
    }
}
