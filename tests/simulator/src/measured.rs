//! The base point in other times, and a scenario beside an oracle.

use std::time::Duration;

use super::{Findings, Scenario, World};

/// The goals count in service times; at this one, no limit in real time gets in the way of that: a
/// job is held for a quarter of a second at least.
pub(super) const SERVICE_TIME: Duration = Duration::from_millis(25);

/// The same where jobs are shorter than their way: that is long enough, and not so long that the
/// silence would count.
pub(super) const SHORT: Duration = Duration::from_millis(1);

/// What came of svcmap, and of the oracle.
pub(super) struct Pair {
    pub(super) svcmap: Findings,
    pub(super) oracle: Findings,
}

impl Pair {
    pub(super) fn of(svcmap: Scenario, oracle: Scenario) -> Self {
        Self { svcmap: World::new(svcmap).run(), oracle: World::new(oracle).run() }
    }

    /// Share of attempts that found the worker full: of the first ones or of all, whichever is more.
    pub(super) fn far(&self) -> f64 {
        far(&self.svcmap)
    }

    /// Jobs done, of whatever priority, as a ratio.
    pub(super) fn goodput(&self) -> f64 {
        let done =
            |findings: &Findings| (findings.report.outcomes.done + findings.done_high) as f64;
        done(&self.svcmap) / done(&self.oracle)
    }

    /// The 99th percentile of the wait, as a ratio.
    pub(super) fn wait(&self) -> f64 {
        self.svcmap.report.wait_ms.p99 / self.oracle.report.wait_ms.p99
    }

    /// The same of the response.
    pub(super) fn response(&self) -> f64 {
        self.svcmap.report.response_ms.p99 / self.oracle.report.response_ms.p99
    }

    /// Messages for each job.
    pub(super) fn messages(&self) -> f64 {
        self.svcmap.report.messages_per_job
    }
}

/// See [`Pair::far`].
pub(super) fn far(findings: &Findings) -> f64 {
    let attempts = findings.report.attempts;
    let of_all = attempts.rejected_full as f64 / attempts.sent as f64;
    if of_all.is_nan() { of_all } else { findings.report.far.max(of_all) }
}

/// A scenario with another load. Above 1 what waits grows until as much is refused as is too much,
/// which takes a hold divided by the excess: that is not yet what is measured.
pub(super) fn loaded(scenario: &Scenario, utilisation: f64) -> Scenario {
    let hold = scenario.held_for();
    let grows = if utilisation > 1.0 { hold.div_f64(utilisation - 1.0) } else { Duration::ZERO };
    Scenario { utilisation, warm_up: scenario.warm_up.max(2 * grows), ..scenario.clone() }
}

/// The base point, with services that take so long, and all that goes with them.
pub(super) fn base_of(service_time: Duration) -> Scenario {
    Scenario {
        service_time,
        delay: service_time / 40,
        publish_interval: service_time,
        warm_up: 200 * service_time,
        ..Scenario::default()
    }
}
