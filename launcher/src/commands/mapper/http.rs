//! What a mapper tells by HTTP.

use svcmap_mapper::{Listed, Metrics, Monitor};

use crate::http::{Page, Reply, Route};
use crate::{metrics, page};

/// Its pages.
pub fn routes(monitor: &Monitor) -> Vec<Route> {
    let counted = || {
        let monitor = monitor.clone();
        move |reply: Reply<Metrics>| monitor.metrics(reply)
    };
    let listed = || {
        let monitor = monitor.clone();
        move |reply: Reply<Listed>| monitor.listed(reply)
    };
    // That it answers is all that can be asked of it.
    let is_well = |_| Page::verdict(&[]);
    let told = [
        Route::new(("/metrics", "metrics, for Prometheus"), counted(), |counted| {
            Page::metrics(metrics::mapper::families(&counted).to_text())
        }),
        Route::new(
            ("/metrics/instances", "metrics of each instance"),
            listed(),
            |listed: Listed| {
                Page::metrics(metrics::instances::families(&listed.report()).to_text())
            },
        )
        .costly(),
        Route::new(("/healthz", "200 while its I/O thread turns"), counted(), is_well),
        Route::new(("/readyz", "200 while it answers"), counted(), is_well),
        Route::new(
            ("/status.json", "what svcmap status --json prints"),
            listed(),
            |listed: Listed| Page::json(listed.report().to_json()),
        )
        .costly(),
    ];
    page::routes().chain(told).collect()
}
