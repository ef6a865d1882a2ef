//! Metrics as Prometheus reads them: from what a mapper or worker has counted to OpenMetrics text.
//! `docs/metrics.md` lists them all.

pub mod instances;
pub mod mapper;
pub mod up;
pub mod worker;

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};
use svcmap_proto::io::libzmq;
use svcmap_proto::names::Name;
use svcmap_worker::Histogram;

use crate::logging;

/// Services that have series of their own; what the others have is summed up.
const SERVICES_MAX: usize = 200;

/// Stands for the services beyond that. No service has such a name.
const OTHERS: &str = "(other)";

/// The labels of a series, and their values.
type Labels = Vec<(&'static str, String)>;

#[derive(Clone, Debug)]
enum Value {
    Whole(u64),
    Fraction(f64),
    Histogram { sum: f64, count: u64, buckets: Vec<(f64, u64)> },
    Info,
}

/// All that stands under one name.
#[derive(Clone, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    kind: MetricType,
    series: Vec<(Labels, Value)>,
}

/// A page of metrics.
#[derive(Clone, Debug)]
pub struct Families(Vec<Family>);

impl Families {
    /// What every process of svcmap has.
    fn of_process() -> Self {
        let version = env!("CARGO_PKG_VERSION");
        let labels = labels([("version", &version), ("libzmq", &libzmq().0)]);
        let mut families = Self(Vec::new());
        let help = "Which build of svcmap this is, and of libzmq.";
        families.add("svcmap_build", help, None, MetricType::Info, [(labels, Value::Info)]);
        let help = "Log lines that stderr did not take in time.";
        families.counter("svcmap_log_lines_dropped", help, [(vec![], logging::lines_dropped())]);
        families
    }

    fn add(
        &mut self,
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        kind: MetricType,
        series: impl IntoIterator<Item = (Labels, Value)>,
    ) {
        let series = series.into_iter().collect();
        self.0.push(Family { name, help, unit, kind, series });
    }

    /// What only grows. Its name gets `_total`.
    fn counter(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let series = series.into_iter().map(|(labels, count)| (labels, Value::Whole(count)));
        self.add(name, help, None, MetricType::Counter, series);
    }

    /// The same in bytes. Its name gets `_bytes_total`.
    fn bytes_counter(&mut self, name: &'static str, help: &'static str, bytes: u64) {
        let series = [(vec![], Value::Whole(bytes))];
        self.add(name, help, Some(Unit::Bytes), MetricType::Counter, series);
    }

    /// What there is now.
    fn gauge(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, u64)>,
    ) {
        let series = series.into_iter().map(|(labels, count)| (labels, Value::Whole(count)));
        self.add(name, help, None, MetricType::Gauge, series);
    }

    /// The same in bytes. Its name gets `_bytes`.
    fn bytes(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, usize)>,
    ) {
        let series = series.into_iter().map(|(labels, bytes)| (labels, Value::Whole(bytes as u64)));
        self.add(name, help, Some(Unit::Bytes), MetricType::Gauge, series);
    }

    /// The same in seconds. Its name gets `_seconds`.
    fn seconds(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let series = series.into_iter().map(|(labels, time)| (labels, Value::Fraction(time)));
        self.add(name, help, Some(Unit::Seconds), MetricType::Gauge, series);
    }

    /// How long something took. Its name gets `_seconds`.
    fn times<'a>(
        &mut self,
        name: &'static str,
        help: &'static str,
        series: impl IntoIterator<Item = (Labels, &'a Histogram)>,
    ) {
        let series = series.into_iter().map(|(labels, times)| {
            let buckets = times
                .buckets()
                .map(|(end, count)| (end.map_or(f64::INFINITY, |end| end.as_secs_f64()), count));
            let buckets = buckets.collect();
            let (sum, count) = (times.sum().as_secs_f64(), times.len());
            (labels, Value::Histogram { sum, count, buckets })
        });
        self.add(name, help, Some(Unit::Seconds), MetricType::Histogram, series);
    }

    /// The page.
    pub fn to_text(self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        // A String takes all that is written to it.
        let _ = encode(&mut text, &registry);
        text
    }
}

impl Collector for Families {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for Family { name, help, unit, kind, series } in &self.0 {
            let mut encoder = encoder.encode_descriptor(name, help, unit.as_ref(), *kind)?;
            for (labels, value) in series {
                match value {
                    Value::Info => encoder.encode_info(labels)?,
                    value if labels.is_empty() => value.encode(*kind, &mut encoder)?,
                    value => value.encode(*kind, &mut encoder.encode_family(labels)?)?,
                }
            }
        }
        Ok(())
    }
}

impl Value {
    fn encode(&self, kind: MetricType, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        match (self, kind) {
            (Value::Whole(count), MetricType::Counter) => {
                encoder.encode_counter::<NoLabelSet, _, u64>(count, None)
            }
            (Value::Whole(count), _) => encoder.encode_gauge(count),
            (Value::Fraction(fraction), _) => encoder.encode_gauge(fraction),
            (Value::Histogram { sum, count, buckets }, _) => {
                encoder.encode_histogram::<NoLabelSet>(*sum, *count, buckets, None)
            }
            (Value::Info, _) => Ok(()),
        }
    }
}

/// A label and its value.
fn labels<const N: usize>(labels: [(&'static str, &dyn fmt::Display); N]) -> Labels {
    labels.into_iter().map(|(name, value)| (name, value.to_string())).collect()
}

/// A figure of each service, in the order of their names: of the first 200, and the sum of the others.
fn by_service<'a, T: 'a>(
    services: impl IntoIterator<Item = (&'a Name, &'a T)>,
    figure: impl Fn(&T) -> u64,
) -> Vec<(String, u64)> {
    let figures = services.into_iter().map(|(name, service)| (name.to_string(), figure(service)));
    let mut figures: Vec<_> = figures.collect();
    let others = figures.split_off(figures.len().min(SERVICES_MAX));
    if !others.is_empty() {
        figures.push((OTHERS.to_owned(), others.iter().map(|(_, figure)| figure).sum()));
    }
    figures
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn however_many_services_there_are_series_are_few_and_the_sum_is_right() {
        let services: BTreeMap<Name, u64> =
            (0..250).map(|number| (format!("s{number:03}").parse().unwrap(), number)).collect();
        let figures = by_service(&services, |figure| *figure);
        assert_eq!(figures.len(), SERVICES_MAX + 1);
        assert_eq!(figures[199], ("s199".to_owned(), 199));
        assert_eq!(figures[200], ("(other)".to_owned(), (200..250).sum()));
        assert!(OTHERS.parse::<Name>().is_err());
    }

    #[test]
    fn a_page_is_what_the_format_says() {
        let mut families = Families(Vec::new());
        families.counter("a", "What a is.", [(labels([("b", &"c \"d\"\n")]), 3)]);
        families.seconds("e", "What e is.", [(vec![], 0.5)]);
        families.bytes_counter("f", "What f is.", 7);
        let text = "\
# HELP a What a is.
# TYPE a counter
a_total{b=\"c \\\"d\\\"\\n\"} 3
# HELP e_seconds What e is.
# TYPE e_seconds gauge
# UNIT e_seconds seconds
e_seconds 0.5
# HELP f_bytes What f is.
# TYPE f_bytes counter
# UNIT f_bytes bytes
f_bytes_total 7
# EOF
";
        assert_eq!(families.to_text(), text);
    }
}
