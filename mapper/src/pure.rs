//! The pure types for those who drive them in place of `io`: the simulator. Not for users of the library:
//! it changes with every version.

pub use crate::access::Access;
pub use crate::registry::{Connection, Identity, Output, Registry};
