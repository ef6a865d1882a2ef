//! What may stand behind `svcmap doctor`.

use clap::Args;

use super::MapperOption;

/// `svcmap doctor`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap doctor
  svcmap doctor --short        (to paste)
  svcmap doctor --json

It looks from here: at the mappers and both of their ports, the keys, the addresses of all workers, and this \
process. Nothing is changed. docs/doctor.md lists what it finds. Exits with 0 if nothing failed, else with 1; warnings are no failures.")]
pub struct DoctorArgs {
    /// Which mappers to look at.
    #[command(flatten)]
    pub mapper: MapperOption,
    /// Print one JSON object with checks[], each with the commands that mend it
    #[arg(long)]
    pub json: bool,
    /// Leave out what is well
    #[arg(long)]
    pub short: bool,
}
