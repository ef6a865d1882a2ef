//! Processes that serve HTTP, and asking them.

use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::batch::Running;
use crate::{PATIENCE, eventually, executable, keyed};

/// A command with `--http`.
pub struct Served {
    /// The process.
    pub running: Running,
    /// What it said first.
    pub first_line: String,
    /// Where it serves HTTP.
    pub http: String,
    log: tempfile::NamedTempFile,
}

impl Served {
    /// A mapper on ports of its own.
    pub fn mapper(flags: &[&str]) -> Self {
        Self::start(&[&["mapper", "--bind", "tcp://127.0.0.1:0"], flags].concat())
    }

    /// A worker of that service that registers there.
    pub fn worker(service: &str, mapper: &str, flags: &[&str]) -> Self {
        let own = ["worker", "--service", service, "--instance", "w-1", "--mapper", mapper];
        Self::start(&[&own, flags].concat())
    }

    fn start(args: &[&str]) -> Self {
        let mut command = Command::new(executable());
        command.args(args).args(["--http", "127.0.0.1:0", "--insecure"]).stdin(Stdio::null());
        let log = tempfile::NamedTempFile::new().unwrap();
        let (running, first_line) = keyed::start(command, log.path());
        let (_, http) = first_line.trim_end().split_once(", HTTP on http://").expect(&first_line);
        Self { running, http: http.to_owned(), first_line, log }
    }

    /// Where it listens, a mapper or a worker.
    pub fn endpoint(&self) -> &str {
        let (_, endpoint) = self.first_line.split_once("on ").unwrap();
        endpoint.split(',').next().unwrap()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log.path()).unwrap()
    }

    /// Stops it until it is told to go on.
    pub fn stand_still(&mut self) {
        self.running.signal(Signal::STOP);
        let threads = format!("/proc/{}/task", self.running.child().id());
        eventually("all threads to stop", || {
            fs::read_dir(&threads).unwrap().all(|thread| {
                let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
                stat.rsplit_once(") ").unwrap().1.starts_with('T')
            })
        });
    }

    /// A page.
    pub fn get(&self, path: &str) -> Answer {
        ask(&self.http, "GET", path, &[]).unwrap()
    }

    /// Waits until a page has that status.
    pub fn wait_for(&self, path: &str, status: u16) -> Answer {
        let mut answer = self.get(path);
        eventually(&format!("{status} at {path}"), || {
            answer = self.get(path);
            answer.status == status
        });
        answer
    }

    /// Waits until a series has that value.
    pub fn wait_for_metric(&self, series: &str, value: f64) {
        let what = format!("{series} to be {value}");
        eventually(&what, || metric(&self.get("/metrics").body, series) == Some(value));
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Such as 200.
    pub status: u16,
    /// All lines before the body.
    pub head: String,
    /// The body.
    pub body: String,
}

impl Answer {
    /// From all that a connection brought.
    ///
    /// # Errors
    /// If that is no answer.
    pub fn read(mut stream: impl Read) -> io::Result<Self> {
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let (head, body) = text.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { status, head: head.to_ascii_lowercase(), body: body.to_owned() })
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.head.lines().filter_map(|line| line.split_once(": "));
        headers.find_map(|(its, value)| (its == name).then_some(value))
    }
}

/// A connection on which nothing was said yet.
///
/// # Errors
/// If nobody listens.
pub fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// Asks, with these lines in the head.
///
/// # Errors
/// If there is no answer in time.
pub fn ask(address: &str, method: &str, path: &str, lines: &[&str]) -> io::Result<Answer> {
    let mut stream = connect(address)?;
    let lines: String = lines.iter().map(|line| format!("{line}\r\n")).collect();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: {address}\r\n{lines}\r\n")?;
    Answer::read(stream)
}

/// The value of a series, such as `a_total{b="c"}`.
pub fn metric(page: &str, series: &str) -> Option<f64> {
    let mut lines = page.lines().filter_map(|line| line.rsplit_once(' '));
    lines.find_map(|(name, value)| (name == series).then(|| value.parse().unwrap()))
}
