//! What a program starts ends with its job, however it tries to get away.

mod programs;

use std::cell::Cell;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use programs::{parse, run_with, runner};
use rustix::process::{Pid, Signal, kill_process};
use svcmap::exec::{ExecError, Runner};
use svcmap::io::pause_until;
use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;

const LIMIT_BYTES: usize = 1024 * 1024;

/// Ways to start a process that is meant to stay; `NAP` stands for a `sleep` that is this test's
/// alone.
const WAYS: &[&str] = &[
    "NAP &",
    "setsid NAP &",
    "set -m; NAP &",
    "(setsid sh -c \"NAP & NAP & wait\" &)",
    "env -i NAP &",
    "env -i setsid sh -c \"(NAP &)\"",
    "timeout 9801 NAP &",
    "nohup NAP >/dev/null 2>&1 &",
    "trap \"\" TERM HUP INT; NAP &",
    "(trap \"\" TERM; (NAP & sleep .05; kill -STOP $!) &)",
];

/// A `sleep` that no other test has. Whoever still runs it at the end of the test is killed.
struct Nap(String);

impl Nap {
    fn new() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let number = LAST.fetch_add(1, Ordering::Relaxed);
        Self(format!("97{number:02}.{}", std::process::id()))
    }

    fn command(&self) -> String {
        format!("sleep {}", self.0)
    }

    /// The processes that nap so.
    fn running(&self) -> Vec<i32> {
        let argv = format!("sleep\0{}\0", self.0);
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let naps =
            |path: &Path| std::fs::read(path.join("cmdline")).is_ok_and(|c| c == argv.as_bytes());
        let found = processes.filter(|process| naps(&process.path()));
        found.filter_map(|process| process.file_name().to_str()?.parse().ok()).collect()
    }
}

impl Drop for Nap {
    fn drop(&mut self) {
        for pid in self.running() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

fn within(ms: u64) -> Timestamp {
    Clock.now() + Duration::from_millis(ms)
}

/// Whether that is so within five seconds.
fn becomes_true(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = within(5000);
    while Clock.now() < deadline {
        if condition() {
            return true;
        }
        pause_until(within(5));
    }
    condition()
}

fn sh(script: &str, kill_after_ms: u64) -> Runner {
    let command = shlex::try_join(["sh", "-c", script]).unwrap();
    runner(parse(&command).unwrap().killed_after(Duration::from_millis(kill_after_ms)))
}

fn run(runner: &Runner) -> Result<Vec<u8>, ExecError> {
    run_with(runner, b"", LIMIT_BYTES, within(20_000), &|| false)
}

/// Runs it until naps are seen, and then cancels it.
fn run_until_napping(runner: &Runner, nap: &Nap) -> Result<Vec<u8>, ExecError> {
    run_with(runner, b"", LIMIT_BYTES, within(20_000), &|| !nap.running().is_empty())
}

#[test]
fn nothing_outlives_a_job_that_is_done() {
    for way in WAYS {
        let nap = Nap::new();
        let runner =
            sh(&format!("{}\nsleep .05; echo ok", way.replace("NAP", &nap.command())), 2000);
        for _ in 0..3 {
            assert_eq!(run(&runner).unwrap(), b"ok\n", "{way}");
            assert_eq!(nap.running(), [0; 0], "{way}");
        }
    }
}

#[test]
fn nothing_outlives_a_job_that_is_cancelled() {
    for way in WAYS {
        let nap = Nap::new();
        let runner =
            sh(&format!("{}\nwhile :; do sleep 1; done", way.replace("NAP", &nap.command())), 100);
        let ended = run_until_napping(&runner, &nap);
        assert!(matches!(ended, Err(ExecError::Cancelled)), "{way}: {ended:?}");
        assert_eq!(nap.running(), [0; 0], "{way}");
    }
}

#[test]
fn a_program_in_a_group_of_its_own_ends_at_the_deadline() {
    let nap = Nap::new();
    let command = format!("timeout 9801 {}", nap.command());
    let runner = runner(parse(&command).unwrap());
    let ended = run_with(&runner, b"", LIMIT_BYTES, within(300), &|| false);
    assert!(matches!(ended, Err(ExecError::Deadline)), "{ended:?}");
    assert_eq!(nap.running(), [0; 0]);
}

#[test]
fn a_program_is_asked_first_and_its_answer_awaited() {
    let directory = tempfile::tempdir().unwrap();
    let (ready, file) = (directory.path().join("ready"), directory.path().join("said"));
    let (shown, said) = (ready.display(), file.display());
    let script = format!(
        "trap 'sleep .1; echo bye >{said}; exit 0' TERM; : >{shown}; while :; do sleep .01; done"
    );
    let ended =
        run_with(&sh(&script, 10_000), b"", LIMIT_BYTES, within(20_000), &|| ready.exists());
    assert!(matches!(ended, Err(ExecError::Cancelled)), "{ended:?}");
    assert_eq!(std::fs::read_to_string(file).unwrap(), "bye\n");
}

#[test]
fn a_program_that_does_not_listen_is_killed_in_time() {
    let directory = tempfile::tempdir().unwrap();
    let (ready, cancelled_at) = (directory.path().join("ready"), Cell::new(None));
    // It also writes more than a pipe holds, which must not keep it.
    let script = format!("trap '' TERM; : >{}; while :; do echo noise; done", ready.display());
    let ended = run_with(&sh(&script, 300), b"", usize::MAX, within(20_000), &|| {
        let is_ready = ready.exists();
        if is_ready && cancelled_at.get().is_none() {
            cancelled_at.set(Some(Clock.now()));
        }
        is_ready
    });
    assert!(matches!(ended, Err(ExecError::Cancelled)), "{ended:?}");
    let took = Clock.now().since(cancelled_at.get().unwrap());
    assert!(took >= Duration::from_millis(290) && took < Duration::from_secs(2), "{took:?}");
}

/// An end that comes with the deadline must not end the next job in place of this one.
#[test]
fn ends_and_deadlines_may_cross() {
    let runner = sh("[ \"$(cat)\" ] && sleep .02; echo ok", 2000);
    let mut cut = 0;
    for number in 0..150 {
        let deadline = Clock.now() + Duration::from_micros(1500 + 30 * number);
        match run_with(&runner, b"", LIMIT_BYTES, deadline, &|| false) {
            Ok(result) => assert_eq!(result, b"ok\n"),
            Err(ExecError::Deadline) => cut += 1,
            Err(error) => panic!("{error}"),
        }
        if number % 3 == 0 {
            let next = run_with(&runner, b"x", LIMIT_BYTES, within(20_000), &|| false);
            assert_eq!(next.unwrap(), b"ok\n");
        }
    }
    assert!(cut > 0);
}

#[test]
fn a_job_ends_only_what_is_its_own() {
    let nap = Nap::new();
    let runner = sh(&format!("[ \"$(cat)\" ] && exec {}; (setsid sleep 60 &)", nap.command()), 100);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (runner, flag) = (&runner, &is_over);
        let long = scope.spawn(move || {
            run_with(runner, b"x", LIMIT_BYTES, within(20_000), &|| flag.load(Ordering::Relaxed))
        });
        assert!(becomes_true(|| nap.running().len() == 1));
        for _ in 0..20 {
            run(runner).unwrap();
        }
        assert_eq!(nap.running().len(), 1);
        is_over.store(true, Ordering::Relaxed);
        assert!(matches!(long.join().unwrap(), Err(ExecError::Cancelled)));
    });
    assert_eq!(nap.running(), [0; 0]);
}

#[test]
fn orphans_do_not_gather_while_a_job_runs() {
    // Each `(true &)` leaves an orphan, which is a zombie until somebody collects it.
    let script = "i=0; while [ $i -lt 200 ]; do (true &); i=$((i+1)); done; sleep .1; \
                  cat /proc/[0-9]*/stat 2>/dev/null | grep -c \"(true) Z $PPID \"";
    let left = run_with(&sh(script, 100), b"", LIMIT_BYTES, within(20_000), &|| false);
    // grep found nothing, so it failed.
    match left {
        Err(ExecError::Ended { status, .. }) => assert_eq!(status.code(), Some(1)),
        other => panic!("{other:?}"),
    }
}

fn parent_of(pid: i32) -> i32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(1).unwrap().parse().unwrap()
}

/// Even then: a keeper that somebody killed takes along what is in its session, and the next job
/// gets another one.
#[test]
fn a_keeper_that_is_killed_is_replaced() {
    for signal in [Signal::KILL, Signal::STOP] {
        let nap = Nap::new();
        let script = format!("if [ \"$(cat)\" ]; then {} & wait; fi; echo ok", nap.command());
        let runner = sh(&script, 0);
        let is_signalled = Cell::new(false);
        let ended = run_with(&runner, b"x", LIMIT_BYTES, within(20_000), &|| {
            let Some(&napping) = nap.running().first() else { return false };
            if !is_signalled.replace(true) {
                let keeper = Pid::from_raw(parent_of(parent_of(napping))).unwrap();
                kill_process(keeper, signal).unwrap();
            }
            signal == Signal::STOP
        });
        let expected = if signal == Signal::KILL { "could not be talked to" } else { "cancelled" };
        let error = ended.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(nap.running(), [0; 0], "{signal:?}");
        assert_eq!(run(&runner).unwrap(), b"ok\n");
    }
}

#[test]
fn what_cannot_be_started_was_not_begun_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("program");
    let absent = runner(parse(file.to_str().unwrap()).unwrap());
    for _ in 0..2 {
        let error = run(&absent).unwrap_err();
        assert!(matches!(error, ExecError::Start(_)), "{error}");
        assert!(error.to_string().contains("program: No such file"), "{error}");
    }
    std::fs::copy("/bin/true", &file).unwrap();
    assert!(becomes_true(|| run(&absent).is_ok()));
    let script = directory.path().join("script");
    std::fs::write(&script, "echo $1").unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let script = runner(parse(&format!("{} hi", script.display())).unwrap());
    assert_eq!(run(&script).unwrap(), b"hi\n", "a script without an interpreter");
    // Nobody can be a keeper either.
    let nobody = runner(parse("true").unwrap().started_by("/nowhere/svcmap"));
    assert!(matches!(run(&nobody), Err(ExecError::Start(_))));
    let no_keeper = runner(parse("true").unwrap().started_by("/bin/false"));
    assert!(matches!(run(&no_keeper), Err(ExecError::Start(_))));
}

#[test]
fn programs_get_the_limits_and_signals_of_others() {
    let program = parse("sh -c 'ulimit -Sn; grep SigIgn /proc/self/status'").unwrap();
    let program = runner(program.with_open_files(Some(321)));
    let said = String::from_utf8(run(&program).unwrap()).unwrap();
    let (files, ignored) = said.split_once("\nSigIgn:").unwrap();
    assert_eq!(files, "321");
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    // SIGPIPE, which this process ignores as every Rust program.
    assert_eq!(ignored & (1 << 12), 0);
}

/// The keeper's socket, above all.
#[test]
fn programs_get_no_file_of_others() {
    let open = String::from_utf8(run(&sh("ls -l /proc/$$/fd; :", 0)).unwrap()).unwrap();
    // What was open when this test was started may be there.
    let own = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let own: Vec<_> = own.filter_map(|fd| std::fs::read_link(fd.path()).ok()).collect();
    for line in open.lines().skip(1) {
        let (before, file) = line.split_once(" -> ").unwrap();
        let fd = before.rsplit(' ').next().unwrap();
        let is_standard = ["0", "1", "2"].contains(&fd) && file.starts_with("pipe:");
        assert!(is_standard || own.contains(&file.into()), "{open}");
    }
    assert!(open.lines().count() > 3, "{open}");
}

#[test]
fn a_runner_that_is_finished_leaves_no_keeper() {
    let runner = sh("echo $PPID", 0);
    let keeper = String::from_utf8(run(&runner).unwrap()).unwrap();
    let again = String::from_utf8(run(&runner).unwrap()).unwrap();
    assert_eq!(keeper, again, "one keeper serves one job after another");
    let keeper = format!("/proc/{}", keeper.trim());
    assert!(Path::new(&keeper).exists());
    runner.finish();
    assert!(!Path::new(&keeper).exists());
}

/// What has no worker has nothing to do.
#[test]
fn a_keeper_without_a_worker_ends() {
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_svcmap"))
        .arg("exec-child")
        .stdin(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success());
}
