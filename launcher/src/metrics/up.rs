//! What a `svcmap up` keeps, as metrics.

use std::collections::BTreeMap;

use super::{Families, SERVICES_MAX, labels};
use crate::fleet::wire::Process;

/// What there is to tell.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Its processes.
    pub processes: Vec<Process>,
    /// How often processes of a service, or a mapper, have ended by themselves.
    pub deaths: BTreeMap<String, u64>,
}

impl Kept {
    /// Why not all is as it should be; nothing if it is.
    pub fn troubles(&self) -> Vec<String> {
        let is_bad =
            |process: &&Process| !matches!(process.state.as_str(), "ready" | "stopped" | "done");
        let all = self.processes.iter().filter(is_bad);
        all.map(|process| format!("{} is {}", process.name, process.state)).collect()
    }
}

/// The page.
pub fn families(kept: &Kept) -> Families {
    let mut families = Families::of_process();
    let mut states: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for Process { name, state, .. } in &kept.processes {
        let of = name.split('/').next().unwrap_or_default();
        *states.entry((of, state)).or_default() += 1;
    }
    let counted = states.into_iter().take(SERVICES_MAX);
    let counted =
        counted.map(|((of, state), count)| (labels([("of", &of), ("state", &state)]), count));
    let help = "Processes of a service, or of a mapper, by state.";
    families.gauge("svcmap_up_processes", help, counted);
    let deaths = kept.deaths.iter().take(SERVICES_MAX);
    let deaths = deaths.map(|(of, count)| (labels([("of", of)]), *count));
    let help = "Ends of these that nobody wanted.";
    families.counter("svcmap_up_deaths", help, deaths);
    families
}
