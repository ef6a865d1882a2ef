//! `docs/python/svcmap.py`, and the page about it: between its workers and clients, and native ones.

use std::time::Duration;

use super::*;

/// A worker of the module, for tests: services that sleep, fail, reject and tell where they run.
const WORKER: &str = r#"
import os, sys, time, svcmap

@svcmap.serve("nap")
def nap(seconds):
    time.sleep(seconds)
    return seconds

@svcmap.serve("where")
def where(wanted):
    if wanted not in (None, os.getpid()):
        raise svcmap.Reject("another one is wanted")
    return os.getpid()

@svcmap.serve("odd")
def odd(what):
    if what == "exit":
        sys.exit(3)
    return {"nan": float("nan"), "set": {1}, "large": "x" * (3 << 19), "job": svcmap.current.job}[what]

svcmap.run(mapper=sys.argv[1], concurrency=int(sys.argv[2]))
print("left in order")
"#;

/// A deployment, and the scripts of the pages and of these tests.
fn scene(client: &str) -> (Deployment, Scripts) {
    let scripts = Scripts::new();
    for (name, script) in [("worker.py", WORKER), ("client.py", client)] {
        fs::write(scripts.0.path().join(name), script).unwrap();
    }
    (plain_deployment(), scripts)
}

/// What `svcmap submit` prints, without the line's end.
fn submitted(deployment: &Deployment, args: &[&str]) -> String {
    let output = svcmap(deployment, &[&["submit"], args].concat());
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap().trim_end().to_owned()
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn the_page_prints_what_stands_there() {
    let (mut deployment, scripts) = scene("");
    deployment.start_worker("echo", "w-1", &["--builtin", "echo"]).unwrap();
    let _worker = scripts.start("words.py", &deployment, &[]);
    let _adder = scripts.start("results.py", &deployment, &["sum", "py-1"]);
    deployment.wait_ready(&[("echo", 1), ("count", 1), ("sum", 1)]).unwrap();
    assert_eq!(submitted(&deployment, &["sum", "--data", "[1, 2, 3]"]), "6");
    assert!(submitted(&deployment, &["sum", "--data", "1"]).contains("failed: TypeError("));
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/python.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, shown) = page.split_once("```console\n$ svcmap submit").unwrap();
    let mut lines = shown.lines();
    assert_eq!(lines.next(), Some(" count --data '\"two words\"'"));
    assert_eq!(Some(&*submitted(&deployment, &["count", "--data", "\"two words\""])), lines.next());
    assert_eq!(lines.next(), Some("$ svcmap submit count --data null"));
    let failed = submitted(&deployment, &["count", "--data", "null"]);
    let (expected, _) = lines.next().unwrap().split_once('…').unwrap();
    assert!(failed.starts_with(expected), "{failed}");
    let (_, shown) = page.split_once("$ python totals.py\n").unwrap();
    let (expected, _) = shown.split_once("```").unwrap();
    assert_eq!(scripts.run("totals.py", &deployment, &[]), expected);
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn native_senders_keep_all_threads_of_a_python_worker_busy() {
    let (deployment, scripts) = scene("");
    let mut worker = scripts.start("worker.py", &deployment, &["8"]);
    deployment.wait_ready(&[("nap", 1), ("where", 1), ("odd", 1)]).unwrap();
    let client = deployment.client().unwrap();
    // One after the other they would take 20 s, which is more than they have.
    let nap = |_| client.job("nap", b"0.2".to_vec()).deadline(PATIENCE / 2).submit().unwrap();
    let tickets: Vec<_> = (0..100).map(nap).collect();
    for ticket in tickets {
        let reply = ticket.wait().done().unwrap();
        assert_eq!((&reply[..], reply.attempts), (&b"0.2"[..], 1));
        assert!(reply.ran >= Duration::from_millis(199), "{:?}", reply.ran);
    }
    for (what, error) in [
        ("exit", "SystemExit: 3"),
        ("nan", "ValueError: Out of range float values are not JSON compliant"),
        ("set", "TypeError: Object of type set is not JSON serializable"),
        ("large", "its result of 1572866 bytes is larger than 1048576"),
        ("what", "KeyError: 'what'"),
    ] {
        let payload = format!("\"{what}\"").into_bytes();
        let Outcome::Failed(failure) = client.submit("odd", payload).unwrap().wait() else {
            panic!("{what}")
        };
        assert!(failure.error.starts_with(error), "{failure}");
    }
    let job = client.job("odd", b"\"job\"".to_vec()).metadata("input", "a.jpg");
    let reply = job.submit().unwrap().wait().done().unwrap();
    let said: serde_json::Value = serde_json::from_slice(&reply).unwrap();
    assert_eq!((&said["body"], &said["metadata"]), (&json!("job"), &json!({"input": "a.jpg"})));

    // What is rejected is tried at another one.
    let mut other = scripts.start("worker.py", &deployment, &["2"]);
    deployment.wait_ready(&[("nap", 2), ("where", 2), ("odd", 2)]).unwrap();
    for python in [&worker, &other] {
        let pid = python.child.id().to_string();
        let is_it = |reply: &[u8]| reply == pid.as_bytes();
        // As soon as the sender has heard of both.
        eventually("the one that is wanted", || {
            let outcome = client.submit("where", pid.clone().into_bytes()).unwrap().wait();
            matches!(outcome, Outcome::Done(reply) if is_it(&reply))
        });
    }
    let Outcome::Refused(refusal) = client.submit("where", b"1".to_vec()).unwrap().wait() else {
        panic!("no process is wanted")
    };
    assert_eq!(refusal.reason, Reason::CannotStart);

    // A drain finishes what runs, and what waits is done by the other.
    let tickets: Vec<_> = (0..30).map(nap).collect();
    deployment
        .wait_for("it to have jobs", |report| {
            let mine = |row: &InstanceRow| row.pid == worker.child.id() && row.load > 0.0;
            report.instances.iter().any(mine)
        })
        .unwrap();
    worker.terminate();
    assert_eq!(worker.printed(), "left in order\n");
    for ticket in tickets {
        let outcome = ticket.wait();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
    }

    // A worker that is killed leaves its jobs unknown.
    let ticket = nap(0);
    let long = client.submit("nap", b"60".to_vec()).unwrap();
    assert!(matches!(ticket.wait(), Outcome::Done(_)));
    other.child.kill().unwrap();
    assert!(matches!(long.wait(), Outcome::Unknown(_)));
}

/// A client of the module: `client.py MAPPER`, of the services that the test below starts.
const CLIENT: &str = r#"
import asyncio, concurrent.futures, time, svcmap

def error(future):
    error = future.exception(timeout=30)
    return type(error).__name__, str(error), getattr(error, "code", None)

with svcmap.Client() as client:
    assert isinstance(client, concurrent.futures.Executor)
    # In order, whoever does it: two native workers, and one of this module.
    values = [{"number": number, "text": "ä" * (number % 7)} for number in range(500)]
    assert list(client.map("echo", values)) == values
    # As many at once as there is room for: one after the other they take 20 s.
    begun = time.monotonic()
    assert list(client.map("nap", [0.2] * 100)) == [0.2] * 100
    assert time.monotonic() - begun < 15, "not at once"
    async def one():
        return await asyncio.get_running_loop().run_in_executor(client, "echo", [1])
    assert asyncio.run(one()) == [1]

    assert client.submit("program", "hello").result(30) == b'got "hello"\n'
    assert error(client.submit("program", None)) == ("JobFailed", "program: exit status 4: no way", 4)
    assert error(client.submit("odd", "what")) == ("JobFailed", "odd: KeyError: 'what'", None)
    assert error(client.submit("where", 1)) == ("JobRefused", "where: another one is wanted", None)
    # A mapper that has just started may not know everybody yet.
    with svcmap.Client(hold_s=0.5) as impatient:
        kind, text, _ = error(impatient.submit("nobody", 1))
        assert (kind, text.split(":")[1]) == ("JobRefused", " nobody serves it"), text
    assert len(client.submit("odd", "large").result(30)) == 3 << 19, "there is no limit between these"
    for wrong in (float("nan"), {1}, b""):
        try:
            client.submit("echo", wrong)
            assert False, wrong
        except (ValueError, TypeError):
            pass
"#;

/// A client whose workers are full, late or killed.
const TROUBLE: &str = r#"
import os, signal, threading, time, svcmap

def error(future):
    error = future.exception(timeout=30)
    return type(error).__name__, str(error)

def wait_running(future):
    while not future.running():
        time.sleep(0.01)

# Full workers are asked again, and a job that is not taken in time is refused. It takes one at a time.
with svcmap.Client(hold_s=0.3) as impatient, svcmap.Client() as patient:
    first = [patient.submit("single", 0.7) for _ in range(2)]
    wait_running(first[0])
    kind, text = error(impatient.submit("single", 0))
    assert (kind, "(full)" in text) == ("JobRefused", True), text
    assert [future.result(30) for future in first] == [0.7, 0.7]
    late = svcmap.Client(deadline_s=0.3)
    assert error(late.submit("single", 1.6)) == (
        "JobUnknown", "single: no answer by its deadline: it may have run")
    late.shutdown()

# What no worker has is cancelled.
client = svcmap.Client()
futures = [client.submit("single", 0.5) for _ in range(3)]
wait_running(futures[0])
client.shutdown(cancel_futures=True)
assert sorted(future.cancelled() for future in futures) == [False, True, True], futures
try:
    client.submit("single", 0)
    assert False
except RuntimeError:
    pass

# A worker that is killed: what may run twice does.
with svcmap.Client() as once, svcmap.Client(idempotent=True) as twice:
    victim = once.submit("where", None).result(30)
    lost, kept = once.submit("nap", 60), twice.submit("nap", 1.5)
    wait_running(lost)
    wait_running(kept)
    os.kill(victim, signal.SIGKILL)
    assert error(lost)[0] == "JobUnknown", error(lost)
    assert kept.result(30) == 1.5
# Nothing of it is left.
assert threading.active_count() == 1, threading.enumerate()
"#;

/// Starts the worker of these tests under that name, with a change of its text.
fn start(
    scripts: &Scripts,
    deployment: &Deployment,
    name: &str,
    script: &str,
    threads: &str,
) -> Python {
    fs::write(scripts.0.path().join(name), script).unwrap();
    scripts.start(name, deployment, &[threads])
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn a_python_client_needs_not_know_who_does_its_jobs() {
    let (mut deployment, scripts) = scene(CLIENT);
    for name in ["e-1", "e-2"] {
        deployment.start_worker("echo", name, &["--builtin", "echo"]).unwrap();
    }
    let program = r#"sh -c 'read line; [ "$line" != null ] || { echo no way >&2; exit 4; }; echo "got $line"'"#;
    deployment.start_worker("program", "p-1", &["--exec", program]).unwrap();
    let echo = "svcmap.serve(\"echo\")(lambda value: value)\nsvcmap.run(";
    let worker = WORKER.replace("svcmap.run(", echo);
    let _worker = start(&scripts, &deployment, "worker.py", &worker, "8");
    let wanted = [("echo", 3), ("program", 1), ("nap", 1), ("odd", 1), ("where", 1)];
    deployment.wait_ready(&wanted).unwrap();
    scripts.run("client.py", &deployment, &[]);
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn a_python_client_says_what_is_wrong_with_workers() {
    let (deployment, scripts) = scene(TROUBLE);
    let mut worker = start(&scripts, &deployment, "worker.py", WORKER, "8");
    let single = "@svcmap.serve(\"single\")\ndef single(seconds):\n    return time.sleep(seconds)";
    let single = format!("import sys, time, svcmap\n\n{single} or seconds\n\n");
    let single = format!("{single}svcmap.run(mapper=sys.argv[1], concurrency=1, waiting=0)\n");
    let _single = start(&scripts, &deployment, "single.py", &single, "");
    deployment.wait_ready(&[("nap", 1), ("where", 1), ("single", 1)]).unwrap();
    let mut client = scripts.start("client.py", &deployment, &[]);
    eventually("the worker to be killed", || worker.child.try_wait().unwrap().is_some());
    let _successor = scripts.start("worker.py", &deployment, &["8"]);
    eventually("the client to end", || client.child.try_wait().unwrap().is_some());
    assert!(client.child.wait().unwrap().success());
}

/// A client that says how each of these jobs ends.
const ASKS: &str = r#"
import sys, svcmap
with svcmap.Client(hold_s=2, deadline_s=5) as client:
    for service in sys.argv[1:]:
        try:
            print(service, client.submit(service, "two words").result())
        except svcmap.JobError as error:
            print(service, type(error).__name__)
"#;

/// A script with that deployment file, and what it prints.
fn keyed(scripts: &Scripts, script: &str, file: &Path) -> Command {
    let python = std::env::var("SVCMAP_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let mut command = Command::new(python);
    command.arg(scripts.0.path().join(script)).env_remove("SVCMAP_MAPPER");
    command.env("SVCMAP_DEPLOYMENT", file).stdin(Stdio::null());
    command
}

#[test]
#[ignore = "needs pyzmq: pip install pyzmq"]
fn with_a_deployment_file_everything_is_encrypted_and_only_who_may_gets_in() {
    let scripts = Scripts::new();
    fs::write(scripts.0.path().join("asks.py"), ASKS).unwrap();
    let scene = Scene::new(ECHO);
    scene.assert_a_job_is_done();
    let worker = scene.add_key("worker", &["--services", "count"]);
    let alice = scene.add_key("alice", &["--role", "client", "--services", "count"]);
    let mut serving = keyed(&scripts, "words.py", &worker);
    let _serving = Running::new(serving.stderr(Stdio::null()).spawn().unwrap());
    eventually("the worker", || code(&scene.run(&["status", "count"])) == Some(0));
    let submitted = scene.run(&["submit", "count", "--data", "\"one two three\""]);
    assert_eq!(text(&submitted.stdout), "3", "{}", text(&submitted.stderr));
    let asks = |file: &Path, services: &[&str]| {
        let output = keyed(&scripts, "asks.py", file).args(services).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        text(&output.stdout)
    };
    let everybody = scene.folder.path().join("svcmap.toml");
    assert_eq!(asks(&everybody, &["count"]), "count 2\n");
    assert_eq!(asks(&everybody, &["secretservice"]), "secretservice two words\n");
    assert_eq!(asks(&alice, &["count", "secretservice"]), "count 2\nsecretservice JobRefused\n");
    // The worker hears of it within a second.
    assert_eq!(code(&scene.run(&["key", "revoke", "alice"])), Some(0));
    assert_eq!(asks(&alice, &["count"]), "count JobRefused\n");
    let context = zmq::Context::new();
    let address = text(&scene.run(&["status", "count", "--json"]).stdout);
    let report: serde_json::Value = serde_json::from_str(&address).unwrap();
    let ask = |file: &Path| {
        let own = svcmap_proto::deployment::Deployment::load(file).unwrap().own;
        let server = svcmap_proto::deployment::Deployment::load(&worker).unwrap().own.public;
        let socket = context.socket(zmq::REQ).unwrap();
        socket.set_linger(0).unwrap();
        svcmap_proto::io::curve::secure_client(&socket, &own, server).unwrap();
        socket.connect(report["instances"][0]["endpoint"].as_str().unwrap()).unwrap();
        socket.send(r#"{"command":"SUBMIT","payload":{"body":"a b"}}"#, 0).unwrap();
        socket.set_rcvtimeo(3000).unwrap();
        socket.recv_bytes(0).is_ok()
    };
    assert!(ask(&everybody));
    eventually("alice to be shut out", || !ask(&alice));
}
