//! The rows of the table: services, and the instances of those that are open. Pure.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use svcmap_proto::names::InstanceKey;
use svcmap_proto::status::{InstanceRow, Report, ServiceRow};

use super::rates::{Rate, Rates, key};

/// A service with more instances is closed until somebody opens it.
const OPEN_MAX: usize = 40;

/// What a row is about. It stays the same wherever the row goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Service(String),
    Instance(InstanceKey),
}

impl Place {
    /// The service that it is, or of which it is an instance.
    pub fn service(&self) -> &str {
        match self {
            Place::Service(service) => service,
            Place::Instance(key) => key.service.as_str(),
        }
    }
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    pub of: Of<'a>,
    /// `None` until it was seen for long enough.
    pub rate: Option<Rate>,
}

/// A service or an instance.
#[derive(Clone, Copy, Debug)]
pub(super) enum Of<'a> {
    Service { row: &'a ServiceRow, is_open: bool, mean_ms: Option<f64> },
    Instance(&'a InstanceRow),
}

impl Row<'_> {
    pub fn place(&self) -> Place {
        match self.of {
            Of::Service { row, .. } => Place::Service(row.service.clone()),
            Of::Instance(row) => Place::Instance(key(row)),
        }
    }

    fn load(&self) -> f64 {
        match self.of {
            Of::Service { row, .. } => row.load,
            Of::Instance(row) => row.load,
        }
    }

    fn age_ms(&self) -> u32 {
        match self.of {
            Of::Service { row, .. } => row.age_ms,
            Of::Instance(row) => row.age_ms,
        }
    }
}

/// By what services are sorted, and the instances of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Sort {
    /// Who needs attention first, as in `svcmap status`, then the busiest.
    #[default]
    Load,
    Name,
    Done,
    Failed,
    Age,
}

impl Sort {
    pub fn next(self) -> Self {
        match self {
            Sort::Load => Sort::Name,
            Sort::Name => Sort::Done,
            Sort::Done => Sort::Failed,
            Sort::Failed => Sort::Age,
            Sort::Age => Sort::Load,
        }
    }

    /// `None` leaves the order as it is.
    fn compare(self, a: &Row<'_>, b: &Row<'_>) -> Ordering {
        let rate = |row: &Row<'_>, of: fn(Rate) -> f64| row.rate.map_or(-1.0, of);
        match self {
            Sort::Load => match (a.of, b.of) {
                // The report has services in that order already.
                (Of::Instance(x), Of::Instance(y)) => {
                    x.state.cmp(&y.state).then(b.load().total_cmp(&a.load()))
                }
                _ => Ordering::Equal,
            },
            Sort::Name => a.place().cmp(&b.place()),
            Sort::Done => rate(b, |r| r.done).total_cmp(&rate(a, |r| r.done)),
            Sort::Failed => rate(b, |r| r.failed).total_cmp(&rate(a, |r| r.failed)),
            Sort::Age => b.age_ms().cmp(&a.age_ms()),
        }
    }
}

/// Which rows there are, and in which order.
#[derive(Clone, Debug, Default)]
pub(super) struct Choice {
    pub sort: Sort,
    /// Only what has this text in its `service/instance`.
    pub filter: String,
    /// Services that somebody has opened or closed.
    pub opened: BTreeMap<String, bool>,
}

impl Choice {
    pub fn is_open(&self, row: &ServiceRow) -> bool {
        let by_default = row.instances <= OPEN_MAX || !row.service.contains(&self.filter);
        self.opened.get(&row.service).copied().unwrap_or(by_default)
    }

    pub fn rows<'a>(&self, report: &'a Report, rates: &Rates) -> Vec<Row<'a>> {
        let mut of: BTreeMap<&str, Vec<&InstanceRow>> = BTreeMap::new();
        for row in &report.instances {
            of.entry(row.service.as_str()).or_default().push(row);
        }
        let mut services = Vec::new();
        for row in &report.services {
            let all = of.remove(row.service.as_str()).unwrap_or_default();
            let rate = rates.sum(all.iter().copied());
            let shown: Vec<_> = all.iter().copied().filter(|row| self.is_wanted(row)).collect();
            if shown.is_empty() && !row.service.contains(&self.filter) {
                continue;
            }
            let (is_open, mean_ms) = (self.is_open(row), mean_ms(&all));
            let service = Row { of: Of::Service { row, is_open, mean_ms }, rate };
            services.push((service, if is_open { shown } else { Vec::new() }));
        }
        services.sort_by(|(a, _), (b, _)| self.sort.compare(a, b));
        let mut rows = Vec::new();
        for (service, instances) in services {
            rows.push(service);
            let row = |row| Row { of: Of::Instance(row), rate: rates.of(row) };
            let mut instances: Vec<_> = instances.into_iter().map(row).collect();
            instances.sort_by(|a, b| self.sort.compare(a, b));
            rows.extend(instances);
        }
        rows
    }

    fn is_wanted(&self, row: &InstanceRow) -> bool {
        self.filter.is_empty() || key(row).to_string().contains(&self.filter)
    }
}

/// Of all jobs that were done, as far as each instance's average tells. What fails teaches none.
fn mean_ms(rows: &[&InstanceRow]) -> Option<f64> {
    let known = || rows.iter().filter(|row| row.mean_service_ms > 0.0);
    let all: f64 = known().map(|row| row.done as f64).sum();
    let sum: f64 = known().map(|row| row.mean_service_ms * row.done as f64).sum();
    (all > 0.0).then(|| sum / all)
}
