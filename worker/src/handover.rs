//! When a job that waits at a busy worker is better off at an idle one.
//!
//! A hand-over takes three messages: the offer, the job on its way back to its sender, and the job on
//! its way to the other worker; and it sends the payload a second time.

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::jobs::{OfferId, OfferedSlot};
use svcmap_proto::time::{Timestamp, wire_ms};

use crate::senders::Connection;
use crate::slots::Occupancy;

/// Jobs that wait at a peer, beyond those that run, from which on it is offered a slot. At one, a
/// third of a message more for each job saves a twentieth of the longest waits: too much, unless jobs
/// are long.
const GATE: u32 = 2;

/// A job that takes so many ways is long: beside it a message costs nothing.
const LONG_WAYS: u32 = 400;

/// Most offers that are kept at once: more peers than that have no business with this one.
const OFFERS_MAX: usize = 64;

/// Most of them from one connection: a peer offers one at a time, and the next one may cross the word
/// that the one before was not needed.
const OFFERS_OF_ONE_MAX: usize = 2;

/// Shortest time between two offers that find nobody.
const RETRY_MIN: Duration = Duration::from_millis(5);

/// Longest time between two offers that find nobody, but for a service.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// Time between two offers that find nobody, where it is not known how long jobs take.
const RETRY_UNKNOWN: Duration = Duration::from_millis(100);

/// What a payload's second journey is reckoned with, in bytes per second: a network of a gigabit.
const BYTES_PER_SECOND: f64 = 125e6;

/// Whether jobs take so much longer than their way that it does not matter, as far as is known: what
/// nobody knows is not short.
pub fn is_long(mean_service: Option<Duration>, way: Duration) -> bool {
    mean_service.is_none_or(|mean| mean >= LONG_WAYS * way)
}

/// Jobs that have to wait at a peer before it is offered a slot.
pub fn gate(mean_service: Option<Duration>, way: Duration) -> u32 {
    if is_long(mean_service, way) { 1 } else { GATE }
}

/// Whether what waits for two jobs elsewhere waits longer than it takes to come here, as far as is
/// known.
pub fn is_worth_it(mean_service: Option<Duration>, way: Duration) -> bool {
    mean_service.is_none_or(|mean| GATE * mean > 3 * way)
}

/// Time until a slot is offered again that nobody had use for so many times since there is one: longer
/// each time, as an idle worker should cost nothing.
pub fn retry(mean_service: Option<Duration>, times: u32) -> Duration {
    let first = mean_service.map_or(RETRY_UNKNOWN, |mean| mean.max(RETRY_MIN));
    first.saturating_mul(2u32.saturating_pow(times)).min(first.max(RETRY_MAX))
}

/// The first place in the queue from which a job of so many bytes is done sooner elsewhere: what is
/// before it is started while the other one travels. Where nobody knows how long jobs take, that is
/// none: what is idle elsewhere is sure.
pub fn first_place(here: Occupancy, concurrency: u32, way: Duration) -> impl Fn(usize) -> usize {
    move |bytes| {
        let journey = 2.0 * way.as_secs_f64() + bytes as f64 / BYTES_PER_SECOND;
        let started = |mean: Duration| {
            (journey * f64::from(concurrency) / mean.as_secs_f64().max(1e-6)) as usize
        };
        here.mean_service.map_or(0, started)
    }
}

/// Time in which a sender can claim what is passed on to it: it may have to connect first.
pub const CLAIM: Duration = Duration::from_millis(50);

/// How long a peer may keep an offer: for a service, in which more may come to wait there.
pub fn keep(here: Occupancy, way: Duration) -> Duration {
    here.mean_service.unwrap_or(RETRY_UNKNOWN).clamp(3 * way, KEEP_MAX.max(3 * way))
}

/// Longest time for which a peer keeps an offer: what is idle for longer has others to turn to.
const KEEP_MAX: Duration = Duration::from_secs(1);

/// How long an offer lasts at most. A peer that says more would keep its place from others.
fn lasts(way: Duration) -> Duration {
    KEEP_MAX.max(3 * way) + CLAIM
}

#[derive(Debug)]
struct Offer {
    from: Connection,
    slot: OfferedSlot,
    /// Until when it can be passed on, and claimed.
    kept_until: Timestamp,
    claimed_until: Timestamp,
}

/// Slots of other instances that can be passed on, oldest first.
#[derive(Debug, Default)]
pub struct Offers {
    offers: VecDeque<Offer>,
}

impl Offers {
    /// A peer offers a slot. `false` if there are too many, or too many of that peer.
    pub fn add(
        &mut self,
        now: Timestamp,
        from: Connection,
        slot: OfferedSlot,
        way: Duration,
    ) -> bool {
        let of_one = self.offers.iter().filter(|offer| offer.from == from).count();
        if self.offers.len() == OFFERS_MAX || of_one == OFFERS_OF_ONE_MAX {
            return false;
        }
        let lifetime = Duration::from_millis(u64::from(slot.lifetime_ms)).min(lasts(way));
        let claimed_until = now + lifetime;
        let kept_until = claimed_until.before(CLAIM);
        self.offers.push_back(Offer { from, slot, kept_until, claimed_until });
        true
    }

    /// The oldest, with the time that is left to claim it.
    pub fn first(&self, now: Timestamp) -> Option<OfferedSlot> {
        let offer = self.offers.front().filter(|offer| offer.kept_until > now)?;
        let lifetime_ms = wire_ms(offer.claimed_until.since(now));
        Some(OfferedSlot { lifetime_ms, ..offer.slot.clone() })
    }

    /// The oldest was passed on.
    pub fn remove_first(&mut self) {
        self.offers.pop_front();
    }

    /// The next one for which nobody was found in time, and who made it.
    pub fn poll_unused(&mut self, now: Timestamp) -> Option<(Connection, OfferId)> {
        self.offers.front().filter(|offer| offer.kept_until <= now)?;
        let offer = self.offers.pop_front()?;
        Some((offer.from, offer.slot.offer))
    }

    /// When there is one.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.offers.front().map(|offer| offer.kept_until)
    }

    /// None is of use any more.
    pub fn clear(&mut self) {
        self.offers.iter_mut().for_each(|offer| offer.kept_until = Timestamp::default());
    }
}

#[cfg(test)]
mod tests {
    use svcmap_proto::names::Incarnation;

    use super::*;
    use crate::testing::*;

    const WAY: Duration = ms(10);

    fn here(mean: Duration) -> Occupancy {
        Occupancy { mean_service: Some(mean), ..Occupancy::default() }
    }

    fn slot(offer: u64, lifetime_ms: u32) -> OfferedSlot {
        OfferedSlot {
            instance: name("b"),
            incarnation: Incarnation(2),
            offer: OfferId(offer),
            lifetime_ms,
            payload_bytes_max: 100,
        }
    }

    #[test]
    fn no_peer_keeps_a_place_for_longer_than_any_offer_lasts() {
        let mut offers = Offers::default();
        assert!(offers.add(at(0), peer(), slot(1, u32::MAX), WAY));
        assert_eq!(offers.poll_timeout(), Some(at(1000)));
        // Where ways are long, offers last longer.
        let mut offers = Offers::default();
        assert!(offers.add(at(0), peer(), slot(1, u32::MAX), ms(400)));
        assert_eq!(offers.poll_timeout(), Some(at(1200)));
    }

    fn peer() -> Connection {
        Connection::from(vec![1])
    }

    fn unused(offers: &mut Offers, now: Timestamp) -> Vec<u64> {
        std::iter::from_fn(|| offers.poll_unused(now))
            .map(|(from, offer)| {
                assert_eq!(from, peer());
                offer.0
            })
            .collect()
    }

    #[test]
    fn a_hand_over_is_worth_it_if_two_services_take_longer_than_three_ways() {
        assert!(is_worth_it(Some(ms(16)), ms(10)));
        assert!(!is_worth_it(Some(ms(15)), ms(10)));
        assert!(is_worth_it(None, ms(10)), "nobody knows");
    }

    #[test]
    fn what_starts_here_before_it_could_start_there_stays() {
        let place = |concurrency, way, bytes| first_place(here(ms(10)), concurrency, way)(bytes);
        assert_eq!(place(1, ms(4), 0), 0);
        assert_eq!(place(1, ms(6), 0), 1);
        assert_eq!(place(4, ms(6), 0), 4);
        // 12 ms there and back, and 20 ms for 2.5 megabytes at a gigabit.
        assert_eq!(place(1, ms(6), 2_500_000), 3);
    }

    #[test]
    fn where_nothing_has_finished_nothing_is_taken_to_start_soon() {
        assert_eq!(first_place(Occupancy::default(), 4, ms(10))(2_500_000), 0);
    }

    #[test]
    fn jobs_are_long_from_four_hundred_ways_on_and_if_nobody_knows() {
        assert!(is_long(Some(ms(400)), ms(1)) && !is_long(Some(ms(399)), ms(1)));
        assert!(is_long(None, ms(1)));
        assert_eq!((gate(Some(ms(400)), ms(1)), gate(Some(ms(399)), ms(1))), (1, 2));
    }

    #[test]
    fn who_finds_nobody_asks_less_and_less_often() {
        let waits = |mean| [0, 1, 2, 3, 99].map(|times| retry(mean, times));
        assert_eq!(waits(Some(ms(200))), [ms(200), ms(400), ms(800), ms(1000), ms(1000)]);
        assert_eq!(waits(Some(ms(1))), [ms(5), ms(10), ms(20), ms(40), ms(1000)]);
        assert_eq!(waits(Some(ms(3000))), [ms(3000); 5]);
        assert_eq!(waits(None)[..2], [ms(100), ms(200)]);
    }

    #[test]
    fn an_offer_is_kept_for_a_service_but_no_longer_than_a_second_or_three_ways() {
        assert_eq!(keep(here(ms(100)), ms(1)), ms(100));
        assert_eq!(keep(here(ms(1)), ms(10)), ms(30));
        assert_eq!(keep(here(ms(5000)), ms(1)), ms(1000));
        assert_eq!(keep(here(ms(5000)), ms(500)), ms(1500));
    }

    #[test]
    fn the_oldest_offer_goes_first_with_the_time_that_is_left_to_claim_it() {
        let mut offers = Offers::default();
        assert_eq!(offers.first(at(0)), None);
        assert!(offers.add(at(0), peer(), slot(1, 150), WAY));
        assert!(offers.add(at(10), peer(), slot(2, 150), WAY));
        assert_eq!(offers.first(at(30)), Some(slot(1, 120)));
        offers.remove_first();
        assert_eq!(offers.first(at(30)), Some(slot(2, 130)));
        offers.remove_first();
        assert_eq!(offers.first(at(30)), None);
    }

    #[test]
    fn an_offer_that_could_not_be_claimed_in_time_is_given_back() {
        let mut offers = Offers::default();
        assert_eq!(offers.poll_timeout(), None);
        offers.add(at(0), peer(), slot(1, 150), WAY);
        offers.add(at(10), peer(), slot(2, 150), WAY);
        // Whoever gets it may have to connect first, which takes 50 ms.
        assert_eq!(offers.poll_timeout(), Some(at(100)));
        assert_eq!(offers.first(at(99)), Some(slot(1, 51)));
        assert!(unused(&mut offers, at(99)).is_empty());
        assert_eq!(offers.first(at(100)), None);
        assert_eq!(unused(&mut offers, at(100)), [1]);
        assert_eq!(offers.first(at(100)), Some(slot(2, 60)));
        assert_eq!(unused(&mut offers, at(110)), [2]);
        assert_eq!(offers.poll_timeout(), None);
    }

    #[test]
    fn more_offers_than_anybody_needs_are_not_taken() {
        let mut offers = Offers::default();
        let add = |offers: &mut Offers, of: u8, offer| {
            offers.add(at(0), Connection::from(vec![of]), slot(offer, 150), WAY)
        };
        assert!((0..64).all(|offer| add(&mut offers, offer as u8 / 2, offer)));
        assert!(!add(&mut offers, 32, 64));
        offers.remove_first();
        assert!(add(&mut offers, 32, 64));
    }

    #[test]
    fn one_peer_leaves_room_for_the_offers_of_others() {
        let mut offers = Offers::default();
        let taken = (0..64).filter(|offer| offers.add(at(0), peer(), slot(*offer, 150), WAY));
        assert_eq!(taken.collect::<Vec<_>>(), [0, 1]);
        assert!(offers.add(at(0), Connection::from(vec![2]), slot(64, 150), WAY));
        offers.remove_first();
        assert!(offers.add(at(0), peer(), slot(65, 150), WAY));
    }

    #[test]
    fn once_none_is_of_use_all_are_given_back() {
        let mut offers = Offers::default();
        (1..=2).for_each(|offer| assert!(offers.add(at(0), peer(), slot(offer, 150), WAY)));
        offers.clear();
        assert_eq!(offers.first(at(0)), None);
        assert_eq!(unused(&mut offers, at(0)), [1, 2]);
    }
}
