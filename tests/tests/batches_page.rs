//! The page on batches: its commands are run, one after another, and print what stands there.

use std::path::Path;
use std::process::{Command, Stdio};

use svcmap_tests::{Deployment, deployment, executable};

/// What stands for anything.
const ANYTHING: char = '…';

/// How a line ends that tells how far a batch is.
const PROGRESS: &str = " jobs\n";

/// Units of time, behind a number.
const UNITS: &[&str] = &["us", "ms", "s", "m", "h"];

/// A command and what it prints.
#[derive(Debug, Default)]
struct Shown {
    command: String,
    output: String,
}

/// The blocks of a page that show a console.
fn consoles(page: &str) -> Vec<Vec<Shown>> {
    let blocks = page.split("```console\n").skip(1);
    let blocks = blocks.map(|block| block.split_once("```").expect("it ends").0);
    let block = |block: &str| {
        let mut shown: Vec<Shown> = Vec::new();
        for line in block.lines() {
            if let Some(command) = line.strip_prefix("$ ") {
                shown.push(Shown { command: command.to_owned(), output: String::new() });
            } else {
                shown.last_mut().expect("a command comes first").output += &format!("{line}\n");
            }
        }
        shown
    };
    blocks.map(block).collect()
}

/// The programs of a page, with their names.
fn programs(page: &str) -> impl Iterator<Item = (&str, &str)> {
    let blocks = page.split("```python ").skip(1);
    blocks.filter_map(|block| block.split_once("```")?.0.split_once('\n'))
}

/// The same without times and rates, which are others each time.
fn without_times(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(|char: char| char.is_ascii_digit()) {
        plain += &rest[..start];
        let number = &rest[start..];
        let is_part = |char: char| char.is_ascii_digit() || char == '.';
        let end = number.find(|char| !is_part(char)).unwrap_or(number.len());
        let after = &number[end..];
        let is_word = |text: &str| !text.starts_with(|char: char| char.is_ascii_alphanumeric());
        let ends = |unit: &&str| after.strip_prefix(*unit).is_some_and(is_word);
        let is_time = after.starts_with("/s") || UNITS.iter().any(ends);
        plain += if is_time { "#" } else { &number[..end] };
        rest = match UNITS.iter().find(|unit| is_time && ends(unit)) {
            Some(unit) => &after[unit.len()..],
            None => after,
        };
    }
    plain + rest
}

/// Whether a text is what stands there.
fn matches(shown: &str, text: &str) -> bool {
    let (shown, text) = (without_times(shown), without_times(text));
    let mut parts = shown.split(ANYTHING);
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A shell in a folder where `svcmap` is the command under test.
struct Shell<'a> {
    folder: &'a Path,
    deployment: Deployment,
}

impl Shell<'_> {
    fn run(&self, command: &str) -> String {
        let path = std::env::var("PATH").unwrap();
        let output = Command::new("bash")
            .args(["-c", &format!("exec 2>&1\n{command}")])
            .current_dir(self.folder)
            .env("PATH", format!("{}/bin:{path}", self.folder.display()))
            .envs(self.deployment.environment())
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// A command of the first block: a mapper is there, and workers are the deployment's.
    fn set_up(&mut self, command: &str) -> Option<String> {
        if command == "svcmap mapper" {
            return None;
        }
        let Some(flags) = command.strip_prefix("svcmap worker ") else {
            assert_eq!(self.run(command), "");
            return None;
        };
        // As a shell understands them.
        let words = self.run(&format!("printf '%s\\n' {flags}"));
        let mut words: Vec<_> = words.lines().collect();
        let mut take = |flag: &str| {
            let at = words.iter().position(|word| *word == flag).expect(flag);
            words.drain(at..at + 2).nth(1).unwrap()
        };
        let (service, instance) = (take("--service"), take("--instance"));
        self.deployment.start_worker(service, instance, &words).unwrap();
        Some(service.to_owned())
    }
}

#[test]
fn every_command_prints_what_stands_there() {
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("no python3 here");
        return;
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/batches.md");
    let page = std::fs::read_to_string(page).unwrap();
    let consoles = consoles(&page);
    let folder = tempfile::tempdir().unwrap();
    for (name, program) in programs(&page) {
        std::fs::write(folder.path().join(name), program).unwrap();
    }
    std::fs::create_dir(folder.path().join("bin")).unwrap();
    std::os::unix::fs::symlink(executable(), folder.path().join("bin/svcmap")).unwrap();
    let mut shell = Shell { folder: folder.path(), deployment: deployment() };
    let (setup, shown) = consoles.split_first().expect("there are some");
    let services: Vec<_> = setup.iter().filter_map(|one| shell.set_up(&one.command)).collect();
    let count = |service: &String| services.iter().filter(|other| *other == service).count();
    let all: Vec<_> = services.iter().map(|service| (service.as_str(), count(service))).collect();
    shell.deployment.wait_ready(&all).unwrap();
    assert!(shown.len() >= 10, "the page was not read");
    for Shown { command, output } in shown.iter().flatten() {
        let printed = shell.run(command);
        // A slow machine says how far it is where others are done.
        let is_slow = |line: &str| line.ends_with(PROGRESS) && !output.contains(PROGRESS);
        let printed: String = printed.split_inclusive('\n').filter(|line| !is_slow(line)).collect();
        assert!(matches(output, &printed), "$ {command}\n{printed}\nbut the page has\n{output}");
    }
}

#[test]
fn only_times_and_what_is_left_out_may_differ() {
    assert!(matches("2 jobs in 4ms (467/s): …\n", "2 jobs in 1.2s (1.7/s): all done\n"));
    assert!(!matches("2 jobs in 4ms\n", "3 jobs in 4ms\n"));
    assert!(!matches("a …b\n", "a b\nc\n"));
    assert!(matches("a … c … e", "a b c d e") && !matches("a … c … e", "a d e"));
}
