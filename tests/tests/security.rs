//! What a deployment file promises: who has it takes part, and nobody else reads, joins or pretends.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::thread::Builder;
use std::time::Duration;

use svcmap_proto::deployment::{Deployment, MapperFile};
use svcmap_proto::io::curve::new_keys;
use svcmap_proto::names::Endpoint;
use svcmap_tests::batch::{code, text};
use svcmap_tests::eventually;
use svcmap_tests::keyed::{ECHO, Scene, command, file, start};
use svcmap_tests::netns::Network;
use svcmap_worker::{Client, Outcome, Reason};

#[test]
fn the_file_is_all_that_it_takes_and_without_it_there_is_nothing() {
    let scene = Scene::new(ECHO);
    scene.assert_a_job_is_done();
    let status = scene.run(&["status", "secretservice"]);
    assert!(text(&status.stdout).contains("hidden"), "{}", text(&status.stderr));
    let client = Client::from_deployment(scene.deployment()).unwrap();
    assert!(matches!(client.submit("secretservice", "x").unwrap().wait(), Outcome::Done(_)));
    // Somebody without it, and somebody with that of another deployment.
    let elsewhere = tempfile::tempdir().unwrap();
    let mapper = scene.mapper.to_string();
    let without = command(elsewhere.path(), &["status", "--mapper", &mapper]).output().unwrap();
    assert_eq!(code(&without), Some(69));
    let said = text(&without.stderr);
    assert!(
        said.contains("only with who has its deployment file") && said.contains("copy"),
        "{said}"
    );
    let other = Deployment { own: new_keys().unwrap(), ..scene.deployment() };
    other.create(&file(elsewhere.path()), "alice").unwrap();
    let path = file(elsewhere.path()).display().to_string();
    let stranger = command(elsewhere.path(), &["status", "--deployment", &path]).output().unwrap();
    assert!(
        text(&stranger.stderr).contains("does not take this deployment file"),
        "{}",
        text(&stranger.stderr)
    );
    // A worker that has it says so as well, and goes on trying.
    let worker = ["worker", "--service", "x", "--builtin", "echo", "--deployment", &path];
    let log = elsewhere.path().join("log");
    let (_worker, _) = start(command(elsewhere.path(), &worker), &log);
    eventually("it to say so", || {
        fs::read_to_string(&log).unwrap().contains("does not take this deployment file")
    });
}

#[test]
fn a_stranger_gets_no_word_out_of_mapper_and_worker_and_no_job_in() {
    let scene = Scene::new(ECHO);
    let client = |deployment: Deployment| Client::from_deployment(deployment).unwrap();
    let known = client(scene.deployment());
    let job = |client: &Client| {
        let job = client.job("secretservice", "x").hold(Duration::from_secs(2));
        job.submit().unwrap().wait()
    };
    assert!(matches!(job(&known), Outcome::Done(_)));
    // With keys that nobody knows, and with those of a mapper that is not this one.
    let unknown = Deployment { own: new_keys().unwrap(), ..scene.deployment() };
    let mut mistaken = scene.deployment();
    mistaken.mappers[0].key = new_keys().unwrap().public;
    for deployment in [unknown, mistaken] {
        match job(&client(deployment)) {
            Outcome::Refused(refusal) => assert_eq!(refusal.reason, Reason::NoMapper),
            other => panic!("{other:?}"),
        }
    }
    // In plain text: natively to the mapper, and as JSON to both.
    let plain = Client::connect(scene.mapper.as_str()).unwrap();
    assert!(matches!(job(&plain), Outcome::Refused(_)));
    let status = scene.run(&["status", "secretservice", "--json"]);
    let report: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    let worker = report["instances"][0]["endpoint"].as_str().unwrap().to_owned();
    let context = zmq::Context::new();
    let sockets = [scene.mapper.as_str(), &worker].map(|endpoint| {
        let socket = context.socket(zmq::REQ).unwrap();
        socket.set_linger(0).unwrap();
        socket.connect(endpoint).unwrap();
        socket.send(r#"{"command":"LIST_PEERS","payload":{}}"#, 0).unwrap();
        socket
    });
    for socket in sockets {
        socket.set_rcvtimeo(500).unwrap();
        assert_eq!(socket.recv_bytes(0), Err(zmq::Error::EAGAIN));
    }
    // And nothing of that has harmed those who belong here.
    assert!(matches!(job(&known), Outcome::Done(_)));
}

#[test]
fn a_mapper_keeps_its_keys_and_is_found_again() {
    let mut scene = Scene::new(ECHO);
    let own = MapperFile::load(scene.mapper_file()).unwrap();
    scene.restart_mapper();
    scene.assert_a_job_is_done();
    let kept = MapperFile::load(scene.mapper_file()).unwrap();
    assert_eq!(kept, own);
    // A file without the mapper's own beside it is not replaced, nor is a mapper started without keys.
    fs::remove_file(scene.mapper_file()).unwrap();
    let lost = scene.run(&["mapper", "--bind", "tcp://127.0.0.1:0"]);
    assert_eq!(code(&lost), Some(64));
    assert!(text(&lost.stderr).contains("is there, but not"), "{}", text(&lost.stderr));
}

#[test]
fn files_are_their_owners_and_secrets_are_nowhere_else() {
    let scene = Scene::new(ECHO);
    let deployment = scene.deployment();
    let own = MapperFile::load(scene.mapper_file()).unwrap();
    for name in ["svcmap.toml", "svcmap.mapper.toml"] {
        let mode = fs::metadata(scene.folder.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let mut seen = String::new();
    for output in [
        scene.run(&["submit", "secretservice", "--data", "x", "--json"]),
        scene.run(&["status", "--json"]),
        scene.run(&["--log-level", "debug", "submit", "secretservice", "--data", "x"]),
        scene.run(&[
            "mapper",
            "--bind",
            "tcp://127.0.0.1:0",
            "--log-level",
            "debug",
            "--beat",
            "1us",
        ]),
    ] {
        seen += &(text(&output.stdout) + &text(&output.stderr));
    }
    for name in ["mapper.log", "worker.log"] {
        seen += &fs::read_to_string(scene.folder.path().join(name)).unwrap();
    }
    let Scene { folder, mut processes, .. } = scene;
    for process in &mut processes {
        let pid = process.child().id();
        for name in ["cmdline", "environ"] {
            seen += &String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/{name}")).unwrap());
        }
    }
    assert!(seen.contains("secretservice"));
    for secret in [deployment.own.secret, own.own.secret].map(String::from) {
        assert!(!seen.contains(&secret) && !seen.contains(&secret[..10]), "{seen}");
    }
    // One that others can read is no secret any more.
    fs::set_permissions(file(folder.path()), Permissions::from_mode(0o644)).unwrap();
    let path = file(folder.path()).display().to_string();
    let exposed = command(folder.path(), &["status", "--deployment", &path]).output().unwrap();
    assert_eq!(code(&exposed), Some(64));
    assert!(
        text(&exposed.stderr).contains(&format!("chmod 600 {path}")),
        "{}",
        text(&exposed.stderr)
    );
}

/// Stands between two, and keeps all that they say.
struct Wire {
    endpoint: Endpoint,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    /// Leads to where `to` says by the time that somebody connects.
    fn new(to: Arc<Mutex<String>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::tcp("127.0.0.1", listener.local_addr().unwrap().port()).unwrap();
        let heard = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&heard);
        // Both threads of a connection end with it; this one with the process of the test.
        Builder::new()
            .spawn(move || {
                for near in listener.incoming().map_while(Result::ok) {
                    let Ok(far) =
                        TcpStream::connect(to.lock().unwrap().trim_start_matches("tcp://"))
                    else {
                        continue;
                    };
                    let pairs = [(near.try_clone(), far.try_clone()), (Ok(far), Ok(near))];
                    for (from, to) in pairs.map(|(from, to)| (from.unwrap(), to.unwrap())) {
                        let heard = Arc::clone(&kept);
                        Builder::new().spawn(move || pass(from, to, &heard)).unwrap();
                    }
                }
            })
            .unwrap();
        Self { endpoint, heard }
    }

    fn has_heard(&self, what: &str) -> bool {
        let heard = self.heard.lock().unwrap();
        heard.windows(what.len()).any(|window| window == what.as_bytes())
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, heard: &Mutex<Vec<u8>>) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        heard.lock().unwrap().extend(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
}

/// What somebody hears who listens between all of them, with keys and without.
fn eavesdrop(is_encrypted: bool) -> [Wire; 2] {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path());
    let keys: &[&str] = if is_encrypted { &["--deployment", path.to_str().unwrap()] } else { &[] };
    let to = Arc::new(Mutex::new(String::new()));
    let wire = Wire::new(Arc::clone(&to));
    let mapper = [&["mapper", "--bind", "tcp://127.0.0.1:0"][..], keys].concat();
    let (_mapper, line) = start(command(folder.path(), &mapper), &folder.path().join("mapper.log"));
    let bound = line.strip_prefix("listening on ").unwrap().split(',').next().unwrap();
    *to.lock().unwrap() = bound.to_owned();
    if is_encrypted {
        // Whoever has the file goes by the wire.
        let mut deployment = Deployment::load(&path).unwrap();
        deployment.mappers[0].address = wire.endpoint.clone();
        fs::remove_file(&path).unwrap();
        deployment.create(&path, "alice").unwrap();
    }
    let worker_at = Arc::new(Mutex::new(String::new()));
    let worker_wire = Wire::new(Arc::clone(&worker_at));
    let mapper = wire.endpoint.as_str();
    let worker =
        ["worker", "--service", "secretservice", "--instance", "hidden", "--builtin", "echo"];
    let at = ["--mapper", mapper, "--advertise", worker_wire.endpoint.as_str()];
    let args = [&worker[..], &at, keys].concat();
    let (_worker, line) = start(command(folder.path(), &args), &folder.path().join("worker.log"));
    *worker_at.lock().unwrap() = line.trim().rsplit_once(' ').unwrap().1.to_owned();
    let submit = ["submit", "secretservice", "--data", "the combination is 1234"];
    let args = [&submit[..], &["--mapper", mapper], keys].concat();
    let done = command(folder.path(), &args).output().unwrap();
    assert_eq!(text(&done.stdout), "the combination is 1234", "{}", text(&done.stderr));
    [wire, worker_wire]
}

#[test]
fn who_listens_in_between_hears_neither_names_nor_payloads() {
    let words = ["secretservice", "hidden", "combination"];
    let [control, data] = eavesdrop(false);
    assert!(control.has_heard("secretservice") && control.has_heard("hidden"));
    assert!(data.has_heard("combination"));
    for wire in eavesdrop(true) {
        assert!(wire.has_heard("CURVE"));
        words.iter().for_each(|word| assert!(!wire.has_heard(word), "{word}"));
    }
}

#[test]
fn plain_text_beyond_this_machine_takes_a_word_and_gets_one() {
    let folder = tempfile::tempdir().unwrap();
    let bind = ["mapper", "--bind", "tcp://0.0.0.0:0", "--insecure"];
    let log = folder.path().join("log");
    let (_mapper, _) = start(command(folder.path(), &bind), &log);
    eventually("a warning", || fs::read_to_string(&log).unwrap().contains("not encrypted"));
    assert!(!file(folder.path()).exists());
    let worker = ["worker", "--service", "x", "--builtin", "echo", "--bind", "tcp://0.0.0.0:0"];
    let refused = command(folder.path(), &worker).output().unwrap();
    assert_eq!(code(&refused), Some(64));
    assert!(
        text(&refused.stderr).contains("nothing would be encrypted"),
        "{}",
        text(&refused.stderr)
    );
    let submit = ["submit", "x", "--data", "x", "--mapper", "tcp://192.0.2.1:5555"];
    let refused = command(folder.path(), &submit).output().unwrap();
    assert_eq!(code(&refused), Some(64), "{}", text(&refused.stderr));
}

/// As the README has it: a mapper, a copied file, a worker on another host, and a job.
#[test]
fn three_commands_and_a_copy_make_an_encrypted_deployment_of_two_hosts() {
    let Some(network) = Network::new(2) else { return };
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let run = |host: usize, args: &[&str]| {
        let mut command = network.hosts[host].command(args);
        command.env("XDG_CONFIG_HOME", homes[host].path()).env_remove("SVCMAP_MAPPER");
        command
    };
    let log = |host: usize| homes[host].path().join("log");
    let (_mapper, line) = start(run(0, &["mapper", "--bind", "tcp://0.0.0.0:5555"]), &log(0));
    assert!(line.starts_with("listening on "), "{line}");
    let made = file(&homes[0].path().join("svcmap"));
    let said = fs::read_to_string(log(0)).unwrap();
    assert!(
        said.contains(&format!("{}, with this mapper as tcp://10.77.0.1:5555", made.display())),
        "{said}"
    );
    let copy = file(&homes[1].path().join("svcmap"));
    fs::create_dir(copy.parent().unwrap()).unwrap();
    // With its permissions, as scp -p does it.
    fs::copy(&made, &copy).unwrap();
    let worker = run(1, &["worker", "--service", "sum", "--exec", "sha256sum"]);
    let (_worker, _) = start(worker, &log(1));
    for host in [0, 1] {
        let done = run(host, &["submit", "sum", "--data", "hello"]).output().unwrap();
        assert!(text(&done.stdout).starts_with("2cf24dba5fb0"), "{}", text(&done.stderr));
    }
}
