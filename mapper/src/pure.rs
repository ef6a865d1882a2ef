//! The pure types for those who drive them in place of `io`: the simulator. Not for users of the library:
//! it changes with every version.

pub use crate::registry::{Connection, Identity, Output, Registry};
pub use crate::rights::Rights;
