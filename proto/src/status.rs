//! What is known of services and instances, as `svcmap status --json` and the mapper's answer to
//! STATUS state it: exactly these fields are their JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::control::{Activity, Entry, Refused};
use crate::load::{Load, State};
use crate::names::{Endpoint, HostId, InstanceKey, MapperAddress, Name};

/// Handlers that finish nothing for this long while jobs wait are taken for stuck. A long job is
/// not: see [`Shown::of`].
const STUCK_MS: u64 = 30_000;

/// So many mean service times without a finished job are still no reason to doubt.
const STUCK_SERVICE_TIMES: u64 = 3;

/// Of so many in a thousand of its last jobs on, an instance fails most.
const MOST: u16 = 500;

/// So many more in a thousand than at the middle one of its peers are no chance: three of its last five.
const MORE: u16 = 300;

/// What the mappers know.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// The mappers that were asked, in the order in which they were named.
    pub mappers: Vec<MapperRow>,
    /// Whether those that answered list the same lives.
    pub mappers_agree: bool,
    /// The services, those that need attention first, then the busiest; last those that ended.
    pub services: Vec<ServiceRow>,
    /// Their instances, in the same order.
    pub instances: Vec<InstanceRow>,
    /// All services that any mapper has a name of.
    #[serde(skip)]
    pub known: BTreeSet<Name>,
    /// Services that a mapper says nothing of to who asked.
    #[serde(skip)]
    pub denied: BTreeSet<Name>,
}

/// A mapper.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MapperRow {
    /// Where it was asked.
    pub endpoint: Endpoint,
    /// The name that this is an address of, if it was named so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Endpoint>,
    /// `complete`, `partial`, `silent` or `wrong version`.
    pub answer: &'static str,
    /// Whether it has started lately and may not know everybody yet.
    pub warming: bool,
    /// What it has refused since its start.
    pub refused: Refused,
}

impl MapperRow {
    /// Whether it has told everything that it was asked.
    pub fn is_complete(&self) -> bool {
        self.answer == "complete"
    }

    /// Where it was asked, and by which name, for people.
    pub fn at(&self) -> MapperAddress {
        let address = self.endpoint.clone();
        MapperAddress { named: self.name.clone().unwrap_or_else(|| address.clone()), address }
    }
}

/// A service: the sums over its instances.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ServiceRow {
    /// Its name.
    pub service: String,
    /// Instances that are listed.
    pub instances: usize,
    /// Those of them that take jobs or would if they were not full; but for those that were tried and
    /// cannot be reached.
    pub ready: usize,
    /// Those of them that are full.
    pub full: usize,
    /// Those of them of whose last jobs most failed: they take jobs, as no peer does better.
    pub failing: usize,
    /// Instances that were tried and cannot be reached; missing if none was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<usize>,
    /// Jobs waiting.
    pub queued: u64,
    /// Of these, those of high priority.
    pub queued_high: u64,
    /// And those of low priority.
    pub queued_low: u64,
    /// Jobs running.
    pub running: u64,
    /// Slots promised to senders.
    pub promised: u64,
    /// Room for jobs.
    pub slots: u64,
    /// Jobs that can run at once.
    pub concurrency: u64,
    /// Share of the slots in use, 0 to 1. Who says no slots counts as if it had one.
    pub load: f64,
    /// Age of the oldest load among its instances, in seconds.
    pub age: f64,
    /// The same in milliseconds.
    pub age_ms: u32,
    /// Jobs taken by the instances that are listed, since their start.
    pub accepted: u64,
    /// Jobs with a result.
    pub done: u64,
    /// Jobs with an error.
    pub failed: u64,
    /// Attempts rejected.
    pub rejected: u64,
    /// Senders turned away, as too many others had something there.
    pub turned_away: u64,
    /// Jobs that have waited at their senders for a while, as those say who speak the native protocol.
    pub waiting: u64,
    /// At so many senders.
    pub waiting_senders: u32,
    /// Jobs that ended in a second, done or failed, as a mean over the last beats.
    pub ended_per_s: f64,
}

/// An instance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceRow {
    /// What it serves.
    pub service: Name,
    /// Its name.
    pub instance: Name,
    /// Where senders reach it best.
    pub endpoint: Option<Endpoint>,
    /// Its process id on its host.
    pub pid: u32,
    /// Which life of it.
    pub incarnation: u64,
    /// How it is.
    pub state: Shown,
    /// What it speaks.
    pub dialect: Dialect,
    /// Jobs waiting.
    pub queued: u32,
    /// Of these, those of high priority.
    pub queued_high: u32,
    /// And those of low priority.
    pub queued_low: u32,
    /// Jobs running.
    pub running: u32,
    /// Slots promised to senders.
    pub promised: u32,
    /// Room for jobs.
    pub slots: u32,
    /// Jobs that can run at once.
    pub concurrency: u32,
    /// Share of the slots in use, 0 to 1.
    pub load: f64,
    /// How old all this is, in seconds.
    pub age: f64,
    /// The same in milliseconds.
    pub age_ms: u32,
    /// Moving average of a handler's time per job, in milliseconds.
    pub mean_service_ms: f64,
    /// Jobs taken since start.
    pub accepted: u64,
    /// Jobs with a result.
    pub done: u64,
    /// Jobs with an error.
    pub failed: u64,
    /// Attempts rejected.
    pub rejected: u64,
    /// Senders turned away, as too many others had something there.
    pub turned_away: u64,
    /// How long the oldest queued job has waited.
    pub oldest_queued_ms: u32,
    /// Time since a handler last finished; `null` before the first.
    pub since_finish_ms: Option<u32>,
    /// Of its last jobs, so many in a thousand failed or could not be started.
    pub failing: u16,
    /// What the last one failed of, while the instance is failing. Text from elsewhere.
    pub error: Option<String>,
    /// Whether somebody listens at its address, where that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachable: Option<bool>,
    /// From which host that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Why nobody can be reached there from that host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreachable: Option<String>,
    /// All its addresses, best first.
    #[serde(skip)]
    pub endpoints: Vec<Endpoint>,
    /// On which machine it runs.
    #[serde(skip)]
    pub host: HostId,
}

/// What an instance speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Dialect {
    /// svcmap's own protocol.
    Native,
    /// The JSON dialect: of its jobs only the load is known.
    Json,
}

/// How an instance is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Shown {
    /// Its process is alive, but its handlers finish nothing.
    Stuck,
    /// Its jobs fail while those of its peers do not, or cannot be started: it takes few or none.
    Failing,
    /// It takes nothing new.
    Draining,
    /// It has no slot left. That is a state, not absence.
    Full,
    /// It takes jobs.
    Ready,
}

impl Shown {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Stuck, Self::Failing, Self::Draining, Self::Full, Self::Ready];

    /// What a load says.
    ///
    /// Stuck needs a job that *waits* for long while no handler finishes: without one, a handler
    /// that started a moment ago after a quiet hour would look the same. Three mean service times
    /// are allowed as well, for work that takes minutes.
    pub fn of(load: &Load) -> Self {
        let patience_ms = STUCK_MS.max(load.mean_service_us / 1000 * STUCK_SERVICE_TIMES);
        let is_silent = load.since_finish_ms.is_none_or(|ms| u64::from(ms) > patience_ms);
        let waits_long = load.queued > 0 && u64::from(load.oldest_queued_ms) > patience_ms;
        if load.running > 0 && is_silent && waits_long {
            Shown::Stuck
        } else if load.state == State::Draining {
            Shown::Draining
        } else if load.state == State::Failing {
            Shown::Failing
        } else if load.is_full() {
            Shown::Full
        } else {
            Shown::Ready
        }
    }

    /// Whether it counts as ready: full is, it only has no room at the moment.
    pub fn is_ready(self) -> bool {
        matches!(self, Shown::Ready | Shown::Full)
    }

    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Shown::Stuck => "stuck",
            Shown::Failing => "failing",
            Shown::Draining => "draining",
            Shown::Full => "full",
            Shown::Ready => "ready",
        }
    }
}

impl Report {
    /// The facts, as these mappers tell them; `agree` says whether they list the same lives.
    /// `known` are all services, those without instances included; `activity` is what happens in some, of
    /// which the last word for each counts.
    pub fn new<'a>(
        mappers: Vec<MapperRow>,
        agree: bool,
        known: BTreeSet<Name>,
        instances: impl Iterator<Item = (&'a InstanceKey, &'a Entry)>,
        activity: impl Iterator<Item = &'a Activity>,
    ) -> Self {
        let mut instances: Vec<InstanceRow> =
            instances.map(|(key, entry)| InstanceRow::new(key, entry)).collect();
        let mut by_service: BTreeMap<&Name, Vec<&InstanceRow>> =
            known.iter().map(|name| (name, Vec::new())).collect();
        let activity: BTreeMap<&Name, &Activity> =
            activity.map(|activity| (&activity.service, activity)).collect();
        for (name, activity) in &activity {
            // Jobs wait for some that nobody has ever served.
            if activity.waiting > 0 {
                by_service.entry(name).or_default();
            }
        }
        for row in &instances {
            by_service.entry(&row.service).or_default().push(row);
        }
        let row = |(name, rows): (&&Name, &Vec<&InstanceRow>)| {
            ServiceRow::new(name, rows).with_activity(activity.get(name).copied())
        };
        let mut services: Vec<ServiceRow> = by_service.iter().map(row).collect();
        services.sort_by(|a, b| {
            let order = a.attention().cmp(&b.attention());
            order.then(b.load.total_cmp(&a.load)).then_with(|| a.service.cmp(&b.service))
        });
        let places: BTreeMap<&str, usize> =
            services.iter().enumerate().map(|(place, row)| (row.service.as_str(), place)).collect();
        instances.sort_by_cached_key(|row| {
            (places.get(row.service.as_str()).copied(), row.state, row.instance.clone())
        });
        Self { mappers, mappers_agree: agree, services, instances, known, denied: BTreeSet::new() }
    }

    /// The same with one service only, if one is named.
    #[must_use]
    pub fn only(mut self, service: Option<&Name>) -> Self {
        if let Some(service) = service {
            self.services.retain(|row| row.service == service.as_str());
            self.instances.retain(|row| row.service == *service);
        }
        self
    }

    /// Tells of that instance only, if one is named; sums stay as they are.
    pub fn retain_instance(&mut self, instance: Option<&Name>) {
        if let Some(instance) = instance {
            self.instances.retain(|row| row.instance == *instance);
        }
    }

    /// The sums of one service.
    pub fn service(&self, service: &Name) -> Option<&ServiceRow> {
        self.services.iter().find(|row| row.service == service.as_str())
    }

    /// Whether jobs fail, or cannot be started, at that instance and not at most of its peers.
    pub fn fails_more(&self, row: &InstanceRow) -> bool {
        let Some(usual_max) = row.failing.checked_sub(MORE) else { return false };
        let of = |it: &&InstanceRow| it.service == row.service && it.instance != row.instance;
        let mut usual: Vec<_> = self.instances.iter().filter(of).map(|it| it.failing).collect();
        usual.sort_unstable();
        usual.get(usual.len() / 2).is_some_and(|usual| *usual <= usual_max)
    }

    /// Counts anew who is ready, once it was tried who can be reached: who cannot is not.
    pub fn count_reached(&mut self) {
        for row in &mut self.services {
            (row.ready, row.full, row.failing, row.unreachable) = (0, 0, 0, None);
            for instance in &self.instances {
                if instance.service.as_str() == row.service {
                    row.count_standing(instance);
                }
            }
        }
    }

    /// One JSON object and a line end.
    pub fn to_json(&self) -> String {
        // Strings, numbers and lists: serialising them has no way to fail.
        serde_json::to_string_pretty(self).unwrap_or_default() + "\n"
    }
}

impl ServiceRow {
    fn new(name: &Name, instances: &[&InstanceRow]) -> Self {
        let mut row = Self { service: name.to_string(), ..Self::default() };
        for instance in instances {
            row.instances += 1;
            row.count_standing(instance);
            row.queued += u64::from(instance.queued);
            row.queued_high += u64::from(instance.queued_high);
            row.queued_low += u64::from(instance.queued_low);
            row.running += u64::from(instance.running);
            row.promised += u64::from(instance.promised);
            row.slots += u64::from(instance.slots);
            row.concurrency += u64::from(instance.concurrency);
            row.age_ms = row.age_ms.max(instance.age_ms);
            // Counters come from the wire: absurd ones must not overflow.
            row.accepted = row.accepted.saturating_add(instance.accepted);
            row.done = row.done.saturating_add(instance.done);
            row.failed = row.failed.saturating_add(instance.failed);
            row.rejected = row.rejected.saturating_add(instance.rejected);
            row.turned_away = row.turned_away.saturating_add(instance.turned_away);
        }
        row.age = seconds(row.age_ms);
        let (sum, weights) = instances.iter().fold((0.0, 0.0), |(sum, weights), instance| {
            (sum + instance.load * instance.weight(), weights + instance.weight())
        });
        row.load = if weights > 0.0 { sum / weights } else { 0.0 };
        row
    }

    fn with_activity(self, activity: Option<&Activity>) -> Self {
        let Some(activity) = activity else { return self };
        let per_s = f64::from(activity.ended_per_s);
        let ended_per_s = if per_s.is_finite() { per_s.max(0.0) } else { 0.0 };
        let (waiting, waiting_senders) = (activity.waiting, activity.senders);
        Self { waiting, waiting_senders, ended_per_s, ..self }
    }

    /// Counts an instance by how it is, and whether it was reached.
    fn count_standing(&mut self, instance: &InstanceRow) {
        self.ready += usize::from(instance.is_ready());
        self.full += usize::from(instance.is_ready() && instance.state == Shown::Full);
        self.failing += usize::from(instance.is_ready() && instance.fails_most());
        if let Some(reachable) = instance.reachable {
            *self.unreachable.get_or_insert_default() += usize::from(!reachable);
        }
    }

    /// Whether a new job finds no room anywhere, though somebody serves.
    pub fn is_full(&self) -> bool {
        self.full > 0 && self.full == self.ready
    }

    /// How much attention it needs, most first.
    fn attention(&self) -> u8 {
        match self {
            // All that it had has ended: that is told, but wants nothing, unless jobs wait for it.
            _ if self.instances == 0 && self.waiting == 0 => 4,
            _ if self.is_full() => 0,
            _ if self.ready == 0 => 1,
            _ if self.ready < self.instances || self.failing > 0 => 2,
            _ => 3,
        }
    }
}

impl InstanceRow {
    fn new(key: &InstanceKey, entry: &Entry) -> Self {
        let load = &entry.load;
        let state = match Shown::of(load) {
            // It takes one job, to see, and others only once that is done.
            Shown::Ready | Shown::Full if entry.error.is_some() => Shown::Failing,
            state => state,
        };
        Self {
            service: key.service.clone(),
            instance: key.instance.clone(),
            endpoint: entry.endpoints.first().cloned(),
            pid: entry.pid,
            incarnation: entry.incarnation.0,
            state,
            dialect: if load.share.is_some() { Dialect::Json } else { Dialect::Native },
            queued: load.queued,
            queued_high: load.queued_high,
            queued_low: load.queued_low,
            running: load.running,
            promised: load.promised,
            slots: load.slots,
            concurrency: load.concurrency,
            load: load.ratio(),
            age: seconds(entry.age_ms),
            age_ms: entry.age_ms,
            mean_service_ms: load.mean_service_us as f64 / 1000.0,
            accepted: load.accepted,
            done: load.done,
            failed: load.failed,
            rejected: load.rejected,
            turned_away: load.turned_away,
            oldest_queued_ms: load.oldest_queued_ms,
            since_finish_ms: load.since_finish_ms,
            failing: load.failing,
            error: entry.error.clone(),
            reachable: None,
            from: None,
            unreachable: None,
            endpoints: entry.endpoints.clone(),
            host: entry.host,
        }
    }
}

impl InstanceRow {
    /// Whether it counts as ready, as far as is known.
    pub fn is_ready(&self) -> bool {
        self.state.is_ready() && self.reachable != Some(false)
    }

    /// Whether most of its last jobs failed or could not be started.
    pub fn fails_most(&self) -> bool {
        self.failing >= MOST
    }

    /// Whether each of its handlers has a job, so that the next one waits, here or at its sender.
    pub fn is_busy(&self) -> bool {
        let jobs = u64::from(self.running) + u64::from(self.queued);
        self.dialect == Dialect::Native && jobs >= u64::from(self.concurrency)
    }

    /// What its load counts among those of its service.
    fn weight(&self) -> f64 {
        let unsaid = u32::from(self.dialect == Dialect::Json);
        f64::from(self.slots.max(unsaid))
    }
}

fn seconds(ms: u32) -> f64 {
    f64::from(ms) / 1000.0
}
