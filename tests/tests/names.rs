//! A name that has several addresses stands for several mappers. Names take a file of their own in place of
//! the machine's `/etc/hosts`, in network namespaces, so for root only.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;
use svcmap::access::mapper_file;
use svcmap::commands::status::Report;
use svcmap_proto::names::Endpoint;
use svcmap_tests::netns::{Host, Network, Process, address};
use svcmap_tests::{PATIENCE, eventually};

const NAME: &str = "mappers.test";
const NAMED: &str = "tcp://mappers.test:5555";
const CONTROL: u16 = 5555;

fn start_mapper(host: &Host) -> (Process, Endpoint) {
    let bind = format!("tcp://{}:{CONTROL}", host.address);
    let args = ["mapper", "--bind", &bind, "--beat", "400ms"];
    (host.start(&args, Stdio::null()), bind.parse().unwrap())
}

fn start_worker(host: &Host, service: &str, log: Stdio) -> Process {
    let args = ["worker", "--service", service, "--builtin", "echo", "--mapper", NAMED];
    host.start(&args, log)
}

fn lists(service: &str) -> impl Fn(&Report) -> bool + Sync {
    move |report| report.instances.iter().any(|row| row.service.as_str() == service)
}

/// A sender that goes on: it knows no more than the name.
struct Sender {
    child: Child,
    input: ChildStdin,
    results: Receiver<String>,
}

impl Sender {
    fn start(host: &Host, service: &str) -> Self {
        let args =
            ["submit", service, "--lines", "-", "--json-lines", "--mapper", NAMED, "--insecure"];
        let mut command = host.command(&args);
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (tell, results) = channel();
        let read = move || {
            let lines = BufReader::new(output).lines().map_while(Result::ok);
            lines.for_each(|line| drop(tell.send(line)));
        };
        std::thread::Builder::new().spawn(read).unwrap();
        Self { child, input, results }
    }

    /// A job is done.
    fn finish_job(&mut self) {
        writeln!(self.input, "hello").unwrap();
        let result: Value =
            serde_json::from_str(&self.results.recv_timeout(PATIENCE).unwrap()).unwrap();
        assert_eq!(result["outcome"], "done", "{result}");
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the mappers of the name say, as JSON.
fn status(host: &Host, flags: &[&str]) -> Value {
    let output = host.command(&[&["status", "--json"], flags].concat()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"))
}

/// Where the mappers were asked.
fn asked(status: &Value) -> Vec<&str> {
    let rows = status["mappers"].as_array().unwrap().iter();
    rows.inspect(|row| assert_eq!(row["name"], NAMED, "{status}"))
        .map(|row| row["endpoint"].as_str().unwrap())
        .collect()
}

#[test]
fn a_name_of_two_mappers_is_two_and_one_that_moves_is_found() {
    let Some(network) = Network::new(4) else { return };
    let [first, second, third, host] = &network.hosts[..] else { return };
    host.set_name(NAME, &[&first.address, &second.address]);
    let (at_first, at_second) = (start_mapper(first), start_mapper(second));
    let _worker = start_worker(host, "echo", Stdio::null());
    for (host, mapper) in [(first, &at_first.1), (second, &at_second.1)] {
        host.wait_for(mapper, "the worker", lists("echo"));
    }
    let told = status(host, &["--mapper", NAMED, "--insecure"]);
    assert_eq!(asked(&told), [at_first.1.as_str(), at_second.1.as_str()]);
    assert_eq!(told["mappers_agree"], true, "{told}");
    let mut sender = Sender::start(host, "echo");
    sender.finish_job();
    // One is lost, and another one has its place.
    drop(at_first.0);
    sender.finish_job();
    host.set_name(NAME, &[&second.address, &third.address]);
    let at_third = start_mapper(third);
    third.wait_for(&at_third.1, "the worker", lists("echo"));
    sender.finish_job();
    // That is the only one, so the sender knows it if it finds who is new.
    drop(at_second.0);
    let _late = start_worker(host, "late", Stdio::null());
    third.wait_for(&at_third.1, "the late worker", lists("late"));
    let mut late = Sender::start(host, "late");
    late.finish_job();
    sender.finish_job();
    // All are gone at once, and the name means one that was not there before.
    drop(at_third.0);
    host.set_name(NAME, &[&first.address]);
    let at_first = start_mapper(first);
    first.wait_for(&at_first.1, "both workers", |report| {
        lists("echo")(report) && lists("late")(report)
    });
    late.finish_job();
}

#[test]
fn a_mapper_at_two_addresses_is_one() {
    let Some(network) = Network::new(2) else { return };
    let [mapper, host] = &network.hosts[..] else { return };
    mapper.add_address(11);
    host.set_name(NAME, &[&mapper.address, &address(11)]);
    let args = ["mapper", "--bind", "tcp://*:5555", "--beat", "400ms"];
    let started = mapper.start(&args, Stdio::null());
    let at: Endpoint = format!("tcp://{}:{CONTROL}", mapper.address).parse().unwrap();
    let log = tempfile::NamedTempFile::new().unwrap();
    let _worker = start_worker(host, "echo", log.reopen().unwrap().into());
    mapper.wait_for(&at, "the worker", lists("echo"));
    let is_one = || host.connections_to(CONTROL).len() == 1;
    eventually("one connection", is_one);
    let told = status(host, &["--mapper", NAMED, "--insecure"]);
    assert_eq!(asked(&told).len(), 1, "{told}");
    // Started again it is met at both addresses anew.
    drop(started);
    let _again = mapper.start(&args, Stdio::null());
    mapper.wait_for(&at, "the worker", lists("echo"));
    eventually("one connection", is_one);
    eventually("it to be registered once with each", || {
        let said = fs::read_to_string(log.path()).unwrap();
        let registered = said.matches(" registered").count();
        assert!(registered <= 2, "{said}");
        registered == 2
    });
}

#[test]
fn mappers_of_one_name_share_their_keys() {
    let Some(network) = Network::new(3) else { return };
    let [first, second, host] = &network.hosts[..] else { return };
    for any in &network.hosts {
        any.set_name(NAME, &[&first.address, &second.address]);
    }
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let files = [0, 1].map(|number| folders[number].path().join("svcmap.toml"));
    let start = |number: usize| {
        let (host, file) = (&network.hosts[number], files[number].to_str().unwrap());
        let bind = format!("tcp://{}:{CONTROL}", host.address);
        let args = ["mapper", "--bind", &bind, "--advertise", NAME, "--deployment", file];
        host.spawn(&args, Stdio::null())
    };
    let _first = start(0);
    eventually("its files", || files[0].exists() && mapper_file(&files[0]).exists());
    fs::copy(&files[0], &files[1]).unwrap();
    fs::copy(mapper_file(&files[0]), mapper_file(&files[1])).unwrap();
    let _second = start(1);
    let keys = ["--deployment", files[0].to_str().unwrap()];
    let worker = ["worker", "--service", "echo", "--builtin", "echo"];
    let _worker = host.spawn(&[&worker[..], &keys].concat(), Stdio::null());
    eventually("both to list it", || {
        let told = status(host, &keys);
        let rows = told["mappers"].as_array().unwrap();
        let is_complete = rows.iter().all(|row| row["answer"] == "complete");
        let is_one = told["instances"].as_array().unwrap().len() == 1;
        asked(&told).len() == 2 && is_complete && is_one && told["mappers_agree"] == true
    });
    let run = |args: &[&str]| {
        let output = host.command(&[args, &keys].concat()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{said}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert_eq!(run(&["submit", "echo", "--data", "hello"]), "hello");
    // Each keeps a list of its own, and is told.
    let alice = folders[0].path().join("alice.toml");
    run(&["key", "add", "alice", "--output", alice.to_str().unwrap()]);
    let listed: Value = serde_json::from_str(&run(&["key", "list", "--json"])).unwrap();
    let rows = listed["principals"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{listed}");
    assert!(rows.iter().all(|row| row["missing_at"] == serde_json::json!([])), "{listed}");
}

#[test]
fn a_name_that_leads_nowhere_is_found_once_it_leads_somewhere() {
    let Some(network) = Network::new(2) else { return };
    let [mapper, host] = &network.hosts[..] else { return };
    host.set_name("another.test", &[&mapper.address]);
    let (_mapper, at) = start_mapper(mapper);
    let log = tempfile::NamedTempFile::new().unwrap();
    let _worker = start_worker(host, "echo", log.reopen().unwrap().into());
    let said = || fs::read_to_string(log.path()).unwrap();
    eventually("it to be said", || said().contains("leads nowhere"));
    let doctor = host.svcmap(&["doctor", "--mapper", NAMED]);
    let found = String::from_utf8_lossy(&doctor.stdout);
    assert!(found.contains("getent hosts mappers.test"), "{found}");
    host.set_name(NAME, &[&mapper.address]);
    mapper.wait_for(&at, "the worker", lists("echo"));
}
