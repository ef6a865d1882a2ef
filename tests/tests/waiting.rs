//! Jobs that wait: for room, for somebody to serve them, for a mapper, or for their time to be over.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::thread::Builder;
use std::time::Duration;

use serde_json::Value;
use svcmap_proto::io::Clock;
use svcmap_tests::listed::nobody;
use svcmap_tests::{Count, Deployment, PATIENCE, deployment_of, executable, svcmap};
use svcmap_worker::{Client, Outcome, Reason, Worker};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_burst_waits_for_room_as_long_as_somebody_serves_it() {
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep"]);
    let client = deployment.client().unwrap();
    // A hundred times what fits into the queue, and eight times what a full queue takes.
    let submit = |_| client.submit("nap", b"2ms".to_vec()).unwrap();
    let count = Count::of((0..1000).map(submit).collect());
    assert_eq!(count, Count { done: 1000, ..Count::default() });
}

#[test]
fn one_with_many_jobs_takes_turns_with_one_that_came_later_and_has_few() {
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep"]);
    let (many, few) = (deployment.client().unwrap(), deployment.client().unwrap());
    let submit = |client: &Client| client.submit("nap", b"100ms".to_vec()).unwrap();
    let mut tickets: Vec<_> = (0..30).map(|_| submit(&many)).collect();
    assert!(matches!(tickets.remove(0).wait_timeout(PATIENCE), Ok(Outcome::Done(_))));
    let later: Vec<_> = (0..3).map(|_| submit(&few)).collect();
    assert_eq!(Count::of(later).done, 3);
    // Each of them has waited for one or two of the others, not for all.
    let done = many.statistics().done;
    assert!(done < 15, "{done} jobs came first");
    assert_eq!(Count::of(tickets).done, 29);
}

#[test]
fn a_service_whose_only_worker_starts_again_is_waited_for() {
    let mut deployment = deployment_of("echo", 1, &["--builtin", "echo"]);
    let client = deployment.client().unwrap();
    assert!(matches!(client.submit("echo", b"1".to_vec()).unwrap().wait(), Outcome::Done(_)));
    deployment.terminate("w-1").unwrap();
    let gone = |report: &svcmap::commands::status::Report| report.instances.is_empty();
    deployment.wait_for("the worker to be gone", gone).unwrap();
    let ticket = client.submit("echo", b"2".to_vec()).unwrap();
    // Another process has never seen it, but the mapper has.
    let submit = Command::new(executable())
        .args(["submit", "echo", "--data", "3"])
        .envs(deployment.environment())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let ticket = ticket.wait_timeout(Duration::from_millis(1500)).expect_err("it waits");
    deployment.start_worker("echo", "w-1", &["--builtin", "echo"]).unwrap();
    assert!(matches!(ticket.wait_timeout(PATIENCE).unwrap(), Outcome::Done(_)));
    assert_eq!(text(&submit.wait_with_output().unwrap().stdout).trim(), "3");
    // Who was never there is not waited for.
    let started_at = Clock.now();
    let Outcome::Refused(refusal) = client.submit("ecko", Vec::new()).unwrap().wait() else {
        panic!("nobody serves that");
    };
    assert_eq!(refusal.reason, Reason::NoSuchService);
    assert_eq!(svcmap(&deployment, &["submit", "ecko", "--data", "3"]).status.code(), Some(69));
    assert!(Clock.now().since(started_at) < Duration::from_secs(5));
}

#[test]
fn a_job_is_ended_at_its_run_limit_and_has_failed() {
    let deployment = deployment_of("hang", 1, &["--exec", "sleep 9731"]);
    let client = deployment.client().unwrap();
    let limit = Duration::from_millis(300);
    let submit = || client.job("hang", Vec::new()).run_limit(limit).submit().unwrap();
    // The second one waits for longer than it may run.
    let tickets = [submit(), submit()];
    for ticket in tickets {
        let outcome = ticket.wait_timeout(PATIENCE).unwrap();
        let Outcome::Failed(failure) = outcome else { panic!("{outcome}") };
        assert_eq!(failure.error, "reached its run limit of 300ms");
    }
    let output = svcmap(&deployment, &["submit", "hang", "--data", "", "--run-limit", "200ms"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("reached its run limit of 200ms"));
    let idle = |report: &svcmap::commands::status::Report| {
        report.services.iter().all(|row| row.running == 0 && row.failed == 3)
    };
    deployment.wait_for("the programs to be gone", idle).unwrap();
}

#[test]
fn a_mapper_that_comes_later_is_waited_for_and_the_log_says_so() {
    let mapper = nobody();
    let mut submit = Command::new(executable())
        .args(["submit", "echo", "--data", "hello", "--mapper", mapper.as_str()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = BufReader::new(submit.stderr.take().unwrap()).lines();
    assert!(log.any(|line| line.unwrap().contains("no mapper answers")), "it says so");
    let mapper =
        svcmap_mapper::Mapper::builder().bind(mapper.as_str()).publish("tcp://127.0.0.1:0");
    let mapper = mapper.start().unwrap();
    let worker = Worker::builder("echo").mapper(mapper.endpoint().as_str());
    let _worker = worker.serve(svcmap_worker::Job::payload_bytes).unwrap();
    // Whoever is still to be read could be written to no more.
    let said: Vec<_> = log.map(Result::unwrap).collect();
    let output = submit.wait_with_output().unwrap();
    assert_eq!(text(&output.stdout).trim(), "hello", "{said:?}");
}

#[test]
fn without_a_mapper_a_short_hold_is_refused_as_no_mapper() {
    let client = Client::builder().mapper("tcp://127.0.0.1:9").start().unwrap();
    let outcome = client.job("echo", Vec::new()).hold(Duration::ZERO).submit().unwrap().wait();
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome}") };
    assert_eq!(refusal.reason, Reason::NoMapper);
    assert!(refusal.waited >= Duration::from_secs(2), "{:?}", refusal.waited);
}

#[test]
fn a_worker_that_nobody_reaches_is_unreachable_and_not_full() {
    let nobody = nobody();
    let lost = ["--builtin", "echo", "--advertise", nobody.as_str()];
    let mut deployment = deployment_of("echo", 1, &lost);
    let status = |deployment: &Deployment| {
        let output = svcmap(deployment, &["status", "echo"]);
        let json = svcmap(deployment, &["status", "echo", "--json"]);
        let json: Value = serde_json::from_slice(&json.stdout).unwrap();
        (text(&output.stdout), json["instances"].clone())
    };
    let (screen, instances) = status(&deployment);
    assert!(screen.contains("✗ unreachable") && screen.contains(nobody.as_str()), "{screen}");
    assert!(screen.contains("refused"), "{screen}");
    assert_eq!(instances[0]["reachable"], false);
    assert!(instances[0]["from"].is_string() && instances[0]["unreachable"].is_string());
    let submit = ["submit", "echo", "--data", "x", "--hold", "3s"];
    let output = svcmap(&deployment, &submit);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{said}");
    assert!(said.contains("refused: unreachable"), "{said}");
    assert!(
        said.contains("a worker cannot be reached") && said.contains(nobody.as_str()),
        "{said}"
    );
    assert!(said.to_lowercase().contains("connection refused"), "{said}");
    // It is not held against those that can be reached.
    deployment.start_worker("echo", "w-2", &["--builtin", "echo"]).unwrap();
    deployment.wait_ready(&[("echo", 2)]).unwrap();
    assert_eq!(text(&svcmap(&deployment, &submit).stdout).trim(), "x");
    let instances = status(&deployment).1;
    let reachable = |name: &str| {
        let row = instances.as_array().unwrap().iter().find(|row| row["instance"] == name);
        row.unwrap()["reachable"].clone()
    };
    assert_eq!((reachable("w-1"), reachable("w-2")), (Value::Bool(false), Value::Bool(true)));
}

#[test]
fn the_time_of_a_job_begins_when_it_is_submitted_and_not_before() {
    const DEADLINE: Duration = Duration::from_millis(50);
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep", "--queue", "0"]);
    let client = deployment.client().unwrap();
    let running = client.submit("nap", b"60s".to_vec()).unwrap();
    // So much at once that the thread that sends takes its time to read it.
    let submit = || {
        (0..20_000).for_each(|_| client.follow("nap").unwrap());
        let submitted_at = Clock.now();
        let ticket = client.job("nap", b"1ms".to_vec()).deadline(DEADLINE).submit().unwrap();
        assert!(matches!(ticket.wait(), Outcome::Refused(_)));
        Clock.now().since(submitted_at)
    };
    for _ in 0..10 {
        std::thread::scope(|scope| {
            let submitters: Vec<_> = (0..4)
                .map(|_| {
                    Builder::new().name("submit".to_owned()).spawn_scoped(scope, submit).unwrap()
                })
                .collect();
            for submitter in submitters {
                let took = submitter.join().unwrap();
                assert!(took >= DEADLINE, "{took:?}");
            }
        });
    }
    running.cancel();
}

#[test]
fn what_waits_at_senders_is_seen_by_whoever_asks_a_mapper() {
    let mut deployment = deployment_of("nap", 1, &["--builtin", "sleep"]);
    let (client, lost) = (deployment.client().unwrap(), deployment.client().unwrap());
    // It was served until a moment ago: jobs wait for whoever comes back.
    deployment.start_worker("once", "w-2", &["--builtin", "echo"]).unwrap();
    deployment.wait_ready(&[("once", 1)]).unwrap();
    deployment.terminate("w-2").unwrap();
    let gone = |report: &svcmap::commands::status::Report| report.instances.len() == 1;
    deployment.wait_for("the worker to be gone", gone).unwrap();
    let naps: Vec<_> = (0..60).map(|_| client.submit("nap", b"100ms".to_vec()).unwrap()).collect();
    let _lost: Vec<_> = (0..2).map(|_| lost.submit("once", Vec::new()).unwrap()).collect();
    let waiting = |report: &svcmap::commands::status::Report, service: &str| {
        let row = report.services.iter().find(|row| row.service == service);
        row.map_or((0, 0), |row| (row.waiting, row.waiting_senders))
    };
    let seen = |report: &svcmap::commands::status::Report| {
        let (jobs, senders) = waiting(report, "nap");
        let rate = report.services.iter().find(|row| row.service == "nap").unwrap().ended_per_s;
        jobs > 0
            && senders == 1
            && (1.0..=20.0).contains(&rate)
            && waiting(report, "once") == (2, 1)
    };
    deployment.wait_for("waiting jobs to be seen", seen).unwrap();
    let screen = text(&svcmap(&deployment, &["status"]).stdout);
    assert!(
        screen.contains("once has no instance, and of its jobs 2 wait at 1 sender"),
        "{screen}"
    );
    drop(lost);
    assert_eq!(Count::of(naps).done, 60);
    let nothing = |report: &svcmap::commands::status::Report| {
        waiting(report, "nap") == (0, 0) && waiting(report, "once") == (0, 0)
    };
    deployment.wait_for("nothing to wait", nothing).unwrap();
}
