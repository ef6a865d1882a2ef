//! What another file would change.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Handler, Mapper, Mappers, Service, Topology, Worker};
use crate::table::{Cell, Column, render};

/// What becomes of a mapper or a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which one, such as `resize`, or `mapper main`.
    pub subject: String,
    /// `+` it is new, `-` it goes, `~` it changes; a space if nothing happens.
    pub sign: char,
    /// What is different in the file.
    pub what: Vec<String>,
    /// Whether its processes are of no use any more.
    pub is_replaced: bool,
    /// Processes that are started.
    pub starts: u32,
    /// Processes that are replaced.
    pub restarts: u32,
    /// Processes that are stopped.
    pub stops: u32,
}

impl Change {
    fn effect(&self) -> String {
        let all = [("start", self.starts), ("restart", self.restarts), ("stop", self.stops)];
        let some = all.iter().filter(|(_, count)| *count > 0);
        some.map(|(verb, count)| format!("{verb} {count}")).collect::<Vec<_>>().join(", ")
    }
}

/// What becomes of each mapper and service if `new` takes the place of `old`: one line each.
pub fn changes(old: Option<&Topology>, new: &Topology) -> Vec<Change> {
    let (old_topology, new_topology) = (old.unwrap_or(new), new);
    let args = |topology: &Topology, mapper: &Mapper| {
        topology.mapper_args(mapper, &mapper.bind, &mapper.publish)
    };
    let none = BTreeMap::new();
    let old_mappers = old.and_then(Topology::our_mappers).unwrap_or(&none);
    let new_mappers = new.our_mappers().unwrap_or(&none);
    let mappers = united(old_mappers, new_mappers).map(|(name, old, new)| {
        let count = (old.map_or(0, |_| 1), new.map_or(0, |_| 1));
        let (what, is_replaced) = match (old, new) {
            (Some(old), Some(new)) => {
                let mut what = mapper_differences(old, new);
                let is_replaced = args(old_topology, old) != args(new_topology, new);
                if is_replaced && what.iter().all(|what| what == LATER) {
                    what.insert(0, "keys".to_owned());
                }
                (what, is_replaced)
            }
            _ => (Vec::new(), false),
        };
        change(format!("mapper {name}"), count, is_replaced, what)
    });
    let all_differ = old.map(|old| shared_differences(old, new)).unwrap_or_default();
    let none = BTreeMap::new();
    let old_services = old.map_or(&none, |old| &old.services);
    let services = united(old_services, &new.services).map(|(name, old, new)| {
        let count = (old.map_or(0, |old| old.instances), new.map_or(0, |new| new.instances));
        let (what, replaced) = match (old, new) {
            (Some(old), Some(new)) => service_differences(old, new, &all_differ),
            _ => (Vec::new(), false),
        };
        change(name.to_string(), count, replaced, what)
    });
    mappers.chain(services).collect()
}

fn change(subject: String, (old, new): (u32, u32), is_replaced: bool, what: Vec<String>) -> Change {
    let sign = match (old, new) {
        (0, 1..) if what.is_empty() => '+',
        (1.., 0) if what.is_empty() => '-',
        _ if what.is_empty() => ' ',
        _ => '~',
    };
    let restarts = if is_replaced { old.min(new) } else { 0 };
    let (starts, stops) = (new.saturating_sub(old), old.saturating_sub(new));
    Change { subject, sign, what, is_replaced, starts, restarts, stops }
}

/// Both, by name.
fn united<'a, K: Ord, V>(
    old: &'a BTreeMap<K, V>,
    new: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (&'a K, Option<&'a V>, Option<&'a V>)> {
    let gone = old.keys().filter(|key| !new.contains_key(key));
    let names: std::collections::BTreeSet<&K> = new.keys().chain(gone).collect();
    names.into_iter().map(|name| (name, old.get(name), new.get(name)))
}

/// What changes nothing about a process that runs.
const LATER: &str = "what happens when it ends";

fn mapper_differences(old: &Mapper, new: &Mapper) -> Vec<String> {
    let mut what = differences(&[
        ("bind", old.bind != new.bind),
        ("publish", old.publish != new.publish),
        ("advertise", old.advertise != new.advertise),
        ("plain_bind", old.plain_bind != new.plain_bind),
        ("deployment", old.deployment != new.deployment),
        ("http", old.http != new.http),
        ("beat", old.beat != new.beat),
        ("publish_interval", old.publish_interval != new.publish_interval),
    ]);
    what.extend((old.keep != new.keep).then(|| LATER.to_owned()));
    what
}

/// What concerns every worker.
fn shared_differences(old: &Topology, new: &Topology) -> Vec<String> {
    let endpoints = |topology: &Topology| match &topology.mappers {
        Mappers::Ours(mappers) => mappers.values().map(|mapper| mapper.bind.clone()).collect(),
        Mappers::Elsewhere(mappers) => mappers.clone(),
    };
    differences(&[
        ("mappers", endpoints(old) != endpoints(new)),
        ("deployment", old.protection.deployment != new.protection.deployment),
        ("insecure", old.protection.insecure != new.protection.insecure),
        ("prefix", old.prefix != new.prefix),
    ])
}

/// In words, and whether the processes have to be replaced.
fn service_differences(old: &Service, new: &Service, all: &[String]) -> (Vec<String>, bool) {
    let mut what = worker_differences(&old.worker, &new.worker);
    what.extend_from_slice(all);
    let is_replaced = !what.is_empty();
    if old.instances != new.instances {
        what.push(format!("instances {} -> {}", old.instances, new.instances));
    }
    what.extend((old.rolling != new.rolling).then(|| "rolling".to_owned()));
    what.extend((old.keep != new.keep).then(|| LATER.to_owned()));
    (what, is_replaced)
}

fn worker_differences(old: &Worker, new: &Worker) -> Vec<String> {
    let handler = match new.handler {
        Handler::Exec(_) => "exec",
        Handler::ExecLoop(_) => "exec_loop",
        Handler::Builtin(_) => "builtin",
    };
    differences(&[
        (handler, old.handler != new.handler),
        ("concurrency", old.concurrency != new.concurrency),
        ("queue", old.queue != new.queue),
        ("env", old.env != new.env),
        ("dir", old.dir != new.dir),
        ("bind", old.bind != new.bind),
        ("advertise", old.advertise != new.advertise),
        ("run_limit", old.run_limit != new.run_limit),
        ("grace", old.grace != new.grace),
        ("kill_after", old.kill_after != new.kill_after),
        ("payload_max", old.payload_bytes_max != new.payload_bytes_max),
        ("deployment", old.deployment != new.deployment),
    ])
}

fn differences(all: &[(&str, bool)]) -> Vec<String> {
    all.iter().filter(|(_, differs)| *differs).map(|(key, _)| (*key).to_owned()).collect()
}

/// The changes as a table, and their sum.
pub fn text(changes: &[Change], width: Option<usize>) -> String {
    const COLUMNS: [Column; 4] =
        [Column::text(""), Column::text("WHO"), Column::text("CHANGED"), Column::text("DOES")];
    let rows = changes.iter().map(|change| -> Vec<Cell> {
        vec![
            change.sign.to_string().into(),
            change.subject.clone().into(),
            change.what.join(", ").into(),
            change.effect().into(),
        ]
    });
    let mut text = render(&COLUMNS, &rows.collect::<Vec<_>>(), width);
    let sum = |count: fn(&Change) -> u32| changes.iter().map(count).sum::<u32>();
    let (starts, restarts, stops) = (sum(|c| c.starts), sum(|c| c.restarts), sum(|c| c.stops));
    let _ = writeln!(text, "{starts} to start, {restarts} to restart, {stops} to stop");
    text
}
