//! A mapper with keys that also listens in plain text, for processes of its machine that cannot encrypt.

use std::thread::Builder;
use std::time::Duration;

use serde_json::{Value, json};
use svcmap_proto::codec;
use svcmap_proto::control::{Hello, KeyRequest, ToMapper};
use svcmap_tests::batch::{code, text};
use svcmap_tests::keyed::{ECHO, Scene, command};
use svcmap_tests::zmtp::Raw;
use svcmap_worker::{Client, Outcome};

const FLAGS: &[&str] = &["--plain-bind", "tcp://127.0.0.1:0"];

/// A socket of somebody who cannot encrypt, connected there.
fn req(context: &zmq::Context, endpoint: &str) -> zmq::Socket {
    let socket = context.socket(zmq::REQ).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(10_000).unwrap();
    socket.connect(endpoint).unwrap();
    socket
}

fn ask(socket: &zmq::Socket, command: &str, payload: &Value) -> Value {
    let body = json!({ "command": command, "payload": payload }).to_string();
    socket.send(body.as_bytes(), 0).unwrap();
    serde_json::from_slice(&socket.recv_bytes(0).expect("a reply in time")).unwrap()
}

#[test]
fn who_cannot_encrypt_takes_part_on_the_mappers_machine_with_its_like_and_in_json_only() {
    let scene = Scene::with_flags(FLAGS, ECHO);
    scene.assert_a_job_is_done();
    let (_, plain) = scene.first_line.trim().split_once(", in plain text on ").unwrap();
    let context = zmq::Context::new();
    let mapper = req(&context, plain);
    // A worker of the original system: it answers when it takes a job, and says no more.
    let worker = context.socket(zmq::REP).unwrap();
    worker.set_linger(0).unwrap();
    worker.set_rcvtimeo(10_000).unwrap();
    worker.bind("tcp://127.0.0.1:*").unwrap();
    let address = worker.get_last_endpoint().unwrap().unwrap();
    let own = json!({ "name": "old", "address": &address, "pid": 7 });
    assert_eq!(ask(&mapper, "REGISTER", &own)["status"], "ok");
    let (end, ends) = std::sync::mpsc::channel::<()>();
    let jobs = Builder::new().spawn(move || {
        for _ in 0..2 {
            worker.recv_bytes(0).expect("a job in time");
            worker.send(r#"{"status":"ok","message":"job accepted"}"#, 0).unwrap();
        }
        // It is there until its last reply was read.
        ends.recv().unwrap_err();
    });
    // Its like finds it, and not those whom it cannot speak with.
    let found = ask(&mapper, "GET_PEER", &json!({ "name": "old" }));
    assert_eq!(found["peer"]["address"], json!(address));
    let hidden = ask(&mapper, "GET_PEER", &json!({ "name": "secretservice" }));
    assert!(hidden["message"].as_str().unwrap().contains("not reachable"), "{hidden}");
    let all = ask(&mapper, "LIST_PEERS", &json!({}));
    assert_eq!(all["peers"].as_object().unwrap().keys().collect::<Vec<_>>(), ["old"]);
    let told = ask(&req(&context, &address), "SUBMIT", &json!({ "body": 1 }));
    assert_eq!(told["status"], "ok");
    // Senders with keys give it jobs.
    let client = Client::from_deployment(scene.deployment()).unwrap();
    let ticket = client.submit("old", b"{}".to_vec()).unwrap();
    let outcome = ticket.wait();
    assert!(matches!(outcome, Outcome::Accepted), "{outcome:?}");
    drop(end);
    jobs.unwrap().join().unwrap();
    // Natively nobody gets a word there without keys, and none with them.
    let native = Client::connect(plain).unwrap();
    let job = native.job("old", b"{}".to_vec()).hold(Duration::from_secs(1));
    assert!(matches!(job.submit().unwrap().wait(), Outcome::Refused(_)));
    // Nor who calls himself by somebody's public key, as any property of a connection may be claimed there.
    let operator = scene.deployment().own.public.to_string();
    let mut pretender = Raw::connect_claiming(plain, "User-Id", operator.as_bytes()).unwrap();
    let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
    let hello = ToMapper::Hello(Hello { oldest, newest, key: None });
    for message in [hello, ToMapper::Keys(KeyRequest::List { skip: 0 })] {
        pretender.send(&[&codec::encode(&message)]).unwrap();
    }
    let listed = json!({"command": "LIST_PEERS", "payload": {}}).to_string();
    pretender.send(&[b"", listed.as_bytes()]).unwrap();
    // The first word that it gets is the answer to that, as for anybody there.
    let told = pretender.receive().unwrap();
    let told: Value = serde_json::from_slice(&told[1]).unwrap();
    assert_eq!(told["peers"].as_object().unwrap().keys().collect::<Vec<_>>(), ["old"]);
    let told = ask(&mapper, "STATUS", &json!({})).to_string();
    assert!(told.contains("old") && !told.contains("secretservice"), "{told}");
    let keyed = scene.run(&["status", "--mapper", plain]);
    assert_ne!(code(&keyed), Some(0));
    scene.assert_a_job_is_done();
}

#[test]
fn plain_text_beside_keys_is_for_this_machine_only_and_takes_keys() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("svcmap.toml").display().to_string();
    let run = |args: &[&str]| {
        let args = [&["mapper", "--bind", "tcp://127.0.0.1:0"][..], args].concat();
        let ended = command(folder.path(), &args).output().unwrap();
        assert_eq!(code(&ended), Some(64));
        text(&ended.stderr)
    };
    let beyond = run(&["--deployment", &path, "--plain-bind", "tcp://0.0.0.0:0"]);
    assert!(beyond.contains("this machine only"), "{beyond}");
    let without = run(FLAGS);
    assert!(without.contains("all is plain text"), "{without}");
}
