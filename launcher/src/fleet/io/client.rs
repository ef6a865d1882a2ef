//! The other end: a command that asks a running `svcmap up`.

use std::io::{BufRead, BufReader, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use super::seat;
use crate::access::Said;
use crate::errors::Failure;
use crate::fleet::wire::{Reply, Request};
use crate::topology::FILE_NAME;

/// A running `svcmap up` that was asked something.
pub struct Answers {
    /// Which topology it keeps.
    pub path: PathBuf,
    lines: Lines<BufReader<UnixStream>>,
}

/// What a running `svcmap up` keeps.
pub struct Running {
    /// The text of its topology.
    pub text: String,
    /// Its process.
    pub pid: String,
}

/// Asks the `svcmap up` of that file; see [`seat::find`].
///
/// # Errors
/// If there is none, or it goes away.
pub fn ask(file: Option<&Path>, request: &Request) -> Result<Answers, Failure> {
    let found = seat::find(file)?;
    let mut stream = found.stream;
    let mut line = serde_json::to_vec(request).map_err(Failure::failed)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(gone)?;
    Ok(Answers { path: found.path, lines: BufReader::new(stream).lines() })
}

impl Answers {
    /// What comes next.
    ///
    /// # Errors
    /// If it ended before it has answered, or is of another version.
    pub fn receive(&mut self) -> Result<Reply, Failure> {
        let ended = || Failure::failed("svcmap up ended before it was done").fix("svcmap up");
        let line = self.lines.next().ok_or_else(ended)?.map_err(gone)?;
        serde_json::from_str(&line).map_err(|error| {
            Failure::failed(format!("svcmap up answers what is not understood here: {error}"))
                .fix("run the svcmap here that svcmap up is of")
        })
    }
}

/// What the `svcmap up` of that file keeps; `None` if none runs.
///
/// # Errors
/// If it goes away meanwhile.
pub fn running_topology(path: &Path) -> Result<Option<Running>, Failure> {
    let Ok(mut answers) = ask(Some(path), &Request::File) else { return Ok(None) };
    let mut text = String::new();
    loop {
        match answers.receive()? {
            Reply::Topology(topology) => text = topology,
            Reply::Done(pid) => return Ok(Some(Running { text, pid })),
            Reply::Failed(why) => return Err(Failure::failed(why)),
            _ => {}
        }
    }
}

/// How to get at the mappers of a `svcmap up` of the topology in this folder; `None` if there is none.
pub fn mappers_here() -> Option<Said> {
    let path = std::fs::canonicalize(FILE_NAME).ok()?;
    let mut answers = ask(Some(&path), &Request::Access).ok()?;
    match answers.receive().ok()? {
        Reply::Access { mappers, deployment, insecure } => {
            Some(Said { mappers, file: deployment, insecure })
        }
        _ => None,
    }
}

fn gone(error: std::io::Error) -> Failure {
    Failure::failed(format!("svcmap up does not listen any more: {error}")).fix("svcmap up")
}
