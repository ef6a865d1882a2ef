//! What may stand behind `svcmap top`.

use std::time::Duration;

use clap::Args;

use super::MapperOption;
use crate::parse;

/// What the keys do, as the help of the command and `?` on its screen show it.
pub const KEYS: &str = "\
Keys:
  Up, Down, j, k   move; PgUp, PgDn, Home, End as well
  Enter            show or hide a service's instances (above 40: hidden first)
  /                show only what has a text in SERVICE/INSTANCE; Esc shows all
  s                sort by load (first who needs attention), name, done/s,
                   failed/s, age
  d                drain the instance under the cursor, after a y
  p                pause: nothing changes until the next p
  ?                these keys
  q, Ctrl-C        quit";

/// `svcmap top`.
#[derive(Clone, Debug, Args)]
#[command(after_help = format!("\
{KEYS}

Grey figures are old: no mapper has answered since. Where stdout is no terminal it prints a line of \
sums every two seconds, of the instances that are listed then. Times are UTC."))]
pub struct TopArgs {
    /// Which mappers to ask.
    #[command(flatten)]
    pub mapper: MapperOption,
    /// Time between two looks, at least 100ms [default: 1s on a terminal, else 2s]
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub interval: Option<Duration>,
}

/// A mapper is not to be kept busy by who only looks.
fn interval(text: &str) -> Result<Duration, String> {
    match parse::duration(text)? {
        short if short < Duration::from_millis(100) => Err("must be at least 100ms".to_owned()),
        interval => Ok(interval),
    }
}
