//! What the benchmarks share: the raw pair of libzmq that svcmap is measured beside, and medians.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// What the second process of a raw pair is started with.
const ECHO: &str = "--raw-echo";

/// The other half of a raw pair: a process that sends back what comes.
pub struct RawEcho {
    child: Child,
    endpoint: String,
}

impl RawEcho {
    /// Starts this very benchmark once more, as a ROUTER or a REP that echoes: a benchmark calls
    /// [`raw_echo`] first.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(kind: zmq::SocketType) -> Self {
        let own = std::env::current_exe().expect("a bench knows where it lies");
        let kind = if kind == zmq::REP { "rep" } else { "router" };
        let mut child = Command::new(own);
        let mut child = child.args([ECHO, kind]).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut endpoint = String::new();
        let stdout = child.stdout.take().expect("it is piped");
        BufReader::new(stdout).read_line(&mut endpoint).expect("it says where it listens");
        Self { child, endpoint: endpoint.trim().to_owned() }
    }

    /// Where it listens.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }
}

impl Drop for RawEcho {
    fn drop(&mut self) {
        // Its own child; whatever fails here, it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    let kind = if kind == "rep" { zmq::REP } else { zmq::ROUTER };
    let socket = zmq::Context::new().socket(kind).expect("a socket");
    // A ROUTER drops what exceeds its queue.
    socket.set_sndhwm(0).expect("it is a setting");
    socket.bind("tcp://127.0.0.1:*").expect("a port");
    socket.set_rcvtimeo(120_000).expect("a time limit");
    println!("{}", socket.get_last_endpoint().expect("it is bound").expect("it is text"));
    while let Ok(frames) = socket.recv_multipart(0) {
        socket.send_multipart(frames, 0).expect("the peer is there");
    }
    true
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
