//! From what was seen of workers to what is wrong with it. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use svcmap_proto::control::Entry;
use svcmap_proto::names::{Endpoint, InstanceKey, usable_endpoints};
use svcmap_proto::status::{InstanceRow, Report, ServiceRow, Shown};

use super::observed::Machine;
use super::{Check, Level, Remedy};
use crate::commands::status::reach::{SILENT, is_refused};
use crate::commands::status::render::{error, failing_warning};
use crate::commands::status::why_not_ready;
use crate::control::View;
use crate::text::{count, time};

const GROUP: &str = "workers";

/// Most findings of a kind that are told one by one.
const TOLD_MAX: usize = 10;

/// Clocks that differ by less are well.
const AHEAD: Duration = Duration::from_secs(60);

/// All that there is to say of them.
pub(super) fn all(view: &View, report: &Report, machine: &Machine) -> Vec<Check> {
    if view.instances.is_empty() {
        return vec![Check::ok(GROUP, "none is registered")];
    }
    let mut checks = Vec::new();
    tell(&mut checks, report.instances.iter().filter_map(|row| unreachable(row, machine)));
    let entries = || view.instances.iter();
    tell(&mut checks, entries().filter_map(|(key, entry)| local(key, entry, view, machine)));
    tell(&mut checks, entries().filter_map(|(key, entry)| ahead(key, entry, machine)));
    let rows = || report.instances.iter();
    tell(&mut checks, report.services.iter().filter_map(failing_everywhere));
    tell(&mut checks, rows().filter_map(failing));
    tell(&mut checks, rows().filter(|row| report.fails_more(row)).filter_map(failing_more));
    tell(&mut checks, rows().filter_map(stuck));
    if checks.is_empty() {
        let tried = report.instances.iter().filter(|row| row.reachable == Some(true)).count();
        let (all, from) = (count(view.instances.len(), "instance"), &machine.name);
        let of = if tried < view.instances.len() { format!("{tried} of ") } else { String::new() };
        checks.push(Check::ok(GROUP, format!("{of}{all} reached from {from}")));
    }
    checks
}

/// The second of two looks, without who was reached at the first, or was not there: it may be ending, as
/// when it is replaced. So may another life of that name.
pub(super) fn without_passing(first: &Report, mut second: Report) -> Report {
    let life = |row: &InstanceRow| (row.service.clone(), row.instance.clone(), row.incarnation);
    let refused = first.instances.iter().filter(|row| is_refused(row));
    let refused: BTreeSet<_> = refused.map(life).collect();
    for row in second.instances.iter_mut().filter(|row| is_refused(row)) {
        if !refused.contains(&life(row)) {
            (row.reachable, row.from, row.unreachable) = (None, None, None);
        }
    }
    second.count_reached();
    second
}

/// Tells these, or a few of them.
fn tell(checks: &mut Vec<Check>, found: impl Iterator<Item = Check>) {
    let mut found: Vec<Check> = found.collect();
    let more = found.len().saturating_sub(TOLD_MAX);
    found.truncate(TOLD_MAX);
    if let Some(last) = found.last_mut().filter(|_| more > 0) {
        last.message += &format!(" (and {more} more like this)");
    }
    checks.append(&mut found);
}

fn unreachable(row: &InstanceRow, machine: &Machine) -> Option<Check> {
    let is_usable = !usable_endpoints(&row.endpoints, row.host == machine.host).is_empty();
    if row.reachable != Some(false) || !is_usable {
        return None;
    }
    let (service, instance) = (&row.service, &row.instance);
    let error = row.unreachable.as_deref().unwrap_or("nobody answers");
    let message = format!("{service}/{instance} cannot be reached from {}: {error}", machine.name);
    let remedy = match error.contains(SILENT) {
        true => Remedy::new("Its process is stopped, or out of files, which its log says.")
            .command(format!("kill -CONT {}", row.pid)),
        false => Remedy::new("It has ended, a firewall is between, or others reach it elsewhere.")
            .command(format!("svcmap worker --service {service} --advertise HOST …")),
    };
    Some(Check::found(GROUP, (Level::Fail, "D13"), message, remedy))
}

/// An instance that only its own machine can reach, though there are others.
fn local(key: &InstanceKey, entry: &Entry, view: &View, machine: &Machine) -> Option<Check> {
    if !entry.endpoints.iter().all(Endpoint::is_loopback) {
        return None;
    }
    let is_here = entry.host == machine.host;
    let has_others = view.instances.values().any(|other| other.host != entry.host)
        || view.mappers.iter().any(|mapper| !mapper.at.address.is_loopback());
    let (level, whence) = match is_here {
        false => (Level::Fail, "from another host"),
        true if has_others => (Level::Warn, "though there are other hosts"),
        true => return None,
    };
    let at = entry.endpoints.first().map_or("no address", Endpoint::as_str);
    let InstanceKey { service, instance } = key;
    let message = format!("{service}/{instance} advertises {at} only, {whence}");
    let text = "Only its own host reaches it there. Let it listen on all interfaces, under an address \
                that others reach.";
    let command =
        format!("svcmap worker --service {service} --bind 'tcp://*:0' --advertise HOST …");
    let remedy = Remedy::new(text).command(command);
    Some(Check::found(GROUP, (level, "D14"), message, remedy))
}

/// A service of which whoever takes jobs fails most.
fn failing_everywhere(row: &ServiceRow) -> Option<Check> {
    let warning = failing_warning(row).filter(|_| row.failing == row.ready)?;
    let text = "Nobody does better, so none is set aside. The jobs may be wrong themselves: their senders \
                are told what they fail of, and so are the logs of the workers.";
    let remedy = Remedy::new(text).command(format!("svcmap status {}", row.service));
    Some(Check::found(GROUP, (Level::Fail, "D18"), warning, remedy))
}

/// An instance that is set aside, as its jobs fail.
fn failing(row: &InstanceRow) -> Option<Check> {
    if row.state != Shown::Failing {
        return None;
    }
    let InstanceRow { service, instance, .. } = row;
    let message = format!("{service}/{instance} is set aside, as jobs fail there: {}", error(row));
    let text = "Once its program, its files or its host are mended it comes back by itself: now and then \
                it tries a job. Or it is taken away.";
    let remedy = Remedy::new(text).command(format!("svcmap drain {service}/{instance}"));
    Some(Check::found(GROUP, (Level::Warn, "D18"), message, remedy))
}

/// An instance where jobs fail, though not enough of them for it to be set aside.
fn failing_more(row: &InstanceRow) -> Option<Check> {
    let InstanceRow { service, instance, done, failed, .. } = row;
    if !row.state.is_ready() {
        return None;
    }
    let message = format!(
        "jobs fail at {service}/{instance} that do not at its peers: {failed} failed and {done} done \
         since its start"
    );
    let text = "Its log says of what they fail. Its program, its files or its host may be wrong. It can be \
                taken away.";
    let remedy = Remedy::new(text)
        .command(format!("svcmap status {service}"))
        .command(format!("svcmap drain {service}/{instance}"));
    Some(Check::found(GROUP, (Level::Warn, "D18"), message, remedy))
}

/// An instance that finishes nothing.
fn stuck(row: &InstanceRow) -> Option<Check> {
    if row.state != Shown::Stuck {
        return None;
    }
    let InstanceRow { service, instance, pid, .. } = row;
    let message = format!("{service}/{instance} is {}", why_not_ready(row));
    let text = "Its program waits for something, or is stopped. What waits there goes elsewhere once it \
                drains or ends.";
    let remedy = Remedy::new(text)
        .command(format!("ps -o pid,stat,wchan:20,args --pid {pid} --ppid {pid}"))
        .command(format!("svcmap drain {service}/{instance}"));
    Some(Check::found(GROUP, (Level::Fail, "D19"), message, remedy))
}

/// An instance that started in the future, as clocks go here.
fn ahead(key: &InstanceKey, entry: &Entry, machine: &Machine) -> Option<Check> {
    let ahead = Duration::from_micros(entry.incarnation.0.saturating_sub(machine.unix_us));
    if ahead < AHEAD {
        return None;
    }
    let InstanceKey { service, instance } = key;
    let message = format!("{service}/{instance} says that it starts in {}", time(ahead));
    let text = "The clock of its host or of this one is wrong. A day ahead of its mapper, an instance is \
                not listed.";
    let remedy = Remedy::new(text).command("timedatectl");
    Some(Check::found(GROUP, (Level::Warn, "D17"), message, remedy))
}
