//! What a worker tells by HTTP.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use svcmap_proto::io::Clock;
use svcmap_proto::load::State;
use svcmap_proto::names::Name;
use svcmap_worker::{Metrics, Monitor};

use crate::http::{Page, Reply, Route};
use crate::metrics;

/// Its pages. `monitor` is there once the worker has started.
pub fn routes(service: &Name, monitor: &Arc<OnceLock<Monitor>>) -> Vec<Route> {
    let counted = || asked(monitor);
    let service = service.clone();
    vec![
        Route::new(("/metrics", "metrics, for Prometheus"), counted(), move |counted| {
            let unix = Duration::from_micros(Clock.unix_us());
            Page::metrics(metrics::worker::families(&counted, &service, unix).to_text())
        }),
        Route::new(("/healthz", "200 while its I/O thread turns"), counted(), |_| {
            Page::verdict(&[])
        }),
        Route::new(("/readyz", "200 while it takes jobs"), counted(), |counted| {
            Page::verdict(&not_ready(&counted))
        }),
    ]
}

/// How to ask it what it has counted.
pub(super) fn asked(
    monitor: &Arc<OnceLock<Monitor>>,
) -> impl Fn(Reply<Metrics>) + Send + 'static + use<> {
    let monitor = Arc::clone(monitor);
    move |reply| {
        if let Some(monitor) = monitor.get() {
            monitor.metrics(reply);
        }
    }
}

/// Why it takes no jobs.
pub(super) fn not_ready(counted: &Metrics) -> Vec<&'static str> {
    let mut reasons = Vec::new();
    match counted.served.as_ref().map(|served| served.load.state) {
        Some(State::Draining) => reasons.push("it drains"),
        Some(State::Failing) => reasons.push("it takes no jobs for a while, as they fail here"),
        Some(State::Ready) | None => {}
    }
    if counted.mappers_connected == 0 {
        reasons.push("no mapper answers");
    } else if counted.mappers_listing == 0 {
        reasons.push("no mapper lists it");
    }
    reasons
}

#[cfg(test)]
mod tests {
    use svcmap_worker::{Load, Served};

    use super::*;

    #[test]
    fn it_is_ready_when_a_mapper_lists_it_and_it_takes_jobs() {
        let counted = |state, mappers_connected, mappers_listing| {
            let load = Load { state, ..Load::default() };
            let served = Some(Served { load, ..Served::default() });
            Metrics { served, mappers_connected, mappers_listing, ..Metrics::default() }
        };
        assert_eq!(not_ready(&counted(State::Ready, 2, 1)), [""; 0]);
        assert_eq!(not_ready(&Metrics::default()), ["no mapper answers"]);
        assert_eq!(not_ready(&counted(State::Ready, 2, 0)), ["no mapper lists it"]);
        let both = ["it drains", "no mapper answers"];
        assert_eq!(not_ready(&counted(State::Draining, 0, 0)), both);
        assert_eq!(not_ready(&counted(State::Failing, 1, 1)).len(), 1);
    }
}
