//! What the tests of attacks share: peers that speak ZMTP by hand, what a process keeps in memory,
//! and how long the jobs of others take meanwhile.
//!
//! Every attack here is bounded in bytes and in seconds, and stays on this machine.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use svcmap_proto::codec;
use svcmap_proto::control::{Change, FromMapper, Hello, Publication, ToMapper};
use svcmap_proto::io::Clock;
use svcmap_proto::names::Endpoint;
use svcmap_worker::{Client, Outcome};

use crate::{Deployment, PATIENCE, dealer};

/// How long a peer by hand waits for a reader that does not read.
const WRITE_PATIENCE: Duration = Duration::from_millis(500);

/// A connection that speaks ZMTP 3.0 by hand: it says what no libzmq says, and reads nothing.
pub struct Raw(TcpStream);

impl Raw {
    /// Connects as a DEALER does.
    ///
    /// # Errors
    /// If nobody listens there, or greets.
    pub fn connect(endpoint: &str) -> io::Result<Self> {
        Self::connect_within(endpoint, PATIENCE)
    }

    /// Connects as a SUB does.
    ///
    /// # Errors
    /// As [`Raw::connect`] does.
    pub fn subscribe(endpoint: &str) -> io::Result<Self> {
        Self::connect_as(b"SUB", endpoint, PATIENCE)
    }

    /// Connects as a DEALER does, with so much time for the other end to greet.
    ///
    /// # Errors
    /// If nobody listens there, or greets in time.
    pub fn connect_within(endpoint: &str, patience: Duration) -> io::Result<Self> {
        Self::connect_as(b"DEALER", endpoint, patience)
    }

    fn connect_as(kind: &[u8], endpoint: &str, patience: Duration) -> io::Result<Self> {
        let address = endpoint.strip_prefix("tcp://").unwrap_or(endpoint);
        let mut stream = TcpStream::connect(address)?;
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        stream.set_nodelay(true)?;
        // Signature, version, mechanism, not a server, filler.
        let mut greeting = vec![0; 64];
        (greeting[0], greeting[9]) = (0xff, 0x7f);
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        stream.write_all(&greeting)?;
        let length = u8::try_from(kind.len()).expect("short");
        let ready = [b"\x05READY\x0bSocket-Type\x00\x00\x00", &[length][..], kind].concat();
        stream.write_all(&[4, u8::try_from(ready.len()).expect("short")])?;
        stream.write_all(&ready)?;
        // What comes before the other end has greeted is no message.
        stream.set_read_timeout(Some(patience))?;
        stream.read_exact(&mut greeting)?;
        let mut head = [0; 2];
        stream.read_exact(&mut head)?;
        stream.read_exact(&mut vec![0; usize::from(head[1])])?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self(stream))
    }

    /// Sends a message.
    ///
    /// # Errors
    /// If the other end has closed the connection, or has read nothing for half a second.
    pub fn send(&mut self, frames: &[&[u8]]) -> io::Result<()> {
        let last = frames.len() - 1;
        let framed = frames.iter().enumerate().map(|(index, bytes)| frame(index < last, bytes));
        self.write(&framed.collect::<Vec<_>>().concat())
    }

    /// Sends these bytes.
    ///
    /// # Errors
    /// As [`Raw::send`] does.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)
    }

    /// Whether the other end closes the connection, sooner or later.
    pub fn is_closed(&mut self) -> bool {
        let deadline = Clock.now() + PATIENCE;
        let mut bytes = [0; 4096];
        while Clock.now() < deadline {
            match self.0.read(&mut bytes) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) => return error.kind() == io::ErrorKind::ConnectionReset,
            }
        }
        false
    }
}

/// A frame as ZMTP writes it.
pub fn frame(more: bool, bytes: &[u8]) -> Vec<u8> {
    let more = u8::from(more);
    let head = match u8::try_from(bytes.len()) {
        Ok(length) => vec![more, length],
        Err(_) => [&[more | 2][..], &(bytes.len() as u64).to_be_bytes()].concat(),
    };
    [&head, bytes].concat()
}

/// What a process has kept in memory at most since it was last asked, in kB.
pub struct Peak(u32);

impl Peak {
    /// From now on.
    pub fn of(pid: u32) -> Self {
        // 5 resets the peak.
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("it runs");
        Self(pid)
    }

    /// The most since then.
    pub fn kb(&self) -> u64 {
        let path = format!("/proc/{}/status", self.0);
        let status = std::fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
    }
}

/// Where the mapper of that deployment publishes.
///
/// # Panics
/// If it does not answer.
pub fn publisher_of(deployment: &Deployment) -> Endpoint {
    let mapper = dealer(deployment.mapper().as_str());
    let (oldest, newest) = (codec::VERSION_OLDEST, codec::VERSION);
    let hello = codec::encode(&ToMapper::Hello(Hello { oldest, newest, key: None }));
    mapper.send(&hello, 0).expect("a mapper");
    let answer = mapper.recv_bytes(0).expect("a WELCOME");
    let Ok(FromMapper::Welcome(welcome)) = codec::decode(&answer) else {
        panic!("no WELCOME: {answer:?}")
    };
    welcome.publish
}

/// Listens to a mapper, and knows whom it has expired.
pub struct Expiries(zmq::Socket);

impl Expiries {
    /// Of the mapper of that deployment, from about now on.
    pub fn of(deployment: &Deployment) -> Self {
        let socket = zmq::Context::new().socket(zmq::SUB).expect("a socket");
        socket.set_linger(0).expect("linger");
        socket.set_rcvhwm(0).expect("water mark");
        socket.set_rcvtimeo(i32::try_from(PATIENCE.as_millis()).expect("fits")).expect("timeout");
        socket.set_subscribe(b"").expect("subscribe");
        socket.connect(publisher_of(deployment).as_str()).expect("connect");
        // The first pulse: from here on nothing is missed.
        socket.recv_multipart(0).expect("a publication");
        Self(socket)
    }

    /// The names of those who were expired.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        while let Ok(frames) = self.0.recv_multipart(zmq::DONTWAIT) {
            if let Ok(Publication::Changes(part)) = codec::decode(&frames[1]) {
                names.extend(part.changes.into_iter().filter_map(|change| match change {
                    Change::Expired { instance, .. } => Some(instance.to_string()),
                    _ => None,
                }));
            }
        }
        names
    }
}

/// Jobs of 10 ms, one after another, for so long: how long each took, from the shortest on.
///
/// # Panics
/// If one of them is not done.
pub fn times(client: &Client, service: &str, length: Duration) -> Vec<Duration> {
    let until = Clock.now() + length;
    let mut times = Vec::new();
    while Clock.now() < until {
        let started = Clock.now();
        let outcome = client.submit(service, b"10ms".to_vec()).expect("a ticket").wait();
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome}");
        times.push(Clock.now().since(started));
    }
    times.sort();
    times
}

/// The value below which 99 of 100 lie.
pub fn p99(sorted: &[Duration]) -> Duration {
    sorted[(sorted.len() * 99 / 100).min(sorted.len() - 1)]
}

/// The value in the middle.
pub fn median(mut values: Vec<Duration>) -> Duration {
    values.sort();
    values[values.len() / 2]
}

/// An attack that goes on in threads of its own, in those times for which it is let.
pub struct Attack {
    goes_on: Arc<AtomicBool>,
    ends: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Attack {
    /// Each of these does one bounded step again and again; it is paused at first.
    pub fn new(steps: Vec<Box<dyn FnMut() + Send>>) -> Self {
        let (goes_on, ends) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let start = |mut step: Box<dyn FnMut() + Send>| {
            let (goes_on, ends) = (Arc::clone(&goes_on), Arc::clone(&ends));
            let run = move || {
                while !ends.load(Ordering::Acquire) {
                    if goes_on.load(Ordering::Acquire) {
                        step();
                    } else {
                        svcmap::io::pause_until(Clock.now() + Duration::from_millis(1));
                    }
                }
            };
            Builder::new().spawn(run).expect("a thread")
        };
        let threads = steps.into_iter().map(start).collect();
        Self { goes_on, ends, threads }
    }

    /// Lets it go on, or pauses it.
    pub fn set(&self, goes_on: bool) {
        self.goes_on.store(goes_on, Ordering::Release);
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // A thread that failed has told why.
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}
