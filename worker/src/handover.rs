//! When a job that waits at a busy worker is better off at an idle one.
//!
//! A hand-over takes three messages: the offer, the job on its way back to its sender, and the job on
//! its way to the other worker; and it sends the payload a second time.

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::jobs::{OfferId, OfferedSlot};
use svcmap_proto::time::{Timestamp, wire_ms};

use crate::credits::Occupancy;
use crate::senders::Connection;

/// Jobs that wait at a peer, beyond those that run, from which on it is offered a slot. At one, a
/// third of a message more for each job saves a twentieth of the longest waits.
pub const GATE: u32 = 2;

/// Most offers that are kept at once: more peers than that have no business with this one.
const OFFERS_MAX: usize = 64;

/// Most of them from one connection: a peer offers one at a time, and the next one may cross the word
/// that the one before was not needed.
const OFFERS_OF_ONE_MAX: usize = 2;

/// Shortest time between two offers that find nobody.
pub const RETRY_MIN: Duration = Duration::from_millis(5);

/// What a payload's second journey is reckoned with, in bytes per second: a network of a gigabit.
const BYTES_PER_SECOND: f64 = 125e6;

/// Whether what waits for [`GATE`] jobs elsewhere waits longer than it takes to come here.
pub fn is_worth_it(here: Occupancy, way: Duration) -> bool {
    GATE * here.mean_service > 3 * way
}

/// The first place in the queue from which a job of so many bytes is done sooner elsewhere: what is
/// before it is started while the other one travels.
pub fn first_place(here: Occupancy, concurrency: u32, way: Duration) -> impl Fn(usize) -> usize {
    move |bytes| {
        let journey = 2.0 * way.as_secs_f64() + bytes as f64 / BYTES_PER_SECOND;
        let service = here.mean_service.as_secs_f64().max(1e-6);
        (journey * f64::from(concurrency) / service) as usize
    }
}

/// Time in which a sender can claim what is passed on to it: it may have to connect first.
pub const CLAIM: Duration = Duration::from_millis(50);

/// How long a peer may keep an offer: for a service, in which more may come to wait there.
pub fn keep(here: Occupancy, way: Duration) -> Duration {
    here.mean_service.clamp(3 * way, KEEP_MAX.max(3 * way))
}

/// Longest time for which a peer keeps an offer: what is idle for longer has others to turn to.
const KEEP_MAX: Duration = Duration::from_secs(1);

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
    pub fn add(&mut self, now: Timestamp, from: Connection, slot: OfferedSlot) -> bool {
        let of_one = self.offers.iter().filter(|offer| offer.from == from).count();
        if self.offers.len() == OFFERS_MAX || of_one == OFFERS_OF_ONE_MAX {
            return false;
        }
        let claimed_until = now + Duration::from_millis(u64::from(slot.lifetime_ms));
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

    fn here(mean: Duration) -> Occupancy {
        Occupancy { mean_service: mean, ..Occupancy::default() }
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

    fn peer() -> Connection {
        Connection(vec![1])
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
        assert!(is_worth_it(here(ms(16)), ms(10)));
        assert!(!is_worth_it(here(ms(15)), ms(10)));
        assert!(!is_worth_it(here(Duration::ZERO), Duration::ZERO));
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
    fn nobody_knows_what_starts_soon_where_nothing_has_finished() {
        assert!(first_place(here(Duration::ZERO), 1, ms(1))(0) >= 2000);
        assert_eq!(first_place(here(Duration::ZERO), 1, Duration::ZERO)(0), 0);
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
        assert!(offers.add(at(0), peer(), slot(1, 150)));
        assert!(offers.add(at(10), peer(), slot(2, 150)));
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
        offers.add(at(0), peer(), slot(1, 150));
        offers.add(at(10), peer(), slot(2, 150));
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
            offers.add(at(0), Connection(vec![of]), slot(offer, 150))
        };
        assert!((0..64).all(|offer| add(&mut offers, offer as u8 / 2, offer)));
        assert!(!add(&mut offers, 32, 64));
        offers.remove_first();
        assert!(add(&mut offers, 32, 64));
    }

    #[test]
    fn one_peer_leaves_room_for_the_offers_of_others() {
        let mut offers = Offers::default();
        let taken = (0..64).filter(|offer| offers.add(at(0), peer(), slot(*offer, 150)));
        assert_eq!(taken.collect::<Vec<_>>(), [0, 1]);
        assert!(offers.add(at(0), Connection(vec![2]), slot(64, 150)));
        offers.remove_first();
        assert!(offers.add(at(0), peer(), slot(65, 150)));
    }

    #[test]
    fn once_none_is_of_use_all_are_given_back() {
        let mut offers = Offers::default();
        (1..=2).for_each(|offer| assert!(offers.add(at(0), peer(), slot(offer, 150))));
        offers.clear();
        assert_eq!(offers.first(at(0)), None);
        assert_eq!(unused(&mut offers, at(0)), [1, 2]);
    }
}
