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
    for (path, text) in
        files(&["proto", "mapper", "worker", "launcher", "tests", "tests/fuzz", "tests/simulator"])
    {
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
        if path.ends_with("proto/src/io/raw.rs") {
            continue;
        }
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

/// The names of tests in a line of the page, each with the file that follows it.
fn tests_named(line: &str) -> Vec<(&str, &str)> {
    let (mut names, mut named) = (Vec::new(), Vec::new());
    for word in line.split('`').skip(1).step_by(2) {
        if word.ends_with(".rs") {
            named.extend(names.drain(..).map(|name| (name, word)));
        } else if word.contains('_') {
            names.push(word);
        }
    }
    assert!(names.is_empty(), "{names:?} in no file");
    named
}

#[test]
fn what_is_promised_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let pages = ["docs/guarantees.md", "SECURITY.md"];
    let pages = pages.map(|page| std::fs::read_to_string(root.join(page)).unwrap()).concat();
    let rows = pages.lines().filter(|line| line.starts_with("| "));
    let rows = rows.filter(|line| !line.ends_with("| shown by |") && !line.contains("---"));
    let mut count = 0;
    for row in rows {
        let named = tests_named(row);
        assert!(!named.is_empty(), "a promise without a test: {row}");
        for (name, file) in named {
            let text = std::fs::read_to_string(root.join(file)).expect(file);
            let (before, _) = text.split_once(&format!("fn {name}(")).expect(name);
            let attribute = before.trim_end().lines().next_back().unwrap_or_default();
            assert_eq!(attribute.trim(), "#[test]", "{name} in {file}");
            count += 1;
        }
    }
    assert!(count > 60, "the pages were not read");
}
