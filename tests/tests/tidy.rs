//! Rules of the house that a compiler does not know, checked on the source itself.

use std::path::{Path, PathBuf};

/// What only modules named `io` may say.
const OUTSIDE: &[&str] =
    &["zmq::", "mio::", "slog::", "std::thread", "Instant", "SystemTime", "std::net::Tcp"];

/// A file that is longer is two rooms.
const LINES_MAX: usize = 500;

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

fn files(crates: &[&str]) -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut found = Vec::new();
    crates.iter().for_each(|name| sources(&root.join(name).join("src"), &mut found));
    assert!(found.len() > 10, "the sources were not found");
    found.sort();
    found.into_iter().map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

fn is_outside(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "io") || path.ends_with("io.rs")
}

fn is_test(path: &Path) -> bool {
    path.file_stem().is_some_and(|stem| {
        let stem = stem.to_string_lossy();
        stem == "tests" || stem == "properties" || stem.ends_with("_tests")
    })
}

#[test]
fn only_io_touches_the_outside() {
    for (path, text) in files(&["proto", "mapper", "worker"]) {
        if is_outside(&path) || is_test(&path) {
            continue;
        }
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            let said = OUTSIDE.iter().find(|word| line.contains(**word));
            assert_eq!(said, None, "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_file_says_what_it_is_for_and_fits_in_one_sitting() {
    for (path, text) in files(&["proto", "mapper", "worker", "launcher", "tests"]) {
        let first = text.lines().next().unwrap_or_default();
        // A unit-test file stands beside what it tests, and that says enough.
        assert!(is_test(&path) || first.starts_with("//!"), "{}", path.display());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX || is_test(&path), "{} has {lines} lines", path.display());
    }
}

#[test]
fn unsafe_code_stands_only_where_the_design_says() {
    for (path, text) in files(&["proto", "mapper", "worker", "launcher"]) {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            assert!(
                !line.contains("unsafe {") && !line.contains("allow(unsafe"),
                "{}",
                path.display()
            );
        }
    }
}
