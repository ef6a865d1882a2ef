//! What may stand behind `svcmap why`.

use super::MapperOption;
use crate::fleet::command::Target;
use clap::Args;

/// `svcmap why`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  svcmap why resize
  svcmap why resize/2
  svcmap why resize --json

It tries what a sender would do that starts here now, with what the mappers know and with who can be reached \
from here. Nothing is sent. Senders that run already know more: what they have sent, and what was promised \
to them.")]
pub struct WhyArgs {
    /// Whose instances, or which one
    #[arg(value_name = "SERVICE[/INSTANCE]")]
    pub of: Target,
    /// Which mappers to ask.
    #[command(flatten)]
    pub mapper: MapperOption,
    /// Print one JSON object with instances[], each with its verdict
    #[arg(long)]
    pub json: bool,
}
