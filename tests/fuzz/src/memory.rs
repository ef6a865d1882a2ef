//! What reading allocates. It counts where the binary has the allocator of `stats_alloc`; elsewhere
//! nothing is ever too much.

use stats_alloc::{INSTRUMENTED_SYSTEM, Region};

/// What may be allocated whatever the input is, in bytes: an error, a few names.
const ALWAYS_BYTES: usize = 8 * 1024;

/// What `read` returns, if it has not allocated more than so many times these bytes, and
/// [`ALWAYS_BYTES`].
///
/// # Panics
/// If it has.
pub(crate) fn bounded<T>(bytes: usize, times: usize, read: impl FnOnce() -> T) -> T {
    let region = Region::new(&INSTRUMENTED_SYSTEM);
    let value = read();
    let allocated = region.change().bytes_allocated;
    assert!(allocated <= times * bytes + ALWAYS_BYTES, "{allocated} bytes for {bytes} that came");
    value
}
