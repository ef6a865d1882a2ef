//! `svcmap why`: whom a sender would choose that starts here now, and why not the others.

use std::collections::BTreeMap;
use std::process::{Command, Output};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use svcmap_proto::control::Registration;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::Endpoint;
use svcmap_proto::status::{InstanceRow, Shown};
use svcmap_tests::batch::{code, text};
use svcmap_tests::keyed::{ECHO, Scene};
use svcmap_tests::listed::{nobody, register, registration};
use svcmap_tests::{
    Deployment, MAPPER, eventually, executable, plain_deployment, plain_deployment_of, svcmap,
};
use svcmap_worker::{Client, Outcome, Ticket};

const SLEEP: &[&str] = &["--builtin", "sleep"];

fn why(deployment: &Deployment, service: &str) -> Value {
    let output = svcmap(deployment, &["why", service, "--json"]);
    assert_eq!(code(&output), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// What becomes of each instance.
fn verdicts(why: &Value) -> BTreeMap<&str, &str> {
    let rows = why["instances"].as_array().unwrap();
    rows.iter()
        .map(|row| (row["instance"].as_str().unwrap(), row["verdict"].as_str().unwrap()))
        .collect()
}

fn reason<'a>(why: &'a Value, instance: &str) -> &'a str {
    let rows = why["instances"].as_array().unwrap();
    let row = rows.iter().find(|row| row["instance"] == instance).unwrap();
    row["reason"].as_str().unwrap()
}

fn signal(deployment: &Deployment, name: &str, signal: Signal) {
    let pid = i32::try_from(deployment.pid(name).unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// The command with these mappers.
fn with_mappers(mappers: &[&Endpoint], args: &[&str]) -> Output {
    let all: Vec<_> = mappers.iter().map(|mapper| mapper.as_str()).collect();
    let mut command = Command::new(executable());
    command.args(args).args(["--mapper", &all.join(",")]).output().unwrap()
}

/// A job that keeps an instance busy for longer than a test takes.
fn occupy(deployment: &Deployment, client: &Client, instance: &str) -> Ticket {
    let ticket = client.job("nap", b"60s".to_vec()).instance(instance).submit().unwrap();
    let is_busy = |row: &InstanceRow| row.instance.as_str() == instance && row.running == 1;
    deployment.wait_for("a job to run", |report| report.instances.iter().any(is_busy)).unwrap();
    ticket
}

#[test]
fn what_it_says_is_what_a_sender_does() {
    let deployment = plain_deployment_of("nap", 2, SLEEP);
    let client = deployment.client().unwrap();
    let _busy = occupy(&deployment, &client, "w-2");
    signal(&deployment, "w-2", Signal::TERM);
    let drains = |row: &InstanceRow| row.state == Shown::Draining;
    deployment.wait_for("a drain", |report| report.instances.iter().any(drains)).unwrap();
    assert_eq!(why(&deployment, "nap")["chosen"], "w-1");
    for _ in 0..3 {
        let sender = deployment.client().unwrap();
        assert!(matches!(sender.submit("nap", b"1ms".to_vec()).unwrap().wait(), Outcome::Done(_)));
    }
    let did_all = |row: &InstanceRow| row.instance.as_str() == "w-1" && row.done == 3;
    deployment.wait_for("all jobs", |report| report.instances.iter().any(did_all)).unwrap();
}

#[test]
fn workers_that_are_full_drain_or_stand_still_are_passed_over() {
    let nowhere = nobody();
    let mut deployment = plain_deployment();
    deployment.start_worker("nap", "free", &[SLEEP, &["--concurrency", "4"]].concat()).unwrap();
    deployment.start_worker("nap", "full", &[SLEEP, &["--queue", "0"]].concat()).unwrap();
    deployment.start_worker("nap", "leaving", SLEEP).unwrap();
    deployment.start_worker("nap", "stopped", SLEEP).unwrap();
    let lost = [SLEEP, &["--advertise", nowhere.as_str()]].concat();
    deployment.start_worker("nap", "lost", &lost).unwrap();
    deployment.wait_ready(&[("nap", 5)]).unwrap();
    let client = deployment.client().unwrap();
    let occupy = |instance: &str| occupy(&deployment, &client, instance);
    let _busy = [occupy("full"), occupy("leaving")];
    signal(&deployment, "leaving", Signal::TERM);
    let wanted = [
        ("free", "chosen"),
        ("full", "full"),
        ("leaving", "draining"),
        ("lost", "unreachable"),
        ("stopped", "unreachable"),
    ];
    let [mut last, mut shown] = [Value::Null, Value::Null];
    // Who stands still is soon listed no more.
    eventually("all five to be judged so", || {
        signal(&deployment, "stopped", Signal::STOP);
        last = why(&deployment, "nap");
        let status = svcmap(&deployment, &["status", "nap", "--json"]);
        signal(&deployment, "stopped", Signal::CONT);
        shown = serde_json::from_slice(&status.stdout).unwrap();
        verdicts(&last) == BTreeMap::from(wanted)
            && shown["instances"].as_array().unwrap().len() == 5
    });
    assert_eq!(last["chosen"], "free");
    assert!(last["seed"].is_u64());
    assert_eq!(reason(&last, "full"), "1 of 1 slot taken");
    assert_eq!(reason(&last, "leaving"), "draining, 1 job left");
    let lost = reason(&last, "lost");
    assert!(lost.contains(nowhere.as_str()) && lost.contains("refused"), "{lost}");
    assert!(lost.contains("a mapper heard it"), "{lost}");
    assert!(reason(&last, "stopped").contains("says nothing"), "{last}");
    // Who cannot be reached is not counted as ready elsewhere either.
    let row = &shown["services"][0];
    assert_eq!((&row["ready"], &row["unreachable"]), (&2.into(), &2.into()), "{shown}");
}

#[test]
fn a_job_that_would_wait_for_a_handler_is_said_to_wait() {
    let deployment = plain_deployment_of("nap", 1, SLEEP);
    let client = deployment.client().unwrap();
    let _busy = occupy(&deployment, &client, "w-1");
    let _waiting = client.submit("nap", b"1ms".to_vec()).unwrap();
    let mut said = Value::Null;
    eventually("the mapper to know what waits", || {
        said = why(&deployment, "nap");
        said["waiting"] == 1
    });
    assert_eq!((&said["chosen"], &said["instances"][0]["verdict"]), (&Value::Null, &"busy".into()));
    let screen = text(&svcmap(&deployment, &["why", "nap"]).stdout);
    let first = "A sender of nap that starts here now turns to w-1, and its job waits. Waiting \
                 already: 1 job at 1 sender.\n";
    assert!(screen.starts_with(first), "{screen}");
}

/// A deployment whose mapper lists those, all at an address where somebody answers.
fn listing(all: impl Fn(&Endpoint) -> Vec<Registration>) -> Deployment {
    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    register(mapper, all(mapper));
    deployment
}

fn load() -> Load {
    Load { sequence: 1, slots: 11, concurrency: 1, ..Load::default() }
}

#[test]
fn who_fails_or_is_stuck_is_named_with_what_it_says() {
    let stuck = Load {
        running: 1,
        queued: 1,
        oldest_queued_ms: 41_000,
        since_finish_ms: Some(41_000),
        ..load()
    };
    let deployment = listing(|at| {
        let failing = Load { state: State::Failing, failing: 750, failed: 3, done: 7, ..load() };
        let failing = registration("work", "failing", at, failing);
        let trying =
            registration("work", "trying", at, Load { failing: 1000, failed: 2, ..load() });
        vec![
            Registration { error: Some("no licence".to_owned()), ..failing },
            Registration { error: Some("no model".to_owned()), ..trying },
            registration("work", "stuck", at, stuck),
            registration("work", "good", at, load()),
            registration("work", "better", at, load()),
        ]
    });
    let said = why(&deployment, "work");
    let mut verdicts = verdicts(&said);
    let chosen = said["chosen"].as_str().unwrap();
    assert_eq!(verdicts.insert(chosen, "possible"), Some("chosen"), "{said}");
    assert_eq!((verdicts["good"], verdicts["better"]), ("possible", "possible"), "{said}");
    if chosen != "stuck" {
        assert_eq!(verdicts["stuck"], "stuck");
        let reason = reason(&said, "stuck");
        assert_eq!(reason, "stuck: 1 running, no handler finished for 41s");
    }
    assert_eq!(verdicts["failing"], "failing");
    let expected =
        "jobs fail there: 3 failed and 7 done since its start; takes none for a while; no licence";
    assert_eq!(reason(&said, "failing"), expected);
    if chosen != "trying" {
        let expected =
            "jobs fail there: 2 failed and 0 done since its start; takes one job, to see; no model";
        assert_eq!(reason(&said, "trying"), expected);
    }
}

#[test]
fn where_all_are_full_a_job_waits_and_that_is_said() {
    let deployment = listing(|at| {
        let full = Load { running: 1, queued: 10, ..load() };
        vec![registration("work", "a", at, full), registration("work", "b", at, full)]
    });
    let output = svcmap(&deployment, &["why", "work"]);
    let screen = text(&output.stdout);
    let first = screen.lines().next().unwrap();
    let start = "A sender of work that starts here now turns to ";
    assert!(first.starts_with(start) && first.ends_with(", and its job waits."), "{screen}");
    assert!(screen.contains("\na  11 of 11 slots taken\n"), "{screen}");
    assert!(screen.contains("\nnext: svcmap worker --service work … · "), "{screen}");
}

#[test]
fn an_instance_of_the_json_dialect_takes_jobs_of_json_only() {
    let deployment = plain_deployment();
    let socket = zmq::Context::new().socket(zmq::REQ).unwrap();
    socket.connect(deployment.mapper().as_str()).unwrap();
    let at = deployment.mapper();
    let register =
        format!(r#"{{"command":"REGISTER","payload":{{"name":"old","address":"{at}","pid":7}}}}"#);
    socket.send(&register, 0).unwrap();
    assert!(text(&socket.recv_bytes(0).unwrap()).contains("registered old"));
    let said = why(&deployment, "old");
    assert_eq!(
        (&said["instances"][0]["json_only"], &said["chosen"]),
        (&true.into(), &"old".into())
    );
    assert_eq!(reason(&said, "old"), "has room; takes jobs of JSON only");
}

#[test]
fn a_service_that_nobody_serves_and_one_that_a_key_may_not_use_are_errors() {
    let mut deployment = plain_deployment_of("echo", 1, ECHO);
    let unserved = svcmap(&deployment, &["why", "ecko"]);
    assert_eq!(code(&unserved), Some(69));
    let said = text(&unserved.stderr);
    assert!(said.contains("no worker serves `ecko`; known: echo"), "{said}");
    assert!(said.contains("fix: svcmap status echo"), "{said}");
    deployment.terminate("w-1").unwrap();
    let left = svcmap(&deployment, &["why", "echo"]);
    assert_eq!(code(&left), Some(69));
    assert!(text(&left.stderr).contains("it was served until lately"), "{}", text(&left.stderr));

    let scene = Scene::new(ECHO);
    let bob = scene.add_key("bob", &["--role", "client", "--services", "other*"]);
    eventually("a worker", || scene.status()["instances"][0]["instance"] == "hidden");
    let denied = scene.run_as(&bob, &["why", "secretservice", "--json"]);
    assert_eq!(code(&denied), Some(1));
    let error: Value = serde_json::from_slice(&denied.stderr).unwrap();
    let message = error["error"]["message"].as_str().unwrap();
    assert_eq!(message, "this deployment file has nothing to do with `secretservice`");
    assert_eq!(error["error"]["fix"], "svcmap key list");
    let allowed = scene.run(&["why", "secretservice", "--json"]);
    let allowed: Value = serde_json::from_slice(&allowed.stdout).unwrap();
    assert_eq!(allowed["chosen"], "hidden");
}

#[test]
fn a_mapper_that_is_silent_and_two_that_disagree_are_named() {
    let first = plain_deployment_of("echo", 1, ECHO);
    let second = plain_deployment();
    let both = [first.mapper(), second.mapper()];
    let output = with_mappers(&both, &["why", "echo", "--json"]);
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&said["mappers_agree"], &said["chosen"]), (&false.into(), &"w-1".into()));
    let row = &said["instances"][0];
    assert_eq!(row["listed_by"][0], first.mapper().as_str());
    assert_eq!(row["missing_at"][0], second.mapper().as_str());
    let screen = text(&with_mappers(&both, &["why", "echo"]).stdout);
    assert!(screen.contains("! 2 mappers disagree: a sender takes whoever"), "{screen}");
    let listed = format!("listed by {}, not by {}", both[0], both[1]);
    assert!(screen.contains(&listed) && screen.contains("\nnext: svcmap doctor"), "{screen}");

    signal(&second, MAPPER, Signal::STOP);
    let screen = text(&with_mappers(&both, &["why", "echo"]).stdout);
    signal(&second, MAPPER, Signal::CONT);
    let silent = format!("! the mapper {} does not answer\n", second.mapper());
    assert!(screen.contains(&silent) && screen.contains("→  w-1"), "{screen}");

    let nowhere = nobody();
    let nobody = with_mappers(&[&nowhere], &["why", "echo"]);
    assert_eq!(code(&nobody), Some(69));
    let said = text(&nobody.stderr);
    assert!(said.contains("no mapper answers at") && said.contains("fix: svcmap mapper"), "{said}");
}
