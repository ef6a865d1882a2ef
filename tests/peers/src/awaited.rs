//! Requests that a task sends and awaits, as programs on a runtime do.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use svcmap_tests::bench::Round;
use tokio::runtime::Runtime;

use crate::Contender;

/// What makes requests, and where they run.
pub struct Awaited<F> {
    runtime: Arc<Runtime>,
    request: F,
}

impl<F> Awaited<F> {
    /// Each call of `request` is one.
    pub fn new(runtime: &Arc<Runtime>, request: F) -> Self {
        Self { runtime: Arc::clone(runtime), request }
    }
}

impl<F, Reply> Contender for Awaited<F>
where
    F: Fn() -> Reply,
    Reply: Future<Output = ()>,
{
    fn round(&mut self, window: usize, length: Duration) -> Round {
        let request = &self.request;
        self.runtime.block_on(async {
            let mut latencies = Vec::new();
            let mut under_way = FuturesUnordered::new();
            let started = Instant::now();
            while started.elapsed() < length {
                if under_way.len() == window {
                    latencies.extend(under_way.next().await);
                }
                let reply = request();
                under_way.push(async move {
                    let sent_at = Instant::now();
                    reply.await;
                    sent_at.elapsed()
                });
            }
            while let Some(latency) = under_way.next().await {
                latencies.push(latency);
            }
            Round::new(started.elapsed(), latencies)
        })
    }
}
