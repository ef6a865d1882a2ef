//! What the tests of attacks share: what a process keeps in memory, whom a mapper expires, and how
//! long the jobs of others take meanwhile.
//!
//! Every attack here is bounded in bytes and in seconds, and stays on this machine.

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
        Self::with_niceness(steps, 0)
    }

    /// The same, as if from other machines: they take no time that somebody here has use for.
    pub fn from_elsewhere(steps: Vec<Box<dyn FnMut() + Send>>) -> Self {
        Self::with_niceness(steps, 19)
    }

    fn with_niceness(steps: Vec<Box<dyn FnMut() + Send>>, niceness: i32) -> Self {
        let (goes_on, ends) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
        let start = |mut step: Box<dyn FnMut() + Send>| {
            let (goes_on, ends) = (Arc::clone(&goes_on), Arc::clone(&ends));
            let run = move || {
                // On Linux it is this thread's.
                rustix::process::setpriority_process(None, niceness).expect("it may");
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
