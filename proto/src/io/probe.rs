//! Whether anybody answers at an address: plain TCP connections, made to see who greets there.

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

use super::Clock;
use crate::names::Endpoint;

/// Most connections that are tried at once: each takes a file.
const PROBES_MAX: usize = 256;

/// What was found at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Somebody listens there, and greets.
    Reached,
    /// Connections are made there and nobody says anything, as where a process is stopped or out of files.
    Silent,
    /// Nobody can be reached there from here, in the system's words.
    Failed(String),
    /// It was not tried: this process could not, or there were too many.
    Untried,
}

/// Connects to all of them at once and says what came of it within `limit`. Nothing is sent: whoever
/// speaks ZMTP (ZeroMQ RFC 37) greets first. The system takes connections for a process that is stopped
/// or out of files as well, but nobody greets there.
pub fn probe(endpoints: &[Endpoint], limit: Duration) -> Vec<Probe> {
    let until = Clock.now() + limit;
    let mut found = vec![Probe::Untried; endpoints.len()];
    let Ok(mut poll) = Poll::new() else { return found };
    let mut streams: Vec<Option<TcpStream>> = Vec::new();
    for (index, endpoint) in endpoints.iter().enumerate().take(PROBES_MAX) {
        let stream = address(endpoint).and_then(TcpStream::connect).and_then(|mut stream| {
            let both = Interest::READABLE | Interest::WRITABLE;
            poll.registry().register(&mut stream, Token(index), both)?;
            Ok(stream)
        });
        found[index] = match &stream {
            Ok(_) => Probe::Failed(format!("no answer within {limit:?}")),
            Err(error) => failed(error),
        };
        streams.push(stream.ok());
    }
    let mut events = Events::with_capacity(PROBES_MAX);
    while streams.iter().any(Option::is_some) && Clock.now() < until {
        if poll.poll(&mut events, Some(until.since(Clock.now()))).is_err() {
            break;
        }
        for event in &events {
            let Token(index) = event.token();
            let Some(stream) = &mut streams[index] else { continue };
            found[index] = match greeting(stream) {
                Ok(()) => Probe::Reached,
                Err(error) if error.kind() == ErrorKind::NotConnected => continue,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    found[index] = Probe::Silent;
                    continue;
                }
                Err(error) => failed(&error),
            };
            streams[index] = None;
        }
    }
    found
}

/// The first byte of who answers there.
fn greeting(stream: &mut TcpStream) -> std::io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.peer_addr()?;
    match stream.read(&mut [0])? {
        0 => Err(ErrorKind::ConnectionReset.into()),
        _ => Ok(()),
    }
}

/// What an error says of an address, and not of this process.
fn failed(error: &std::io::Error) -> Probe {
    let errno = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    match errno {
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE) => Probe::Untried,
        _ => Probe::Failed(error.to_string()),
    }
}

/// The address of an endpoint. A host's name is looked up, for as long as the system likes.
fn address(endpoint: &Endpoint) -> std::io::Result<SocketAddr> {
    let port = endpoint.port().unwrap_or(0);
    if let Ok(ip) = endpoint.host().parse::<IpAddr>() {
        return Ok(SocketAddr::new(ip, port));
    }
    let mut all = (endpoint.host(), port).to_socket_addrs()?;
    all.next().ok_or_else(|| std::io::Error::new(ErrorKind::NotFound, "no such host"))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;

    use super::*;

    fn at(address: SocketAddr) -> Endpoint {
        Endpoint::tcp(&address.ip().to_string(), address.port()).unwrap()
    }

    #[test]
    fn who_greets_is_told_from_who_says_nothing_and_from_nobody() {
        let listen = |host: &str| TcpListener::bind((host, 0)).unwrap();
        // Nobody else gets the port of the last one once it is gone.
        let [greets, silent, gone] = ["127.0.0.1", "127.0.0.1", "127.9.9.9"].map(listen);
        let endpoints = [&greets, &silent, &gone].map(|l| at(l.local_addr().unwrap()));
        drop(gone);
        let greet = move || greets.accept().unwrap().0.write_all(b"\xff");
        let greeter = std::thread::Builder::new().spawn(greet).unwrap();
        let found = probe(&endpoints, Duration::from_secs(2));
        greeter.join().unwrap().unwrap();
        assert_eq!(found[0], Probe::Reached);
        assert_eq!(found[1], Probe::Silent);
        assert!(
            matches!(&found[2], Probe::Failed(error) if error.contains("refused")),
            "{found:?}"
        );
    }

    #[test]
    fn too_many_are_not_tried() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoints = vec![at(listener.local_addr().unwrap()); PROBES_MAX + 1];
        let found = probe(&endpoints, Duration::from_millis(200));
        assert_eq!(found[PROBES_MAX], Probe::Untried);
        assert!(!found[..PROBES_MAX].contains(&Probe::Untried));
    }
}
