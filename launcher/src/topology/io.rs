//! A topology from a file of this machine.

use std::path::{Path, PathBuf};

use super::{FILE_NAME, Handler, Topology, Worker, read};
use crate::errors::Failure;
use crate::exec::{self, Program};

/// A topology, and where it stands.
pub struct Loaded {
    /// The file's full path.
    pub path: PathBuf,
    /// What it says.
    pub text: String,
    /// What that means.
    pub topology: Topology,
}

/// What the file says. Errors name it as it is named here.
///
/// # Errors
/// If it cannot be read, or is wrong.
pub fn load(file: &Path) -> Result<Loaded, Failure> {
    let path = std::path::absolute(file).map_err(|error| unreadable(file, &error))?;
    let text = std::fs::read_to_string(&path).map_err(|error| unreadable(file, &error))?;
    let topology = parse(file, &path, &text)?;
    Ok(Loaded { path, text, topology })
}

/// What such a text would mean in the file of that path.
///
/// # Errors
/// If it is wrong.
pub fn parse(named: &Path, path: &Path, text: &str) -> Result<Topology, Failure> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    Ok(read(named, folder, text)?.named_apart(&svcmap_proto::io::node_name()))
}

/// What services are to be started with and is not here, as far as this process can see: programs without
/// a path are looked for in its own PATH, unless the service has one.
///
/// # Errors
/// If there is such a thing.
pub fn check_programs(topology: &Topology) -> Result<(), Failure> {
    let services = topology.services.iter();
    let missing = services.filter_map(|(name, service)| {
        let Failure { message, fix, .. } = check_program(&service.worker).err()?;
        Some(format!("{name}: {message}: {}", fix.unwrap_or_default()))
    });
    match missing.collect::<Vec<_>>() {
        missing if missing.is_empty() => Ok(()),
        missing => Err(Failure::usage(format!("not all is here:\n{}", missing.join("\n")))),
    }
}

fn check_program(worker: &Worker) -> Result<(), Failure> {
    let dir = &worker.dir;
    if !dir.is_dir() {
        let failure = Failure::usage(format!("there is no folder {}", dir.display()));
        return Err(failure.fix(format!("mkdir -p {}", dir.display())));
    }
    let (key, command) = match &worker.handler {
        Handler::Exec(command) => ("exec =", command),
        Handler::ExecLoop(command) => ("exec_loop =", command),
        Handler::Builtin(_) => return Ok(()),
    };
    let path = worker.env.get("PATH").map(Into::into).or_else(|| std::env::var_os("PATH"));
    let found = Program::words(command).and_then(|argv| exec::find(&argv, dir, path.as_deref()));
    found.map(drop).map_err(|error| Failure { message: error.to_string(), ..error.failure(key) })
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::usage(format!("{}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::NotFound if path == Path::new(FILE_NAME) => {
            Failure::usage(format!("there is no {FILE_NAME} here"))
                .fix("svcmap init writes one that runs; or name another FILE")
        }
        std::io::ErrorKind::NotFound => failure.fix("svcmap init FILE writes one that runs"),
        _ => failure.fix(format!("ls -l {}", path.display())),
    }
}
