//! What becomes of each instance where a sender starts now, and why. Pure.

use std::collections::BTreeSet;

use serde::Serialize;
use svcmap_proto::control::{Entry, ServiceStanding};
use svcmap_proto::names::{Endpoint, HostId, InstanceKey, Name};
use svcmap_proto::status::{InstanceRow, MapperRow, Report, Shown};

use super::trial::{Payload, Trial, Turn};
use crate::commands::status::why_not_ready;
use crate::control::View;
use crate::text::{count, time_ms};

/// What a sender that starts now does, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Why {
    /// For which service.
    pub service: Name,
    /// The mappers that were asked.
    pub mappers: Vec<MapperRow>,
    /// Whether those that answered list the same lives.
    pub mappers_agree: bool,
    /// What the sender's chance begins with: another sender has another.
    pub seed: u64,
    /// Who gets its first job and has a handler free; `null` if that waits.
    pub chosen: Option<Name>,
    /// Jobs that wait at their senders already.
    pub waiting: u64,
    /// At so many senders.
    pub waiting_senders: u32,
    /// To whom it turns, one after the other, until one takes the job.
    pub turns: Vec<TurnRow>,
    /// Each instance, those that need attention first.
    pub instances: Vec<Row>,
}

impl Why {
    /// One JSON object and a line end.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists: serialising them has no way to fail.
        let json = serde_json::to_string_pretty(self).unwrap_or_default();
        format!("{json}\n")
    }
}

/// A sender turns to an instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TurnRow {
    /// To which one.
    pub instance: Name,
    /// How long after its start.
    pub after_ms: f64,
}

/// An instance, as a sender that starts now sees it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What is known of it.
    #[serde(flatten)]
    pub known: InstanceRow,
    /// What becomes of it.
    pub verdict: Verdict,
    /// Why.
    pub reason: String,
    /// Whether a sender that knows nobody else turns to it.
    pub usable: bool,
    /// Whether it takes jobs of JSON only.
    pub json_only: bool,
    /// Mappers that list it.
    pub listed_by: Vec<Endpoint>,
    /// Mappers that have told everything and do not.
    pub missing_at: Vec<Endpoint>,
}

/// What becomes of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It gets the job.
    Chosen,
    /// With other luck it would.
    Possible,
    /// All its handlers have a job: the next one waits for the first that is free, here or at its sender.
    Busy,
    /// It has no slot.
    Full,
    /// It takes nothing new.
    Draining,
    /// Its jobs fail.
    Failing,
    /// Its handlers finish nothing.
    Stuck,
    /// Nobody can be reached there from here.
    Unreachable,
    /// A sender does not turn to it, for a reason that is its own.
    Unused,
}

impl Verdict {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Verdict::Chosen => "chosen",
            Verdict::Possible => "possible",
            Verdict::Busy => "busy",
            Verdict::Full => "full",
            Verdict::Draining => "draining",
            Verdict::Failing => "failing",
            Verdict::Stuck => "stuck",
            Verdict::Unreachable => "unreachable",
            Verdict::Unused => "unused",
        }
    }
}

/// Judges each instance of that service. `report` is the same as `view`, with what came of trying to
/// reach them from that host.
pub fn judge(service: &Name, view: &View, report: &Report, host: HostId, seed: u64) -> Why {
    let rows = || report.instances.iter().filter(|row| row.service == *service);
    let lost = rows().filter(|row| row.reachable == Some(false));
    let unreachable: BTreeSet<Name> = lost.map(|row| row.instance.clone()).collect();
    let listings = &view.listings;
    let newest = &view.instances;
    let trial = Trial { service, listings, newest, host, seed, unreachable: &unreachable };
    let begins = |row: &&InstanceRow| {
        let key = InstanceKey { service: service.clone(), instance: row.instance.clone() };
        let is_eligible = view.instances.get(&key).is_some_and(|entry| entry.load.is_eligible());
        is_eligible && row.reachable != Some(false) && !row.is_busy()
    };
    let beginning: BTreeSet<&Name> = rows().filter(begins).map(|row| &row.instance).collect();
    let takes = |name: &Name| beginning.contains(name);
    let mut turns = trial.turns(Payload::Json, |_| true, takes);
    if !turns.iter().any(|turn| takes(&turn.instance)) {
        // Whom it cannot reach it leaves alone after a while.
        let later = trial.turns(Payload::Json, |name| !unreachable.contains(name), takes);
        turns.extend(later.into_iter().filter(|turn| takes(&turn.instance)));
    }
    let chosen = turns.iter().map(|turn| &turn.instance).find(|name| takes(name)).cloned();
    let instances = rows().map(|row| judge_one(view, &trial, row, chosen.as_ref())).collect();
    let sums = report.service(service).cloned().unwrap_or_default();
    Why {
        service: service.clone(),
        mappers: report.mappers.clone(),
        mappers_agree: report.mappers_agree,
        seed,
        chosen,
        waiting: sums.waiting,
        waiting_senders: sums.waiting_senders,
        turns: turns.into_iter().map(TurnRow::from).collect(),
        instances,
    }
}

impl From<Turn> for TurnRow {
    fn from(Turn { instance, after }: Turn) -> Self {
        Self { instance, after_ms: after.as_secs_f64() * 1000.0 }
    }
}

fn judge_one(view: &View, trial: &Trial<'_>, row: &InstanceRow, chosen: Option<&Name>) -> Row {
    let alone = |payload| {
        let turns = trial.turns(payload, |name| *name == row.instance, |_| true);
        !turns.is_empty()
    };
    let usable = alone(Payload::Json);
    let json_only = usable && !alone(Payload::Bytes);
    let verdict = match (row.state, usable) {
        _ if row.reachable == Some(false) => Verdict::Unreachable,
        _ if chosen == Some(&row.instance) => Verdict::Chosen,
        (Shown::Draining, _) => Verdict::Draining,
        (Shown::Failing, _) => Verdict::Failing,
        (Shown::Stuck, _) => Verdict::Stuck,
        (Shown::Full, _) => Verdict::Full,
        (Shown::Ready, true) if row.is_busy() => Verdict::Busy,
        (Shown::Ready, true) => Verdict::Possible,
        (Shown::Ready, false) => Verdict::Unused,
    };
    let (listed_by, missing_at) = listed(view, row);
    let mut reason = reason(row, verdict, usable);
    if json_only {
        reason += "; takes jobs of JSON only";
    }
    if let (Some(by), Some(missing)) = (listed_by.first(), missing_at.first()) {
        reason += &format!("; listed by {by}, not by {missing}");
    }
    Row { known: row.clone(), verdict, reason, usable, json_only, listed_by, missing_at }
}

/// Which mappers list that life of it, and which do not, of those that have told everything.
fn listed(view: &View, row: &InstanceRow) -> (Vec<Endpoint>, Vec<Endpoint>) {
    let (mut listed_by, mut missing_at) = (Vec::new(), Vec::new());
    for (mapper, listing) in view.mappers.iter().zip(&view.listings) {
        let is_it = |entry: &Entry| {
            entry.instance == row.instance && entry.incarnation.0 == row.incarnation
        };
        if listing.of(&row.service).any(is_it) {
            listed_by.push(mapper.at.address.clone());
        } else if mapper.answer.is_complete() {
            missing_at.push(mapper.at.address.clone());
        }
    }
    (listed_by, missing_at)
}

fn reason(row: &InstanceRow, verdict: Verdict, usable: bool) -> String {
    match verdict {
        Verdict::Chosen => match row.state {
            Shown::Ready | Shown::Full => "has room".to_owned(),
            _ => format!("although it is {}", why_not_ready(row)),
        },
        Verdict::Possible => "has room as well".to_owned(),
        Verdict::Busy => {
            let has = match row.concurrency {
                1 => "its handler has a job".to_owned(),
                all => format!("all its {all} handlers have a job"),
            };
            format!("{has}: the next one waits for the first that is free")
        }
        Verdict::Full => {
            let taken = u64::from(row.running) + u64::from(row.queued) + u64::from(row.promised);
            match row.slots {
                0 => format!("says that {:.0}% of its room is taken", row.load * 100.0),
                slots => format!("{taken} of {} taken", count(slots, "slot")),
            }
        }
        Verdict::Failing => {
            // The share of failures is a smoothed one, which fits no count that somebody sees.
            let InstanceRow { failed, done, .. } = row;
            let share = match (row.failing, failed) {
                (0, _) => String::new(),
                (_, 0) => "jobs could not be started there".to_owned(),
                _ => format!("jobs fail there: {failed} failed and {done} done since its start"),
            };
            let takes = if usable { "takes one job, to see" } else { "takes none for a while" };
            let error = row.error.as_deref().map(str::trim).unwrap_or_default();
            let parts = [&share, takes, error];
            parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
        }
        Verdict::Unreachable => {
            let from = row.from.as_deref().unwrap_or("here");
            let error = row.unreachable.as_deref().unwrap_or("nobody answers");
            let heard = time_ms(row.age_ms.into());
            format!("from {from}: {error}; a mapper heard it {heard} ago")
        }
        Verdict::Draining | Verdict::Stuck => why_not_ready(row),
        Verdict::Unused => "a sender that starts here does not turn to it".to_owned(),
    }
}

/// What the mappers know of a service that nobody serves: whether anybody did until lately.
pub fn was_served(service: &Name, view: &View) -> bool {
    let standings = view.listings.iter().filter_map(|listing| listing.standings.get(service));
    standings.into_iter().any(|standing| *standing == ServiceStanding::Heard)
}
