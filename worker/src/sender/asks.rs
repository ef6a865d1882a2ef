//! Which workers have been asked for credits, for which lane, and when to ask another one.

use std::collections::BTreeMap;
use std::time::Duration;

use svcmap_proto::names::Name;
use svcmap_proto::time::Timestamp;

use crate::outbox::Lane;

/// See the module. A worker goes by the number of its link.
#[derive(Debug, Default)]
pub(super) struct Asks {
    by_lane: BTreeMap<Lane, Asked>,
    /// Credits that all lanes want of a worker.
    by_link: BTreeMap<u64, u32>,
}

#[derive(Debug, Default)]
struct Asked {
    /// Credits that each was asked for and has not granted.
    shares: BTreeMap<u64, u32>,
    /// When to ask another one, if no credit comes before.
    again_at: Option<Timestamp>,
    /// How long that was put off for.
    patience: Duration,
}

impl Asks {
    /// How many workers are asked for a lane.
    pub(super) fn len(&self, lane: &Lane) -> usize {
        self.by_lane.get(lane).map_or(0, |asked| asked.shares.len())
    }

    /// Whether that worker is asked for a lane.
    pub(super) fn contains(&self, lane: &Lane, link: u64) -> bool {
        self.by_lane.get(lane).is_some_and(|asked| asked.shares.contains_key(&link))
    }

    /// Whether that worker is asked for any lane.
    pub(super) fn is_asked(&self, link: u64) -> bool {
        self.by_link.contains_key(&link)
    }

    /// Whether that worker is asked for a job of that service that can go to nobody else.
    pub(super) fn is_pinned(&self, service: &Name, link: u64) -> bool {
        let mut lanes = lanes_of(&self.by_lane, service);
        lanes.any(|(lane, asked)| lane.instance.is_some() && asked.shares.contains_key(&link))
    }

    /// Who is asked for a lane.
    pub(super) fn links(&self, lane: &Lane) -> Vec<u64> {
        let asked = self.by_lane.get(lane);
        asked.map_or_else(Vec::new, |asked| asked.shares.keys().copied().collect())
    }

    /// A worker's share of so many waiting jobs, if all that are asked and this one have the same.
    pub(super) fn share(&self, lane: &Lane, link: u64, waiting: usize) -> u32 {
        let asked = self.len(lane) + usize::from(!self.contains(lane, link));
        u32::try_from(waiting.div_ceil(asked)).unwrap_or(u32::MAX)
    }

    /// A worker is asked for so many credits for a lane. Returns how many that makes for all lanes.
    pub(super) fn set(&mut self, lane: &Lane, link: u64, share: u32) -> u32 {
        if share == 0 && !self.by_lane.contains_key(lane) {
            return self.by_link.get(&link).copied().unwrap_or(0);
        }
        let asked = self.by_lane.entry(lane.clone()).or_default();
        let before = match share {
            0 => asked.shares.remove(&link),
            _ => asked.shares.insert(link, share),
        };
        if asked.shares.is_empty() {
            self.by_lane.remove(lane);
        }
        let all = self.by_link.entry(link).or_default();
        *all = (*all - before.unwrap_or(0)).saturating_add(share);
        let all = *all;
        if all == 0 {
            self.by_link.remove(&link);
        }
        all
    }

    /// A worker of that service granted credits: they count for the lanes that asked.
    pub(super) fn handle_granted(&mut self, service: &Name, link: u64, mut credits: u32) {
        for (lane, share) in self.of_link(service, link) {
            let granted = credits.min(share);
            credits -= granted;
            if granted > 0 {
                self.set_granted(&lane, link, share - granted);
            }
        }
    }

    /// A worker of that service passed on a slot elsewhere in place of a credit: that is for jobs that
    /// can go anywhere.
    pub(super) fn handle_offered(&mut self, service: &Name, link: u64) {
        let lane = Lane::any(service);
        let share = self.by_lane.get(&lane).and_then(|asked| asked.shares.get(&link)).copied();
        if let Some(share) = share {
            self.set_granted(&lane, link, share - 1);
        }
    }

    /// So many are still wanted for a lane after something came, so patience begins anew.
    fn set_granted(&mut self, lane: &Lane, link: u64, share: u32) {
        self.set(lane, link, share);
        if let Some(asked) = self.by_lane.get_mut(lane) {
            (asked.again_at, asked.patience) = (None, Duration::ZERO);
        }
    }

    /// A worker of that service will grant nothing.
    pub(super) fn forget(&mut self, service: &Name, link: u64) {
        for (lane, _) in self.of_link(service, link) {
            self.set(&lane, link, 0);
        }
    }

    /// Nothing of that service is asked for any more. Returns who was.
    pub(super) fn forget_service(&mut self, service: &Name) -> Vec<u64> {
        let lanes: Vec<_> =
            lanes_of(&self.by_lane, service).map(|(lane, _)| lane.clone()).collect();
        let mut all = Vec::new();
        for lane in lanes {
            let links = self.links(&lane);
            for link in &links {
                self.set(&lane, *link, 0);
            }
            self.by_lane.remove(&lane);
            all.extend(links);
        }
        all
    }

    /// Jobs of that lane wait, for credits that were asked for or for outcomes: another worker is to be
    /// asked if none comes for `patience`, or twice as long as the last time.
    pub(super) fn wait(&mut self, now: Timestamp, lane: &Lane, patience: Duration) {
        let asked = match self.by_lane.get_mut(lane) {
            Some(asked) => asked,
            None => self.by_lane.entry(lane.clone()).or_default(),
        };
        if asked.again_at.is_none() {
            asked.patience = patience.max(2 * asked.patience);
            asked.again_at = Some(now + asked.patience);
        }
    }

    /// When another worker is to be asked.
    pub(super) fn poll_timeout(&self) -> Option<Timestamp> {
        self.by_lane.values().filter_map(|asked| asked.again_at).min()
    }

    /// The next lane for which another worker is to be asked.
    pub(super) fn poll_due(&mut self, now: Timestamp) -> Option<Lane> {
        let is_due = |asked: &Asked| asked.again_at.is_some_and(|at| at <= now);
        let (lane, asked) = self.by_lane.iter_mut().find(|(_, asked)| is_due(asked))?;
        asked.again_at = None;
        let (lane, is_asked) = (lane.clone(), !asked.shares.is_empty());
        if !is_asked {
            self.by_lane.remove(&lane);
        }
        Some(lane)
    }

    /// What a worker was asked for, by lane: first for jobs that can go to nobody else.
    fn of_link(&self, service: &Name, link: u64) -> Vec<(Lane, u32)> {
        if !self.by_link.contains_key(&link) {
            return Vec::new();
        }
        let of_link =
            |(lane, asked): (&Lane, &Asked)| Some((lane.clone(), *asked.shares.get(&link)?));
        let mut asked: Vec<_> = lanes_of(&self.by_lane, service).filter_map(of_link).collect();
        asked.reverse();
        asked
    }
}

/// What is kept for the lanes of a service: first for that of jobs that can go to any instance.
fn lanes_of<'a, T>(
    lanes: &'a BTreeMap<Lane, T>,
    service: &'a Name,
) -> impl Iterator<Item = (&'a Lane, &'a T)> {
    lanes.range(Lane::any(service)..).take_while(move |(lane, _)| lane.service == *service)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn any() -> Lane {
        Lane::any(&name("resize"))
    }

    fn only(instance: &str) -> Lane {
        Lane { instance: Some(name(instance)), ..any() }
    }

    #[test]
    fn waiting_jobs_are_shared_among_those_who_are_asked_and_the_next() {
        let mut asks = Asks::default();
        assert_eq!(asks.share(&any(), 1, 7), 7);
        asks.set(&any(), 1, 7);
        assert_eq!(asks.share(&any(), 1, 7), 7);
        assert_eq!(asks.share(&any(), 2, 7), 4);
        asks.set(&any(), 2, 4);
        assert_eq!(asks.share(&any(), 3, 7), 3);
        assert_eq!(asks.share(&any(), 3, 0), 0);
        assert_eq!(asks.share(&any(), 3, usize::MAX), u32::MAX);
        assert_eq!((asks.len(&any()), asks.links(&any())), (2, vec![1, 2]));
    }

    #[test]
    fn lanes_add_up_at_a_worker_that_they_all_ask() {
        let mut asks = Asks::default();
        assert_eq!(asks.set(&any(), 1, 3), 3);
        assert_eq!(asks.set(&only("a"), 1, 2), 5);
        assert_eq!(asks.set(&any(), 2, 4), 4);
        assert_eq!(asks.set(&any(), 1, 1), 3);
        assert_eq!(asks.set(&only("a"), 1, 0), 1);
        assert!(asks.is_asked(1) && !asks.contains(&only("a"), 1));
        assert_eq!(asks.set(&any(), 1, 0), 0);
        assert!(!asks.is_asked(1) && asks.is_asked(2));
        assert_eq!((asks.links(&any()), asks.len(&only("a"))), (vec![2], 0));
    }

    #[test]
    fn what_was_not_asked_for_cannot_be_cancelled() {
        let mut asks = Asks::default();
        assert_eq!(asks.set(&any(), 1, 0), 0);
        asks.set(&any(), 2, 1);
        assert_eq!(asks.set(&any(), 1, 0), 0);
        assert_eq!(asks.set(&only("a"), 2, 0), 1);
        assert_eq!((asks.len(&any()), asks.is_asked(1)), (1, false));
    }

    #[test]
    fn granted_credits_count_for_the_lanes_of_that_service_that_asked_that_worker() {
        let mut asks = Asks::default();
        let other = Lane::any(&name("scale"));
        asks.set(&any(), 1, 2);
        asks.set(&any(), 2, 2);
        asks.set(&only("a"), 1, 3);
        asks.set(&only("b"), 2, 1);
        asks.set(&other, 1, 1);
        // Jobs that can go to nobody else come first.
        asks.handle_granted(&name("resize"), 1, 2);
        assert_eq!(asks.set(&other, 1, 1), 4);
        assert!(asks.contains(&only("a"), 1));
        // One of these is more than that lane still wants.
        asks.handle_granted(&name("resize"), 1, 2);
        assert_eq!((asks.contains(&any(), 1), asks.contains(&only("a"), 1)), (true, false));
        assert_eq!(asks.set(&other, 1, 1), 2);
        // Nor does it matter that more comes than anybody asked for.
        asks.handle_granted(&name("resize"), 1, 9);
        assert_eq!((asks.len(&only("a")), asks.links(&other)), (0, vec![1]));
        assert_eq!((asks.links(&any()), asks.links(&only("b"))), (vec![2], vec![2]));
    }

    #[test]
    fn a_slot_elsewhere_counts_for_jobs_that_can_go_anywhere() {
        let mut asks = Asks::default();
        asks.set(&any(), 1, 1);
        asks.set(&only("a"), 1, 1);
        assert!(asks.is_pinned(&name("resize"), 1));
        asks.handle_offered(&name("resize"), 1);
        assert_eq!((asks.contains(&any(), 1), asks.contains(&only("a"), 1)), (false, true));
        asks.handle_offered(&name("resize"), 1);
        assert!(asks.contains(&only("a"), 1));
        asks.set(&any(), 1, 1);
        asks.set(&only("a"), 1, 0);
        assert!(!asks.is_pinned(&name("resize"), 1) && asks.is_asked(1));
    }

    #[test]
    fn while_no_credit_comes_patience_doubles() {
        let mut asks = Asks::default();
        // It is looked at again where nobody was asked as well.
        asks.wait(at(0), &any(), ms(10));
        assert_eq!(asks.poll_due(at(10)), Some(any()));
        assert_eq!(asks.poll_timeout(), None);
        asks.set(&any(), 1, 5);
        asks.set(&any(), 2, 5);
        asks.wait(at(0), &any(), ms(10));
        // It is told more often than it ends.
        asks.wait(at(9), &any(), ms(10));
        assert_eq!(asks.poll_timeout(), Some(at(10)));
        assert_eq!(asks.poll_due(at(9)), None);
        assert_eq!(asks.poll_due(at(10)), Some(any()));
        assert_eq!((asks.poll_due(at(10)), asks.poll_timeout()), (None, None));
        asks.wait(at(10), &any(), ms(10));
        assert_eq!(asks.poll_timeout(), Some(at(30)));
        assert_eq!(asks.poll_due(at(31)), Some(any()));
        asks.wait(at(31), &any(), ms(100));
        assert_eq!(asks.poll_timeout(), Some(at(131)));
        asks.handle_granted(&name("resize"), 2, 1);
        assert_eq!(asks.poll_timeout(), None);
        asks.wait(at(40), &any(), ms(10));
        assert_eq!(asks.poll_timeout(), Some(at(50)));
    }

    #[test]
    fn a_credit_for_one_lane_leaves_the_patience_of_another() {
        let mut asks = Asks::default();
        for (lane, link, patience) in [(any(), 1, 20), (only("a"), 2, 10)] {
            asks.set(&lane, link, 2);
            asks.wait(at(0), &lane, ms(patience));
        }
        assert_eq!(asks.poll_timeout(), Some(at(10)));
        asks.handle_granted(&name("resize"), 2, 1);
        assert_eq!(asks.poll_timeout(), Some(at(20)));
        assert_eq!(asks.poll_due(at(20)), Some(any()));
    }

    #[test]
    fn a_worker_that_will_grant_nothing_is_forgotten_by_every_lane_of_its_service() {
        let mut asks = Asks::default();
        let other = Lane::any(&name("scale"));
        for (lane, link) in [(any(), 1), (any(), 2), (only("a"), 1), (other.clone(), 1)] {
            asks.set(&lane, link, 2);
            asks.wait(at(0), &lane, ms(10));
        }
        asks.forget(&name("resize"), 1);
        assert_eq!((asks.links(&any()), asks.len(&only("a"))), (vec![2], 0));
        assert_eq!((asks.links(&other), asks.set(&other, 1, 2)), (vec![1], 2));
        asks.forget(&name("scale"), 1);
        asks.forget(&name("resize"), 2);
        assert!(!asks.is_asked(1) && !asks.is_asked(2));
        assert_eq!(asks.poll_timeout(), None);
    }
}
