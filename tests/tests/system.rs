//! Whole systems: a mapper and workers as real processes, on ports that the system chooses.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Hello, ToMapper};
use svcmap_proto::io::Clock;
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_tests::{
    Count, MAPPER, PATIENCE, children_of, dealer, deployment, deployment_of, endpoint_of,
    eventually, garbage, is_running, plain_deployment_of, resident_kb, svcmap,
};
use svcmap_worker::{Cause, HandlerError, Job, Outcome, Policy, Reason, Ticket};

const ECHO: &[&str] = &["--builtin", "echo"];
const SLEEP: &[&str] = &["--builtin", "sleep"];

#[test]
fn workers_register_and_jobs_come_back() {
    let deployment = deployment_of("echo", 2, ECHO);
    let output = svcmap(&deployment, &["submit", "echo", "--data", "hello"]);
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!((output.stdout.as_slice(), output.status.code()), (&b"hello"[..], Some(0)));
    let status = svcmap(&deployment, &["status", "--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["services"][0]["service"], "echo");
    assert_eq!(status["instances"].as_array().unwrap().len(), 2);
    let output = svcmap(&deployment, &["submit", "ecko", "--data", "hello"]);
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("known: echo"));
}

#[test]
fn one_instance_is_shown_with_the_sums_of_its_service() {
    let deployment = deployment_of("echo", 2, ECHO);
    let text = |args: &[&str]| {
        let output = svcmap(&deployment, args);
        (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let (code, screen) = text(&["status", "echo/w-2"]);
    assert!(screen.contains("2 of 2 instances ready\n") && !screen.contains("w-1"), "{screen}");
    assert!(code == Some(0) && screen.contains("\nw-2 "), "{screen}");
    let (code, screen) = text(&["why", "echo/w-1"]);
    assert!(code == Some(0) && screen.contains("w-1 ") && !screen.contains("\nw-2"), "{screen}");
    for command in ["status", "why"] {
        let (code, error) = text(&[command, "echo/w-3"]);
        assert!(code == Some(69) && error.contains("`echo` has no instance `w-3`"), "{error}");
    }
}

#[test]
fn a_program_gets_each_payload_and_its_output_is_the_result() {
    let deployment = deployment_of("sha256", 3, &["--exec", "sha256sum"]);
    let folder = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut args = vec!["submit".to_owned(), "sha256".to_owned()];
    let mut expected = String::new();
    for (number, bytes) in [0, 1, 4000, 900_000, 65_536].into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.bin"));
        let content: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
        std::fs::write(&path, content).unwrap();
        let sum = std::process::Command::new("sha256sum")
            .stdin(std::fs::File::open(&path).unwrap())
            .output()
            .unwrap();
        let path = path.display().to_string();
        expected += &format!("{path}: {}", String::from_utf8_lossy(&sum.stdout));
        args.push(path);
    }
    // Too large, in the middle: refused before it is sent, and nothing else suffers.
    let large = folder.path().join("large");
    std::fs::write(&large, vec![0; 1_048_577]).unwrap();
    args.insert(4, large.display().to_string());
    let output = svcmap(&deployment, &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("larger than 1048576 bytes"), "{errors}");
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_full_worker_is_known_before_a_job_is_sent() {
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep", "--queue", "1"]);
    // Who waits for credits never fills a worker.
    let filler = deployment.client_with(Policy::NoCredits).unwrap();
    let sender = deployment.client().unwrap();
    let fill: Vec<_> = (0..2).map(|_| filler.submit("nap", b"29s".to_vec()).unwrap()).collect();
    sender.follow("nap").unwrap();
    deployment
        .wait_for("the worker to be full", |report| {
            report.services.iter().any(|service| service.full == 1)
        })
        .unwrap();
    // The crossing was published when the mapper had it; the sender has it a moment later.
    eventually("the sender to know", || {
        let job = sender.job("nap", b"1ms".to_vec()).hold(Duration::ZERO);
        let outcome = job.submit().unwrap().wait();
        let Outcome::Refused(refusal) = outcome else { panic!("{outcome}") };
        refusal.reason == Reason::NoCredit && refusal.attempts == 0
    });
    let output = svcmap(&deployment, &["submit", "nap", "--data", "1ms", "--hold", "0"]);
    assert_eq!(output.status.code(), Some(75), "{}", String::from_utf8_lossy(&output.stderr));
    fill.iter().for_each(Ticket::cancel);
    let count = Count::of(fill);
    assert_eq!((count.failed, count.refused), (1, 1), "the one that ran, and the one that waited");
    // It has room again, and everybody knows.
    let job = sender.job("nap", b"1ms".to_vec()).hold(PATIENCE);
    assert!(matches!(job.submit().unwrap().wait(), Outcome::Done(_)));
}

#[test]
fn every_job_has_one_outcome_when_a_worker_is_killed() {
    let mut deployment = deployment_of("nap", 3, SLEEP);
    let client = deployment.client().unwrap();
    let submit = |idempotent: bool| {
        let job = client.job("nap", b"20ms".to_vec()).hold(PATIENCE).deadline(PATIENCE);
        if idempotent { job.idempotent() } else { job }.submit().unwrap()
    };
    let mut tickets: Vec<_> = (0..100).map(|_| submit(false)).collect();
    let rest = tickets.split_off(20);
    assert_eq!(Count::of(tickets).done, 20);
    deployment.kill("w-2").unwrap();
    let count = Count::of(rest);
    assert_eq!((count.all(), count.failed, count.refused), (80, 0, 0));
    assert!((1..=11).contains(&count.unknown), "{count:?}");
    // What may run twice is done by the others instead.
    let tickets: Vec<_> = (0..60).map(|_| submit(true)).collect();
    deployment.kill("w-3").unwrap();
    assert_eq!(Count::of(tickets).done, 60);
    let statistics = client.statistics();
    assert_eq!((statistics.submitted, statistics.settled()), (160, 160));
}

#[test]
fn a_worker_killed_unnoticed_is_given_up_after_its_expiry() {
    let deployment = deployment_of("nap", 1, SLEEP);
    let client = deployment.client().unwrap();
    let ticket = client.job("nap", b"30s".to_vec()).deadline(2 * PATIENCE).submit().unwrap();
    deployment
        .wait_for("the job to run", |report| report.services.iter().any(|s| s.running == 1))
        .unwrap();
    let killed_at = Clock.now();
    let pid = rustix::process::Pid::from_raw(deployment.pid("w-1").unwrap().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let outcome = ticket.wait_timeout(PATIENCE).unwrap();
    assert!(matches!(outcome, Outcome::Unknown(Cause::PeerSilent | Cause::PeerEnded)), "{outcome}");
    assert!(Clock.now().since(killed_at) < Duration::from_secs(8));
}

#[test]
fn jobs_go_on_without_the_mapper_and_everybody_is_back_within_three_beats() {
    let mut deployment = deployment_of("nap", 3, SLEEP);
    let client = deployment.client().unwrap();
    let submit = || client.job("nap", b"5ms".to_vec()).hold(PATIENCE).submit().unwrap();
    assert_eq!(Count::of((0..30).map(|_| submit()).collect()).done, 30);
    deployment.kill(MAPPER).unwrap();
    assert_eq!(Count::of((0..300).map(|_| submit()).collect()).done, 300);
    deployment.start_mapper_again().unwrap();
    let started_at = Clock.now();
    let between: Vec<_> = (0..300).map(|_| submit()).collect();
    deployment.wait_ready(&[("nap", 3)]).unwrap();
    let registered = Clock.now().since(started_at);
    assert!(registered < Duration::from_secs(3), "{registered:?}");
    assert_eq!(Count::of(between).done, 300);
}

#[test]
fn nobody_hears_no_such_service_from_a_mapper_that_has_just_started() {
    let mut deployment = deployment_of("nap", 1, SLEEP);
    deployment.kill(MAPPER).unwrap();
    let client = deployment.client().unwrap();
    let ticket = client.job("nap", b"1ms".to_vec()).hold(PATIENCE).submit().unwrap();
    deployment.start_mapper_again().unwrap();
    let outcome = ticket.wait();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
}

#[test]
fn a_drained_worker_finishes_what_it_has_and_gets_no_more() {
    let mut deployment = deployment_of("nap", 2, SLEEP);
    let client = deployment.client().unwrap();
    let submit = || client.job("nap", b"20ms".to_vec()).hold(PATIENCE).submit().unwrap();
    let tickets: Vec<_> = (0..60).map(|_| submit()).collect();
    assert_eq!(deployment.terminate("w-1").unwrap().status.code(), Some(0));
    assert_eq!(Count::of(tickets).done, 60);
    // With a grace too short for its queue the rest goes back, and to the other one.
    deployment.start_worker("nap", "w-3", &["--builtin", "sleep", "--grace", "100ms"]).unwrap();
    deployment.wait_ready(&[("nap", 2)]).unwrap();
    // Not so long that all of them wait at their sender.
    let slow = || client.job("nap", b"30ms".to_vec()).hold(PATIENCE).submit().unwrap();
    let tickets: Vec<_> = (0..100).map(|_| slow()).collect();
    deployment
        .wait_for("both to be busy", |report| report.instances.iter().all(|row| row.queued > 0))
        .unwrap();
    assert_eq!(deployment.terminate("w-3").unwrap().status.code(), Some(0));
    let count = Count::of(tickets);
    assert_eq!((count.done + count.unknown, count.all()), (100, 100), "{count:?}");
    assert!(count.unknown <= 1, "{count:?}");
}

#[test]
fn the_later_of_two_processes_with_one_name_stays() {
    let mut deployment = deployment_of("echo", 1, ECHO);
    let first = deployment.pid("w-1").unwrap();
    let flags = ["worker", "--service", "echo", "--instance", "w-1", "--builtin", "echo"];
    let mut second = std::process::Command::new(svcmap_tests::executable())
        .args(flags)
        .envs(deployment.environment())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let exit = deployment.wait_end("w-1").unwrap();
    assert_eq!((exit.pid, exit.status.code()), (first, Some(64)));
    deployment.wait_ready(&[("echo", 1)]).unwrap();
    let client = deployment.client().unwrap();
    let outcome = client.submit("echo", b"x".to_vec()).unwrap().wait();
    second.kill().unwrap();
    second.wait().unwrap();
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
}

#[test]
fn another_protocol_version_gets_an_error_that_names_both() {
    let deployment = plain_deployment_of("echo", 1, ECHO);
    let hello = ToMapper::Hello(Hello { oldest: 9, newest: 9, key: None });
    let mut frame = codec::encode(&hello);
    frame[0] = 9;
    let mapper = dealer(deployment.mapper().as_str());
    mapper.send(&frame, 0).unwrap();
    let answer = mapper.recv_bytes(0).unwrap();
    assert_eq!(
        codec::decode::<FromMapper>(&answer),
        Ok(FromMapper::WrongVersion { oldest: codec::VERSION_OLDEST, newest: codec::VERSION })
    );
    let worker = dealer(&endpoint_of(&deployment, "w-1"));
    worker.send(&frame, 0).unwrap();
    let answer = worker.recv_bytes(0).unwrap();
    assert_eq!(
        codec::decode::<FromWorker>(&answer),
        Ok(FromWorker::WrongVersion { oldest: codec::VERSION_OLDEST, newest: codec::VERSION })
    );
}

/// `SVCMAP_GARBAGE=1000000` makes it as long as the nights are.
#[test]
fn garbage_on_both_routers_disturbs_nobody() {
    let messages: usize =
        std::env::var("SVCMAP_GARBAGE").map_or(20_000, |text| text.parse().unwrap());
    let deployment = plain_deployment_of("echo", 1, ECHO);
    let client = deployment.client().unwrap();
    let service = "echo".parse().unwrap();
    let real = [
        codec::encode(&ToMapper::Sync { service }),
        codec::encode(&ToMapper::Hello(Hello {
            oldest: codec::VERSION,
            newest: codec::VERSION,
            key: None,
        })),
        codec::encode(&ToWorker::Ping { received_outcomes: 1 << 40 }),
    ];
    let worker = endpoint_of(&deployment, "w-1");
    for (name, endpoint) in [(MAPPER, deployment.mapper().as_str()), ("w-1", worker.as_str())] {
        let pid = deployment.pid(name).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let socket = dealer(endpoint);
        let mut warm_kb = 0;
        for number in 0..messages {
            socket.send_multipart(garbage(&mut random, &real), 0).unwrap();
            while socket.recv_multipart(zmq::DONTWAIT).is_ok() {}
            if number == messages / 4 {
                warm_kb = resident_kb(pid);
            }
            if number % (messages / 10) == 0 {
                let outcome = client.submit("echo", b"still there".to_vec()).unwrap().wait();
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
            }
        }
        let grown_kb = resident_kb(pid).saturating_sub(warm_kb);
        assert!(grown_kb < 16 * 1024, "{name} grew by {grown_kb} kB");
    }
    deployment.wait_ready(&[("echo", 1)]).unwrap();
}

#[test]
fn a_handler_that_panics_fails_its_job_and_nothing_else() {
    let deployment = deployment();
    let worker = deployment
        .access()
        .worker("fragile")
        .serve(|job: &Job| match job.payload() {
            b"panic" => panic!("on purpose"),
            b"error" => Err(HandlerError::new("no such model")),
            payload => Ok(payload.to_vec()),
        })
        .unwrap();
    assert!(worker.wait_registered(PATIENCE));
    let client = deployment.access().client().start().unwrap();
    let outcome = |payload: &[u8]| client.job("fragile", payload.to_vec()).submit().unwrap().wait();
    let error = |payload: &[u8]| match outcome(payload) {
        Outcome::Failed(failure) => failure.error,
        other => panic!("{other:?} for {}", payload.escape_ascii()),
    };
    assert_eq!(error(b"panic"), "the handler panicked: on purpose");
    assert_eq!(error(b"error"), "no such model");
    assert!(matches!(outcome(b"fine"), Outcome::Done(_)));
}

#[test]
fn a_program_that_hangs_is_ended_at_the_deadline_of_its_job() {
    let deployment = deployment_of("hang", 1, &["--exec", "sleep 61"]);
    let client = deployment.client().unwrap();
    let job = client.job("hang", Vec::new()).deadline(Duration::from_millis(400));
    let outcome = job.submit().unwrap().wait();
    assert!(matches!(outcome, Outcome::Unknown(Cause::Deadline) | Outcome::Failed(_)), "{outcome}");
    deployment
        .wait_for("its slot to be free", |report| {
            report.services.iter().all(|service| service.running == 0 && service.failed == 1)
        })
        .unwrap();
}

#[test]
fn a_worker_whose_handler_blocks_stays_alive_and_says_so() {
    let deployment = deployment_of("nap", 1, SLEEP);
    let client = deployment.client().unwrap();
    let job = client.job("nap", b"60s".to_vec()).hold(PATIENCE);
    let ticket = job.submit().unwrap();
    let busy = |report: &svcmap::commands::status::Report| {
        report.instances.iter().any(|row| row.running == 1 && row.age_ms < 1500)
    };
    if let Err(failure) = deployment.wait_for("its load", busy) {
        panic!("{failure:?}, and the job: {:?}", ticket.wait_timeout(PATIENCE));
    }
    let busy_at = Clock.now();
    // Longer than the expiry of three beats.
    eventually("four beats", || {
        deployment.wait_for("its load", busy).unwrap();
        Clock.now().since(busy_at) > Duration::from_secs(4)
    });
    ticket.cancel();
    assert!(matches!(ticket.wait(), Outcome::Failed(_)));
}

#[test]
fn a_cancelled_job_that_waits_is_not_run() {
    let deployment = deployment_of("nap", 1, SLEEP);
    let client = deployment.client().unwrap();
    let first = client.submit("nap", b"300ms".to_vec()).unwrap();
    let second = client.submit("nap", b"1ms".to_vec()).unwrap();
    second.cancel();
    let Outcome::Refused(refusal) = second.wait() else { panic!("it was not refused") };
    assert_eq!(refusal.reason, Reason::Cancelled);
    assert!(matches!(first.wait(), Outcome::Done(_)));
}

#[test]
fn the_demo_accounts_for_every_job() {
    let output =
        std::process::Command::new(svcmap_tests::executable()).arg("demo").output().unwrap();
    let screen = String::from_utf8_lossy(&output.stdout);
    assert_eq!(
        output.status.code(),
        Some(0),
        "{screen}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(screen.contains("sent 2112 = done "), "{screen}");
}

#[test]
fn an_interrupted_demo_leaves_no_process_behind() {
    for signal in [Signal::INT, Signal::TERM, Signal::KILL] {
        let mut demo = std::process::Command::new(svcmap_tests::executable())
            .arg("demo")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().starts_with("[2/7]")));
        let children = children_of(demo.id());
        assert_eq!(children.len(), 6, "a mapper and 5 workers");
        kill_process(Pid::from_child(&demo), signal).unwrap();
        demo.wait().unwrap();
        eventually("their end", || !children.iter().any(|pid| is_running(*pid)));
    }
}
