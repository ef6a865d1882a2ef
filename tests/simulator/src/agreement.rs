//! The soak on real processes and the simulator, side by side: the same workers, senders, policy and
//! load, and in the simulator the machine's own overheads as the soak has measured them.

use std::fmt::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use svcmap::measurement::Report;
use svcmap::text::figure;
use svcmap_worker::Policy;

use super::{Rule, Scenario, World};

/// A setting that both can be asked about.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// How workers are chosen.
    pub policy: Policy,
    /// Offered load / capacity, without the machine's overheads.
    pub utilisation: f64,
    /// Time between two publications of load.
    pub publish_interval: Duration,
}

/// What came of a point.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The point.
    pub point: Point,
    /// On real processes.
    pub soak: Report,
    /// In the simulator.
    pub simulated: Report,
}

/// Processes, as the soak has them unless told otherwise.
const WORKERS: usize = 16;

/// The same.
const SENDERS: usize = 8;

/// Jobs in the simulator, so that its figures are much more certain than the soak's.
const JOBS: u64 = 2_000_000;

/// Points that tell policies and intervals apart, and that show errors within a minute.
pub fn points() -> Vec<Point> {
    let point = |policy, ms| {
        let publish_interval = Duration::from_millis(ms);
        Point { policy, utilisation: 0.9, publish_interval }
    };
    vec![
        point(Policy::Svcmap, 100),
        point(Policy::NoCredits, 100),
        point(Policy::TwoOwn, 100),
        point(Policy::Two, 100),
        point(Policy::Two, 10),
        point(Policy::Least, 100),
        point(Policy::Least, 10),
        point(Policy::Random, 100),
        point(Policy::ThresholdNamed, 100),
    ]
}

/// Runs a point on real processes of that executable for so many seconds, and in the simulator.
///
/// # Errors
/// What the soak says if it fails.
pub fn run(point: Point, executable: &Path, seconds: u32) -> Result<Pair, String> {
    let soak = soak(point, executable, seconds)?;
    let time = |ms: f64| Duration::from_secs_f64(ms / 1e3);
    let scenario = Scenario {
        workers: WORKERS,
        senders: SENDERS,
        utilisation: point.utilisation,
        delay: time(soak.way_ms),
        handling: time(soak.handling_ms),
        publish_interval: point.publish_interval,
        ..Scenario::default()
    };
    let scenario = scenario.with_rule(Rule::Shipped(point.policy)).with_jobs(JOBS);
    Ok(Pair { point, soak, simulated: World::new(scenario).run().report })
}

fn soak(point: Point, executable: &Path, seconds: u32) -> Result<Report, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let file = folder.path().join("soak.json");
    let output = Command::new(executable)
        .args(["soak", "--policy", point.policy.as_str()])
        .args(["--utilisation", &point.utilisation.to_string()])
        .args(["--publish-interval", &format!("{}us", point.publish_interval.as_micros())])
        .args(["--seconds", &seconds.to_string(), "--json"])
        .arg(&file)
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = std::fs::read_to_string(&file).map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// The pairs as a table in Markdown.
pub fn table(pairs: &[Pair]) -> String {
    let mut table = String::from(
        "| policy | T/E[S] | FAR soak | FAR simulator | FRR | p99 wait | mean wait | way, handling |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for Pair { point, soak, simulated } in pairs {
        let both = |soak: f64, simulated: f64| format!("{soak:.1} / {simulated:.1} ms");
        let far = |report: &Report| match report.far {
            0.0 => "0".to_owned(),
            far => format!("{far:.2e} ±{:.0e}", report.far_ci95),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {} / {} | {} | {} | {:.2}, {:.2} ms |",
            point.policy,
            point.publish_interval.as_secs_f64() * 1e3 / soak.setting.service_time_ms,
            far(soak),
            far(simulated),
            figure(soak.frr),
            figure(simulated.frr),
            both(soak.wait_ms.p99, simulated.wait_ms.p99),
            both(soak.wait_ms.mean, simulated.wait_ms.mean),
            soak.way_ms,
            soak.handling_ms,
        );
    }
    table
}
