//! What may stand behind `svcmap completions` and `svcmap man`, and of what both are made.

use std::path::PathBuf;

use clap::{Args, Command, CommandFactory};
use clap_complete::Shell;

use super::Cli;

/// `svcmap completions`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
To install them, one of:
  svcmap completions bash > ~/.local/share/bash-completion/completions/svcmap
  svcmap completions zsh > \"${fpath[1]}/_svcmap\"
  svcmap completions fish > ~/.config/fish/completions/svcmap.fish
  echo 'eval (svcmap completions elvish | slurp)' >> ~/.config/elvish/rc.elv
  Add-Content $PROFILE 'svcmap completions powershell | Out-String | Invoke-Expression'

Make the folder if it is missed. They are there in the next shell that starts.")]
pub struct CompletionsArgs {
    /// For which shell
    pub shell: Shell,
}

/// `svcmap man`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
To install them for everybody, and read one:
  sudo svcmap man --output /usr/local/share/man/man1
  man svcmap-worker

Without --output it prints the page that leads to the others: svcmap man | man -l -")]
pub struct ManArgs {
    /// Write a page for each command into this folder, which is made if it is missed
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
}

/// The command line with all that its help shows, and nothing that it hides.
pub fn shown() -> Command {
    without_hidden(&Cli::command())
}

fn without_hidden(command: &Command) -> Command {
    let args = || command.get_arguments().filter(|arg| !arg.is_hide_set());
    let is_shown = |id| args().any(|arg| arg.get_id() == id);
    let groups = command.get_groups().filter(|group| group.get_args().all(is_shown));
    let commands = command.get_subcommands().filter(|command| !command.is_hide_set());
    let mut shown = Command::new(command.get_name().to_owned())
        .args(args().cloned())
        .groups(groups.cloned())
        .subcommands(commands.map(without_hidden))
        .subcommand_required(command.is_subcommand_required_set());
    if let Some(about) = command.get_about() {
        shown = shown.about(about.clone());
    }
    if let Some(about) = command.get_long_about() {
        shown = shown.long_about(about.clone());
    }
    if let Some(text) = command.get_after_help() {
        shown = shown.after_help(text.clone());
    }
    if let Some(version) = command.get_version() {
        shown = shown.version(version.to_owned());
    }
    shown
}
