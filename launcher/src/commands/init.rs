//! `svcmap init`: a topology file to begin with.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::process::ExitCode;

use crate::cli::InitArgs;
use crate::errors::{Error, Failure, print_note, print_out};
use crate::text::printable_path;
use crate::topology::{EXAMPLE, FILE_NAME};

/// Writes or prints the example.
///
/// # Errors
/// If there is a file already, or it cannot be written.
pub fn run(args: &InitArgs) -> Result<ExitCode, Error> {
    if args.print {
        print_out(EXAMPLE)?;
        return Ok(ExitCode::SUCCESS);
    }
    write(&args.file)?;
    let file = printable_path(&args.file);
    let named = if args.file == Path::new(FILE_NAME) { String::new() } else { format!(" {file}") };
    print_note(&format!(
        "wrote {file}: a mapper, and 3 instances of `sum`\nnext: svcmap up{named}"
    ));
    Ok(ExitCode::SUCCESS)
}

/// Never over another one.
fn write(path: &Path) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    file.and_then(|mut file| file.write_all(EXAMPLE.as_bytes())).map_err(|error| {
        let failure = Failure::usage(format!("{}: {error}", path.display()));
        match error.kind() {
            ErrorKind::AlreadyExists => failure.fix("svcmap init --print, or name another file"),
            _ => failure.fix("name another file: svcmap init FILE"),
        }
    })
}
