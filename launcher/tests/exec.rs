//! Real programs, run for a job.

mod programs;

use std::cell::Cell;
use std::time::Duration;

use programs::{parse, run_with, runner};
use svcmap::exec::{ExecError, Runner};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

const LIMIT_BYTES: usize = 1024 * 1024;

fn running(command: &str) -> Runner {
    runner(parse(command).unwrap())
}

fn within(ms: u64) -> Timestamp {
    Clock.now() + Duration::from_millis(ms)
}

fn result(command: &str, payload: &[u8]) -> Result<Vec<u8>, ExecError> {
    run_with(&running(command), payload, LIMIT_BYTES, within(30_000), &|| false)
}

fn error(command: &str) -> String {
    result(command, b"payload").unwrap_err().to_string()
}

#[test]
fn the_payload_goes_in_and_the_result_comes_out() {
    let sum = String::from_utf8(result("sha256sum", b"abc").unwrap()).unwrap();
    assert!(sum.starts_with("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
}

#[test]
fn large_payloads_come_back_whole() {
    let payload: Vec<u8> = (0..900_000_u32).map(|n| (n % 251) as u8).collect();
    assert!(result("cat", &payload).unwrap() == payload);
}

#[test]
fn arguments_are_passed_as_they_are() {
    assert_eq!(result("printf '%s|' --help 'a b' $HOME", b"").unwrap(), b"--help|a b|$HOME|");
}

#[test]
fn failures_carry_status_and_last_words() {
    assert_eq!(error("sh -c 'exit 3'"), "exit status 3");
    assert_eq!(error("sh -c 'echo no model >&2; exit 4'"), "exit status 4: no model");
    assert_eq!(error("sh -c 'kill -9 $$'"), "killed by signal 9");
}

#[test]
fn what_cannot_be_started_is_told_from_every_exit_of_a_program() {
    let directory = tempfile::tempdir().unwrap();
    let text = directory.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    for command in ["/nowhere/program", &text.display().to_string()] {
        let ended = result(command, b"");
        assert!(matches!(ended, Err(ExecError::Start(_))), "{ended:?}");
        assert!(error(command).starts_with("the program could not be started: "), "{command}");
    }
    for exit in [126, 127] {
        let ended = error(&format!("sh -c 'echo cannot start x >&2; exit {exit}'"));
        assert_eq!(ended, format!("exit status {exit}: cannot start x"));
    }
}

#[test]
fn a_program_that_reads_nothing_is_no_error() {
    let payload = vec![b'x'; 900_000];
    assert_eq!(result("true", &payload).unwrap(), b"");
    // Closes its stdin at once and goes on for a while.
    assert_eq!(result("sh -c 'exec <&-; sleep 0.2; echo ok'", &payload).unwrap(), b"ok\n");
}

#[test]
fn a_program_that_only_talks_to_stderr_does_not_block() {
    let noisy = "sh -c 'yes error | head -c 3000000 >&2; echo ok'";
    assert_eq!(result(noisy, b"").unwrap(), b"ok\n");
}

#[test]
fn cancelling_ends_it_soon() {
    let (start, asked) = (Clock.now(), Cell::new(0));
    let is_cancelled = || {
        asked.set(asked.get() + 1);
        asked.get() > 3
    };
    let ended = run_with(&running("sleep 60"), b"", LIMIT_BYTES, within(30_000), &is_cancelled);
    assert!(matches!(ended, Err(ExecError::Cancelled)));
    assert!(Clock.now().since(start) < Duration::from_secs(5));
}

#[test]
fn endless_results_are_cut_off() {
    let ended = result("yes", b"");
    assert!(matches!(ended, Err(ExecError::ResultTooLarge { limit_bytes: LIMIT_BYTES })));
    let four = |command: &str| run_with(&running(command), b"", 4, within(20_000), &|| false);
    assert_eq!(four("printf 1234").unwrap(), b"1234");
    assert!(four("printf 12345").is_err());
}

#[test]
fn a_grandchild_that_holds_stdout_does_not_hold_up_the_job() {
    let start = Clock.now();
    assert_eq!(result("sh -c 'sleep 60 & echo ok'", b"").unwrap(), b"ok\n");
    assert_eq!(result("sh -c 'setsid sleep 2 & sleep 0.1; echo ok'", b"").unwrap(), b"ok\n");
    assert!(Clock.now().since(start) < Duration::from_secs(10));
}

#[test]
fn a_program_finds_its_job_in_its_environment() {
    let told = |name: &str| {
        let value = result(&format!("printenv {name}"), b"").unwrap_or_default();
        String::from_utf8(value).unwrap().trim_end().to_owned()
    };
    for (name, value) in [
        ("SVCMAP_SERVICE", "sum"),
        ("SVCMAP_INSTANCE", "a"),
        ("SVCMAP_JOB", "17"),
        ("SVCMAP_ATTEMPT", "2"),
        ("SVCMAP_INPUT", "a b.jpg"),
        ("SVCMAP_METADATA", r#"{"input":"a b.jpg"}"#),
    ] {
        assert_eq!(told(name), value, "{name}");
    }
    let left: f64 = told("SVCMAP_SECONDS_LEFT").parse().unwrap();
    assert!(left > 0.0 && left <= 30.0, "{left}");
    // A script without an interpreter is started in another way.
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    std::fs::write(&script, "echo $SVCMAP_JOB").unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, executable).unwrap();
    assert_eq!(result(&script.display().to_string(), b"").unwrap(), b"17\n");
}

#[test]
fn failures_carry_a_number_as_in_a_shell() {
    let code = |command: &str| result(command, b"").unwrap_err().code();
    assert_eq!(code("sh -c 'exit 3'"), Some(3));
    assert_eq!(code("sh -c 'kill -9 $$'"), Some(137));
    assert_eq!(code("/nowhere/program"), None);
}
