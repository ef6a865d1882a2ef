//! What a worker counts, as it can be asked for: see [`Monitor`](crate::Monitor).

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::jobs::Reason;
use svcmap_proto::load::Load;
use svcmap_proto::refusals::BadMessage;

use crate::statistics::Statistics;

/// How a worker or a client is now, and what it has counted since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// As one who serves; `None` for a client, and until a mapper has answered.
    pub served: Option<Served>,
    /// As one who sends.
    pub sent: Statistics,
    /// Mappers that have answered on their current connection.
    pub mappers_connected: usize,
    /// Mappers that list it.
    pub mappers_listing: usize,
    /// How often it asked a mapper for the state of a service, as it had missed some of it or is new there.
    pub resyncs: u64,
    /// Messages that were none, by what was wrong with them.
    pub messages_refused: BTreeMap<BadMessage, u64>,
}

/// The jobs of others at a worker. The counts are those of this life of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Served {
    /// What it tells the others of itself.
    pub load: Load,
    /// Attempts that it rejected, by the reason. There may be fewer than [`Load::rejected`], which counts
    /// jobs that could not be read as well.
    pub rejected: BTreeMap<Reason, u64>,
    /// How long jobs waited here that a handler has ended.
    pub waits: Histogram,
    /// How long their handlers took.
    pub service_times: Histogram,
    /// Bytes of the payloads of those that wait now.
    pub queued_bytes: usize,
}

/// How often times were how long: in buckets, each of which reaches to twice as long as the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

/// From 1 us by powers of two to 134 s, and what is longer.
const BUCKETS: usize = 29;

impl Histogram {
    pub(crate) fn count(&mut self, us: u64) {
        // The first power of two that is not below it.
        let place = (u64::BITS - us.saturating_sub(1).leading_zeros()) as usize;
        self.counts[place.min(BUCKETS - 1)] += 1;
        self.sum_us = self.sum_us.wrapping_add(us);
    }

    /// The buckets from the shortest on: the longest time that counts there, and how many were longer than
    /// those of the bucket before, and not longer than that. The last has no end.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        self.counts.iter().enumerate().map(|(place, &count)| {
            let end = (place + 1 < BUCKETS).then(|| Duration::from_micros(1 << place));
            (end, count)
        })
    }

    /// How many times there were.
    pub fn len(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Whether there was none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All times together.
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_counts_in_the_first_bucket_that_reaches_it() {
        let mut histogram = Histogram::default();
        let times = [0, 1, 2, 3, 4, 5, 1000, 1024, 1025, 134_217_728, 134_217_729, 10_000_000_000];
        times.into_iter().for_each(|us| histogram.count(us));
        let counted: Vec<_> = histogram.buckets().filter(|(_, count)| *count > 0).collect();
        let us = |us| Some(Duration::from_micros(us));
        let expected = [(1, 2), (2, 1), (4, 2), (8, 1), (1024, 2), (2048, 1), (134_217_728, 1)];
        let expected = expected.map(|(end, count)| (us(end), count));
        assert_eq!(counted, [&expected[..], &[(None, 2)]].concat());
        assert_eq!(histogram.len(), 12);
        assert_eq!(histogram.sum(), Duration::from_micros(times.iter().sum()));
    }
}
