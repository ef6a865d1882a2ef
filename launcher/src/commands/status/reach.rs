//! Whether the instances of a service can be reached from here: a mapper cannot tell.

use std::time::Duration;

use svcmap_proto::io::{Probe, host_id, node_name, probe};
use svcmap_proto::names::{Endpoint, HostId, usable_endpoints};
use svcmap_proto::status::{InstanceRow, Report};

/// How long all of it takes at most: so long only if somebody does not answer.
const LIMIT: Duration = Duration::from_secs(1);

/// What is to be said of an address where connections are made and nobody answers.
pub(crate) const SILENT: &str =
    "takes connections and says nothing, as who is stopped or out of files does";

/// What is to be said of an address that is none here.
const FOR_ITS_HOST: &str = "its address is one for its own host only";

/// Connects to each instance as a sender here would, to all at once, and notes what came of it.
pub(crate) fn try_all(report: &mut Report) {
    let (here, from) = (host_id(), node_name());
    let rows = report.instances.iter_mut();
    let tried: Vec<(&mut InstanceRow, Option<Endpoint>)> = rows
        .map(|row| {
            let endpoint = best(row, here);
            (row, endpoint)
        })
        .collect();
    let endpoints: Vec<_> = tried.iter().filter_map(|(_, endpoint)| endpoint.clone()).collect();
    let mut found = probe(&endpoints, LIMIT).into_iter();
    for (row, endpoint) in tried {
        let error = match endpoint {
            None => FOR_ITS_HOST.to_owned(),
            Some(endpoint) => match found.next() {
                Some(Probe::Failed(error)) => format!("{endpoint}: {error}"),
                Some(Probe::Silent) => format!("{endpoint} {SILENT}"),
                Some(Probe::Reached) => {
                    (row.reachable, row.from) = (Some(true), Some(from.clone()));
                    continue;
                }
                Some(Probe::Untried) | None => continue,
            },
        };
        (row.reachable, row.from) = (Some(false), Some(from.clone()));
        row.unreachable = Some(error);
    }
    report.count_reached();
}

/// Whether nobody listens at its address: it may have ended.
pub(crate) fn is_refused(row: &InstanceRow) -> bool {
    let error = row.unreachable.as_deref().unwrap_or_default();
    row.reachable == Some(false) && error != FOR_ITS_HOST && !error.contains(SILENT)
}

/// The address that a sender on that host tries first.
fn best(row: &InstanceRow, here: HostId) -> Option<Endpoint> {
    usable_endpoints(&row.endpoints, row.host == here).first().copied().cloned()
}
