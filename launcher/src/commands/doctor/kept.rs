//! From what the `svcmap up` of this folder keeps to what is wrong with it. Pure.

use std::time::Duration;

use svcmap_proto::names::{InstanceKey, Name};

use super::observed::Kept;
use super::{Check, Level, Remedy};
use crate::control::{Answer, View};
use crate::fleet::command::Target;
use crate::fleet::wire::Process;

const GROUP: &str = "svcmap up";

/// Whoever has been ready for less may not be listed yet.
const LISTED_WITHIN: Duration = Duration::from_secs(10);

/// All that there is to say, with what its mappers know.
pub(super) fn all(kept: &Kept, view: Option<&View>) -> Vec<Check> {
    let mut checks: Vec<Check> = kept.processes.iter().filter_map(given_up).collect();
    checks.extend(kept.reverted.iter().map(reverted));
    // One that has just started does not know everybody.
    let has_told = |view: &&View| {
        let mut answers = view.mappers.iter().map(|mapper| mapper.answer);
        kept.has_these_mappers && answers.all(|it| it == Answer::Complete { warming: false })
    };
    if let Some(view) = view.filter(has_told) {
        checks.extend(kept.processes.iter().filter_map(|process| unlisted(process, view)));
    }
    checks
}

/// A process that is not started any more.
fn given_up(process: &Process) -> Option<Check> {
    let Process { name, state, last, .. } = process;
    if state != "failed" {
        return None;
    }
    let last = last.as_deref().map(|last| format!(": {last}")).unwrap_or_default();
    let message = format!("{name} is given up{last}");
    let text =
        "It is not started again by itself. Its log says why. Once that is mended, start it.";
    let remedy = Remedy::new(text)
        .command(format!("svcmap logs {name}"))
        .command(format!("svcmap start {name}"));
    Some(Check::found(GROUP, (Level::Fail, "D20"), message, remedy))
}

/// A process that was ready, and that no mapper has heard of for a while.
fn unlisted(process: &Process, view: &View) -> Option<Check> {
    let Process { name, state, since_ms, pid, .. } = process;
    let is_settled = state == "ready" && Duration::from_millis(*since_ms) > LISTED_WITHIN;
    let Ok(Target::One(InstanceKey { service, instance })) = name.parse() else { return None };
    if !is_settled || view.instances.contains_key(&InstanceKey { service, instance }) {
        return None;
    }
    let pid = pid.map(|pid| format!(", pid {pid},")).unwrap_or_default();
    let message = format!("{name} runs{pid} and no mapper hears of it");
    let text = "Its process is stopped (kill -CONT), or hangs, or does not reach the mappers, which its \
                log says. Another one can take its place.";
    let remedy = Remedy::new(text)
        .command(format!("svcmap logs {name}"))
        .command(format!("svcmap restart {name}"));
    Some(Check::found(GROUP, (Level::Fail, "D21"), message, remedy))
}

/// A service for which the file says what does not work.
fn reverted(service: &Name) -> Check {
    let message = format!(
        "{service} goes on with its former settings: with those of the file none became ready"
    );
    let text = "What svcmap up has said of it says why. Mend the file, and apply it.";
    let remedy = Remedy::new(text).command("svcmap logs up").command("svcmap plan");
    Check::found(GROUP, (Level::Fail, "D22"), message, remedy)
}
