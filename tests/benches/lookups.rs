//! Look-ups per second from one REQ socket: GET_PEER at a mapper, beside a REP socket of libzmq in
//! another process that echoes the same bytes.
//!
//! `cargo bench -p svcmap-tests --bench lookups`. The two are run in turn, several rounds, and the
//! ratio is what counts: absolute figures say more about the machine.
// A benchmark's business is the clock.
#![allow(clippy::disallowed_methods)]

use std::time::Instant;

use svcmap_tests::bench::{RawEcho, raw_echo, spread};
use svcmap_tests::deployment_of;

const ROUNDS: usize = 3;
const LOOKUPS: usize = 100_000;

const REQUEST: &str = r#"{"command": "GET_PEER", "payload": {"name": "echo"}}"#;

fn main() {
    if raw_echo() {
        return;
    }
    let raw = RawEcho::start(zmq::REP);
    let deployment = deployment_of("echo", 2, &["--builtin", "echo"]);
    let sockets = [raw.endpoint(), deployment.mapper().as_str()].map(req);
    // The first look-ups warm up and do not count.
    for socket in &sockets {
        rate(socket, LOOKUPS / 10);
    }
    let (mut raw_rates, mut lookup_rates) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        raw_rates.push(rate(&sockets[0], LOOKUPS));
        lookup_rates.push(rate(&sockets[1], LOOKUPS));
    }
    let ((raw_text, raw_median), (text, median)) = (spread(raw_rates), spread(lookup_rates));
    println!("{LOOKUPS} in a row from one REQ, per second, median of {ROUNDS} (lowest to highest)");
    println!("raw REQ and REP  {raw_text:>24}");
    println!("GET_PEER         {text:>24}   {:.3} of raw", median / raw_median);
}

fn req(endpoint: &str) -> zmq::Socket {
    let socket = zmq::Context::new().socket(zmq::REQ).expect("a socket");
    socket.set_linger(0).expect("it is a setting");
    socket.connect(endpoint).expect("it is an endpoint");
    socket
}

fn rate(socket: &zmq::Socket, count: usize) -> f64 {
    let started = Instant::now();
    for _ in 0..count {
        socket.send(REQUEST, 0).expect("it takes messages");
        let reply = socket.recv_bytes(0).expect("an answer");
        assert!(reply.starts_with(b"{"));
    }
    count as f64 / started.elapsed().as_secs_f64()
}
