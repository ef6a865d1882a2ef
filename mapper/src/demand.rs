//! Which jobs wait at their senders, as those say.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::limits::WAITING_SERVICES_MAX;
use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

use crate::registry::Connection;

/// Senders whose waiting jobs are counted, and no more: some 10 MiB with the longest names.
const SENDERS_MAX: usize = 16_384;

/// Whoever has said nothing for so long has no jobs that wait, or is gone: they say it each second.
const KEPT: Duration = Duration::from_secs(3);

/// What one sender said last.
#[derive(Debug)]
struct Said {
    at: Timestamp,
    jobs: Vec<(Name, u32)>,
}

/// Jobs of a service that wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// So many, at all senders.
    pub jobs: u64,
    /// At so many senders.
    pub senders: u32,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Demand {
    said: BTreeMap<Connection, Said>,
    services: BTreeMap<Name, Waiting>,
    /// When to look who has fallen silent.
    look_at: Option<Timestamp>,
}

impl Demand {
    /// So many jobs of these services wait at that sender, and none of others.
    pub fn handle(&mut self, now: Timestamp, from: &Connection, mut jobs: Vec<(Name, u32)>) {
        jobs.truncate(WAITING_SERVICES_MAX);
        jobs.retain(|(_, waiting)| *waiting > 0);
        self.forget(from);
        if jobs.is_empty() || self.said.len() >= SENDERS_MAX {
            return;
        }
        for (service, waiting) in &jobs {
            let sum = self.services.entry(service.clone()).or_default();
            sum.jobs += u64::from(*waiting);
            sum.senders += 1;
        }
        self.said.insert(from.clone(), Said { at: now, jobs });
        self.look_at.get_or_insert(now + KEPT);
    }

    /// When [`Demand::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.look_at
    }

    /// Forgets who has fallen silent.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.look_at.is_none_or(|look_at| now < look_at) {
            return;
        }
        let silent = self.said.iter().filter(|(_, said)| said.at + KEPT <= now);
        let silent: Vec<_> = silent.map(|(from, _)| from.clone()).collect();
        silent.iter().for_each(|from| self.forget(from));
        self.look_at = self.said.values().map(|said| said.at + KEPT).min();
    }

    fn forget(&mut self, from: &Connection) {
        for (service, waiting) in self.said.remove(from).into_iter().flat_map(|said| said.jobs) {
            if let Some(sum) = self.services.get_mut(&service) {
                sum.jobs -= u64::from(waiting);
                sum.senders -= 1;
                if sum.senders == 0 {
                    self.services.remove(&service);
                }
            }
        }
    }

    /// The services whose jobs wait.
    pub fn services(&self) -> &BTreeMap<Name, Waiting> {
        &self.services
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jobs(said: &[(&str, u32)]) -> Vec<(Name, u32)> {
        said.iter().map(|(name, jobs)| (name.parse().unwrap(), *jobs)).collect()
    }

    fn sums(demand: &Demand) -> Vec<(&str, u64, u32)> {
        demand.services().iter().map(|(name, sum)| (name.as_str(), sum.jobs, sum.senders)).collect()
    }

    #[test]
    fn the_last_word_of_each_sender_counts_until_it_is_old() {
        let mut demand = Demand::default();
        let at = |ms| Timestamp::default() + Duration::from_millis(ms);
        let [one, other] = [b"one", b"two"].map(|id| Connection::new(id));
        demand.handle(at(0), &one, jobs(&[("a", 3), ("b", 1), ("c", 0)]));
        demand.handle(at(500), &other, jobs(&[("a", u32::MAX)]));
        assert_eq!(sums(&demand), [("a", 3 + u64::from(u32::MAX), 2), ("b", 1, 1)]);
        demand.handle(at(1000), &one, jobs(&[("a", 4)]));
        assert_eq!(sums(&demand), [("a", 4 + u64::from(u32::MAX), 2)]);
        assert_eq!(demand.poll_timeout(), Some(at(3000)));
        demand.handle_timeout(at(3000));
        assert_eq!(sums(&demand), [("a", 4 + u64::from(u32::MAX), 2)]);
        assert_eq!(demand.poll_timeout(), Some(at(3500)));
        demand.handle_timeout(at(3499));
        assert_eq!(sums(&demand).len(), 1);
        demand.handle_timeout(at(3500));
        assert_eq!(sums(&demand), [("a", 4, 1)]);
        demand.handle(at(3600), &one, Vec::new());
        assert!(sums(&demand).is_empty() && demand.said.is_empty());
        // Once nobody is left, nothing is looked at.
        demand.handle_timeout(at(4000));
        assert_eq!(demand.poll_timeout(), None);
    }

    #[test]
    fn whoever_names_a_service_twice_is_counted_and_forgotten_twice() {
        let mut demand = Demand::default();
        let from = Connection::new(b"one");
        demand.handle(Timestamp::default(), &from, jobs(&[("a", 1), ("a", 2)]));
        demand.handle(Timestamp::default(), &from, jobs(&[("b", 1); 20]));
        assert_eq!(sums(&demand), [("b", 8, 8)]);
        demand.handle_timeout(Timestamp::default() + Duration::from_secs(4));
        assert!(sums(&demand).is_empty());
    }

    #[test]
    fn a_crowd_of_senders_takes_no_more_than_there_is_room_for() {
        let mut demand = Demand::default();
        for sender in 0..SENDERS_MAX + 10 {
            let from = Connection::new(&sender.to_be_bytes());
            demand.handle(Timestamp::default(), &from, jobs(&[("a", 1)]));
        }
        let all = SENDERS_MAX as u64;
        assert_eq!(sums(&demand), [("a", all, all as u32)]);
        // Who is counted goes on to be.
        demand.handle(
            Timestamp::default(),
            &Connection::new(&0_usize.to_be_bytes()),
            jobs(&[("a", 5)]),
        );
        assert_eq!(sums(&demand), [("a", all + 4, all as u32)]);
    }
}
