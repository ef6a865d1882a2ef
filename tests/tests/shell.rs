//! What a shell sees of the commands: exit codes, results on stdout, and words that fit.

use std::io::{PipeReader, Write};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use svcmap_proto::io::Clock;
use svcmap_tests::listed::nobody;
use svcmap_tests::{PATIENCE, deployment, deployment_of, eventually, executable, svcmap};

const ECHO: &[&str] = &["--builtin", "echo"];

/// Fails with what it was given as its last words.
const FAIL: &[&str] = &["--exec", "sh -c 'cat >&2; exit 3'"];

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(args: &[&str]) -> Output {
    Command::new(executable()).args(args).output().unwrap()
}

/// Lets a child end by itself; one that does not is killed, and `None` comes back.
fn end_of(child: &mut Child, patience: Duration) -> Option<ExitStatus> {
    let deadline = Clock.now() + patience;
    while Clock.now() < deadline {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status);
        }
        svcmap::io::pause_until(Clock.now() + Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    None
}

/// A pipe that holds no more, and the end at which nobody reads.
fn full_pipe() -> (Stdio, PipeReader) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    while writer.write(b"\n").is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (writer.into(), reader)
}

#[test]
fn stdin_is_read_once_and_sent_as_often_as_wanted() {
    let deployment = deployment_of("echo", 1, ECHO);
    let mut child = Command::new(executable())
        .args(["submit", "echo", "-", "--count", "3"])
        .envs(deployment.environment())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"x").unwrap();
    // Each result is a line of its own: three of them would run together.
    assert_eq!(text(&child.wait_with_output().unwrap().stdout), "x\nx\nx\n");
    let once = svcmap(&deployment, &["submit", "echo", "--data", "x"]);
    assert_eq!(text(&once.stdout), "x");
}

#[test]
fn what_never_fits_is_no_reason_to_try_again_later() {
    let deployment =
        deployment_of("small", 1, &["--builtin", "echo", "--payload-max", "1KiB", "--queue", "0"]);
    let large = svcmap(&deployment, &["submit", "small", "--data", &"x".repeat(2000)]);
    assert!(text(&large.stderr).contains("too large"), "{}", text(&large.stderr));
    assert_eq!(code(&large), Some(1));
}

#[test]
fn a_closed_pipe_hides_no_failure() {
    let deployment = deployment_of("cat", 1, &["--exec", "sh -c 'read x; echo $x; exit $x'"]);
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        std::fs::write(folder.path().join(name), text).unwrap();
        folder.path().join(name).display().to_string()
    };
    let (bad, good) = (file("bad", "3\n"), file("good", "0\n"));
    let closed = |args: &[&str]| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(executable());
        command.args(args).envs(deployment.environment());
        command.stdout(writer).stderr(Stdio::piped()).output().unwrap()
    };
    assert_eq!(code(&closed(&["submit", "cat", &bad, &good])), Some(1));
    assert_eq!(code(&closed(&["submit", "cat", &bad, &good, "--json"])), Some(1));
    // Whoever has seen enough of what went well is told of no failure.
    assert_eq!(code(&closed(&["submit", "cat", &good, &good])), Some(0));
    assert_eq!(code(&closed(&["status"])), Some(0));
}

#[test]
fn text_from_elsewhere_commands_no_terminal() {
    let deployment = deployment_of("fail", 1, FAIL);
    let folder = tempfile::tempdir().unwrap();
    let evil = folder.path().join("\u{1b}]0;evil\u{7}\u{202e}name");
    std::fs::write(&evil, "\u{1b}[2Jgone\u{9b}31m\rerror: fake\n").unwrap();
    let output = Command::new(executable())
        .args(["submit", "fail", &evil.display().to_string()])
        .envs(deployment.environment())
        // As on a terminal.
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("gone") && said.contains("evil"), "{said:?}");
    // Our own colours are.
    let said = anstream::adapter::strip_str(&said).to_string();
    let known = said.replace("\\u{1b}[2J", "").replace("\\u{1b}]0;evil\\u{7}\\u{202e}", "");
    assert!(known.len() < said.len() && !known.contains('\u{202e}'), "{said:?}");
    assert!(!text(&output.stderr).contains("\u{1b}[2J"), "{:?}", text(&output.stderr));
    assert!(!said.contains(['\u{9b}', '\r', '\u{7}']), "{said:?}");
    // A pattern of names may name one that looks like a flag.
    let mistaken = Command::new(executable())
        .args(["submit", "fail", "--\u{7}\u{202e}name"])
        .env("CLICOLOR_FORCE", "1")
        .output()
        .unwrap();
    let said = text(&mistaken.stderr);
    assert_eq!(code(&mistaken), Some(64), "{said:?}");
    assert!(said.contains("\\u{202e}") && !said.contains(['\u{7}', '\u{202e}']), "{said:?}");
}

#[test]
fn a_soak_that_cannot_write_its_file_still_tells() {
    let soak = |json: &str, seconds: &str| {
        let args = ["soak", "--workers", "2", "--senders", "1", "--seconds", seconds];
        run(&[&args[..], &["--json", json]].concat())
    };
    let full = soak("/dev/full", "1");
    let (said, errors) = (text(&full.stdout), text(&full.stderr));
    assert!(said.contains("FAR  ") && said.contains("\nsubmitted "), "{said} {errors}");
    let figures: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    assert!(figures["submitted"].as_u64().unwrap() > 0, "{said}");
    assert!(errors.contains("/dev/full"), "{errors}");
    assert_eq!(code(&full), Some(1));
    // Nobody waits a minute to learn that there is no such folder.
    let started_at = Clock.now();
    let nowhere = soak("/no/such/folder/soak.json", "60");
    assert_eq!(code(&nowhere), Some(64), "{}", text(&nowhere.stderr));
    assert!(Clock.now().since(started_at) < PATIENCE);
}

#[test]
fn remedies_fit_what_went_wrong() {
    // Some five threads find room for a stack, and beside them is room for everything small.
    let limited = "ulimit -v 1572864; exec \"$0\" worker --service x --builtin echo \
                   --concurrency 20000 --log-level error";
    let output = Command::new("sh")
        .args(["-c", limited, executable()])
        .env("RUST_MIN_STACK", "268435456")
        .env("MALLOC_ARENA_MAX", "1")
        .output()
        .unwrap();
    let said = text(&output.stderr);
    assert!(said.contains("thread") && said.contains("--concurrency"), "{said}");
    assert!(!said.contains("ulimit -n"), "{said}");

    let output = run(&["mapper", "--beat", "1us", "--bind", "tcp://127.0.0.1:0"]);
    let said = text(&output.stderr);
    assert_eq!(code(&output), Some(64), "{said}");
    assert!(said.contains("beat") && !said.contains("--bind"), "{said}");

    let output = run(&["status", "--mapper", "tcp://127.0.0.1:1"]);
    let said = text(&output.stderr);
    assert_eq!(code(&output), Some(69), "{said}");
    let tried = said.split_once("(tried ").unwrap().1.split_once(')').unwrap().0;
    assert!(tried.len() <= 5, "{said}");
}

#[test]
fn a_job_at_its_deadline_is_not_called_cancelled() {
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep"]);
    let args = ["submit", "nap", "--data", "9s", "--deadline", "300ms"];
    let said = text(&svcmap(&deployment, &args).stderr);
    assert!(said.contains("time was over") && !said.contains("cancelled"), "{said}");
}

#[test]
fn the_same_complaint_is_printed_once() {
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep", "--queue", "0"]);
    let args = ["submit", "nap", "--data", "1s", "--count", "5", "--hold", "0"];
    let output = svcmap(&deployment, &args);
    let said = text(&output.stderr);
    assert_eq!(code(&output), Some(75), "{said}");
    assert_eq!(said.matches("error:").count(), 1, "{said}");
    assert_eq!(said.matches("no credit").count(), 2, "{said}");
    assert!(said.contains("4 x refused: no credit"), "{said}");
}

#[test]
fn a_replaced_worker_tells_of_no_signal() {
    let mut deployment = deployment();
    let start = || {
        Command::new(executable())
            .args(["worker", "--service", "echo", "--instance", "a", "--builtin", "echo"])
            .envs(deployment.environment())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let mut first = start();
    deployment.wait_ready(&[("echo", 1)]).unwrap();
    let mut second = start();
    let ended = end_of(&mut first, PATIENCE);
    let said = text(&first.wait_with_output().unwrap().stderr);
    second.kill().unwrap();
    second.wait().unwrap();
    deployment.stop();
    assert_eq!(ended.and_then(|status| status.code()), Some(64), "{said}");
    assert!(said.contains("another process took the name"), "{said}");
    assert!(!said.contains("signal"), "{said}");
}

#[test]
fn what_only_a_shell_understands_is_said_at_the_start() {
    let worker = |command: &str| run(&["worker", "--service", "x", "--exec", command]);
    for command in ["cat | wc -c", "cat>out", "true && cat", "echo $(date)", "cat; true"] {
        let output = worker(command);
        assert_eq!(code(&output), Some(64), "{command}");
        let said = text(&output.stderr);
        assert!(said.contains("no shell runs") && said.contains("sh -c"), "{said}");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = folder.path().join("script");
    std::fs::write(&script, "#!/bin/sh").unwrap();
    let output = worker(&script.display().to_string());
    let said = text(&output.stderr);
    assert!(said.contains("is not executable") && said.contains("chmod +x /"), "{said}");
}

#[test]
fn a_deadline_is_one_for_all_jobs_of_a_command() {
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep"]);
    let args = ["submit", "nap", "--data", "50ms", "--deadline", "1s", "--count", "3000", "--json"];
    let before = Clock.now();
    let output = svcmap(&deployment, &args);
    // Portions of 512 would take six seconds.
    let took = Clock.now().since(before);
    assert!(took < Duration::from_secs(4), "{took:?}");
    let totals = text(&output.stdout);
    assert!(totals.contains("\"refused\":29") || totals.contains("\"refused\": 29"), "{totals}");
}

/// Whether a command ends within a few seconds after SIGTERM, though its stderr and stdout are
/// pipes that hold no more.
fn ends_behind_a_full_pipe(args: &[&str], ready: impl Fn()) -> bool {
    let ((out, _out_end), (err, _err_end)) = (full_pipe(), full_pipe());
    let mut child = Command::new(executable()).args(args).stdout(out).stderr(err).spawn().unwrap();
    ready();
    let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(pid, Signal::TERM).unwrap();
    end_of(&mut child, PATIENCE / 2).is_some_and(|status| status.code() == Some(0))
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_a_worker_from_its_work_and_its_end() {
    for format in ["human", "json"] {
        let deployment = svcmap_tests::plain_deployment();
        let mapper = deployment.mapper().as_str();
        let args = ["--log-format", format, "--log-level", "debug", "worker", "--service", "echo"];
        let args = [&args[..], &["--builtin", "echo", "--mapper", mapper]].concat();
        assert!(
            ends_behind_a_full_pipe(&args, || {
                deployment.wait_ready(&[("echo", 1)]).unwrap();
                let data = ["submit", "echo", "--data", "x", "--count", "500"];
                assert_eq!(code(&svcmap(&deployment, &data)), Some(0));
            }),
            "{format}"
        );
    }
}

#[test]
fn a_log_that_nobody_reads_does_not_keep_a_mapper_alive() {
    // Its first line, which would tell, goes to nobody.
    let bind = nobody().to_string();
    let args = ["mapper", "--bind", &bind, "--publish", "tcp://127.0.0.1:0"];
    let ready = || {
        eventually("the mapper to answer", || {
            code(&run(&["status", "--mapper", &bind])) == Some(0)
        });
    };
    assert!(ends_behind_a_full_pipe(&args, ready));
}

#[test]
fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let (err, _end) = full_pipe();
    let args = ["worker", "--service", "x", "--builtin", "echo", "--concurrency", "65536"];
    let mut child = Command::new(executable()).args(args).stderr(err).spawn().unwrap();
    let status = end_of(&mut child, PATIENCE / 2);
    assert_eq!(status.and_then(|status| status.code()), Some(64));
}
