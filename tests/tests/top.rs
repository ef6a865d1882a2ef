//! `svcmap top`: lines of sums in a pipe, and a screen on a terminal that is given back.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::Builder;

use rustix::process::{Pid, Signal, kill_process};
use svcmap_tests::batch::text;
use svcmap_tests::{
    Deployment, MAPPER, children_of, deployment_of, eventually, executable, svcmap,
};

const ECHO: &[&str] = &["--builtin", "echo"];

fn top(deployment: &Deployment, flags: &[&str]) -> Command {
    let mut command = Command::new(executable());
    command.arg("top").args(flags).envs(deployment.environment());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

#[test]
fn in_a_pipe_it_prints_sums_of_what_was_done() {
    let mut deployment = deployment_of("echo", 2, ECHO);
    let mut process = top(&deployment, &["--interval", "200ms"]).spawn().unwrap();
    let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map(Result::unwrap);
    let heading = lines.next().unwrap();
    let columns: Vec<&str> = heading.split_whitespace().collect();
    let cell = |line: &str, column: &str| -> String {
        let at = columns.iter().position(|title| *title == column).unwrap();
        line.split_whitespace().nth(at).unwrap().to_owned()
    };
    let first = lines.next().unwrap();
    for (column, value) in [("MAPPERS", "1/1"), ("READY", "2/2"), ("DONE", "0"), ("DONE/s", "-")] {
        assert_eq!(cell(&first, column), value, "{column} in {first}");
    }

    let submitted = svcmap(&deployment, &["submit", "echo", "--data", "x", "--count", "30"]);
    assert!(submitted.status.success(), "{}", text(&submitted.stderr));
    let later = lines.find(|line| line.contains(':') && cell(line, "DONE") == "30").unwrap();
    assert_eq!((cell(&later, "FAILED"), cell(&later, "QUEUED")), ("0".into(), "0".into()));
    lines.find(|line| line.contains(':') && !["-", "0"].contains(&&*cell(line, "DONE/s"))).unwrap();

    deployment.kill(MAPPER).unwrap();
    let alone = lines.find(|line| line.ends_with("no mapper answers")).unwrap();
    assert_eq!((cell(&alone, "MAPPERS"), cell(&alone, "DONE")), ("0/1".into(), "-".into()));
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn whoever_has_read_enough_ends_it() {
    let deployment = deployment_of("echo", 1, ECHO);
    let mut process = top(&deployment, &["--interval", "100ms"]).spawn().unwrap();
    let mut heading = String::new();
    BufReader::new(process.stdout.take().unwrap()).read_line(&mut heading).unwrap();
    assert!(heading.starts_with("TIME "), "{heading}");
    assert_eq!(process.wait().unwrap().code(), Some(0));
}

/// A terminal, by `script`, and what was written to it.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    written: Arc<Mutex<Vec<u8>>>,
}

impl Terminal {
    /// It tells its settings when the command has ended, and its exit status.
    fn start(deployment: &Deployment) -> Self {
        let executable = executable();
        let command = format!("stty rows 24 cols 80; {executable} top; echo exit=$?; stty -a");
        let mut script = Command::new("script");
        script.args(["-qec", &command, "/dev/null"]).envs(deployment.environment());
        script.env("TERM", "xterm").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().unwrap();
        let (keys, mut output) = (script.stdin.take().unwrap(), script.stdout.take().unwrap());
        let written = Arc::new(Mutex::new(Vec::new()));
        let kept = written.clone();
        let copy = move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = output.read(&mut bytes) {
                kept.lock().unwrap().extend(&bytes[..count]);
            }
        };
        Builder::new().name("terminal".to_owned()).spawn(copy).unwrap();
        Self { script, keys, written }
    }

    fn text(&self) -> String {
        text(&self.written.lock().unwrap())
    }

    fn wait_for(&self, what: &str) {
        eventually(what, || self.text().contains(what));
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).unwrap();
        self.keys.flush().unwrap();
    }

    /// The terminal is as it was before: no other screen, a cursor, lines and an echo.
    fn assert_given_back(mut self, status: i32) {
        self.wait_for(&format!("exit={status}"));
        self.wait_for("iexten");
        self.script.wait().unwrap();
        let text = self.text();
        let order = ["\x1b[?1049h", "\x1b[?1049l", "exit="].map(|what| text.find(what).unwrap());
        assert!(order.is_sorted(), "{order:?}");
        assert!(text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "no cursor");
        assert!(text.contains(" icanon ") && text.contains(" echo "), "{text}");
    }
}

impl Drop for Terminal {
    /// Whatever runs on a terminal ends with it.
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

#[test]
fn on_a_terminal_it_shows_instances_and_keys_drain_them() {
    let deployment = deployment_of("echo", 2, ECHO);
    let mut terminal = Terminal::start(&deployment);
    terminal.wait_for("w-1");
    terminal.wait_for("w-2");
    terminal.press("jd");
    terminal.wait_for("y/n");
    terminal.press("y");
    deployment
        .wait_for("one to leave", |report| {
            report.instances.len() == 1 && report.instances[0].instance.as_str() == "w-2"
        })
        .unwrap();
    terminal.press("q");
    terminal.assert_given_back(0);
}

#[test]
fn a_signal_gives_the_terminal_back_as_well() {
    let deployment = deployment_of("echo", 1, ECHO);
    let terminal = Terminal::start(&deployment);
    terminal.wait_for("w-1");
    let shell = children_of(terminal.script.id())[0];
    let top = i32::try_from(children_of(shell)[0]).unwrap();
    kill_process(Pid::from_raw(top).unwrap(), Signal::TERM).unwrap();
    terminal.assert_given_back(143);
}
