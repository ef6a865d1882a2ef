//! Whether a job needs its sender.

use serde::{Deserialize, Serialize};

/// What becomes of a job if its sender is gone, and who is told how it ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Detachment {
    /// It is dropped unless a handler has begun it.
    #[default]
    Attached,
    /// A worker that has it does it in any case. Its outcome is told to a sender that is there.
    Detached,
    /// A worker that has it does it in any case. Its outcome is [`Verdict::Accepted`](super::Verdict::Accepted)
    /// as soon as it is there: what comes of it only that worker knows.
    Released,
}

impl Detachment {
    /// Whether a worker that has it keeps it even if its sender is gone.
    pub fn is_detached(self) -> bool {
        self != Self::Attached
    }
}
