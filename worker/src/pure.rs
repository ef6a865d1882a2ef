//! The pure types for those who drive them in place of `io`: the simulator, and benchmarks of what a job
//! costs without sockets. Not for users of the library: it changes with every version.

pub use crate::choice::{Candidate, Candidates, Choice, PowerOfTwo};
pub use crate::intake::{Ending, Origin, Task, TaskId};
pub use crate::outbox::JobSpec;
pub use crate::peers::{Peers, PeersOutput};
pub use crate::process::{Instance, Process, ProcessOutput};
pub use crate::sender::{Sender, SenderOutput};
pub use crate::senders::Connection;
pub use crate::server::{Server, ServerOutput};
