//! The other end: a command that asks a running `svcmap up`.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Lines, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use svcmap_proto::names::Name;

use super::clients::matches;
use super::seat;
use crate::access::{Access, Said};
use crate::errors::{Exit, Failure};
use crate::fleet::command::Target;
use crate::fleet::wire::{Process, Reply, Request};
use crate::topology::FILE_NAME;

/// A running `svcmap up` that was asked something.
pub struct Answers {
    /// Which topology it keeps.
    pub path: PathBuf,
    /// Whether it was not named, and is none of this folder.
    pub is_elsewhere: bool,
    lines: Lines<BufReader<UnixStream>>,
}

/// What a running `svcmap up` keeps.
pub struct Running {
    /// The text of its topology.
    pub text: String,
    /// How many instances of each service there are to be.
    pub instances: BTreeMap<Name, u32>,
    /// Services that go on by what the file said before.
    pub reverted: Vec<Name>,
    /// What it said before.
    pub former: String,
    /// Its process.
    pub pid: u32,
}

/// How long it may take to say what it knows. It answers at once, unless it was stopped.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the `svcmap up` of that file; see [`seat::find`].
///
/// # Errors
/// If there is none, or it goes away.
pub fn ask(file: Option<&Path>, request: &Request) -> Result<Answers, Failure> {
    let found = seat::find(file)?;
    let mut stream = found.stream;
    let mut line = serde_json::to_vec(request).map_err(Failure::failed)?;
    line.push(b'\n');
    match stream.write_all(&line) {
        // It may have said why, before it went.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written.map_err(gone)?,
    }
    // What is done takes as long as it takes.
    let is_quick = !matches!(request, Request::Do(_) | Request::Logs { .. });
    stream.set_read_timeout(is_quick.then_some(PATIENCE)).map_err(gone)?;
    let (path, is_elsewhere) = (found.path, found.is_elsewhere);
    Ok(Answers { path, is_elsewhere, lines: BufReader::new(stream).lines() })
}

impl Answers {
    /// What comes next.
    ///
    /// # Errors
    /// If it ended before it has answered, does not take the question, or is of another version.
    pub fn receive(&mut self) -> Result<Reply, Failure> {
        let ended = || Failure::failed("svcmap up ended before it was done").fix("svcmap up");
        let line = self.lines.next().ok_or_else(ended)?.map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => {
                Failure::unavailable("svcmap up does not answer: was it stopped?")
                    .fix("go on with it where it was started: fg; or name another: --mapper")
            }
            _ => gone(error),
        })?;
        let reply = serde_json::from_str(&line).map_err(|error| {
            Failure::failed(format!("svcmap up answers what is not understood here: {error}"))
                .fix("run the svcmap here that svcmap up is of")
        })?;
        match reply {
            Reply::Failed(why) => Err(why.into()),
            reply => Ok(reply),
        }
    }
}

/// What the `svcmap up` of that file keeps; `None` if none runs.
///
/// # Errors
/// If it goes away meanwhile.
pub fn running_topology(path: &Path) -> Result<Option<Running>, Failure> {
    let Ok(mut answers) = ask(Some(path), &Request::File) else { return Ok(None) };
    match answers.receive()? {
        Reply::Topology { text, instances, reverted, former, pid } => {
            Ok(Some(Running { text, instances, reverted, former, pid }))
        }
        other => Err(Failure::failed(format!("svcmap up answers {other:?}"))),
    }
}

/// The processes of the `svcmap up` of that file, and where the file is.
///
/// # Errors
/// If there is none, or it goes away meanwhile.
pub fn processes(file: Option<&Path>) -> Result<(PathBuf, Vec<Process>), Failure> {
    let mut answers = ask(file, &Request::List)?;
    let mut all = Vec::new();
    loop {
        match answers.receive()? {
            Reply::Process(process) => all.push(process),
            Reply::Done(_) => return Ok((answers.path, all)),
            _ => {}
        }
    }
}

/// How to get at the mappers of a `svcmap up` of the topology in this folder; `None` if there is none.
///
/// # Errors
/// If it does not say it.
pub fn mappers_here() -> Result<Option<Said>, Failure> {
    let Ok(mut answers) = ask(Some(Path::new(FILE_NAME)), &Request::Access) else {
        return Ok(None);
    };
    match answers.receive()? {
        Reply::Access { mappers, deployment, insecure } => {
            Ok(Some(Said { mappers, file: deployment, insecure }))
        }
        other => Err(Failure::failed(format!("svcmap up answers {other:?}"))),
    }
}

/// The same, resolved.
///
/// # Errors
/// If it does not say it, or its deployment file is of no use.
pub fn access_here() -> Result<Option<Access>, Failure> {
    mappers_here()?.map(|said| Access::resolve(said, None)).transpose()
}

/// Whether these mappers are of the `svcmap up` of this folder.
pub fn is_of_here(access: &Access) -> bool {
    access_here().is_ok_and(|here| here.as_ref() == Some(access))
}

/// The same failure to find who serves something at those mappers. If they are of the `svcmap up` of this
/// folder, which should keep it, also what is there of it.
pub fn with_what_is_kept(failure: Failure, target: &Target, access: &Access) -> Failure {
    if failure.exit != Exit::Unavailable || !is_of_here(access) {
        return failure;
    }
    let all = processes(Some(Path::new(FILE_NAME))).map(|found| found.1).unwrap_or_default();
    let own = all.iter().filter(|it| !it.is_mapper && matches(target, &it.name));
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    own.for_each(|process| *states.entry(&process.state).or_default() += 1);
    if states.is_empty() {
        let running = running_topology(Path::new(FILE_NAME)).ok().flatten();
        let is_empty = running.is_some_and(|it| it.instances.get(target.name()) == Some(&0));
        return match is_empty {
            true => failure
                .note(&format!("svcmap up keeps no instance of {}", target.name()))
                .fix(format!("svcmap scale {} 1", target.name())),
            false => failure,
        };
    }
    let is_any = |wanted: &[&str]| wanted.iter().any(|state| states.contains_key(state));
    let fix = match (is_any(&["failed", "waiting", "starting"]), is_any(&["ready", "stopping"])) {
        (true, _) => format!("svcmap logs {target}"),
        (false, true) => "svcmap ps".to_owned(),
        (false, false) => format!("svcmap start {target}"),
    };
    let states = states.iter().map(|(state, of)| format!("{of} {state}")).collect::<Vec<_>>();
    failure.note(&format!("svcmap up keeps {target}: {}", states.join(", "))).fix(fix)
}

fn gone(error: std::io::Error) -> Failure {
    Failure::failed(format!("svcmap up does not listen any more: {error}")).fix("svcmap up")
}
