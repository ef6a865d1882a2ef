//! Reports for the tests of the screen and of what is behind it.

use std::time::Duration;

use svcmap_proto::control::{Entry, Refused};
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::{Endpoint, HostId, Incarnation, InstanceKey};
use svcmap_proto::status::{MapperRow, Report};
use svcmap_proto::time::Timestamp;

use super::model::Moment;

/// An instance with four slots.
#[derive(Clone, Copy)]
pub(super) struct Given {
    pub name: &'static str,
    pub life: u64,
    pub load: Load,
    pub age_ms: u32,
}

pub(super) fn given(name: &'static str) -> Given {
    Given { name, life: 1, load: Load { slots: 4, concurrency: 2, ..Load::default() }, age_ms: 0 }
}

impl Given {
    pub fn done(mut self, done: u64) -> Self {
        (self.load.done, self.load.mean_service_us) = (done, 38_000);
        self
    }

    pub fn failed(mut self, failed: u64) -> Self {
        self.load.failed = failed;
        self
    }

    pub fn busy(mut self, running: u32, queued: u32) -> Self {
        (self.load.running, self.load.queued) = (running, queued);
        self
    }

    pub fn draining(mut self) -> Self {
        self.load.state = State::Draining;
        self
    }

    pub fn failing(mut self) -> Self {
        self.load.state = State::Failing;
        self
    }
}

pub(super) fn mapper(port: u16, answer: &'static str) -> MapperRow {
    let endpoint = Endpoint::tcp("127.0.0.1", port).unwrap();
    MapperRow { endpoint, name: None, answer, warming: false, refused: Refused::default() }
}

pub(super) fn report(all: &[Given]) -> Report {
    told_by(vec![mapper(5555, "complete")], all)
}

pub(super) fn told_by(mappers: Vec<MapperRow>, all: &[Given]) -> Report {
    let entries: Vec<(InstanceKey, Entry)> = all.iter().map(|given| entry(*given)).collect();
    let known = entries.iter().map(|(key, _)| key.service.clone()).collect();
    Report::new(mappers, true, known, entries.iter().map(|(key, entry)| (key, entry)), [].iter())
}

fn entry(given: Given) -> (InstanceKey, Entry) {
    let (service, instance) = given.name.split_once('/').unwrap();
    let key =
        InstanceKey { service: service.parse().unwrap(), instance: instance.parse().unwrap() };
    let is_failing = given.load.state == State::Failing;
    let entry = Entry {
        instance: key.instance.clone(),
        incarnation: Incarnation(given.life),
        endpoints: vec![Endpoint::tcp("127.0.0.1", 40_000).unwrap()],
        host: HostId(1),
        pid: 4000,
        error: is_failing.then(|| "no such\u{1b}[2J host".to_owned()),
        key: None,
        load: given.load,
        age_ms: given.age_ms,
    };
    (key, entry)
}

/// So long after the start of the test, at 03:12:41 and so much.
pub(super) fn at(ms: u64) -> Moment {
    let start_us = (3 * 3600 + 12 * 60 + 41) * 1_000_000;
    let now = Timestamp::default() + Duration::from_millis(10_000 + ms);
    Moment { now, unix_us: start_us + ms * 1000 }
}
