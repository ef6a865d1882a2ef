//! Each target reads what lies in its folder of `corpora`, whole and cut off anywhere: inputs that made a
//! difference to the code once, and those that something was wrong with.

use std::alloc::System;
use std::path::{Path, PathBuf};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use svcmap_fuzz::targets::{self, TARGETS};

// What is allocated is counted for the whole process, so there is but one test here.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What is in a folder, in the order of names.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut entries: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    entries.sort();
    entries
}

#[test]
fn every_target_reads_its_corpus() {
    assert!(ALLOCATOR.stats().bytes_allocated > 0, "nothing is counted");
    let folders = entries(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpora"));
    assert_eq!(folders.len(), TARGETS.len());
    for folder in folders {
        let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let target = targets::named(name).expect(name);
        let files = entries(&folder);
        assert!(!files.is_empty(), "{name} has no inputs");
        for file in files {
            let input = std::fs::read(&file).expect("a file");
            // Shown if it fails.
            println!("{}", file.display());
            (0..=input.len()).for_each(|end| (target.read)(&input[..end]));
        }
    }
}
