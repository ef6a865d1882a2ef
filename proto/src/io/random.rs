//! Random numbers for names and seeds: no two processes draw the same.

use std::hash::{BuildHasher, RandomState};

/// 64 random bits.
///
/// Of the standard library's hasher, which has its key from the system: `fastrand` takes its own seed from the
/// clock, so two processes that begin in the same tick would draw alike.
#[must_use]
pub fn random_u64() -> u64 {
    RandomState::new().hash_one(())
}

/// 128 random bits: see [`random_u64`].
#[must_use]
pub fn random_u128() -> u128 {
    u128::from(random_u64()) << 64 | u128::from(random_u64())
}
