//! `svcmap man`: manual pages, of the same words as `--help`.

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::Command;
use clap_mangen::Man;
use roff::{Roff, roman};

use crate::cli::{ManArgs, shown};
use crate::errors::{Error, Failure, print_note, print_out_bytes};
use crate::text::{count, printable_path};

/// Prints the main page, or writes all of them.
///
/// # Errors
/// If the folder or stdout cannot be written.
pub fn run(args: &ManArgs) -> Result<ExitCode, Error> {
    let mut command = shown().disable_help_subcommand(true);
    command.build();
    let Some(folder) = &args.output else {
        print_out_bytes(&page(&command).map_err(Failure::failed)?.1)?;
        return Ok(ExitCode::SUCCESS);
    };
    let written = write(&command, folder).map_err(|error| {
        Failure::usage(format!("{}: {error}", folder.display()))
            .fix("name a folder that you can write to: svcmap man --output DIR")
    })?;
    print_note(&format!("wrote {} to {}", count(written, "page"), printable_path(folder)));
    Ok(ExitCode::SUCCESS)
}

/// Writes the pages of a command and of those below it. How many there were.
fn write(command: &Command, folder: &Path) -> io::Result<usize> {
    std::fs::create_dir_all(folder)?;
    let mut written = 1;
    for command in command.get_subcommands() {
        written += write(command, folder)?;
    }
    let (name, page) = page(command)?;
    std::fs::write(folder.join(name), page)?;
    Ok(written)
}

/// A page, with the name of its file.
fn page(command: &Command) -> io::Result<(String, Vec<u8>)> {
    // No date: the words are those of the version, and two builds of it make the same page.
    let source = concat!("svcmap ", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).date(" ").source(source).manual("svcmap");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if command.get_arguments().next().is_some() {
        man.render_options_section(&mut page)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    if let Some(notes) = command.get_after_help() {
        render_notes(&notes.to_string(), &mut page)?;
    }
    // The page of `svcmap` itself has no hyphen in its name, and lists the exit codes.
    if man.get_filename().contains('-') {
        let mut roff = Roff::new();
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman("svcmap(1), which lists the exit codes and all commands")]);
        roff.to_writer(&mut page)?;
    }
    Ok((man.get_filename(), page))
}

/// Examples stay in their lines, which clap_mangen would fill up.
fn render_notes(notes: &str, page: &mut Vec<u8>) -> io::Result<()> {
    let mut roff = Roff::new();
    roff.control("SH", ["NOTES"]).control("nf", []);
    for line in notes.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.to_writer(page)
}
