//! Batches of `svcmap submit`: lists of any length, results in files, a job log, and what becomes of
//! all that when somebody presses Ctrl-C.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use svcmap::deployment::Deployment;
use svcmap::supervisor::Supervisor;
use svcmap_proto::io::Clock;
use svcmap_tests::{deployment_of, eventually, executable, resident_kb};

const ECHO: &[&str] = &["--builtin", "echo"];

/// A folder for files, and a deployment for jobs.
struct Scene {
    folder: tempfile::TempDir,
    deployment: Deployment,
}

impl Scene {
    fn new(service: &str, flags: &[&str]) -> Self {
        let deployment = deployment_of(service, 1, flags);
        Self { folder: tempfile::tempdir().unwrap(), deployment }
    }

    /// Each job adds a line to the file `ran`, takes so long and returns what it was given.
    fn that_notes(seconds: &str, flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ran = folder.path().join("ran").display().to_string();
        let program = format!("sh -c 'read x; echo $x >> {ran}; sleep {seconds}; echo $x'");
        let flags = [&["--exec", program.as_str()], flags].concat();
        Self { deployment: deployment_of("work", 1, &flags), folder }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).unwrap();
    }

    fn read(&self, name: impl AsRef<Path>) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// `submit SERVICE ARGS`, in the folder.
    fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(executable());
        command.arg("submit").args(args).current_dir(self.folder.path());
        command.env("SVCMAP_MAPPER", self.deployment.mapper().as_str());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn submit(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// The same, with that on stdin.
    fn submit_with(&self, args: &[&str], stdin: &[u8]) -> Output {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        // Who reads no further may close it.
        let _ = child.stdin.take().unwrap().write_all(stdin);
        child.wait_with_output().unwrap()
    }

    fn start(&self, args: &[&str]) -> Running {
        Running(Some(self.command(args).spawn().unwrap()))
    }

    /// Waits until the worker has so many jobs done, and so many running and queued.
    fn wait_for(&self, what: &str, wanted: impl Fn(u64, u32, u32) -> bool) {
        let is_it = |report: &svcmap::commands::status::Report| {
            let row = report.instances.first();
            row.is_some_and(|row| wanted(row.done, row.running, row.queued))
        };
        self.deployment.wait_for(what, is_it).unwrap();
    }

    /// The lines of a job log, without the first.
    fn records(&self, name: &str) -> Vec<Value> {
        let log = self.read(name);
        assert!(log.ends_with('\n'), "{log}");
        log.lines().skip(1).map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// Names of files in a folder.
    fn files(&self, name: &str) -> Vec<OsString> {
        let files = fs::read_dir(self.path(name)).unwrap();
        let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
        names.sort();
        names
    }
}

/// A command that runs, and is killed at the end of its test if it still does.
struct Running(Option<Child>);

impl Running {
    fn child(&mut self) -> &mut Child {
        self.0.as_mut().unwrap()
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child().id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Its end, which it finds by itself.
    fn end(&mut self) -> Output {
        let child = self.child();
        let mut status: Option<ExitStatus> = None;
        eventually("the command to end", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        self.0.take().unwrap().wait_with_output().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

/// Numbers up to that, one on each line.
fn numbers(count: u32) -> String {
    (1..=count).map(|number| format!("{number}\n")).collect()
}

fn outcomes(records: &[Value]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for record in records {
        *counts.entry(record["outcome"].as_str().unwrap().to_owned()).or_default() += 1;
    }
    counts
}

#[test]
fn each_line_of_stdin_is_a_job() {
    let scene = Scene::new("echo", ECHO);
    let lines = scene.submit_with(&["echo", "--lines", "-"], b"a\n\nb\xff\nlast");
    assert_eq!((lines.stdout, lines.status.code()), (b"a\n\nb\xff\nlast\n".to_vec(), Some(0)));
    let nul = scene.submit_with(&["echo", "--lines", "-", "--null", "--json-lines"], b"a\nb\0c\0");
    assert_eq!(text(&nul.stdout).lines().count(), 2);
    let twice = scene.submit_with(&["echo", "--lines", "-", "--count", "2"], b"a\nb\n");
    assert_eq!(text(&twice.stdout), "a\na\nb\nb\n");
    // All of stdin is one job, as ever.
    let one = scene.submit_with(&["echo", "-"], b"a\nb\n");
    assert_eq!(text(&one.stdout), "a\nb\n");
    let too_long = [&vec![b'x'; 2000][..], b"\nb\n"].concat();
    let args = ["echo", "--lines", "-", "--payload-max", "1KiB"];
    let output = scene.submit_with(&args, &too_long);
    assert_eq!((text(&output.stdout).as_str(), code(&output)), ("b\n", Some(1)));
    assert!(text(&output.stderr).contains("larger than 1024 bytes"), "{}", text(&output.stderr));
}

#[test]
fn jobs_start_while_their_list_is_written() {
    let scene = Scene::new("echo", ECHO);
    let mut command = scene.command(["echo", "--lines", "-"]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for line in [b"1\n", b"2\n"] {
        stdin.write_all(line).unwrap();
        let mut result = [0; 2];
        stdout.read_exact(&mut result).unwrap();
        assert_eq!(result, *line);
    }
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

#[test]
fn an_endless_list_takes_little_memory_and_a_signal_ends_it() {
    let scene = Scene::new("nap", &["--builtin", "sleep"]);
    let mut command = scene.command(["nap", "--lines", "-", "--unordered"]);
    let line = format!("1ms{}\n", " ".repeat(4000));
    let endless =
        Command::new("yes").arg(line.trim_end_matches('\n')).stdout(Stdio::piped()).spawn();
    let mut endless = Running(Some(endless.unwrap()));
    let list = endless.child().stdout.take().unwrap();
    let running = command.stdin(list).stdout(Stdio::null()).spawn().unwrap();
    let mut running = Running(Some(running));
    scene.wait_for("many jobs", |done, _, _| done > 500);
    let resident = resident_kb(running.child().id());
    assert!(resident < 150_000, "{resident} kB");
    running.signal(Signal::TERM);
    assert_eq!(code(&running.end()), Some(143));
}

#[test]
fn results_in_files_are_whole_and_names_are_bytes() {
    let scene = Scene::new("echo", ECHO);
    let names = [&b"plain.bin"[..], b"new\nline", b"\xff\xfe.bin"].map(OsStr::from_bytes);
    let bytes = |name: &OsStr| -> Vec<u8> {
        let seed = name.len() as u8;
        (0..200_000_u32).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
    };
    names.iter().for_each(|name| scene.write(name, bytes(name)));
    let output = ["--output", "out/a/{name}", "--joblog", "log"];
    let all = ["echo"].map(OsStr::new).into_iter().chain(names).chain(output.map(OsStr::new));
    let run = scene.command(all).output().unwrap();
    assert_eq!(
        (code(&run), text(&run.stdout), text(&run.stderr)),
        (Some(0), String::new(), String::new())
    );
    assert_eq!(scene.files("out/a").len(), 3);
    for name in names {
        let result = fs::read(scene.path("out/a").join(name)).unwrap();
        assert!(result == bytes(name), "{name:?}");
    }
    let logged: Vec<_> = scene
        .records("log")
        .into_iter()
        .map(|record| {
            (
                record["input"].as_str().map(str::to_owned),
                record["input_base64"].as_str().map(str::to_owned),
            )
        })
        .collect();
    let base64 = (None, Some("//4uYmlu".to_owned()));
    assert!(logged.contains(&base64) && logged.contains(&(Some("new\nline".to_owned()), None)));
    // From a list, and printed with their names as they are.
    let list: Vec<u8> = names.iter().flat_map(|name| [name.as_bytes(), b"\0"].concat()).collect();
    names.iter().for_each(|name| scene.write(name, b"x"));
    let listed = scene.submit_with(&["echo", "--files-from", "-", "--null"], &list);
    assert_eq!(listed.stdout, b"plain.bin: x\nnew\nline: x\n\xff\xfe.bin: x\n");
}

#[test]
fn no_file_is_replaced_unless_that_is_wanted() {
    let scene = Scene::that_notes("0", &[]);
    fs::create_dir(scene.path("b")).unwrap();
    ["a", "b/a", "c"].iter().for_each(|name| scene.write(name, format!("{name}\n")));
    scene.write("c.out", "precious");
    let args = ["work", "a", "b/a", "c", "--output", "{name}.out"];
    let run = scene.submit(&args);
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(1));
    assert!(said.contains("b/a: a.out: the result of an input before goes there"), "{said}");
    assert!(said.contains("c: c.out: exists already") && said.contains("--overwrite"), "{said}");
    assert_eq!([scene.read("a.out"), scene.read("c.out")], ["a\n", "precious"]);
    assert_eq!(scene.read("ran"), "a\n", "the others were not sent");
    let run = scene.submit(&[&args[..], &["--overwrite"]].concat());
    assert_eq!((code(&run), scene.read("c.out").as_str()), (Some(1), "c\n"));
    assert!(!scene.files(".").iter().any(|name| name.as_bytes().starts_with(b".svcmap")));
}

#[test]
fn a_template_that_makes_no_sense_is_told_before_anything_is_sent() {
    let scene = Scene::new("echo", ECHO);
    scene.write("a", "a");
    let said = |args: &[&str]| {
        let run = scene.submit(args);
        assert_eq!(code(&run), Some(64));
        text(&run.stderr)
    };
    let known = "{path}, {name}, {stem}, {number}";
    assert!(said(&["echo", "a", "--output", "{nmae}"]).contains(known));
    let of_lines = said(&["echo", "--lines", "a", "--output", "{name}"]);
    assert!(of_lines.contains("only {number} is known"), "{of_lines}");
    assert!(said(&["echo", "--lines", "no-such-list"]).contains("no-such-list cannot be read"));
    assert!(said(&["echo", "a", "--resume"]).contains("--joblog"));
}

#[test]
fn each_job_is_an_object_when_its_outcome_comes() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--concurrency", "2"]);
    let list = b"300ms\n1ms\nnonsense\n";
    let run = scene.submit_with(&["nap", "--lines", "-", "--json-lines"], list);
    let lines: Vec<Value> =
        text(&run.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = lines.iter().map(|line| line["number"].as_u64().unwrap()).collect();
    assert_eq!((numbers.len(), numbers[2], code(&run)), (3, 1, Some(1)), "{lines:?}");
    let of = |number: u64| lines.iter().find(|line| line["number"] == number).unwrap();
    assert_eq!((&of(1)["outcome"], &of(1)["result"]), (&"done".into(), &"300ms".into()));
    assert_eq!((&of(3)["outcome"], &of(3)["input"]), (&"failed".into(), &"nonsense".into()));
    assert!(of(3)["message"].is_string() && of(1)["by"] == "nap/w-1", "{lines:?}");
    assert_eq!(run.stderr, b"");
    // In order, or as they come.
    let run = scene.submit_with(&["nap", "--lines", "-"], b"300ms\n1ms\n");
    assert_eq!(text(&run.stdout), "300ms\n1ms\n");
    let run = scene.submit_with(&["nap", "--lines", "-", "--unordered"], b"300ms\n1ms\n");
    assert_eq!(text(&run.stdout), "1ms\n300ms\n");
}

#[test]
fn ctrl_c_takes_back_what_was_not_begun_and_awaits_what_runs() {
    let scene = Scene::that_notes("0.5", &["--concurrency", "2", "--queue", "50"]);
    scene.write("list", numbers(40));
    let args = ["work", "--lines", "list", "--joblog", "log", "--json"];
    let mut running = scene.start(&args);
    eventually("two to run", || {
        fs::read_to_string(scene.path("ran")).is_ok_and(|ran| ran.lines().count() >= 2)
    });
    running.signal(Signal::INT);
    let run = running.end();
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(130), "{said}");
    let report: Value = serde_json::from_slice(&run.stdout).unwrap();
    let (done, refused) = (&report["totals"]["done"], &report["totals"]["refused"]);
    let ran = scene.read("ran").lines().count() as u64;
    assert!(done.as_u64() == Some(ran) && ran < 40, "{ran} {report}");
    assert_eq!(refused.as_u64(), Some(40 - ran), "{report}");
    let records = scene.records("log");
    assert_eq!(records.len(), 40);
    assert!(
        records.iter().all(|record| record["outcome"] == "done" || record["interrupted"] == true)
    );
    // Once more, with words for people: each job ran once.
    let mut running = scene.start(&["work", "--lines", "list", "--joblog", "log", "--resume"]);
    eventually("some more", || scene.read("ran").lines().count() as u64 >= ran + 2);
    running.signal(Signal::INT);
    let run = running.end();
    let said = text(&run.stderr);
    assert!(
        said.contains("Ctrl-C again") && said.contains(" done, ") && said.contains("--resume"),
        "{said}"
    );
    scene.wait_for("the worker to be idle", |_, running, queued| running + queued == 0);
    let ran: Vec<_> = scene.read("ran").lines().map(str::to_owned).collect();
    let once: std::collections::BTreeSet<_> = ran.iter().collect();
    assert_eq!(ran.len(), once.len());
}

#[test]
fn what_runs_longer_than_the_grace_is_cancelled_and_run_again_later() {
    let scene = Scene::new("nap", &["--builtin", "sleep"]);
    let mut running = scene.start(&["nap", "--data", "60s", "--grace", "100ms", "--joblog", "log"]);
    scene.wait_for("it to run", |_, running, _| running == 1);
    running.signal(Signal::HUP);
    assert_eq!(code(&running.end()), Some(129));
    let [record] = &scene.records("log")[..] else { panic!("{}", scene.read("log")) };
    assert_eq!((&record["outcome"], &record["interrupted"]), (&"failed".into(), &true.into()));
    scene.wait_for("it to be ended", |_, running, _| running == 0);
    let mut running = scene.start(&["nap", "--data", "60s", "--joblog", "log", "--resume"]);
    scene.wait_for("it to run again", |_, running, _| running == 1);
    running.signal(Signal::TERM);
    running.signal(Signal::INT);
    let run = running.end();
    // Of two that come together, either may be the first.
    assert!(matches!(code(&run), Some(130 | 143)), "{}", text(&run.stderr));
    // It may have run, so it is not run again unless that is wanted.
    assert_eq!(scene.records("log")[1]["outcome"], "unknown");
    let run = scene.submit(&["nap", "--data", "60s", "--joblog", "log", "--resume"]);
    assert_eq!(code(&run), Some(1));
}

#[test]
fn a_second_ctrl_c_ends_it_at_once_and_leaves_nothing_to_the_workers() {
    // Nobody is taken for gone within the patience of this test.
    let supervisor = Supervisor::with_executable(executable());
    let beat = ["--beat", "10s"].map(str::to_owned).to_vec();
    let mut deployment = Deployment::open_with(supervisor, beat).unwrap();
    deployment.start_worker("nap", "w-1", &["--builtin", "sleep", "--queue", "50"]).unwrap();
    deployment.wait_ready(&[("nap", 1)]).unwrap();
    let scene = Scene { folder: tempfile::tempdir().unwrap(), deployment };
    let args = ["nap", "--data", "60s", "--count", "20", "--instance", "w-1", "--joblog", "log"];
    let mut running = scene.start(&args);
    scene.wait_for("its jobs to be there", |_, running, queued| running == 1 && queued > 5);
    running.signal(Signal::INT);
    scene.wait_for("what waits to be taken back", |_, running, queued| (running, queued) == (1, 0));
    running.signal(Signal::INT);
    assert_eq!(code(&running.end()), Some(130));
    scene.wait_for("nothing to be left", |_, running, _| running == 0);
    let records = outcomes(&scene.records("log"));
    assert_eq!(records, BTreeMap::from([("refused".to_owned(), 19), ("unknown".to_owned(), 1)]));
}

#[test]
fn a_reader_that_has_seen_enough_leaves_nothing_running() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--queue", "50"]);
    let mut child = scene.command(["nap", "--data", "100ms", "--count", "1000"]).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let mut running = Running(Some(child));
    let run = running.end();
    assert_eq!((&first, code(&run), text(&run.stderr)), (b"100ms\n", Some(0), String::new()));
    scene.wait_for("nothing to run", |done, running, queued| running + queued == 0 && done < 100);
}

#[test]
fn a_batch_goes_on_where_it_was_killed() {
    let scene = Scene::that_notes("0.05", &["--concurrency", "2"]);
    scene.write("list", numbers(30));
    let args = ["work", "--lines", "list", "--output", "out/{number}", "--joblog", "log"];
    let mut running = scene.start(&args);
    eventually("some to be done", || scene.path("log").exists() && scene.records_now("log") > 5);
    // No two write the same log.
    let second = scene.submit(&[&args[..], &["--resume"]].concat());
    let said = text(&second.stderr);
    assert_eq!(code(&second), Some(64), "{said}");
    assert!(said.contains(&format!("in use by process {}", running.child().id())), "{said}");
    running.signal(Signal::KILL);
    running.end();
    // What was written last got lost on its way to the disk, as after a crash of the machine.
    let log = fs::read(scene.path("log")).unwrap();
    fs::write(scene.path("log"), &log[..log.len() - 7]).unwrap();
    let again = scene.submit(&args);
    assert_eq!(code(&again), Some(64));
    assert!(text(&again.stderr).contains("--resume"), "{}", text(&again.stderr));
    let resumed = scene.submit(&[&args[..], &["--resume"]].concat());
    assert_eq!(code(&resumed), Some(0), "{}", text(&resumed.stderr));
    assert_complete(&scene, 30);
    // The log of one list is not that of another.
    scene.write("list", numbers(31).replace("17\n", "x\n"));
    let other = scene.submit(&[&args[..], &["--resume"]].concat());
    let said = text(&other.stderr);
    assert_eq!(code(&other), Some(64), "{said}");
    assert!(said.contains("job 17 of the joblog is another one than line 17 (x)"), "{said}");
}

impl Scene {
    /// How many whole lines a log has, the first aside.
    fn records_now(&self, name: &str) -> usize {
        self.read(name).matches('\n').count().saturating_sub(1)
    }
}

/// Each of so many lines is done once, as the log has it, and has a whole file.
fn assert_complete(scene: &Scene, count: u32) {
    let mut done = BTreeMap::new();
    for record in scene.records("log") {
        let number = record["number"].as_u64().unwrap();
        assert_eq!(record["input"], number.to_string());
        *done.entry(number).or_insert(0) += u32::from(record["outcome"] == "done");
    }
    assert_eq!(done.len(), count as usize);
    assert!(done.values().all(|times| *times == 1), "{done:?}");
    for number in 1..=count {
        assert_eq!(scene.read(format!("out/{number}")).trim_end(), number.to_string());
    }
}

#[test]
fn what_failed_is_done_again() {
    let scene = Scene::new("show", &["--exec", "sh -c 'cat \"$(cat)\"'", "--concurrency", "2"]);
    let files: Vec<_> = (1..=4).map(|number| scene.path(format!("{number}"))).collect();
    files[..2].iter().for_each(|file| fs::write(file, "x\n").unwrap());
    let list: String = files.iter().map(|file| format!("{}\n", file.display())).collect();
    scene.write("list", list);
    let args = ["show", "--lines", "list", "--joblog", "log"];
    let first = scene.submit(&args);
    let said = text(&first.stderr);
    assert_eq!((code(&first), text(&first.stdout).as_str()), (Some(1), "x\nx\n"), "{said}");
    assert!(said.contains("2 done, 2 failed"), "{said}");
    fs::write(&files[2], "y\n").unwrap();
    let resumed = scene.submit(&[&args[..], &["--resume"]].concat());
    assert_eq!((code(&resumed), resumed.stdout.len()), (Some(1), 0));
    assert!(
        text(&resumed.stderr).contains("2 failed: --resume-failed"),
        "{}",
        text(&resumed.stderr)
    );
    let again = scene.submit(&[&args[..], &["--resume-failed"]].concat());
    assert_eq!((code(&again), text(&again.stdout).as_str()), (Some(1), "y\n"));
    fs::write(&files[3], "z\n").unwrap();
    let again = scene.submit(&[&args[..], &["--resume-failed"]].concat());
    assert_eq!((code(&again), text(&again.stdout).as_str()), (Some(0), "z\n"));
}

#[test]
fn a_job_that_failed_is_tried_as_often_as_wanted() {
    let scene = Scene::that_notes("0; exit 3", &[]);
    let run = scene.submit(&["work", "--data", "x", "--retries", "2"]);
    assert_eq!((code(&run), scene.read("ran").as_str()), (Some(1), "x\nx\nx\n"));
    let said = text(&run.stderr);
    assert_eq!(said.lines().count(), 1, "of one job one line: {said}");
}

#[test]
fn nothing_is_begun_after_so_many_failures() {
    let scene = Scene::that_notes("0.02; exit 3", &[]);
    scene.write("list", numbers(500));
    let run = scene.submit(&["work", "--lines", "list", "--stop-after", "3", "--joblog", "log"]);
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(1), "{said}");
    assert!(said.contains("--stop-after") && said.contains("x failed: exit status 3"), "{said}");
    let ran = scene.read("ran").lines().count();
    assert!((3..30).contains(&ran), "{ran}");
    assert_eq!(outcomes(&scene.records("log"))["failed"], ran);
}

#[test]
fn a_log_that_cannot_be_written_stops_the_batch_and_is_mended_later() {
    let scene = Scene::new("echo", ECHO);
    scene.write("list", numbers(500));
    let full = format!(
        "trap '' XFSZ; ulimit -f 8; exec {} submit echo --lines list --joblog log",
        executable()
    );
    let run = Command::new("bash")
        .args(["-c", &full])
        .current_dir(scene.folder.path())
        .env("SVCMAP_MAPPER", scene.deployment.mapper().as_str())
        .output()
        .unwrap();
    let said = text(&run.stderr);
    assert_eq!(code(&run), Some(1), "{said}");
    assert!(said.contains("joblog log cannot be written") && said.contains("--resume"), "{said}");
    assert!(!scene.read("log").ends_with('\n'), "it was cut within a line");
    let resumed = scene.submit(&["echo", "--lines", "list", "--joblog", "log", "--resume"]);
    assert_eq!(code(&resumed), Some(0), "{}", text(&resumed.stderr));
    assert_eq!(outcomes(&scene.records("log"))["done"], 500);
}

#[test]
fn without_a_mapper_a_limit_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let submit = |args: &[&str]| {
        let started_at = Clock.now();
        let all = [&["submit", "x", "--data", "x", "--mapper", "tcp://127.0.0.1:1"], args].concat();
        let run = Command::new(executable()).args(all).current_dir(&folder).output().unwrap();
        let said = text(&run.stderr);
        assert_eq!(code(&run), Some(69), "{said}");
        assert!(said.contains("no mapper answers at tcp://127.0.0.1:1"), "{said}");
        assert!(said.matches("WARN").count() <= 1, "{said}");
        Clock.now().since(started_at)
    };
    // They were followed by another question, of three seconds.
    let took = submit(&["--deadline", "3s"]);
    assert!(took > Duration::from_millis(2900) && took < Duration::from_millis(5500), "{took:?}");
    let took = submit(&["--hold", "0"]);
    assert!(took < Duration::from_secs(5), "{took:?}");
}

/// Some bytes less than a record of a small job.
const RECORD_BYTES: u64 = 90;

fn pause(time: Duration) {
    svcmap::io::pause_until(Clock.now() + time);
}

/// A batch that is interrupted ten times, at random moments and in all ways.
fn interrupt(jobs: u32) {
    let scene = Scene::new("echo", &["--builtin", "echo", "--concurrency", "2"]);
    scene.write("list", numbers(jobs));
    let args = ["echo", "--lines", "list", "--output", "out/{number}", "--joblog", "log"];
    let resume = [&args[..], &["--resume", "--idempotent"]].concat();
    let seed = fastrand::u64(..);
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let logged = || fs::metadata(scene.path("log")).map_or(0, |log| log.len());
    for round in 0..10 {
        let before = logged();
        let more = u64::from(random.u32(..jobs / 12)) * RECORD_BYTES;
        let mut running = scene.start(&resume);
        while logged() < before + more && running.child().try_wait().unwrap().is_none() {
            pause(Duration::from_micros(200));
        }
        pause(Duration::from_micros(random.u64(..3000)));
        let signals: &[Signal] = match round % 4 {
            0 => &[Signal::KILL],
            1 => &[Signal::INT],
            2 => &[Signal::INT, Signal::INT],
            _ => &[Signal::TERM],
        };
        for &signal in signals {
            // It may have ended by itself.
            if running.child().try_wait().unwrap().is_none() {
                running.signal(signal);
            }
        }
        let status = running.end().status;
        println!("{signals:?} at {before} + {more}: {status}, now {}", logged());
    }
    println!("{} records before the end", scene.records_now("log"));
    let last = scene.submit(&resume);
    assert_eq!(code(&last), Some(0), "{}", text(&last.stderr));
    assert_complete(&scene, jobs);
    let is_ours = |name: &OsString| text(&name.clone().into_vec()).parse::<u32>().is_ok();
    let others = scene.files("out").into_iter().filter(|name| !is_ours(name)).count();
    // Only who is killed leaves what it had begun to write.
    assert!(others <= 3, "{others}");
}

#[test]
fn a_batch_that_is_interrupted_ten_times_is_done_once() {
    interrupt(2_000);
}

#[test]
#[ignore = "takes a while: cargo test -p svcmap-tests --test batches -- --ignored"]
fn a_batch_interrupted_at_a_random_moment_and_resumed_ten_times() {
    interrupt(20_000);
}
