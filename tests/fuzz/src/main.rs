//! Makes up inputs for a target, without end or as many as `-runs` says, and keeps those that lead to
//! code that no other did. `.ci/fuzz` runs all targets.
//!
//! It is libFuzzer: `FUZZ_TARGET` names the target, and the arguments are libFuzzer's, folders of inputs
//! among them. An input that something is wrong with is written to a file `crash-…`, and is read again
//! if that is the one argument.

#![no_main]

use std::alloc::System;
use std::sync::LazyLock;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use svcmap_fuzz::targets::{self, Target};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    targets::named(&name).unwrap_or_else(|| {
        let names: Vec<_> = targets::TARGETS.iter().map(|target| target.name).collect();
        panic!("set FUZZ_TARGET to one of {}", names.join(", "))
    })
});

libfuzzer_sys::fuzz_target!(|input: &[u8]| (TARGET.read)(input));
