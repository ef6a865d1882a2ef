//! Several keys: who has one does what it is for, and nothing else, and only as long as it is good.

use std::path::Path;
use std::time::Duration;

use svcmap::control::{self, Question};
use svcmap_proto::codec;
use svcmap_proto::control::{FromMapper, Registration, RegistrationError, ToMapper};
use svcmap_proto::deployment::{Deployment, MapperFile};
use svcmap_proto::jobs::{FromWorker, OfferId, OfferedSlot, SenderHello, ToWorker};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::load::Load;
use svcmap_proto::names::{HostId, Incarnation, InstanceKey, SenderId};
use svcmap_tests::batch::{code, text};
use svcmap_tests::eventually;
use svcmap_tests::keyed::{ECHO, Scene, command, file, start};
use svcmap_tests::netns::Network;
use svcmap_worker::{Client, Outcome};

/// Far longer than anything here takes.
const LONG: Duration = Duration::from_secs(10);

/// Whether a job of who has that file is done. One that was under way when he was cut off may have run.
fn is_done(client: &Client, service: &str) -> bool {
    let job = client.job(service, "x").hold(Duration::from_secs(2)).deadline(LONG);
    matches!(job.submit().unwrap().wait(), Outcome::Done(_))
}

fn client(file: &Path) -> Client {
    Client::from_deployment(Deployment::load(file).unwrap()).unwrap()
}

fn worker<'a>(service: &'a str, instance: &'a str) -> Vec<&'a str> {
    [&["worker", "--service", service, "--instance", instance], ECHO].concat()
}

/// The instances of a service, as an operator sees them.
fn instances(scene: &Scene, service: &str) -> Vec<String> {
    let report = scene.status();
    let rows = report["instances"].as_array().unwrap().iter();
    let of = rows.filter(|row| row["service"] == service);
    of.map(|row| row["instance"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_client_of_one_service_may_do_nothing_else() {
    let mut scene = Scene::new(ECHO);
    scene.start(&worker("sum", "a"), "sum.log");
    let alice = scene.add_key("alice", &["--role", "client", "--services", "sum"]);
    let done = scene.run_as(&alice, &["submit", "sum", "--data", "hello"]);
    assert_eq!(text(&done.stdout), "hello", "{}", text(&done.stderr));
    // Neither send to another service, nor see it.
    let refused = scene.run_as(&alice, &["submit", "secretservice", "--data", "hello"]);
    assert_eq!(code(&refused), Some(1));
    assert!(text(&refused.stderr).contains("not allowed"), "{}", text(&refused.stderr));
    let other = scene.run_as(&alice, &["status", "secretservice"]);
    let said = text(&other.stderr);
    assert!(said.contains("nothing to do with `secretservice`"), "{said}");
    let all = text(&scene.run_as(&alice, &["status", "--json"]).stdout);
    assert!(all.contains("sum") && !all.contains("secretservice"), "{all}");
    // Nor serve, not even its own service.
    for service in ["sum", "secretservice"] {
        scene.start_as(&alice, &worker(service, "intruder"), "intruder.log");
        eventually("it to be refused", || scene.log("intruder.log").contains("may not serve"));
        assert!(!instances(&scene, service).contains(&"intruder".to_owned()));
    }
    // Nor say who takes part.
    let add = scene.run_as(&alice, &["key", "add", "friend", "--output", "/nonexistent/x"]);
    assert_ne!(code(&add), Some(0));
    let revoke = scene.run_as(&alice, &["key", "revoke", "everyone"]);
    assert!(text(&revoke.stderr).contains("only an operator"), "{}", text(&revoke.stderr));
    let list = text(&scene.run_as(&alice, &["key", "list"]).stdout);
    assert!(list.contains("alice") && !list.contains("everyone"), "{list}");
    // Nor say that somebody has left.
    let key = InstanceKey { service: "sum".parse().unwrap(), instance: "a".parse().unwrap() };
    let question = Question { left: vec![(key, Incarnation(u64::MAX / 2))], ..Question::default() };
    let access = svcmap::access::Access {
        mappers: vec![scene.mapper.clone()],
        deployment: Some(Deployment::load(&alice).unwrap()),
    };
    control::ask(&access, &question, LONG).unwrap();
    assert_eq!(instances(&scene, "sum"), ["a"]);
    assert!(is_done(&client(&alice), "sum"));
}

#[test]
fn a_worker_that_is_addressed_directly_lets_in_only_who_may_use_its_service() {
    let mut scene = Scene::new(ECHO);
    scene.start(&worker("sum", "a"), "sum.log");
    let alice = scene.add_key("alice", &["--role", "client", "--services", "sum"]);
    let deployment = Deployment::load(&alice).unwrap();
    let report = scene.status();
    let context = zmq::Context::new();
    let ask = |service: &str| {
        let rows = report["instances"].as_array().unwrap();
        let row = rows.iter().find(|row| row["service"] == service).unwrap();
        let socket = context.socket(zmq::REQ).unwrap();
        socket.set_linger(0).unwrap();
        svcmap_proto::io::curve::secure_client(
            &socket,
            &deployment.own,
            scene.deployment().own.public,
        )
        .unwrap();
        socket.connect(row["endpoint"].as_str().unwrap()).unwrap();
        socket.send(r#"{"command":"JOB","payload":{"x":1}}"#, 0).unwrap();
        socket.set_rcvtimeo(3000).unwrap();
        socket.recv_bytes(0)
    };
    assert!(ask("sum").is_ok());
    assert_eq!(ask("secretservice"), Err(zmq::Error::EAGAIN));
}

#[test]
fn who_is_revoked_is_shut_out_while_connected_everywhere_and_for_good() {
    let mut scene = Scene::new(ECHO);
    let alice = scene.add_key("alice", &["--role", "client"]);
    let bob = scene.add_key("bob", &[]);
    scene.start_as(&bob, &worker("sum", "of-bob"), "bob.log");
    eventually("bob's worker", || instances(&scene, "sum") == ["of-bob"]);
    let (known, revoked) = (client(&file(scene.folder.path())), client(&alice));
    for client in [&known, &revoked] {
        assert!(is_done(client, "secretservice"));
        assert!(is_done(client, "sum"));
    }
    for name in ["alice", "bob"] {
        let done = scene.run(&["key", "revoke", name]);
        assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    }
    // What it serves is listed no more, at once.
    assert_eq!(instances(&scene, "sum"), [""; 0]);
    // What it is connected to lets it do nothing more, be it mapper or worker.
    assert!(!is_done(&revoked, "secretservice"));
    assert!(!is_done(&revoked, "sum"));
    for file in [&alice, &bob] {
        let status = scene.run_as(file, &["status"]);
        let said = text(&status.stderr);
        assert!(said.contains("does not take this deployment file"), "{said}");
    }
    // The others go on, and what was revoked stays so when the mapper is started again.
    assert!(is_done(&known, "secretservice"));
    assert!(!is_done(&known, "sum"));
    scene.restart_mapper();
    scene.assert_a_job_is_done();
    assert_eq!(code(&scene.run_as(&alice, &["status"])), Some(69));
    assert!(!is_done(&revoked, "secretservice"));
    let kept = MapperFile::load(scene.mapper_file()).unwrap();
    assert_eq!((kept.principals.len(), kept.revoked.len()), (1, 2));
    // Nobody shuts himself out.
    let oneself = scene.run(&["key", "revoke", "everyone"]);
    assert!(text(&oneself.stderr).contains("your own key"), "{}", text(&oneself.stderr));
}

#[test]
fn a_name_that_somebody_has_is_taken_by_nobody_else() {
    let mut scene = Scene::new(&[]);
    let [one, two] = ["one", "two"].map(|name| scene.add_key(name, &[]));
    scene.start_as(&one, &worker("sum", "a"), "one.log");
    eventually("the first", || instances(&scene, "sum") == ["a"]);
    // It begins later, so its incarnation is higher.
    scene.start_as(&two, &worker("sum", "a"), "two.log");
    eventually("it to be refused", || scene.log("two.log").contains("with another key"));
    assert!(!scene.log("one.log").contains("replaced"));
    let pid = only_instance(&scene)["pid"].as_u64().unwrap();
    assert_eq!(pid, u64::from(scene.processes[1].child().id()));
    // It may have it when it is free.
    drop(scene.processes.remove(1));
    eventually("the second", || {
        only_instance(&scene)["pid"] == u64::from(scene.processes[1].child().id())
    });
}

/// Somebody with a key of his own, who says by hand what no worker would.
#[test]
fn nobody_repeats_what_another_said() {
    let mut scene = Scene::new(&[]);
    let [one, two] = ["one", "two"].map(|name| scene.add_key(name, &["--services", "sum"]));
    scene.start_as(&one, &worker("sum", "a"), "one.log");
    eventually("the first", || instances(&scene, "sum") == ["a"]);
    let row = only_instance(&scene);
    let (deployment, context) = (Deployment::load(&two).unwrap(), zmq::Context::new());
    let socket = context.socket(zmq::DEALER).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(10_000).unwrap();
    let mapper = &deployment.mappers[0];
    svcmap_proto::io::curve::secure_client(&socket, &deployment.own, mapper.key).unwrap();
    socket.connect(mapper.address.as_str()).unwrap();
    let say = |message: &ToMapper| socket.send(codec::encode(message), 0).unwrap();
    let key = InstanceKey { service: "sum".parse().unwrap(), instance: "a".parse().unwrap() };
    let life = row["incarnation"].as_u64().unwrap();
    // The very registration, an earlier and a later one.
    for incarnation in [life, life - 1, life + 1].map(Incarnation) {
        let load = Load { sequence: 1 << 40, ..Load::default() };
        say(&ToMapper::Leave { key: key.clone(), incarnation });
        say(&ToMapper::Report { key: key.clone(), incarnation, load });
        say(&ToMapper::Register(Registration {
            key: key.clone(),
            incarnation,
            endpoints: vec!["tcp://127.0.0.1:9".parse().unwrap()],
            host: HostId(1),
            pid: 1,
            load,
            error: None,
        }));
        let answer = std::iter::repeat_with(|| {
            codec::decode::<FromMapper>(&socket.recv_bytes(0).expect("an answer")).unwrap()
        })
        .find(|answer| matches!(answer, FromMapper::RegistrationRefused(_)));
        let taken = FromMapper::RegistrationRefused(RegistrationError::NameTaken);
        assert_eq!(answer, Some(taken));
    }
    let now = only_instance(&scene);
    for field in ["pid", "incarnation", "endpoint", "state"] {
        assert_eq!(now[field], row[field], "{field}");
    }
}

/// Whether the first of these workers declines a slot of the second, which who has that file offers, or
/// keeps it for the next job that waits there.
fn is_declined(file: &Path, server: PublicKey, [one, other]: [&serde_json::Value; 2]) -> bool {
    let (own, context) = (Deployment::load(file).unwrap().own, zmq::Context::new());
    let socket = context.socket(zmq::DEALER).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(10_000).unwrap();
    svcmap_proto::io::curve::secure_client(&socket, &own, server).unwrap();
    socket.connect(one["endpoint"].as_str().unwrap()).unwrap();
    let name = |row: &serde_json::Value| row["instance"].as_str().unwrap().parse().unwrap();
    let life = |row: &serde_json::Value| Incarnation(row["incarnation"].as_u64().unwrap());
    let hello = ToWorker::Hello(SenderHello {
        oldest: codec::VERSION_OLDEST,
        newest: codec::VERSION,
        sender: SenderId(svcmap_proto::io::random_u128()),
        connection: 1,
        key: InstanceKey { service: "sum".parse().unwrap(), instance: name(one) },
        incarnation: life(one),
        received_outcomes: 0,
        payload_bytes_max: 1000,
        takes_credits: false,
        open: Vec::new(),
    });
    let slot = OfferedSlot {
        instance: name(other),
        incarnation: life(other),
        offer: OfferId(7),
        lifetime_ms: 60_000,
        payload_bytes_max: 1000,
    };
    for message in [hello, ToWorker::Offer(slot), ToWorker::Ping { received_outcomes: 0 }] {
        socket.send(codec::encode(&message), 0).unwrap();
    }
    // One that is kept is not answered before what comes behind it.
    loop {
        match codec::decode(&socket.recv_bytes(0).expect("an answer")).unwrap() {
            FromWorker::Declined(OfferId(7)) => return true,
            FromWorker::Pong { .. } => return false,
            _ => {}
        }
    }
}

#[test]
fn a_slot_is_believed_only_of_whose_it_is() {
    let mut scene = Scene::new(&[]);
    let [one, two] = ["one", "two"].map(|name| scene.add_key(name, &["--services", "sum"]));
    for instance in ["a", "b"] {
        scene.start_as(&one, &worker("sum", instance), &format!("{instance}.log"));
    }
    eventually("both", || instances(&scene, "sum").len() == 2);
    let report = scene.status();
    let rows = [&report["instances"][0], &report["instances"][1]];
    let server = Deployment::load(&one).unwrap().own.public;
    // It has to hear of the other one first.
    eventually("the slot to be kept", || !is_declined(&one, server, rows));
    assert!(is_declined(&two, server, rows));
}

/// The instance that there is, as an operator sees it.
fn only_instance(scene: &Scene) -> serde_json::Value {
    scene.status()["instances"][0].clone()
}

#[test]
fn another_key_takes_the_place_of_one_while_both_are_good() {
    let scene = Scene::new(ECHO);
    let old = scene.add_key("alice", &["--role", "client"]);
    let new = scene.folder.path().join("new.toml");
    let rotate = |keep: &str, output: &Path| {
        let output = output.display().to_string();
        scene.run(&["key", "rotate", "alice", "--keep", keep, "--output", &output])
    };
    let done = rotate("1h", &new);
    assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    for file in [&old, &new] {
        assert!(is_done(&client(file), "secretservice"));
    }
    let list = text(&scene.run(&["key", "list"]).stdout);
    assert_eq!(list.matches("alice").count(), 2, "{list}");
    let again = scene.folder.path().join("again.toml");
    let refused = rotate("1h", &again);
    assert!(text(&refused.stderr).contains("still good"), "{}", text(&refused.stderr));
    // What nobody takes is not left behind.
    assert!(!again.exists());
    let (gone, connected) = (scene.add_key("bob", &[]), scene.folder.path().join("bob-2.toml"));
    let before = client(&gone);
    assert!(is_done(&before, "secretservice"));
    let output = connected.display().to_string();
    let done = scene.run(&["key", "rotate", "bob", "--keep", "0", "--output", &output]);
    assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    eventually("its end", || !is_done(&before, "secretservice"));
    assert!(is_done(&client(&connected), "secretservice"));
}

#[test]
fn every_mapper_hears_of_a_key_and_a_missing_one_is_told() {
    let mut scene = Scene::new(&[]);
    // A second one with the same keys, as the README has it.
    let home = tempfile::tempdir().unwrap();
    let second = file(home.path());
    std::fs::copy(file(scene.folder.path()), &second).unwrap();
    std::fs::copy(scene.mapper_file(), home.path().join("svcmap.mapper.toml")).unwrap();
    let second = second.display().to_string();
    let args = ["mapper", "--bind", "tcp://127.0.0.1:0", "--deployment", &second];
    let (other, line) = start(command(home.path(), &args), &home.path().join("log"));
    let bound = line.strip_prefix("listening on ").unwrap().split(',').next().unwrap();
    let mut deployment = scene.deployment();
    let mut mapper = deployment.mappers[0].clone();
    mapper.address = bound.parse().unwrap();
    deployment.mappers.push(mapper);
    std::fs::remove_file(file(scene.folder.path())).unwrap();
    deployment.create(&file(scene.folder.path()), "alice").unwrap();
    let alice = scene.add_key("alice", &["--services", "sum"]);
    scene.start_as(&alice, &worker("sum", "a"), "a.log");
    for mapper in &deployment.mappers {
        let mapper = mapper.address.as_str();
        eventually("each to list it", || {
            let status = scene.run(&["status", "sum", "--mapper", mapper]);
            code(&status) == Some(0)
        });
    }
    // One is away: that is said, what the other has done counts, and the same again does the rest.
    drop(other);
    let bob = scene.folder.path().join("bob.toml").display().to_string();
    for command in [&["key", "revoke", "alice"][..], &["key", "add", "bob", "--output", &bob]] {
        let partly = scene.run(command);
        assert_eq!(code(&partly), Some(69), "{}", text(&partly.stderr));
        let said = text(&partly.stderr);
        assert!(said.contains(&format!("done at {}; {bound} may have", scene.mapper)), "{said}");
        assert!(said.contains("the same command again"), "{said}");
    }
    let kept = std::fs::read_to_string(&bob).unwrap();
    let first = scene.mapper.to_string();
    let status = scene.run(&["status", "sum", "--mapper", &first]);
    assert_ne!(code(&status), Some(0));
    let listed = scene.run(&["key", "list"]);
    assert!(text(&listed.stderr).contains(bound), "{}", text(&listed.stderr));
    let args =
        ["mapper", "--bind", bound, "--publish", "tcp://127.0.0.1:0", "--deployment", &second];
    let (_other, _) = start(command(home.path(), &args), &home.path().join("log"));
    for command in [&["key", "revoke", "alice"][..], &["key", "add", "bob", "--output", &bob]] {
        let done = scene.run(command);
        assert_eq!(code(&done), Some(0), "{}", text(&done.stderr));
    }
    assert_eq!(std::fs::read_to_string(&bob).unwrap(), kept);
    let list = text(&scene.run(&["key", "list"]).stdout);
    assert!(!list.contains("alice") && !list.contains("MISSING"), "{list}");
    assert!(list.contains("bob"), "{list}");
    let unknown = scene.run(&["key", "revoke", "alice"]);
    assert!(text(&unknown.stderr).contains("nobody has that name"), "{}", text(&unknown.stderr));
}

/// As the README has it: who may only submit to one service.
#[test]
fn a_fourth_command_makes_a_file_for_a_client_of_one_service() {
    let Some(network) = Network::new(2) else { return };
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let run = |host: usize, args: &[&str]| {
        let mut command = network.hosts[host].command(args);
        command.env("XDG_CONFIG_HOME", homes[host].path()).env_remove("SVCMAP_MAPPER");
        command.current_dir(homes[host].path());
        command
    };
    let log = |host: usize| homes[host].path().join("log");
    let (_mapper, _) = start(run(0, &["mapper", "--bind", "tcp://0.0.0.0:5555"]), &log(0));
    let worker = run(0, &["worker", "--service", "sum", "--exec", "sha256sum"]);
    let (_worker, _) = start(worker, &homes[0].path().join("worker.log"));
    let add = ["key", "add", "alice", "--role", "client", "--services", "sum*"];
    let added = run(0, &add).output().unwrap();
    assert_eq!(code(&added), Some(0), "{}", text(&added.stderr));
    let copy = file(&homes[1].path().join("svcmap"));
    std::fs::create_dir(copy.parent().unwrap()).unwrap();
    std::fs::copy(homes[0].path().join("alice.toml"), &copy).unwrap();
    let done = run(1, &["submit", "sum", "--data", "hello"]).output().unwrap();
    assert!(text(&done.stdout).starts_with("2cf24dba5fb0"), "{}", text(&done.stderr));
    let other = run(1, &["submit", "other", "--data", "hello"]).output().unwrap();
    assert!(text(&other.stderr).contains("not allowed"), "{}", text(&other.stderr));
    let args = ["worker", "--service", "sum", "--builtin", "echo"];
    let (_intruder, _) = start(run(1, &args), &log(1));
    eventually("it to be refused", || {
        std::fs::read_to_string(log(1)).unwrap().contains("may not serve")
    });
}
