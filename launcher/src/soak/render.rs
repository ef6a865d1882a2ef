//! The figures of a soak for people.

use svcmap_worker::Policy;

use crate::measurement::{Percentiles, Report};
use crate::table::{self, Cell, Column};
use crate::text::{below, figure};

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
        "{}: {} of {} first attempts found the worker full",
        far(report),
        report.rejected_full,
        report.sent
    );
    let frr = format!(
        "{}: {} of {} jobs were refused while a worker had room{}",
        share(report.frr, report.refused_with_room, report.submitted),
        report.refused_with_room,
        report.submitted,
        on_purpose(report)
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

/// FAR, and how much of it is of which kind.
fn far(report: &Report) -> String {
    let Report { far, far_ci95, far_stale, far_race, rejected_full, sent, .. } = report;
    let [stale, race] = [far_stale, far_race].map(|share| figure(*share));
    match below(*rejected_full, *sent) {
        None => format!("{} ±{} (stale {stale}, race {race})", figure(*far), figure(*far_ci95)),
        Some(_) => share(*far, *rejected_full, *sent),
    }
}

/// A share; what never happened may still be as likely as the second figure.
fn share(share: f64, count: u64, of: u64) -> String {
    match below(count, of) {
        None => figure(share),
        Some(limit) => format!("0 (below {}, 95 %)", figure(limit)),
    }
}

/// What has to be known beside FRR in overload: it is no mistake there.
fn on_purpose(report: &Report) -> &'static str {
    let setting = &report.setting;
    let is_svcmap = setting.policy == Policy::default().as_str();
    if is_svcmap && setting.utilisation >= 1.0 && report.refused_with_room > 0 {
        "\n          on purpose: in overload jobs wait with their senders, and queues stay short"
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::{Outcomes, Setting};

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

    #[test]
    fn what_was_never_seen_is_not_called_impossible() {
        let report = Report { submitted: 86_406, sent: 86_406, ..Report::default() };
        let text = text(&report, &[]);
        assert!(text.contains("FAR       0 (below 3.5e-5, 95 %): 0 of 86406 first"), "{text}");
        assert!(text.contains("FRR       0 (below 3.5e-5, 95 %): 0 of 86406 jobs"), "{text}");
    }

    #[test]
    fn what_is_done_on_purpose_is_said_beside_the_figure() {
        let refused = |policy: Policy, utilisation: f64| {
            let setting = Setting { policy: policy.to_string(), utilisation, ..Setting::default() };
            text(
                &Report {
                    submitted: 9,
                    refused_with_room: 3,
                    frr: 1.0 / 3.0,
                    setting,
                    ..Report::default()
                },
                &[],
            )
        };
        let said =
            |text: String| text.contains("FRR       0.3333: 3 of 9") && text.contains("on purpose");
        assert!(said(refused(Policy::default(), 1.2)));
        assert!(!said(refused(Policy::default(), 0.9)));
        assert!(!said(refused(Policy::Random, 1.2)));
    }
}
