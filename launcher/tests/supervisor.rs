//! A supervisor and real children: a shell stands for this executable.

use std::process::Command;
use std::time::Duration;

use svcmap::supervisor::{ChildSpec, Supervisor, SupervisorError};
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

/// The supervisor's own flags become `$1` to `$4` of the script.
fn shell(script: &str) -> ChildSpec {
    ChildSpec::new("test/1", ["-c", script, "child"])
}

fn supervisor() -> Supervisor {
    Supervisor::with_executable("/bin/sh")
}

fn within(ms: u64) -> Timestamp {
    Clock.now() + Duration::from_millis(ms)
}

/// Whether a process of that number runs; one that nobody has waited for yet does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

#[test]
fn children_learn_their_parent_and_their_incarnation() {
    let mut supervisor = supervisor();
    let script = "echo $1 $2 $3 $4; exec sleep 60";
    let first = supervisor.start(shell(script).with_first_line()).unwrap();
    let second = supervisor.start(shell(script).with_first_line()).unwrap();
    let incarnation = supervisor.incarnation(first).unwrap();
    assert_eq!(
        supervisor.first_line(first, within(5000)).unwrap(),
        format!("--supervised {} --incarnation {incarnation}", std::process::id())
    );
    assert!(supervisor.incarnation(second).unwrap() > incarnation);
}

#[test]
fn a_kill_is_noticed_at_once() {
    let mut supervisor = supervisor();
    let stays = supervisor.start(shell("exec sleep 60")).unwrap();
    let killed = supervisor.start(shell("exec sleep 60")).unwrap();
    assert_eq!(supervisor.next_exit(within(20)), None);
    let pid = supervisor.pid(killed).unwrap();
    let start = Clock.now();
    supervisor.kill(killed);
    let exit = supervisor.next_exit(within(5000)).unwrap();
    assert!(Clock.now().since(start) < Duration::from_millis(1000));
    assert_eq!((exit.child, exit.pid), (killed, pid));
    assert_eq!(exit.to_string(), format!("test/1 (pid {pid}) was ended by signal 9"));
    assert_eq!(supervisor.pid(killed), None);
    assert_eq!(supervisor.children().collect::<Vec<_>>(), [stays]);
    // Nobody else has that number's place: signals to it go nowhere.
    supervisor.kill(killed);
}

#[test]
fn exits_are_reported_with_their_status() {
    let mut supervisor = supervisor();
    let child = supervisor.start(shell("exit 64")).unwrap();
    let exit = supervisor.next_exit(within(5000)).unwrap();
    assert_eq!((exit.child, exit.status.code()), (child, Some(64)));
    assert_eq!(supervisor.next_exit(within(60_000)), None);
}

#[test]
fn a_graceful_stop_waits_and_then_kills() {
    let mut supervisor = supervisor();
    let ready = "echo ready; while :; do sleep 0.05; done";
    let graceful = shell(&format!("trap 'exit 0' TERM; {ready}")).with_first_line();
    let deaf = shell(&format!("trap '' TERM; {ready}")).with_first_line();
    let graceful = supervisor.start(graceful).unwrap();
    let deaf = supervisor.start(deaf).unwrap();
    for child in [graceful, deaf] {
        assert_eq!(supervisor.first_line(child, within(5000)).unwrap(), "ready");
    }
    let exits = supervisor.stop_all(Duration::from_millis(500));
    let ends: Vec<_> = exits.iter().map(|exit| (exit.child, exit.status.code())).collect();
    assert_eq!(ends, [(graceful, Some(0)), (deaf, None)]);
}

#[test]
fn nothing_is_left_when_it_is_dropped() {
    let mut supervisor = supervisor();
    let child = supervisor.start(shell("exec sleep 60")).unwrap();
    let pid = supervisor.pid(child).unwrap();
    assert!(runs(pid));
    drop(supervisor);
    assert!(!runs(pid));
}

#[test]
fn a_child_without_a_first_line_is_told_apart() {
    let mut supervisor = supervisor();
    let silent = supervisor.start(shell("exec sleep 60").with_first_line()).unwrap();
    let dead = supervisor.start(shell("exit 1").with_first_line()).unwrap();
    let unread = supervisor.start(shell("exit 1")).unwrap();
    let mut line = |child| supervisor.first_line(child, within(300)).unwrap_err();
    assert!(matches!(line(silent), SupervisorError::Late { .. }));
    assert!(matches!(line(dead), SupervisorError::NoLine { .. }));
    assert!(matches!(line(unread), SupervisorError::NoLine { .. }));
}

#[test]
fn what_cannot_be_started_is_said() {
    let mut supervisor = Supervisor::with_executable("/nowhere/svcmap");
    let error = supervisor.start(shell("")).unwrap_err();
    assert!(error.to_string().starts_with("test/1 could not be started: No such file"));
}

/// The very binary: a child whose supervisor is gone does not even start.
#[test]
fn a_mapper_whose_supervisor_is_gone_ends() {
    let output = Command::new(env!("CARGO_BIN_EXE_svcmap"))
        .args(["mapper", "--bind", "tcp://127.0.0.1:*", "--publish", "tcp://127.0.0.1:*"])
        .args(["--supervised", "1"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(text, "error: process 1, which started this one, is gone\n");
}
