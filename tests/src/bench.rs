//! What the benchmarks share: the raw pair of libzmq that svcmap is measured beside, what a process
//! takes, and medians.

mod cache;
mod fleet;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub use cache::Cache;
pub use fleet::Fleet;

/// What the second process of a raw pair is started with.
const ECHO: &str = "--raw-echo";

/// The byte of a control message that tells its kind, and what it is in a report.
const KIND: (usize, u8) = (1, 2);

/// The other half of a raw pair: a process that sends back what comes.
pub struct RawEcho {
    child: RawChild,
    endpoint: String,
}

/// Ended when it is dropped.
struct RawChild(Child);

impl RawEcho {
    /// Starts this very benchmark once more, as a ROUTER or a REP that echoes: a benchmark calls
    /// [`raw_echo`] first.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(kind: zmq::SocketType) -> Self {
        Self::start_as(if kind == zmq::REP { "rep" } else { "router" })
    }

    /// The same as a ROUTER that reads reports to a mapper, and sends back whatever is none.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_sink() -> Self {
        Self::start_as("sink")
    }

    fn start_as(kind: &str) -> Self {
        let own = std::env::current_exe().expect("a bench knows where it lies");
        let mut child = Command::new(own);
        let mut child = child.args([ECHO, kind]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut endpoint = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut endpoint).expect("it says where it listens");
        Self { child: RawChild(child), endpoint: endpoint.trim().to_owned() }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The same as a ROUTER and a PUB: what comes is published 5 ms later, under that topic.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_publisher(topic: &str) -> (Self, String) {
        let raw = Self::start_as(&format!("publish={topic}"));
        let (endpoint, publish) = raw.endpoint.split_once(' ').expect("two endpoints");
        let (endpoint, publish) = (endpoint.to_owned(), publish.to_owned());
        (Self { endpoint, ..raw }, publish)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }
}

impl Drop for RawChild {
    fn drop(&mut self) {
        // Its own child; whatever fails here, it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// If this process is the second one of a raw pair: echoes until it is killed or left alone, and
/// returns true.
///
/// # Panics
/// If there is no port for it, or its peer goes without a word.
pub fn raw_echo() -> bool {
    let mut args = std::env::args().skip_while(|arg| arg != ECHO);
    let Some(kind) = args.nth(1) else { return false };
    let is_sink = kind == "sink";
    let topic = kind.strip_prefix("publish=").map(str::to_owned);
    let kind = if kind == "rep" { zmq::REP } else { zmq::ROUTER };
    svcmap_proto::io::raise_open_files_limit();
    let socket = zmq::Context::new().socket(kind).expect("a socket");
    // A ROUTER drops what exceeds its queue.
    socket.set_sndhwm(0).expect("it is a setting");
    socket.bind("tcp://127.0.0.1:*").expect("a port");
    socket.set_rcvtimeo(120_000).expect("a time limit");
    let endpoint = socket.get_last_endpoint().expect("it is bound").expect("it is text");
    if let Some(topic) = topic {
        return publish(&socket, &endpoint, &topic).is_err();
    }
    println!("{endpoint}");
    if is_sink {
        return sink(&socket).is_err();
    }
    while let Ok(frames) = socket.recv_multipart(0) {
        socket.send_multipart(frames, 0).expect("the peer is there");
    }
    true
}

/// Reads as fast as libzmq gives, and answers whatever is no report.
fn sink(socket: &zmq::Socket) -> zmq::Result<()> {
    let (mut from, mut frame) = (zmq::Message::new(), zmq::Message::new());
    loop {
        socket.recv(&mut from, 0)?;
        socket.recv(&mut frame, 0)?;
        if frame.get(KIND.0) != Some(&KIND.1) {
            socket.send(&from[..], zmq::SNDMORE)?;
            socket.send(&frame[..], 0)?;
        }
    }
}

/// Publishes what comes, in the time that a mapper takes for it.
fn publish(socket: &zmq::Socket, endpoint: &str, topic: &str) -> zmq::Result<()> {
    let publisher = zmq::Context::new().socket(zmq::PUB)?;
    publisher.bind("tcp://127.0.0.1:*")?;
    println!("{endpoint} {}", publisher.get_last_endpoint()?.expect("it is text"));
    loop {
        let frames = socket.recv_multipart(0)?;
        svcmap::io::pause_until(svcmap_proto::io::Clock.now() + Duration::from_millis(5));
        publisher.send(topic, zmq::SNDMORE)?;
        publisher.send(&frames[1], 0)?;
    }
}

/// The time that a process has kept cores busy, all its threads together.
///
/// # Panics
/// If it does not run.
pub fn cpu_time(pid: u32) -> Duration {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs").flatten();
    let nanoseconds = tasks.filter_map(|task| {
        let text = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split_whitespace().next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanoseconds.sum())
}

/// The memory of its own that a process has in use, in kB: without its code, which is read as it goes.
///
/// # Panics
/// If it does not run.
pub fn own_memory_kb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).expect("it is Linux");
    line.split_whitespace().nth(1).and_then(|kb| kb.parse().ok()).expect("a number")
}

/// `MEDIAN (LOWEST to HIGHEST)`, and the median.
///
/// # Panics
/// If there are none.
pub fn spread(mut rates: Vec<f64>) -> (String, f64) {
    rates.sort_by(f64::total_cmp);
    let (median, low, high) = (rates[rates.len() / 2], rates[0], rates[rates.len() - 1]);
    (format!("{median:.0} ({low:.0} to {high:.0})"), median)
}
