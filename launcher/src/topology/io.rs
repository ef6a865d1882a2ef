//! A topology from a file of this machine.

use std::path::Path;

use super::{FILE_NAME, Topology, read};
use crate::errors::Failure;

/// What the file says, and its text.
///
/// # Errors
/// If it cannot be read, or is wrong.
pub fn load(path: &Path) -> Result<(Topology, String), Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
    let topology = read(path, &text)?.named_apart(&svcmap_proto::io::node_name());
    Ok((topology, text))
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
