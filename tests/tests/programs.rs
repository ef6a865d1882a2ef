//! Programs of real workers: nothing that they start outlives its job or its worker, however that
//! ends.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, getuid, kill_process};
use svcmap::commands::status::Shown;
use svcmap_proto::io::Clock;
use svcmap_tests::netns::is_permitted;
use svcmap_tests::{Deployment, deployment, eventually, executable, svcmap};
use svcmap_worker::{Client, Outcome, Ticket};

/// What a program starts in the background, with a `sleep` for NAP that is this test's alone: in a
/// group and a session of its own, and out of sight of its parent.
const PROGRAM: &str = "NAP & setsid NAP & timeout 9801 NAP & (env -i setsid NAP &) ; wait";

/// So many naps there are then.
const NAPS: usize = 4;

/// Whoever still runs it at the end of the test is killed.
struct Nap(String);

impl Nap {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        Self(format!("97{number:02}.{}", std::process::id()))
    }

    /// The program with its naps, for `--exec`.
    fn program(&self, script: &str) -> String {
        format!("sh -c '{}'", script.replace("NAP", &format!("sleep {}", self.0)))
    }

    /// The processes that nap so.
    fn running(&self) -> Vec<i32> {
        let argv = format!("sleep\0{}\0", self.0);
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let naps = processes.filter(|process| {
            std::fs::read(process.path().join("cmdline")).is_ok_and(|c| c == argv.as_bytes())
        });
        naps.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
    }

    fn awaits(&self, count: usize) {
        eventually(&format!("{count} naps"), || self.running().len() == count);
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        self.running().into_iter().for_each(|pid| kill(pid, Signal::KILL));
    }
}

fn kill(pid: i32, signal: Signal) {
    let _ = kill_process(Pid::from_raw(pid).unwrap(), signal);
}

/// A worker `w-1` that naps, with a job that it has begun.
fn napping(nap: &Nap, script: &str, flags: &[&str]) -> (Deployment, Client, Ticket) {
    let mut deployment = deployment();
    let program = nap.program(script);
    let flags = [&["--exec", program.as_str()], flags].concat();
    deployment.start_worker("nap", "w-1", &flags).unwrap();
    deployment.wait_ready(&[("nap", 1)]).unwrap();
    let client = deployment.client().unwrap();
    let ticket = client.submit("nap", Vec::new()).unwrap();
    nap.awaits(NAPS);
    (deployment, client, ticket)
}

#[test]
fn nothing_outlives_a_worker_that_is_killed() {
    let nap = Nap::new();
    let (mut deployment, _client, ticket) = napping(&nap, PROGRAM, &[]);
    deployment.kill("w-1").unwrap();
    nap.awaits(0);
    assert!(matches!(ticket.wait(), Outcome::Unknown(_)));
}

#[test]
fn nothing_outlives_a_second_signal() {
    for (signals, status) in [
        ([Signal::TERM, Signal::TERM], 143),
        ([Signal::INT, Signal::INT], 130),
        ([Signal::HUP, Signal::TERM], 143),
    ] {
        let nap = Nap::new();
        let (mut deployment, _client, _ticket) = napping(&nap, PROGRAM, &[]);
        let pid = deployment.pid("w-1").unwrap().cast_signed();
        kill(pid, signals[0]);
        deployment
            .wait_for("the drain", |report| {
                report.instances.iter().all(|row| row.state == Shown::Draining)
            })
            .unwrap();
        assert_eq!(nap.running().len(), NAPS);
        kill(pid, signals[1]);
        let exit = deployment.wait_end("w-1").unwrap();
        assert_eq!(exit.status.code(), Some(status));
        nap.awaits(0);
    }
}

#[test]
fn nothing_outlives_the_grace_and_programs_are_asked_first() {
    let directory = tempfile::tempdir().unwrap();
    let said = directory.path().join("said");
    let script = format!("trap \"echo bye >{}\" TERM; {PROGRAM}; wait", said.display());
    let nap = Nap::new();
    let (mut deployment, _client, ticket) =
        napping(&nap, &script, &["--grace", "200ms", "--kill-after", "5s"]);
    let start = Clock.now();
    let exit = deployment.terminate("w-1").unwrap();
    assert_eq!(exit.status.code(), Some(0));
    assert!(Clock.now().since(start) < Duration::from_secs(4));
    assert_eq!(std::fs::read_to_string(said).unwrap(), "bye\n");
    assert_eq!(nap.running(), [0; 0]);
    assert!(matches!(ticket.wait(), Outcome::Unknown(_)));
}

#[test]
fn a_program_that_does_not_listen_is_killed_after_the_grace() {
    let nap = Nap::new();
    let script = format!("trap \"\" TERM; {PROGRAM}");
    let (mut deployment, _client, _ticket) =
        napping(&nap, &script, &["--grace", "100ms", "--kill-after", "300ms"]);
    let start = Clock.now();
    let exit = deployment.terminate("w-1").unwrap();
    assert_eq!(exit.status.code(), Some(0));
    let took = Clock.now().since(start);
    assert!(took > Duration::from_millis(390) && took < Duration::from_secs(5), "{took:?}");
    assert_eq!(nap.running(), [0; 0]);
}

#[test]
fn nothing_outlives_a_deadline_or_a_cancel_and_the_slot_is_free() {
    let nap = Nap::new();
    let script = format!("[ \"$(cat)\" ] && exit; trap \"\" TERM; {PROGRAM}");
    let (deployment, client, ticket) = napping(&nap, &script, &["--kill-after", "200ms"]);
    ticket.cancel();
    nap.awaits(0);
    let args = ["submit", "nap", "--data", "", "--deadline", "1s"];
    let output = svcmap(&deployment, &args);
    assert!(!output.status.success());
    nap.awaits(0);
    let ticket = client.submit("nap", b"x".to_vec()).unwrap();
    assert!(matches!(ticket.wait(), Outcome::Done(_)));
}

#[test]
fn what_a_program_leaves_behind_ends_with_its_job() {
    let nap = Nap::new();
    let mut deployment = deployment();
    let program = nap.program(&PROGRAM.replace("wait", "sleep .1; echo ok"));
    deployment.start_worker("nap", "w-1", &["--exec", &program]).unwrap();
    deployment.wait_ready(&[("nap", 1)]).unwrap();
    let output = svcmap(&deployment, &["submit", "nap", "--data", ""]);
    assert_eq!(output.stdout, b"ok\n");
    assert_eq!(nap.running(), [0; 0]);
}

/// A worker that this test started, ended with it.
struct Worker(Child);

impl Worker {
    /// `before` stands for what starts the worker, such as `unshare`.
    fn start(deployment: &Deployment, before: &[&str], flags: &[&str]) -> Self {
        let own = [executable(), "--log-level", "error", "worker", "--service", "nap"];
        let argv: Vec<&str> = before.iter().chain(&own).chain(flags).copied().collect();
        let mut command = Command::new(argv[0]);
        command.args(&argv[1..]).envs(deployment.environment());
        let worker = Self(command.stdout(Stdio::null()).spawn().unwrap());
        deployment.wait_ready(&[("nap", 1)]).unwrap();
        worker
    }

    fn signal(&self, signal: Signal) {
        kill(self.0.id().cast_signed(), signal);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the program of a worker says that was started so.
fn said(before: &[&str], flags: &[&str], program: &str) -> String {
    // Keys are for their owner only, and this may be somebody else.
    let deployment = svcmap_tests::plain_deployment();
    let flags = [flags, &["--exec", program]].concat();
    let _worker = Worker::start(&deployment, before, &flags);
    let output = svcmap(&deployment, &["submit", "nap", "--data", ""]);
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn programs_get_the_limit_of_files_of_who_started_the_worker() {
    let limit = ["sh", "-c", "ulimit -Sn 777; exec \"$@\"", "sh"];
    assert_eq!(said(&limit, &[], "sh -c \"ulimit -Sn\""), "777\n");
}

#[test]
fn programs_are_told_of_no_job_of_who_started_the_worker() {
    let job = ["env", "SVCMAP_INPUT=old", "SVCMAP_JOB=old"];
    let program = "sh -c 'echo ${SVCMAP_INPUT-none} $SVCMAP_JOB'";
    assert_eq!(said(&job, &[], program), "none 1\n");
}

#[test]
fn a_hangup_drains_and_nohup_is_respected() {
    let deployment = deployment();
    let mut worker = Worker::start(&deployment, &[], &["--builtin", "echo"]);
    worker.signal(Signal::HUP);
    // A terminal and its shell may both send one.
    worker.signal(Signal::HUP);
    assert_eq!(worker.0.wait().unwrap().code(), Some(0));

    let mut worker = Worker::start(&deployment, &["nohup"], &["--builtin", "echo"]);
    worker.signal(Signal::HUP);
    let output = svcmap(&deployment, &["submit", "nap", "--data", "still here"]);
    assert_eq!(output.stdout, b"still here");
    worker.signal(Signal::TERM);
    assert_eq!(worker.0.wait().unwrap().code(), Some(0));
}

/// `script` gives it a terminal, and closes it by ending.
#[test]
fn a_closed_terminal_drains() {
    let deployment = deployment();
    let worker = format!("exec {} worker --service nap --builtin sleep", executable());
    let mut terminal = Command::new("script");
    terminal.args(["-qec", &worker, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
    let terminal = terminal.envs(deployment.environment()).spawn().unwrap();
    let mut terminal = Worker(terminal);
    deployment.wait_ready(&[("nap", 1)]).unwrap();
    let pids = svcmap_tests::children_of(terminal.0.id());
    let client = deployment.client().unwrap();
    let ticket = client.submit("nap", b"700ms".to_vec()).unwrap();
    deployment
        .wait_for("the job", |report| report.instances.iter().any(|row| row.running > 0))
        .unwrap();
    terminal.0.kill().unwrap();
    terminal.0.wait().unwrap();
    let outcome = ticket.wait();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
    eventually("its end", || !pids.iter().any(|&pid| svcmap_tests::is_running(pid)));
}

/// The first process of a PID namespace inherits all orphans there. `nsenter` starts some that no
/// keeper knows.
#[test]
fn as_the_first_process_a_worker_collects_what_others_leave() {
    if !getuid().is_root() || !is_permitted(&["--pid", "--fork", "--mount-proc", "true"]) {
        return;
    }
    let deployment = deployment();
    let nap = Nap::new();
    let program = nap.program("(NAP &) ; (setsid NAP &); (true &); sleep .05");
    let before = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let mut worker = Worker::start(&deployment, &before, &["--exec", &program]);
    let first = svcmap_tests::children_of(worker.0.id())[0];
    for _ in 0..20 {
        let output = svcmap(&deployment, &["submit", "nap", "--data", "", "--count", "10"]);
        assert!(output.status.success());
    }
    assert_eq!(nap.running(), [0; 0]);
    let target = first.to_string();
    let orphans = "for i in 1 2 3 4 5 6 7 8 9 10; do (sleep .0$i &); done";
    let entered = Command::new("nsenter").args(["-t", &target, "-p", "sh", "-c", orphans]).status();
    assert!(entered.unwrap().success());
    // What is left are keepers: one that waits for its next job.
    eventually("no zombies", || {
        let children = svcmap_tests::children_of(first);
        children.len() <= 1 && children.iter().all(|&child| svcmap_tests::is_running(child))
    });
    kill(first.cast_signed(), Signal::TERM);
    assert_eq!(worker.0.wait().unwrap().code(), Some(0));
}

/// Also where it may do nothing that root may, and where `/proc` shows other numbers.
#[test]
fn nothing_outlives_its_job_for_anybody() {
    if !getuid().is_root() || !is_permitted(&["--pid", "--fork", "true"]) {
        return;
    }
    let nobody = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"];
    // A checkout in root's own folder is none of theirs.
    let runs =
        Command::new(nobody[0]).args(&nobody[1..]).args([executable(), "--version"]).output();
    if runs.is_ok_and(|output| output.status.success()) {
        let nap = Nap::new();
        let program = nap.program(&PROGRAM.replace("wait", "sleep .1; id -u"));
        assert_eq!(said(&nobody, &[], &program), "65534\n");
        nap.awaits(0);
    }

    let nap = Nap::new();
    let program = nap.program("NAP & sleep .1; echo ok");
    let elsewhere = ["unshare", "--pid", "--fork", "--kill-child"];
    assert_eq!(said(&elsewhere, &[], &program), "ok\n");
    nap.awaits(0);
}
