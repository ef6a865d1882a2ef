//! An instance whose jobs fail, or cannot even be started, while those of its peers do not: it must
//! not look fast, and `svcmap status` says what is the matter.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use svcmap_tests::{Count, Deployment, PATIENCE, deployment, eventually, executable, svcmap};
use svcmap_worker::{Client, HandlerError, Job, Outcome, Ticket};

/// What each job asks for where all is well.
const JOB: &[u8] = b"50ms";

/// Jobs of each test.
const JOBS: usize = 400;

/// Of these, so many may fail: a few per cent.
const FAILED_MAX: usize = JOBS * 4 / 100;

/// A mapper, and three workers whose jobs take 50 ms.
fn three_good() -> Deployment {
    let mut deployment = deployment();
    for instance in ["w-1", "w-2", "w-3"] {
        deployment.start_worker("work", instance, &["--builtin", "sleep"]).unwrap();
    }
    deployment
}

fn submit(client: &Client, jobs: usize) -> Vec<Ticket> {
    let job = || client.job("work", JOB.to_vec()).hold(PATIENCE).submit().unwrap();
    (0..jobs).map(|_| job()).collect()
}

/// A row of `svcmap status work --json`.
fn row(deployment: &Deployment, instance: &str) -> serde_json::Value {
    let output = svcmap(deployment, &["status", "work", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = report["instances"].as_array().unwrap();
    rows.iter().find(|row| row["instance"] == instance).unwrap().clone()
}

#[test]
fn a_program_that_fails_at_once_gets_few_jobs() {
    let mut deployment = three_good();
    let bad = ["--exec", "sh -c 'echo no licence >&2; exit 1'"];
    deployment.start_worker("work", "bad", &bad).unwrap();
    deployment.wait_ready(&[("work", 4)]).unwrap();
    let client = deployment.client().unwrap();
    let tickets = submit(&client, JOBS);
    deployment
        .wait_for("the bad one to be set aside", |report| {
            report.services.iter().any(|service| service.ready == 3)
        })
        .unwrap();
    eventually("status to tell", || row(&deployment, "bad")["state"] == "failing");
    let error = row(&deployment, "bad")["error"].to_string();
    assert!(error.contains("no licence"), "{error}");
    let shown = svcmap(&deployment, &["status", "work"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("failing") && shown.contains("no licence"), "{shown}");
    let count = Count::of(tickets);
    assert!(count.failed <= FAILED_MAX, "{count:?}");
    assert_eq!(count.done + count.failed, JOBS, "{count:?}");
}

#[test]
fn a_handler_that_panics_gets_few_jobs() {
    let deployment = three_good();
    let bad = deployment
        .access()
        .worker("work")
        .instance("bad")
        .serve(|_: &Job| -> Result<Vec<u8>, HandlerError> { panic!("no model") })
        .unwrap();
    deployment.wait_ready(&[("work", 4)]).unwrap();
    let client = deployment.client().unwrap();
    let count = Count::of(submit(&client, JOBS));
    assert!(count.failed <= FAILED_MAX, "{count:?}");
    assert_eq!(count.done + count.failed, JOBS, "{count:?}");
    drop(bad);
}

#[test]
fn jobs_whose_program_is_gone_are_done_elsewhere() {
    let deployment = three_good();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    fs::write(&program, "#!/bin/sh\nsleep 0.05\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let log = folder.path().join("log");
    let mut bad = worker(&deployment, &program, &log);
    deployment.wait_ready(&[("work", 4)]).unwrap();
    fs::remove_file(&program).unwrap();
    let client = deployment.client().unwrap();
    // No more, or it would be set aside for longer than this test waits.
    let tickets = submit(&client, 100);
    eventually("status to tell", || {
        let row = row(&deployment, "bad");
        row["state"] == "failing" && row["error"].to_string().contains("cannot start")
    });
    let count = Count::of(tickets);
    assert_eq!(count.done, 100, "{count:?}");
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("No such file"), "{said}");
    // It is back as soon as its program is, once there is more to do than the others can.
    fs::write(&program, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    eventually("it to be ready again", || {
        assert_eq!(Count::of(submit(&client, 8)).done, 8);
        row(&deployment, "bad")["state"] == "ready"
    });
    assert_eq!(row(&deployment, "bad")["error"], serde_json::Value::Null);
    bad.kill().unwrap();
    bad.wait().unwrap();
}

/// A worker whose log goes into a file.
fn worker(deployment: &Deployment, program: &Path, log: &Path) -> Child {
    Command::new(executable())
        .args(["worker", "--service", "work", "--instance", "bad", "--exec"])
        .arg(program)
        .envs(deployment.environment())
        .stdout(Stdio::null())
        .stderr(fs::File::create(log).unwrap())
        .spawn()
        .unwrap()
}

#[test]
fn a_program_that_exits_with_127_has_failed_and_was_started() {
    let mut deployment = deployment();
    let only = ["--exec", "sh -c 'echo svcmap: cannot start x: gone >&2; exit 127'"];
    deployment.start_worker("work", "only", &only).unwrap();
    deployment.wait_ready(&[("work", 1)]).unwrap();
    match deployment.client().unwrap().submit("work", JOB.to_vec()).unwrap().wait() {
        Outcome::Failed(failure) => assert!(failure.error.contains("127"), "{}", failure.error),
        other => panic!("{other:?}"),
    }
}

#[test]
fn where_all_fail_alike_nobody_is_set_aside() {
    let mut deployment = deployment();
    for instance in ["w-1", "w-2", "w-3", "w-4"] {
        deployment.start_worker("work", instance, &["--exec", "false"]).unwrap();
    }
    deployment.wait_ready(&[("work", 4)]).unwrap();
    let client = deployment.client().unwrap();
    let count = Count::of(submit(&client, JOBS));
    assert_eq!(count.failed, JOBS, "{count:?}");
    deployment
        .wait_for("all to be ready", |report| {
            report.services.iter().any(|service| service.ready == 4 && service.failing == 4)
        })
        .unwrap();
    let shown = svcmap(&deployment, &["status"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let said = "of the last jobs of work most failed at each of the 4 instances that take them";
    assert!(shown.contains(said), "{shown}");
}
