//! The raw pair of libzmq that svcmap is measured beside.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::Pair;

/// What the second process of a raw pair is started with.
const ECHO: &str = "--raw-echo";

/// The byte of a control message that tells its kind, and what it is in a report.
const KIND: (usize, u8) = (1, 2);

/// This very program once more, ended when this is dropped.
pub struct Again {
    child: Child,
    first_line: String,
}

impl Again {
    /// Starts it, and waits for its first line.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(args: &[&str]) -> Self {
        let own = std::env::current_exe().expect("a bench knows where it lies");
        let mut child = Command::new(own);
        let mut child = child.args(args).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut first_line = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut first_line).expect("it says where it listens");
        Self { child, first_line: first_line.trim().to_owned() }
    }

    /// What it said first.
    pub fn first_line(&self) -> &str {
        &self.first_line
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Again {
    fn drop(&mut self) {
        // Its own child; whatever fails here, it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The other half of a raw pair: a process that sends back what comes.
pub struct RawEcho(Again);

impl RawEcho {
    /// Starts a ROUTER or a REP that echoes: a benchmark calls [`raw_echo`] first.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(kind: zmq::SocketType) -> Self {
        Self(Again::start(&[ECHO, if kind == zmq::REP { "rep" } else { "router" }]))
    }

    /// The same as a ROUTER that reads reports to a mapper, and sends back whatever is none.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_sink() -> Self {
        Self(Again::start(&[ECHO, "sink"]))
    }

    /// The same as a ROUTER and a PUB, whose endpoint is returned as well: what comes is published
    /// 5 ms later, under that topic.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start_publisher(topic: &str) -> (Self, String) {
        let raw = Self(Again::start(&[ECHO, &format!("publish={topic}")]));
        let (_, publish) = raw.0.first_line().split_once(' ').expect("two endpoints");
        let publish = publish.to_owned();
        (raw, publish)
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        let said = self.0.first_line();
        said.split_once(' ').map_or(said, |(endpoint, _)| endpoint)
    }

    /// The process that echoes.
    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// A DEALER that sends it this.
    ///
    /// # Panics
    /// If there is none to be had.
    pub fn pair(&self, payload: Vec<u8>) -> RawPair {
        let socket = zmq::Context::new().socket(zmq::DEALER).expect("a socket");
        socket.set_linger(0).expect("it is a setting");
        // The window is the limit, as it is for jobs.
        socket.set_sndhwm(0).expect("it is a setting");
        socket.set_rcvhwm(0).expect("it is a setting");
        socket.connect(self.endpoint()).expect("it is an endpoint");
        RawPair { socket, payload }
    }
}

/// Our half of a raw pair.
pub struct RawPair {
    socket: zmq::Socket,
    payload: Vec<u8>,
}

impl Pair for RawPair {
    fn send(&mut self) {
        self.socket.send(&self.payload[..], 0).expect("it takes messages");
    }

    fn receive(&mut self) {
        let reply = self.socket.recv_msg(0).expect("an echo");
        assert_eq!(reply.len(), self.payload.len());
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
    socket.set_rcvhwm(0).expect("it is a setting");
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
