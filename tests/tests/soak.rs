//! `svcmap soak`, short: every job accounted for, the files it writes, and nothing left behind.

use std::process::Command;

use serde_json::Value;
use svcmap_tests::{children_of, executable};

/// Keys that others' tools go by.
const KEYS: [&str; 19] = [
    "submitted",
    "outcomes",
    "sent",
    "rejected_full",
    "far",
    "far_stale",
    "far_race",
    "refused_with_room",
    "frr",
    "goodput_per_s",
    "wait_ms",
    "age_ms",
    "messages_per_job",
    "policy",
    "utilisation",
    "senders",
    "workers",
    "seconds",
    "processes",
];

fn soak(flags: &[&str]) -> (Value, String) {
    let folder = tempfile::tempdir().unwrap();
    let [json, plot, files] = ["soak.json", "soak.svg", "files"].map(|n| folder.path().join(n));
    std::fs::create_dir(&files).unwrap();
    let child = Command::new(executable())
        .args(["soak", "--workers", "4", "--senders", "2", "--seconds", "3"])
        .args(flags)
        .arg("--json")
        .arg(&json)
        .arg("--plot")
        .arg(&plot)
        .env("TMPDIR", &files)
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert_eq!(children_of(pid), [0_u32; 0]);
    assert_eq!(std::fs::read_dir(&files).unwrap().count(), 0, "a file was left behind");
    assert!(std::fs::read_to_string(&plot).unwrap().starts_with("<svg"));
    let figures = serde_json::from_str(&std::fs::read_to_string(&json).unwrap()).unwrap();
    (figures, String::from_utf8(output.stdout).unwrap())
}

fn count(figures: &Value, key: &str) -> u64 {
    figures[key].as_u64().unwrap_or_else(|| panic!("{key}: {figures}"))
}

fn outcomes(figures: &Value) -> u64 {
    ["done", "failed", "refused", "unknown", "accepted"]
        .iter()
        .map(|outcome| count(&figures["outcomes"], outcome))
        .sum()
}

#[test]
fn a_short_soak_accounts_for_every_job() {
    let (figures, text) = soak(&["--utilisation", "0.5"]);
    for key in KEYS {
        assert!(!figures[key].is_null(), "{key}: {figures}");
    }
    let submitted = count(&figures, "submitted");
    // 4 workers, 10 ms, half of the capacity, 3 s: 600 on average.
    assert!((400..800).contains(&submitted), "{submitted}");
    assert_eq!(outcomes(&figures), submitted);
    assert_eq!(count(&figures["outcomes"], "done"), submitted, "{figures}");
    assert!(figures["messages_per_job"].as_f64().is_some_and(|n| n >= 2.0), "{figures}");
    let sum = format!("submitted {submitted} = done {submitted} + failed 0");
    assert!(text.contains(&sum), "{text}");
}

#[test]
fn a_soak_that_is_too_much_refuses_what_does_not_fit_and_says_so() {
    let flags = ["--utilisation", "1.5", "--policy", "random", "--queue", "1"];
    let (figures, _) = soak(&[&flags[..], &["--publish-interval", "50ms"]].concat());
    assert_eq!(figures["publish_interval_ms"], 50.0);
    let submitted = count(&figures, "submitted");
    assert_eq!(outcomes(&figures), submitted);
    let refused = count(&figures["outcomes"], "refused");
    // No system does more than 1 / 1.5 of it.
    assert!(refused * 4 > submitted, "{figures}");
    assert!(count(&figures, "rejected_full") > 0, "{figures}");
}

#[test]
fn a_soak_can_use_the_mapper_of_a_deployment() {
    let deployment = svcmap_tests::plain_deployment();
    let mapper = deployment.mapper().as_str().to_owned();
    let flags = ["--utilisation", "0.3", "--mapper", &mapper, "--payload", "64KiB"];
    let (figures, _) = soak(&flags);
    assert_eq!(outcomes(&figures), count(&figures, "submitted"));
    assert!(figures["bytes_per_job"].as_f64().is_some_and(|bytes| bytes > 65_536.0), "{figures}");
    let processes = figures["processes"].as_array().unwrap();
    assert_eq!(processes.len(), 2, "the mapper is not its own: {processes:?}");
    assert!(figures["publish_interval_ms"].is_null(), "that mapper decides");
}
