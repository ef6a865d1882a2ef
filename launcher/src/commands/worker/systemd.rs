//! What a service manager is told of a worker.

use std::time::Duration;

use svcmap_worker::Metrics;

use super::http::not_ready;
use crate::cli::WorkerArgs;
use crate::systemd::State;
use crate::text::count;

/// How much longer than that it may take to end: it says goodbye to everybody.
const GOODBYE: Duration = Duration::from_secs(5);

/// How it is, in a line.
pub fn status(counted: &Metrics) -> String {
    let reasons = not_ready(counted);
    let load = counted.served.as_ref().map(|served| &served.load);
    let (running, queued) = load.map_or((0, 0), |load| (load.running, load.queued));
    let how = match reasons.is_empty() {
        true => format!("listed by {}", count(counted.mappers_listing, "mapper")),
        false => reasons.join(", "),
    };
    format!("{how}; {} running, {queued} queued", count(running, "job"))
}

/// It has begun to end.
pub fn stopping(args: &WorkerArgs) -> State {
    State::Stopping { within: args.grace.saturating_add(args.kill_after).saturating_add(GOODBYE) }
}
