//! A topology from a file of this machine.

use std::path::{Path, PathBuf};

use super::{FILE_NAME, Topology, read};
use crate::errors::Failure;

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

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    let failure = Failure::usage(format!("{}: {error}", path.display()));
    match error.kind() {
        std::io::ErrorKind::NotFound if path == Path::new(FILE_NAME) => {
            Failure::usage(format!("there is no {FILE_NAME} here"))
                .fix("svcmap init writes one that runs; or name another: svcmap up FILE")
        }
        std::io::ErrorKind::NotFound => failure.fix("svcmap init FILE writes one that runs"),
        _ => failure.fix(format!("ls -l {}", path.display())),
    }
}
