//! What a service manager is told of a mapper.

use svcmap_mapper::Metrics;

use crate::text::count;

/// How it is, in a line.
pub fn status(counted: &Metrics) -> String {
    let services = counted.services.values();
    let instances: u64 = services.flat_map(|sums| sums.instances.values()).sum();
    let of = count(counted.services.len(), "service");
    let warming = if counted.warming { ", and perhaps more: it has just started" } else { "" };
    format!("{} of {of}{warming}", count(instances, "instance"))
}
