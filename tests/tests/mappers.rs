//! Mappers that are not there, stand still, or refuse: what their workers and senders do meanwhile.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use svcmap::control::{self, Answer, Question, Scope};
use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Registration, RegistrationError, ToMapper, Welcome};
use svcmap_proto::io::Clock;
use svcmap_proto::load::Load;
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey};
use svcmap_tests::listed::nobody;
use svcmap_tests::{
    Count, Deployment, MAPPER, PATIENCE, dealer, eventually, executable, plain_deployment,
};
use svcmap_worker::{Client, Job, Notice, Worker};

fn signal(deployment: &Deployment, signal: Signal) {
    let pid = i32::try_from(deployment.pid(MAPPER).unwrap()).unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn answers(deployment: &Deployment, instances: usize) -> bool {
    let mappers = std::slice::from_ref(deployment.mapper());
    let report = svcmap::commands::status::ask(mappers, None, Duration::from_millis(300));
    report.is_ok_and(|report| report.instances.len() == instances)
}

#[test]
fn a_mapper_that_stands_still_holds_nobody_up() {
    let (first, second) = (plain_deployment(), plain_deployment());
    let both = [first.mapper().as_str(), second.mapper().as_str()];
    let start = || {
        let worker = Worker::builder("echo").mapper(both).queue(100);
        worker.serve(Job::payload_bytes).unwrap()
    };
    let workers = [start(), start()];
    for deployment in [&first, &second] {
        eventually("both workers at both mappers", || answers(deployment, 2));
    }
    let client = Client::connect(both).unwrap();
    let jobs = |number: usize| {
        let submit = |_| client.submit("echo", b"x".to_vec()).unwrap();
        Count::of((0..number).map(submit).collect())
    };
    assert_eq!(jobs(50).done, 50);
    signal(&second, Signal::STOP);
    // The command asks as well, and it is not held up either: that took a second.
    let started_at = Clock.now();
    let mut command = Command::new(executable());
    command.args(["submit", "echo", "--data", "hello", "--mapper", &both.join(",")]);
    let output = command.output().unwrap();
    let took = Clock.now().since(started_at);
    assert_eq!(output.stdout, b"hello", "{}", String::from_utf8_lossy(&output.stderr));
    assert!(took < Duration::from_millis(900), "{took:?}");
    // For longer than it takes to be given up.
    let until = Clock.now() + Duration::from_secs(4);
    while Clock.now() < until {
        assert_eq!(jobs(20).done, 20);
        svcmap::io::pause_until(Clock.now() + Duration::from_millis(50));
    }
    // What started meanwhile is known by the one that goes on, and by both afterwards.
    let late = start();
    eventually("a third worker", || answers(&first, 3));
    assert_eq!(jobs(50).done, 50);
    signal(&second, Signal::CONT);
    eventually("everybody at the mapper that goes on", || answers(&second, 3));
    assert_eq!(jobs(50).done, 50);
    for worker in workers.into_iter().chain([late]) {
        worker.drain(Duration::from_secs(5)).unwrap();
    }
}

#[test]
fn a_status_of_thousands_of_services_is_complete() {
    let deployment = plain_deployment();
    let mapper = deployment.mapper();
    let sockets: Vec<_> = (0..63).map(|_| dealer(mapper.as_str())).collect();
    let services = 63 * 64;
    for number in 0..services {
        let service = format!("s{number}").parse().unwrap();
        let key = InstanceKey { service, instance: "only".parse().unwrap() };
        let (incarnation, host) = (Incarnation(1), HostId(1));
        let (endpoints, load) = (vec![mapper.clone()], Load::default());
        let said = Registration { key, incarnation, endpoints, host, pid: 1, error: None, load };
        sockets[number / 64].send(codec::encode(&ToMapper::Register(said)), 0).unwrap();
    }
    for number in 0..services {
        let answer = sockets[number / 64].recv_bytes(0).unwrap();
        let answer = codec::decode(&answer).unwrap();
        assert!(matches!(answer, FromMapper::Registered { .. }), "{answer:?}");
    }
    let question = Question { scope: Scope::Everything, ..Question::default() };
    let view = control::ask(std::slice::from_ref(mapper), &question, control::PATIENCE).unwrap();
    assert!(matches!(view.mappers[0].answer, Answer::Complete { .. }), "{:?}", view.mappers);
    assert_eq!((view.services.len(), view.instances.len()), (services, services));
}

/// A process that ends with its test, however that ends.
struct Killed(Child);

impl Killed {
    fn spawn(command: &mut Command) -> Self {
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_worker_without_a_mapper_says_so_and_then_that_it_is_listed() {
    let mapper = nobody().to_string();
    let mut worker = Command::new(executable());
    worker.args(["worker", "--service", "echo", "--builtin", "echo", "--mapper", &mapper]);
    let mut worker = Killed::spawn(worker.stderr(Stdio::piped()));
    let (lines, log) = mpsc::channel();
    let stderr = BufReader::new(worker.0.stderr.take().unwrap());
    let reader = std::thread::Builder::new().name("log".to_owned()).spawn(move || {
        stderr.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)).ok()
    });
    let wait_line = |words: &[&str]| {
        let deadline = Clock.now() + PATIENCE;
        loop {
            let line = log.recv_timeout(deadline.since(Clock.now())).expect("a line in time");
            if words.iter().all(|word| line.contains(word)) {
                return;
            }
        }
    };
    let started_at = Clock.now();
    wait_line(&["no mapper answers", &mapper, "--mapper"]);
    let took = Clock.now().since(started_at);
    assert!((1..5).contains(&took.as_secs()), "{took:?}");
    let mut command = Command::new(executable());
    command.args(["mapper", "--bind", &mapper, "--publish", "tcp://127.0.0.1:0"]);
    let running = Killed::spawn(command.stderr(Stdio::null()));
    wait_line(&["registered", &mapper]);
    drop((worker, running));
    reader.unwrap().join().unwrap();
}

/// A mapper that welcomes everybody and has no room for the first registrations.
fn full_mapper(socket: &zmq::Socket, refusals: usize) -> usize {
    let publish: Endpoint = "tcp://127.0.0.1:1".parse().unwrap();
    let mut refused = 0;
    loop {
        let frames = socket.recv_multipart(0).expect("the worker speaks in time");
        let answer = match codec::decode::<ToMapper>(&frames[1]).unwrap() {
            ToMapper::Hello(_) => FromMapper::Welcome(Welcome {
                epoch: Epoch(1),
                warming: false,
                beat_ms: 1000,
                expiry_ms: 3000,
                publish_ms: 100,
                publish: publish.clone(),
                observed: "127.0.0.1".to_owned(),
                highest: None,
            }),
            ToMapper::Register(_) if refused < refusals => {
                refused += 1;
                FromMapper::RegistrationRefused(RegistrationError::RegistryFull)
            }
            ToMapper::Register(registration) => {
                let (key, incarnation) = (registration.key, registration.incarnation);
                let registered = FromMapper::Registered { key, incarnation };
                socket.send_multipart([&frames[0], &codec::encode(&registered)], 0).unwrap();
                return refused;
            }
            _ => continue,
        };
        socket.send_multipart([&frames[0], &codec::encode(&answer)], 0).unwrap();
    }
}

#[test]
fn a_worker_that_was_refused_is_listed_when_there_is_room() {
    let socket = zmq::Context::new().socket(zmq::ROUTER).unwrap();
    socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).unwrap()).unwrap();
    socket.bind("tcp://127.0.0.1:0").unwrap();
    let mapper = socket.get_last_endpoint().unwrap().unwrap();
    let (notices, told) = mpsc::channel();
    let worker = Worker::builder("echo")
        .mapper(&mapper)
        .notify(move |notice| notices.send(notice).unwrap_or(()))
        .serve(|_: &Job| ())
        .unwrap();
    assert_eq!(full_mapper(&socket, 2), 2);
    assert!(worker.wait_registered(PATIENCE));
    let mapper: Endpoint = mapper.parse().unwrap();
    let refused = Notice::RegistrationRefused(mapper.clone(), RegistrationError::RegistryFull);
    let all: Vec<_> = told.try_iter().collect();
    assert_eq!(all, [refused.clone(), refused, Notice::Registered(mapper)]);
}
