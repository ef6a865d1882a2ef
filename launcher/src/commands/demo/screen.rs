//! What the demo prints.

use svcmap_proto::io::Clock;
use svcmap_proto::time::Timestamp;
use svcmap_worker::{Statistics, Tally};

use crate::errors::{Error, Failure, print_out};
use crate::table::{self, Cell, Column};

/// How many steps there are.
const STEPS: u32 = 7;

/// One step while it runs.
pub struct Step {
    number: u32,
    title: &'static str,
    started_at: Timestamp,
}

impl Step {
    /// It begins now.
    pub fn start(number: u32, title: &'static str) -> Self {
        Self { number, title, started_at: Clock.now() }
    }

    /// It is over: prints what came of it.
    ///
    /// # Errors
    /// If it did not come out as it should, or stdout cannot be written.
    pub fn end(self, ok: bool, result: &str) -> Result<(), Error> {
        let Self { number, title, started_at } = self;
        let seconds = Clock.now().since(started_at).as_secs_f32();
        let word = if ok { "ok" } else { "FAILED" };
        let line = format!("      {result:<58} {seconds:>5.2}s  {word}\n");
        let printed = print_out(&format!("[{number}/{STEPS}] {title}\n{line}"));
        if !ok {
            let message = format!("step {number} did not come out as it should: {result}");
            return Err(Failure::failed(message).fix("svcmap demo   (once more)").into());
        }
        printed
    }
}

/// Every job accounted for, and what became of the attempts at each instance.
pub fn accounts(statistics: &Statistics) -> String {
    let columns =
        ["INSTANCE", "SENT", "DONE", "HANDED ON", "REJECTED", "RE-SENT", "UNKNOWN", "STALE"];
    let columns: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(index, head)| if index == 0 { Column::text(head) } else { Column::number(head) })
        .collect();
    let rows: Vec<Vec<Cell>> = statistics
        .instances
        .iter()
        .map(|(key, tally)| {
            let resent = tally.rejected + tally.never_seen + tally.handed_over;
            let Tally { sent, done, handed_over, rejected, lost, stale, .. } = *tally;
            let counts = [sent, done, handed_over, rejected, resent, lost, stale];
            let cells = counts.iter().map(|count| Cell::from(count.to_string()));
            std::iter::once(Cell::from(key.to_string())).chain(cells).collect()
        })
        .collect();
    let table = table::render(&columns, &rows, None);
    let Statistics { submitted, done, failed, refused, unknown, accepted, .. } = statistics;
    format!(
        "\n{table}\n\
         sent {submitted} = done {done} + failed {failed} + refused {refused} \
         + unknown {unknown} + accepted {accepted}\n\
         stale-cache errors (sent to a worker that was full): {}\n\
         next: svcmap mapper, then svcmap worker --service echo --builtin echo\n",
        statistics.stale()
    )
}
