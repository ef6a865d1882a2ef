//! The figures of a soak for people.

use crate::measurement::{Percentiles, Report};
use crate::table::{self, Cell, Column};

/// What processes of one kind took.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Usage {
    /// Which: mapper, workers or senders.
    pub kind: String,
    /// How many.
    pub processes: usize,
    /// Time on a processor while it was measured, in seconds.
    pub cpu_s: f64,
    /// Resident memory at the start and at the end, in kB.
    pub rss_kb: [u64; 2],
    /// Open files.
    pub fds: [u64; 2],
    /// Threads.
    pub threads: [u64; 2],
}

/// Everything that a soak says at its end.
pub fn text(report: &Report, usage: &[Usage]) -> String {
    let outcomes = &report.outcomes;
    let far = format!(
        "{} ±{} (stale {}, race {}): {} of {} first attempts found the worker full",
        rate(report.far),
        rate(report.far_ci95),
        rate(report.far_stale),
        rate(report.far_race),
        report.rejected_full,
        report.sent
    );
    let frr = format!(
        "{}: {} of {} jobs were refused while a worker had room",
        rate(report.frr),
        report.refused_with_room,
        report.submitted
    );
    let balance = &report.balance;
    let spread = format!(
        "coefficient of variation {:.3}, Jain {:.4}, herd index {:.2}",
        balance.cv, balance.jain, balance.herd_index
    );
    let messages = format!(
        "{:.2} for each job, {:.0} bytes; {:.2} attempts",
        report.messages_per_job,
        report.bytes_per_job,
        report.attempts.sent as f64 / report.submitted.max(1) as f64
    );
    let machine = format!(
        "{:.2}ms on the way to a worker, {:.2}ms more at each handler",
        report.way_ms, report.handling_ms
    );
    let lines = [
        ("FAR", far),
        ("FRR", frr),
        ("goodput", format!("{:.1} jobs/s", report.goodput_per_s)),
        ("wait", times(&report.wait_ms)),
        ("response", times(&report.response_ms)),
        ("age", times(&report.age_ms)),
        ("balance", spread),
        ("messages", messages),
        ("machine", machine),
    ];
    let mut text = String::new();
    for (name, line) in lines {
        text += &format!("{name:<9} {line}\n");
    }
    let sum = format!(
        "submitted {} = done {} + failed {} + refused {} + unknown {} + accepted {}",
        report.submitted,
        outcomes.done,
        outcomes.failed,
        outcomes.refused,
        outcomes.unknown,
        outcomes.accepted
    );
    let usages = if usage.is_empty() { String::new() } else { format!("{}\n", usages(usage)) };
    format!("{text}\n{usages}{sum}\n")
}

/// What is about to happen, in one line.
pub fn heading(report: &Report) -> String {
    let setting = &report.setting;
    let interval = setting.publish_interval_ms.map(|ms| format!(", load every {ms}ms"));
    format!(
        "{}: {} senders, {} workers of {} slots, utilisation {}, {} jobs of {}ms{}",
        setting.policy,
        setting.senders,
        setting.workers,
        setting.slots,
        setting.utilisation,
        setting.distribution,
        setting.service_time_ms,
        interval.unwrap_or_default()
    )
}

fn usages(usage: &[Usage]) -> String {
    let columns = [
        Column::text("PROCESSES"),
        Column::number("N"),
        Column::number("CPU"),
        Column::number("RSS"),
        Column::number("FILES"),
        Column::number("THREADS"),
    ];
    let from_to = |[start, end]: [u64; 2]| Cell::from(format!("{start} -> {end}"));
    let row = |usage: &Usage| {
        vec![
            Cell::from(usage.kind.clone()),
            Cell::from(usage.processes.to_string()),
            Cell::from(format!("{:.1}s", usage.cpu_s)),
            Cell::from(format!("{} -> {} kB", usage.rss_kb[0], usage.rss_kb[1])),
            from_to(usage.fds),
            from_to(usage.threads),
        ]
    };
    table::render(&columns, &usage.iter().map(row).collect::<Vec<_>>(), None)
}

fn times(times: &Percentiles) -> String {
    let Percentiles { mean, p50, p99, p999 } = times;
    format!("mean {mean:.2}ms, p50 {p50:.2}ms, p99 {p99:.1}ms, p99.9 {p999:.1}ms")
}

/// A share that may be very small.
fn rate(share: f64) -> String {
    match share {
        0.0 => "0".to_owned(),
        share if share < 0.001 => format!("{share:.1e}"),
        share => format!("{share:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::Outcomes;

    #[test]
    fn every_job_and_every_process_is_shown() {
        let report = Report {
            submitted: 12,
            outcomes: Outcomes { done: 10, refused: 2, ..Outcomes::default() },
            sent: 12,
            rejected_full: 1,
            far: 1.0 / 12.0,
            far_stale: 2.5e-5,
            ..Report::default()
        };
        let kind = "workers".to_owned();
        let usage = Usage { kind, processes: 16, rss_kb: [100, 120], ..Usage::default() };
        let text = text(&report, &[usage]);
        assert!(text.contains("FAR       0.0833 ±0 (stale 2.5e-5, race 0): 1 of 12"), "{text}");
        assert!(text.contains("workers    16  0.0s  100 -> 120 kB"), "{text}");
        let sum = "submitted 12 = done 10 + failed 0 + refused 2 + unknown 0 + accepted 0\n";
        assert!(text.ends_with(sum), "{text}");
    }
}
