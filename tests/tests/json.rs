//! The JSON dialect, spoken by plain REQ sockets to real processes.

use serde_json::{Value, json};
use svcmap_tests::{PATIENCE, dealer, deployment_of, endpoint_of};

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

    fn submit(&self, payload: &Value) -> Value {
        self.ask(json!({"command": "SUBMIT", "payload": payload}).to_string())
    }
}

fn accepted() -> Value {
    json!({"status": "ok", "message": "job accepted"})
}

#[test]
fn a_req_socket_gives_jobs_to_a_worker() {
    let deployment = deployment_of("echo", 1, &["--builtin", "echo"]);
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
    let deployment = deployment_of("nap", 1, &["--builtin", "sleep", "--queue", "0"]);
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
fn whatever_comes_gets_a_reply_and_disturbs_nobody() {
    let deployment = deployment_of("echo", 1, &["--builtin", "echo"]);
    let endpoint = endpoint_of(&deployment, "w-1");
    let req = Req::connect(&endpoint);
    let hostile: [Vec<u8>; 10] = [
        Vec::new(),
        b"hello".to_vec(),
        b"[1, 2]".to_vec(),
        b"{\"a\": NaN}".to_vec(),
        b"{\"a\": 1e999}".to_vec(),
        b"{\"a\": \"\xff\"}".to_vec(),
        b"{\"command\": \"SUBMIT\", \"command\": \"SUBMIT\"}".to_vec(),
        "{\"a\":".repeat(100_000).into_bytes(),
        format!("{{\"a\": \"{}", "x".repeat(1_500_000)).into_bytes(),
        format!("{{\"a\": \"{}\"}}", "x".repeat(1_500_000)).into_bytes(),
    ];
    for body in hostile {
        let start = String::from_utf8_lossy(&body[..body.len().min(40)]).into_owned();
        let reply = req.ask(body);
        assert_eq!(reply["status"], "error", "{start}: {reply}");
        assert!(reply["message"].as_str().is_some_and(|text| !text.is_empty()), "{start}");
    }
    req.0.send_multipart(["{}"; 3], 0).unwrap();
    assert_eq!(req.reply()["status"], "error");
    req.0.send_multipart(["{}"; 30], 0).unwrap();
    assert_eq!(req.reply()["status"], "error");
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
