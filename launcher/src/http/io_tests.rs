use std::io::{Read, Write};
use std::net;
use std::sync::mpsc;

use slog::o;

use super::*;
use crate::http::Reply;

/// What is answered, all of it.
fn get(address: SocketAddr) -> String {
    let mut stream = net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_thread_that_does_not_answer_is_asked_once_and_its_late_answer_is_not_used() {
    let (asked, questions) = mpsc::channel();
    let render = |number: u32| Page::text(200, number.to_string());
    let ask = move |reply: Reply<u32>| asked.send(reply).unwrap();
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let routes = vec![Route::new(("/healthz", "as ever"), ask, render)];
    let server = listener.serve(routes, &Logger::root(slog::Discard, o!())).unwrap();
    for _ in 0..3 {
        let silent = get(address);
        assert!(silent.starts_with("HTTP/1.1 503 ") && silent.ends_with(SILENT_LINE), "{silent}");
        crate::io::pause_until(Clock.now() + crate::http::KEPT);
    }
    let late = questions.try_recv().unwrap();
    assert!(questions.try_recv().is_err(), "it was asked again");
    late(1);
    let answer = move || questions.iter().zip(2..).for_each(|(reply, number)| reply(number));
    let thread = Builder::new().spawn(answer).unwrap();
    assert!(get(address).ends_with("\r\n\r\n2"));
    drop(server);
    thread.join().unwrap();
    assert!(net::TcpStream::connect(address).is_err());
}

const SILENT_LINE: &str = "\r\n\r\nits I/O thread has not answered for a second\n";

#[test]
fn who_has_ended_is_said_to_have() {
    let listener = Listener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = listener.address();
    let route = Route::new(("/healthz", "as ever"), |_: Reply<()>| {}, |()| Page::verdict(&[]));
    let _server = listener.serve(vec![route], &Logger::root(slog::Discard, o!())).unwrap();
    assert!(get(address).ends_with("\r\n\r\nit has not started yet, or has ended\n"));
}
