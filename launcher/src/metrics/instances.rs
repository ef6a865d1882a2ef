//! Each instance that a mapper lists, as metrics: on a page of its own, as there may be many.

use svcmap_proto::status::{InstanceRow, Report};

use super::{Families, Labels, labels};

/// Instances that have series of their own.
const INSTANCES_MAX: usize = 4096;

/// The page of all instances.
pub fn families(report: &Report) -> Families {
    let (shown, others) = report.instances.split_at(report.instances.len().min(INSTANCES_MAX));
    let labelled = |row: &InstanceRow| -> Labels {
        labels([("service", &row.service), ("instance", &row.instance)])
    };
    let each =
        |figure: fn(&InstanceRow) -> u64| shown.iter().map(move |row| (labelled(row), figure(row)));
    let seconds =
        |figure: fn(&InstanceRow) -> f64| shown.iter().map(move |row| (labelled(row), figure(row)));
    let mut families = Families::of_process();
    let states = shown.iter().map(|row| {
        let mut labels = labelled(row);
        labels.push(("state", row.state.word().to_owned()));
        (labels, 1)
    });
    families.gauge("svcmap_instance_state", "1 with the state that it is in.", states);
    let slots = each(|row| row.slots.into());
    families.gauge("svcmap_instance_slots", "Room for jobs.", slots);
    let running = each(|row| row.running.into());
    families.gauge("svcmap_instance_jobs_running", "Jobs that handlers work on.", running);
    let queued = each(|row| row.queued.into());
    families.gauge("svcmap_instance_jobs_queued", "Jobs that wait for a handler.", queued);
    let accepted = each(|row| row.accepted);
    families.counter("svcmap_instance_jobs_accepted", "Jobs that it took.", accepted);
    let done = each(|row| row.done);
    families.counter("svcmap_instance_jobs_done", "Jobs with a result.", done);
    let failed = each(|row| row.failed);
    families.counter("svcmap_instance_jobs_failed", "Jobs with an error.", failed);
    let rejected = each(|row| row.rejected);
    families.counter("svcmap_instance_attempts_rejected", "Attempts that it rejected.", rejected);
    let help = "Moving average of how long a handler takes; 0 until one has ended.";
    families.seconds(
        "svcmap_instance_mean_service",
        help,
        seconds(|row| row.mean_service_ms / 1e3),
    );
    let help = "How long ago its load was last known to be true.";
    families.seconds("svcmap_instance_report_age", help, seconds(|row| row.age));
    let help = "Instances beyond 4,096, which have no series here.";
    families.gauge("svcmap_instances_left_out", help, [(vec![], others.len() as u64)]);
    families
}
