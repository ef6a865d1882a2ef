//! The JSON dialect, spoken by plain REQ sockets to real processes.

use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use svcmap_tests::{
    Count, Deployment, PATIENCE, dealer, endpoint_of, plain_deployment, plain_deployment_of, svcmap,
};
use svcmap_worker::{HandlerError, Job, Outcome, Reason};

/// A REQ socket, as any language has it.
struct Req(zmq::Socket);

impl Req {
    fn connect(endpoint: &str) -> Self {
        let socket = zmq::Context::new().socket(zmq::REQ).unwrap();
        socket.set_linger(0).unwrap();
        socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).unwrap()).unwrap();
        socket.connect(endpoint).unwrap();
        Self(socket)
    }

    fn send(&self, body: impl AsRef<[u8]>) {
        self.0.send(body.as_ref(), 0).unwrap();
    }

    fn reply(&self) -> Value {
        serde_json::from_slice(&self.0.recv_bytes(0).expect("a REQ gets its reply")).unwrap()
    }

    fn ask(&self, body: impl AsRef<[u8]>) -> Value {
        self.send(body);
        self.reply()
    }

    fn command(&self, command: &str, payload: &Value) -> Value {
        self.ask(json!({"command": command, "payload": payload}).to_string())
    }

    fn submit(&self, payload: &Value) -> Value {
        self.command("SUBMIT", payload)
    }
}

fn accepted() -> Value {
    json!({"status": "ok", "message": "job accepted"})
}

#[test]
fn a_req_socket_gives_jobs_to_a_worker() {
    let deployment = plain_deployment_of("echo", 1, &["--builtin", "echo"]);
    let req = Req::connect(&endpoint_of(&deployment, "w-1"));
    assert_eq!(req.ask(r#"{"task": "process_video", "duration": 4}"#), accepted());
    let body = json!({"numbers": [1, 2.5], "text": "ä"});
    let done = json!({"status": "done", "result": body});
    assert_eq!(req.submit(&json!({"body": body, "deadline_ms": 5000})), done);
    let done = json!({"status": "done", "result_base64": "AP8="});
    assert_eq!(req.submit(&json!({"body_base64": "AP8="})), done);
    assert_eq!(req.submit(&json!({"body": 1, "wait": false})), accepted());
    deployment.wait_for("four jobs to be done", |report| report.services[0].done == 4).unwrap();
}

#[test]
fn a_full_worker_says_so_at_once() {
    let deployment = plain_deployment_of("nap", 1, &["--builtin", "sleep", "--queue", "0"]);
    let endpoint = endpoint_of(&deployment, "w-1");
    let filler = Req::connect(&endpoint);
    filler.send(
        r#"{"command": "SUBMIT", "payload": {"body_base64": "MjlzCg==", "deadline_ms": 900}}"#,
    );
    deployment.wait_for("it to be full", |report| report.services[0].full == 1).unwrap();
    let req = Req::connect(&endpoint);
    let full = json!({"status": "error", "message": "queue full"});
    assert_eq!(req.ask(r#"{"task": "one more"}"#), full);
    let refused = json!({"status": "refused", "reason": "full", "load": 1.0});
    assert_eq!(req.submit(&json!({"body": "1ms"})), refused);
    let unknown = json!({"status": "unknown", "message": "no answer by the deadline"});
    assert_eq!(filler.reply(), unknown);
}

#[test]
fn who_waits_is_told_when_the_worker_stops() {
    let deployment = plain_deployment();
    let (started, has_started) = std::sync::mpsc::channel();
    let worker = deployment
        .access()
        .worker("nap")
        .serve(move |_: &Job| -> Result<Vec<u8>, HandlerError> {
            started.send(()).unwrap();
            loop {
                std::thread::park();
            }
        })
        .unwrap();
    assert!(worker.wait_registered(PATIENCE));
    let req = Req::connect(worker.endpoint().as_str());
    req.send(r#"{"command": "SUBMIT", "payload": {"body": 1}}"#);
    has_started.recv_timeout(PATIENCE).unwrap();
    drop(worker);
    let unknown = json!({"status": "unknown", "message": "the worker stopped while it ran"});
    assert_eq!(req.reply(), unknown);
}

/// Sends what no client should, and expects an error for each. `limit` is the largest body that is
/// taken.
fn assert_all_refused(req: &Req, limit: usize) {
    let hostile: [Vec<u8>; 10] = [
        Vec::new(),
        b"hello".to_vec(),
        b"[1, 2]".to_vec(),
        b"{\"a\": NaN}".to_vec(),
        b"{\"a\": 1e999}".to_vec(),
        b"{\"a\": \"\xff\"}".to_vec(),
        b"{\"command\": \"SUBMIT\", \"command\": \"SUBMIT\"}".to_vec(),
        "{\"a\":".repeat(limit / 10).into_bytes(),
        format!("{{\"a\": \"{}", "x".repeat(limit / 2 * 3)).into_bytes(),
        format!("{{\"a\": \"{}\"}}", "x".repeat(limit / 2 * 3)).into_bytes(),
    ];
    for body in hostile {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let reply = req.ask(body);
        assert_eq!(reply["status"], "error", "{start}: {reply}");
        assert!(reply["message"].as_str().is_some_and(|text| !text.is_empty()), "{start}");
    }
    for frames in [3, 30] {
        req.0.send_multipart(vec!["{}"; frames], 0).unwrap();
        assert_eq!(req.reply()["status"], "error");
    }
}

#[test]
fn whatever_comes_gets_a_reply_and_disturbs_nobody() {
    let deployment = plain_deployment_of("echo", 1, &["--builtin", "echo"]);
    let endpoint = endpoint_of(&deployment, "w-1");
    let req = Req::connect(&endpoint);
    assert_all_refused(&req, 1024 * 1024);
    // Some die before their reply.
    for _ in 0..20 {
        let mortal = Req::connect(&endpoint);
        mortal.send(r#"{"command": "SUBMIT", "payload": {"body": 1}}"#);
    }
    assert_eq!(req.submit(&json!({"body": 1}))["status"], "done");
    // A REQ with correlation, and a DEALER that imitates several of them at once.
    let dealer = dealer(&endpoint);
    for number in [b"1", b"2"] {
        dealer.send_multipart([&number[..], b"", br#"{"task": 1}"#], 0).unwrap();
    }
    for number in [b"1", b"2"] {
        let frames = dealer.recv_multipart(0).unwrap();
        assert_eq!(frames[..2], [number.to_vec(), Vec::new()]);
        assert_eq!(serde_json::from_slice::<Value>(&frames[2]).unwrap(), accepted());
    }
    deployment
        .wait_for("nothing to be left", |report| {
            report.services.iter().all(|service| service.running + service.queued == 0)
        })
        .unwrap();
}

#[test]
fn a_mapper_answers_whatever_comes_from_req_sockets() {
    let deployment = plain_deployment_of("echo", 1, &["--builtin", "echo"]);
    let req = Req::connect(deployment.mapper().as_str());
    assert_all_refused(&req, 64 * 1024);
    (0..20).for_each(|_| Req::connect(deployment.mapper().as_str()).send("{}"));
    let unknown = json!({"status": "error", "message": "unknown command"});
    assert_eq!(req.ask("{}"), unknown);
    let native = json!(endpoint_of(&deployment, "w-1"));
    assert_eq!(req.command("GET_PEER", &json!({"name": "echo"}))["peer"]["address"], native);
    let status = req.command("STATUS", &Value::Null);
    assert_eq!(status["services"][0]["service"], "echo");
    assert_eq!(status["mappers"][0]["endpoint"], json!(deployment.mapper().as_str()));
}

/// A REP socket, and where it is.
fn rep() -> (zmq::Socket, String) {
    let socket = zmq::Context::new().socket(zmq::REP).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).unwrap()).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let endpoint = socket.get_last_endpoint().unwrap().unwrap();
    (socket, endpoint)
}

/// A worker as the original system has them: a REP socket that answers at acceptance, here in a
/// thread. It takes so many jobs, has no room for more, and ends when it is told to.
fn rep_worker(room: usize) -> (String, JoinHandle<Vec<String>>) {
    let (socket, endpoint) = rep();
    let worker = Builder::new().spawn(move || {
        let mut taken = Vec::new();
        loop {
            let job = socket.recv_string(0).expect("a job in time").unwrap();
            let ends = job == r#""stop""#;
            let reply = if ends || taken.len() < room {
                accepted()
            } else {
                json!({"status": "error", "message": "queue full"})
            };
            socket.send(reply.to_string().as_bytes(), 0).unwrap();
            if ends {
                return taken;
            } else if reply == accepted() {
                taken.push(job);
            }
        }
    });
    (endpoint, worker.unwrap())
}

#[test]
fn a_reply_of_several_frames_ends_the_job_and_the_next_is_sent() {
    let deployment = plain_deployment();
    let (socket, address) = rep();
    let mapper = Req::connect(deployment.mapper().as_str());
    mapper.command("REGISTER", &json!({"name": "old", "address": &address, "pid": 7}));
    let client = deployment.client().unwrap();
    for frames in [2, 30, 1] {
        let ticket = client.submit("old", b"{}".to_vec()).unwrap();
        socket.recv_bytes(0).expect("a job in time");
        socket.send_multipart(vec![accepted().to_string().as_str(); frames], 0).unwrap();
        match ticket.wait() {
            Outcome::Accepted => assert_eq!(frames, 1),
            outcome => assert!(matches!(outcome, Outcome::Failed(_)) && frames > 1, "{outcome:?}"),
        }
    }
}

#[test]
fn a_native_sender_gives_jobs_to_a_rep_socket() {
    let deployment = plain_deployment();
    let (address, worker) = rep_worker(5);
    let mapper = Req::connect(deployment.mapper().as_str());
    let registered =
        mapper.command("REGISTER", &json!({"name": "old", "address": &address, "pid": 7}));
    assert_eq!(registered, json!({"status": "ok", "message": "registered old"}));
    let shown = svcmap(&deployment, &["status", "old"]);
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("old       ● ready    -"), "{shown}");

    let client = deployment.client().unwrap();
    let submit = |number: usize| {
        let job = client.job("old", format!("{{\"task\":{number}}}").into_bytes());
        job.hold(Duration::from_secs(1)).submit().unwrap()
    };
    let counted = Count::of((0..5).map(submit).collect());
    assert_eq!((counted.accepted, counted.all()), (5, 5));
    let Outcome::Refused(refusal) = submit(5).wait() else { panic!("it has no room") };
    // Once, and once more for each beat in which its job was held.
    assert_eq!(refusal.reason, Reason::Full);
    assert!((1..=2).contains(&refusal.attempts), "{refusal:?}");
    assert_eq!(Req::connect(&address).ask(r#""stop""#), accepted());
    assert_eq!(worker.join().unwrap()[4], "{\"task\":4}");
    let Outcome::Refused(refusal) = client.submit("old", vec![0xff]).unwrap().wait() else {
        panic!("it takes only JSON")
    };
    assert_eq!(refusal.reason, Reason::NotJson);

    mapper.command("DEREGISTER", &json!({"name": "old", "pid": 7}));
    let Outcome::Refused(refusal) = submit(6).wait() else { panic!("nobody is there") };
    assert_eq!(refusal.reason, Reason::NoSuchService);
}

/// A worker that gives results, and is whatever the test has it be: its socket, which is a REP or a
/// ROUTER.
fn with_results(deployment: &Deployment, kind: zmq::SocketType, slots: usize) -> zmq::Socket {
    let socket = zmq::Context::new().socket(kind).unwrap();
    socket.set_linger(0).unwrap();
    socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).unwrap()).unwrap();
    socket.bind("tcp://127.0.0.1:*").unwrap();
    let address = socket.get_last_endpoint().unwrap().unwrap();
    let worker = json!({"name": "double", "address": address, "pid": 7, "slots": slots,
        "results": true, "expiry_s": 60});
    let registered = Req::connect(deployment.mapper().as_str()).command("REGISTER", &worker);
    assert_eq!(registered["status"], "ok", "{registered}");
    socket
}

/// Takes a request: what stands before its body, and what that asks for.
fn request(socket: &zmq::Socket) -> (Vec<Vec<u8>>, Value) {
    let mut frames = socket.recv_multipart(0).expect("a job in time");
    let body: Value = serde_json::from_slice(&frames.pop().unwrap()).unwrap();
    assert_eq!(body["command"], "SUBMIT");
    (frames, body["payload"].clone())
}

fn answer(socket: &zmq::Socket, envelope: &[Vec<u8>], body: impl AsRef<[u8]>) {
    let frames = envelope.iter().map(Vec::as_slice).chain([body.as_ref()]);
    socket.send_multipart(frames, 0).unwrap();
}

#[test]
fn a_rep_socket_may_answer_when_a_job_is_done() {
    let deployment = plain_deployment();
    let socket = with_results(&deployment, zmq::REP, 0);
    let worker = Builder::new().spawn(move || {
        for _ in 0..4 {
            let (envelope, job) = request(&socket);
            let reply = match job["body"].as_i64() {
                Some(0) => json!({"status": "failed", "message": "nothing to double", "code": 3}),
                Some(number) => json!({"status": "done", "result": 2 * number}),
                None => json!({"status": "done", "result": job}),
            };
            answer(&socket, &envelope, reply.to_string());
        }
        socket
    });
    let client = deployment.client().unwrap();
    let submit = |text: &str| client.submit("double", text.as_bytes().to_vec()).unwrap();
    let (first, second) = (submit("21"), submit("0"));
    let reply = first.wait().done().unwrap();
    assert_eq!((&reply[..], reply.attempts), (&b"42"[..], 1));
    assert_eq!(reply.by.to_string(), "double/double");
    let Outcome::Failed(failure) = second.wait() else { panic!("it fails") };
    assert_eq!((&*failure.error, failure.code), ("nothing to double", Some(3)));
    let output = svcmap(&deployment, &["submit", "double", "--data", "4"]);
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "8");
    let job = client.job("double", b"null".to_vec()).metadata("input", "a.jpg");
    let reply = job.submit().unwrap().wait().done().unwrap();
    let said: Value = serde_json::from_slice(&reply).unwrap();
    let expected = json!({"job": said["job"], "attempt": 1, "body": null,
        "metadata": {"input": "a.jpg"}});
    assert_eq!(said, expected);
    drop(worker.unwrap().join().unwrap());
}

#[test]
fn a_router_has_several_jobs_at_once_and_nonsense_loses_none_of_them() {
    let deployment = plain_deployment();
    let socket = with_results(&deployment, zmq::ROUTER, 4);
    let client = deployment.client().unwrap();
    let tickets: Vec<_> = (0..4)
        .map(|number| client.submit("double", number.to_string().into_bytes()).unwrap())
        .collect();
    let mut requests: Vec<_> = (0..4).map(|_| request(&socket)).collect();
    requests.sort_by_key(|(_, job)| job["body"].as_i64());
    let done = |number: usize| json!({"status": "done", "result": 2 * number}).to_string();
    let mut stranger = requests[0].0.clone();
    stranger[1] = b"99.1".to_vec();
    answer(&socket, &stranger, done(9));
    stranger.remove(1);
    answer(&socket, &stranger, done(9));
    for number in [3, 1] {
        answer(&socket, &requests[number].0, done(number));
        answer(&socket, &requests[number].0, done(7));
    }
    answer(&socket, &requests[2].0, "nonsense");
    // Larger than its sender takes, but not as large as what libzmq ends a connection for.
    let large = json!({"status": "done", "result": "x".repeat(3 << 19)}).to_string();
    answer(&socket, &requests[0].0, large);
    let mut outcomes = tickets.into_iter().map(|ticket| ticket.wait());
    let mut next = || outcomes.next().unwrap();
    assert!(matches!(next(), Outcome::Failed(f) if f.error.contains("is larger than")));
    assert!(matches!(next(), Outcome::Done(reply) if &reply[..] == b"2"));
    assert!(matches!(next(), Outcome::Failed(f) if f.error.contains("a JSON object is expected")));
    assert!(matches!(next(), Outcome::Done(reply) if &reply[..] == b"6"));

    // And goes on.
    let ticket = client.submit("double", b"5".to_vec()).unwrap();
    answer(&socket, &request(&socket).0, done(5));
    assert!(matches!(ticket.wait(), Outcome::Done(reply) if &reply[..] == b"10"));
}

#[test]
fn when_a_worker_with_results_is_gone_its_jobs_are_unknown_or_tried_elsewhere() {
    let deployment = plain_deployment();
    let socket = with_results(&deployment, zmq::ROUTER, 2);
    let client = deployment.client().unwrap();
    let once = client.submit("double", b"1".to_vec()).unwrap();
    let again = client.job("double", b"2".to_vec()).idempotent().submit().unwrap();
    let _: Vec<_> = (0..2).map(|_| request(&socket)).collect();
    drop(socket);
    let successor = with_results(&deployment, zmq::ROUTER, 2);
    assert!(matches!(once.wait(), Outcome::Unknown(_)));
    let (envelope, job) = request(&successor);
    assert_eq!((&job["body"], &job["attempt"]), (&json!(2), &json!(2)));
    answer(&successor, &envelope, r#"{"status": "done", "result": 4}"#);
    let reply = again.wait().done().unwrap();
    assert_eq!((&reply[..], reply.attempts), (&b"4"[..], 2));
}
