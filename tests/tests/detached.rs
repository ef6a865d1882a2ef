//! Jobs that are done whatever becomes of their sender, which does not wait for them.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use rustix::process::Signal;
use svcmap_tests::batch::{Running, Scene, code, outcomes, text};
use svcmap_tests::{deployment, eventually, executable};
use svcmap_worker::{Client, Outcome};

const LONG: &str = "60s";

#[test]
fn what_is_fired_and_forgotten_is_done_though_its_client_is_gone() {
    let scene = Scene::that_notes("0.1", &["--queue", "40"]);
    let client = scene.deployment.client().unwrap();
    let job = |number: u32| client.job("work", number.to_string()).fire_and_forget();
    let tickets: Vec<_> = (1..=9).map(|number| job(number).submit().unwrap()).collect();
    let outcomes: Vec<_> = tickets.into_iter().map(svcmap_worker::Ticket::wait).collect();
    assert_eq!(outcomes, vec![Outcome::Accepted; 9]);
    drop(client);
    scene.wait_for("all to be done", |done, running, queued| (done, running + queued) == (9, 0));
    assert_eq!(scene.read("ran").lines().count(), 9);
}

#[test]
fn submit_waits_only_until_a_worker_has_its_jobs() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--concurrency", "3"]);
    scene.write("naps", "60s\n1ms\n60s\n");
    let args = ["nap", "--lines", "naps", "--detach", "--joblog", "log"];
    let run = scene.submit(&args);
    let said = "3 jobs are with workers, which report no more";
    assert!(text(&run.stderr).contains(said), "{}", text(&run.stderr));
    assert_eq!((text(&run.stdout).as_str(), code(&run)), ("", Some(0)));
    let records = outcomes(&scene.records("log"));
    assert_eq!(records.get("accepted"), Some(&3), "{records:?}");
    scene.wait_for("one to be done and two to run", |done, running, _| (done, running) == (1, 2));
    // All have been sent.
    let again = scene.submit(&[&args[..], &["--resume"]].concat());
    assert_eq!((text(&again.stdout).as_str(), code(&again)), ("", Some(0)));
    scene.wait_for("no more to be there", |done, running, queued| {
        (done, running + queued) == (1, 2)
    });
    // What brings nothing back cannot be kept.
    for results in [&["--output", "x"][..], &["--retries", "1"], &["--follow"]] {
        let run = scene.submit(&[&["nap", "--data", "1ms", "--detach"], results].concat());
        assert_eq!(code(&run), Some(64), "{}", text(&run.stderr));
    }
}

#[test]
fn a_signal_leaves_with_workers_what_they_have() {
    let scene = Scene::new("nap", &["--builtin", "sleep", "--concurrency", "2"]);
    let flags = ["--count", "20", "--detach", "--joblog", "log"];
    let mut running = scene.start(&[&["nap", "--data", LONG][..], &flags].concat());
    scene.wait_for("it to have what it takes", |_, running, _| running == 2);
    eventually("that to be known", || scene.records_now("log") == 2);
    running.signal(Signal::INT);
    let run = running.end();
    assert_eq!(code(&run), Some(130));
    assert!(text(&run.stderr).contains("workers do those that they have"), "{}", text(&run.stderr));
    scene.wait_for("it to have them still", |_, running, _| running == 2);
}

#[test]
fn a_worker_says_what_nobody_else_knows_has_failed() {
    let deployment = deployment();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let worker = Command::new(executable())
        .args(["worker", "--service", "work", "--instance", "w-1"])
        .args(["--exec", "sh -c 'echo a full disk >&2; exit 3'"])
        .envs(deployment.environment())
        .stdout(Stdio::null())
        .stderr(File::create(&log).unwrap())
        .spawn();
    let _worker = Running::new(worker.unwrap());
    let client: Client = deployment.client().unwrap();
    deployment.wait_ready(&[("work", 1)]).unwrap();
    let ticket = client.job("work", "x").fire_and_forget().submit().unwrap();
    assert_eq!(ticket.wait(), Outcome::Accepted);
    eventually("its log to say so", || {
        let log = fs::read_to_string(&log).unwrap();
        log.contains("not done, and nobody waits for it") && log.contains("a full disk")
    });
}
