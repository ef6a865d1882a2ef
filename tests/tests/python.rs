//! Processes written in Python, with pyzmq, in a deployment with native ones: those of the original
//! system, the programs of `docs/other-languages.md` as they stand there, and the module `svcmap.py`.
//!
//! `SVCMAP_PYTHON` names the interpreter that has pyzmq; else it is `python3`.

#[path = "python/module.rs"]
mod module;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;
use svcmap::commands::status::{self, InstanceRow, Report};
use svcmap_proto::names::{Endpoint, InstanceKey};
use svcmap_tests::batch::{Running, code, text};
use svcmap_tests::keyed::{ECHO, Scene};
use svcmap_tests::{
    Count, Deployment, PATIENCE, eventually, plain_deployment, plain_deployment_of, svcmap,
};
use svcmap_worker::{Client, Outcome, Reason, Ticket};

/// A process that ends with this; what it prints is kept in a file.
struct Python {
    child: Child,
    stdout: PathBuf,
}

/// Scripts, and what those that run have printed.
struct Scripts(tempfile::TempDir);

impl Scripts {
    /// Those of the original system, and those of the page.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = Path::new(env!("CARGO_MANIFEST_DIR"));
        for name in ["original_worker.py", "original_sender.py"] {
            fs::copy(own.join("python").join(name), folder.path().join(name)).unwrap();
        }
        let docs = own.join("../docs");
        fs::copy(docs.join("python/svcmap.py"), folder.path().join("svcmap.py")).unwrap();
        for page in ["other-languages.md", "python.md"] {
            let page = fs::read_to_string(docs.join(page)).unwrap();
            for (name, script) in programs(&page) {
                fs::write(folder.path().join(name), script).unwrap();
            }
        }
        Self(folder)
    }

    /// Starts one: its name, where the mapper is, and the rest of its arguments.
    fn start(&self, script: &str, deployment: &Deployment, args: &[&str]) -> Python {
        self.start_at(script, deployment.mapper(), args)
    }

    fn start_at(&self, script: &str, mapper: &Endpoint, args: &[&str]) -> Python {
        static STARTED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = STARTED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let stdout = self.0.path().join(format!("{number}.out"));
        let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
        let child = Command::new(python)
            .env("SVCMAP_MAPPER", mapper.as_str())
            .arg(self.0.path().join(script))
            .arg(mapper.as_str())
            .args(args)
            .stdin(Stdio::null())
            .stdout(File::create(&stdout).unwrap())
            .spawn()
            .unwrap();
        Python { child, stdout }
    }

    /// Runs one to its end, and returns what it printed.
    fn run(&self, script: &str, deployment: &Deployment, args: &[&str]) -> String {
        self.run_at(script, deployment.mapper(), args)
    }

    fn run_at(&self, script: &str, mapper: &Endpoint, args: &[&str]) -> String {
        let mut python = self.start_at(script, mapper, args);
        eventually(script, || python.child.try_wait().unwrap().is_some());
        assert!(python.child.wait().unwrap().success(), "{script} {args:?} failed");
        python.printed()
    }

    /// What an original sender counts.
    fn count(&self, deployment: &Deployment, args: &[&str]) -> BTreeMap<String, usize> {
        serde_json::from_str(&self.run("original_sender.py", deployment, args)).unwrap()
    }
}

impl Python {
    fn printed(&self) -> String {
        fs::read_to_string(&self.stdout).unwrap()
    }

    fn lines(&self) -> usize {
        self.printed().lines().count()
    }

    /// Asks it to end, and waits until it has.
    fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        eventually("it to end", || self.child.try_wait().unwrap().is_some());
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The programs on a page, by name: blocks of code whose first line says "python NAME".
fn programs(page: &str) -> Vec<(&str, String)> {
    let mut programs = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("```python ") {
            let script: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            programs.push((name, script.join("\n") + "\n"));
        }
    }
    programs
}

fn instance(deployment: &Deployment, key: &str) -> Option<InstanceRow> {
    let mappers = std::slice::from_ref(deployment.mapper());
    let report = status::ask(mappers, None, PATIENCE).unwrap();
    report.instances.into_iter().find(|row| is(row, key))
}

fn is(row: &InstanceRow, key: &str) -> bool {
    InstanceKey { service: row.service.clone(), instance: row.instance.clone() }.to_string() == key
}

fn wait_listed(deployment: &Deployment, key: &str, pid: u32) {
    let listed =
        |report: &Report| report.instances.iter().any(|row| is(row, key) && row.pid == pid);
    deployment.wait_for(key, listed).unwrap();
}

/// Submits jobs of that duration to a service, as JSON.
fn submit(client: &Client, service: &str, jobs: usize, duration: f64) -> Vec<Ticket> {
    let job = |number: usize| json!({"number": number, "duration": duration}).to_string();
    let submit = |n| client.job(service, job(n).into_bytes()).hold(PATIENCE / 2).submit().unwrap();
    (0..jobs).map(submit).collect()
}

#[test]
fn the_programs_on_the_page_are_short() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/other-languages.md");
    let page = fs::read_to_string(page).unwrap();
    let lines: Vec<_> =
        programs(&page).iter().map(|(name, script)| (*name, script.lines().count())).collect();
    let names: Vec<_> = lines.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["worker.py", "results.py", "sender.py", "encrypted.py"]);
    assert!(lines.iter().all(|(_, count)| *count <= 40), "{lines:?}");
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn every_pair_of_a_mixed_fleet_exchanges_jobs() {
    // Room for all jobs at once: senders that are told at acceptance are faster than any handler.
    let deployment = plain_deployment_of("echo", 2, &["--builtin", "echo", "--queue", "100"]);
    let scripts = Scripts::new();
    let old: Vec<Python> = ["old-1", "old-2"]
        .map(|name| scripts.start("original_worker.py", &deployment, &[name, "100", "0.2"]))
        .into();
    for (python, key) in old.iter().zip(["old-1/old-1", "old-2/old-2"]) {
        wait_listed(&deployment, key, python.child.id());
    }
    let client = deployment.client().unwrap();

    let native_to_native = Count::of(submit(&client, "echo", 50, 0.0));
    assert_eq!((native_to_native.done, native_to_native.all()), (50, 50));
    let native_to_original = Count::of(submit(&client, "old-1", 50, 0.0));
    assert_eq!((native_to_original.accepted, native_to_original.all()), (50, 50));
    let original_to_native = scripts.count(&deployment, &["echo", "50", "0"]);
    let original_to_original = scripts.count(&deployment, &["old-2", "50", "0"]);
    let expected: BTreeMap<_, _> = [("job accepted".to_owned(), 50)].into();
    assert_eq!((&original_to_native, &original_to_original), (&expected, &expected));
    let one = scripts.count(&deployment, &["echo/w-1", "1", "0"]);
    assert_eq!(one.keys().collect::<Vec<_>>(), ["job accepted"]);

    // What was accepted was done.
    for python in &old {
        eventually("50 jobs to be done", || python.lines() == 50);
    }
    let done = |report: &Report| report.service(&"echo".parse().unwrap()).unwrap().done == 101;
    deployment.wait_for("the jobs of all senders to be done", done).unwrap();
    let statistics = client.statistics();
    assert_eq!((statistics.submitted, statistics.done, statistics.accepted), (100, 50, 50));
    assert_eq!(statistics.settled(), 100);

    let shown = String::from_utf8(svcmap(&deployment, &["status"]).stdout).unwrap();
    for line in ["echo       2/2", "old-1      1/1", "old-2      1/1"] {
        assert!(shown.contains(line), "{shown}");
    }
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn queue_full_is_said_in_both_directions() {
    let flags = ["--builtin", "sleep", "--concurrency", "1", "--queue", "0"];
    let deployment = plain_deployment_of("nap", 1, &flags);
    let scripts = Scripts::new();
    // It has room for one that waits and one that runs, and tells of neither within this test.
    let old = scripts.start("original_worker.py", &deployment, &["old", "1", "60"]);
    wait_listed(&deployment, "old/old", old.child.id());
    let client = deployment.client().unwrap();

    let first = submit(&client, "old", 2, PATIENCE.as_secs_f64() * 6.0);
    assert_eq!(Count::of(first).accepted, 2);
    let refused = client.job("old", b"{}".to_vec()).hold(PATIENCE / 50).submit().unwrap().wait();
    let Outcome::Refused(refusal) = refused else { panic!("{refused:?}") };
    assert_eq!(refusal.reason, Reason::Full);
    assert!(client.statistics().stale() > 0, "its load said that there was room");
    let counts = scripts.count(&deployment, &["old", "1", "0"]);
    assert_eq!(counts, [("queue full".to_owned(), 1)].into());

    // A native worker is full: it says so, and the mapper knows at once.
    let busy = client.job("nap", b"60s".to_vec()).deadline(PATIENCE).submit().unwrap();
    deployment.wait_for("it to be full", |report| is_full(report, "nap")).unwrap();
    let counts = scripts.count(&deployment, &["nap", "1", "0"]);
    assert_eq!(counts, [("not asked".to_owned(), 1)].into());
    let nap = instance(&deployment, "nap/w-1").unwrap().endpoint.unwrap();
    let context = zmq::Context::new();
    let socket = context.socket(zmq::REQ).unwrap();
    socket.connect(nap.as_str()).unwrap();
    socket.send(r#"{"task": "process_video"}"#, 0).unwrap();
    let reply = socket.recv_string(0).unwrap().unwrap();
    assert_eq!(reply, r#"{"status":"error","message":"queue full"}"#);
    busy.cancel();
}

fn is_full(report: &Report, service: &str) -> bool {
    report.service(&service.parse().unwrap()).is_some_and(|row| row.full == row.instances)
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn the_programs_on_the_page_work() {
    let mut deployment = plain_deployment();
    deployment.start_worker("echo", "w-1", &["--builtin", "echo"]).unwrap();
    let scripts = Scripts::new();
    let start = |name| scripts.start("worker.py", &deployment, &["video", name]);
    let mut workers = BTreeMap::from(["py-1", "py-2"].map(|name| (name, start(name))));
    for (name, python) in &workers {
        wait_listed(&deployment, &format!("video/{name}"), python.child.id());
    }
    deployment.wait_ready(&[("echo", 1), ("video", 2)]).unwrap();
    let sent = |service, jobs: &[&str]| {
        let args: Vec<&str> = [&[service], jobs].concat();
        scripts.run("sender.py", &deployment, &args)
    };
    let accepted = r#"{"status": "ok", "message": "job accepted"}"#;
    assert_eq!(sent("video", &["[1]", "2"]), format!("[1] {accepted}\n2 {accepted}\n"));
    let done = r#"{"status": "done", "result": {"a": 1}}"#;
    assert_eq!(sent("echo", &[r#"{"a": 1}"#]), format!("{{\"a\": 1}} {done}\n"));
    assert!(sent("nobody", &["1"]).contains("peer not found"));
    let nowhere: Endpoint = "tcp://127.0.0.1:9".parse().unwrap();
    let unsent = scripts.run_at("sender.py", &nowhere, &["video", "1"]);
    assert!(unsent.starts_with(r#"1 {"status": "error", "message": "no answer from"#), "{unsent}");
    let client = deployment.client().unwrap();
    let native = Count::of(submit(&client, "video", 20, 0.0));
    assert_eq!((native.accepted, native.all()), (20, 20));
    let lines = |workers: &BTreeMap<_, Python>| workers.values().map(Python::lines).sum::<usize>();
    // A payload is any JSON value, not only an object.
    let values = ["2", "[1]", "\"x\""].map(|value| client.submit("video", value).unwrap());
    assert_eq!(Count::of(values.into()).accepted, 3);
    eventually("25 jobs to be done", || lines(&workers) == 25);

    // Killed, and started again under the same name: the old one is replaced at once.
    let killed = workers.remove("py-2").map(|python| python.child.id()).unwrap();
    let again = start("py-2");
    wait_listed(&deployment, "video/py-2", again.child.id());
    assert_ne!(again.child.id(), killed);
    workers.insert("py-2", again);
    let before = lines(&workers);
    assert_eq!(Count::of(submit(&client, "video", 4, 0.0)).accepted, 4);
    eventually("4 jobs to be done", || lines(&workers) == before + 4);

    // Killed: gone after its lease, which it had chosen to be three seconds.
    workers.remove("py-1");
    assert!(instance(&deployment, "video/py-1").is_some(), "not at once");
    let only_one = |report: &Report| !report.instances.iter().any(|row| is(row, "video/py-1"));
    deployment.wait_for("its lease to end", only_one).unwrap();
    let before = lines(&workers);
    assert_eq!(Count::of(submit(&client, "video", 4, 0.0)).accepted, 4);

    // Asked to end: gone at once, and with its work done.
    workers.get_mut("py-2").unwrap().terminate();
    assert!(instance(&deployment, "video/py-2").is_none());
    assert_eq!(lines(&workers), before + 4);
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn the_encrypted_sender_of_the_page_gets_its_result() {
    let scripts = Scripts::new();
    let supervisor = svcmap::supervisor::Supervisor::with_executable(svcmap_tests::executable());
    let mut deployment = Deployment::open_encrypted(supervisor, Vec::new()).unwrap();
    deployment.start_worker("echo", "w-1", &["--builtin", "echo"]).unwrap();
    deployment.wait_ready(&[("echo", 1)]).unwrap();
    let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let run = Command::new(python)
        .env("SVCMAP_DEPLOYMENT", deployment.file().unwrap())
        .arg(scripts.0.path().join("encrypted.py"))
        .args(["echo", r#"{"a": 1}"#])
        .output()
        .unwrap();
    let printed = String::from_utf8_lossy(&run.stdout).into_owned();
    assert_eq!(printed, "{\"status\": \"done\", \"result\": {\"a\": 1}}\n", "{run:?}");
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn the_original_processes_take_part_beside_keys() {
    let scripts = Scripts::new();
    let scene = Scene::with_flags(&["--plain-bind", "tcp://127.0.0.1:0"], ECHO);
    let (_, plain) = scene.first_line.trim().split_once(", in plain text on ").unwrap();
    let plain: Endpoint = plain.parse().unwrap();
    let _worker = scripts.start_at("original_worker.py", &plain, &["old-1", "100", "0.2"]);
    eventually("the worker", || code(&scene.run(&["status", "old-1"])) == Some(0));
    let counted = scripts.run_at("original_sender.py", &plain, &["old-1", "50", "0"]);
    assert!(counted.contains("50"), "{counted}");
    let client = Client::from_deployment(scene.deployment()).unwrap();
    let keyed = Count::of(submit(&client, "old-1", 50, 0.0));
    assert_eq!((keyed.accepted, keyed.all()), (50, 50));
}
