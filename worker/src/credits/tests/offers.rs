//! Slots for peers.

use super::*;

#[test]
fn only_an_idle_worker_offers_one_slot_at_a_time_and_while_nobody_waits_for_it() {
    let mut credits = credits(2, 5);
    assert_eq!(credits.offer(at(0), here(2)), None);
    credits.handle_demand(at(0), A, want(1));
    assert_eq!(credits.offer(at(0), here(1)), None);
    credits.grant(at(0), here(1));
    assert_eq!(credits.offer(at(0), here(1)), None, "that credit is about to be used");
    let stale = at(0) + FRESH_WAYS * WAY_FIRST;
    let (first, lifetime) = credits.offer(stale, here(1)).unwrap();
    assert_eq!(lifetime, MEAN + handover::CLAIM);
    assert_eq!(credits.offer(stale, here(0)), None);
    assert!(credits.cancel_offer(first) && !credits.cancel_offer(first));
    let (second, _) = credits.offer(stale, here(0)).unwrap();
    assert_ne!(first, second);
}

#[test]
fn an_offer_takes_a_slot_until_it_is_claimed_returned_or_lapses() {
    let mut credits = small();
    let offered = Promised { slots: 1, bytes: 200 };
    let end = |credits: &mut Credits, how: usize, offer| match how {
        0 => assert!(credits.claim(at(0), A, Claim::Offer(offer), 200, Duration::ZERO)),
        1 => credits.handle_return(A, Claim::Offer(offer)),
        2 => credits.handle_timeout(at(190)),
        _ => assert!(credits.cancel_offer(offer)),
    };
    for how in 0..4 {
        let (offer, lifetime) = credits.offer(at(0), here(0)).unwrap();
        assert_eq!(lifetime, ms(90));
        assert_eq!(credits.poll_timeout(), Some(at(190)));
        credits.handle_timeout(at(189));
        assert_eq!(credits.promised(), offered);
        end(&mut credits, how, offer);
        assert_eq!(credits.promised(), Promised::default());
        assert!(!credits.claim(at(0), A, Claim::Offer(offer), 0, Duration::ZERO));
    }
}

#[test]
fn an_offer_needs_a_free_slot() {
    let mut credits = small();
    let full = Occupancy { bytes: 1801, ..here(0) };
    assert_eq!(credits.offer(at(0), full), None);
    assert!(credits.offer(at(0), Occupancy { bytes: 1800, ..here(0) }).is_some());
}

#[test]
fn a_slot_elsewhere_goes_to_who_is_first_if_it_fits_and_may_go_there() {
    let mut credits = credits(1, 10);
    assert_eq!(credits.take_waiter(100), None);
    credits.handle_demand(at(0), A, Demand { payload_bytes: 101, ..want(2) });
    assert_eq!(credits.take_waiter(100), None);
    assert_eq!(credits.take_waiter(101), Some(A));
    assert_eq!(credits.accounts.wanted(), 1);
    credits.handle_demand(at(0), A, Demand { pinned: true, ..want(1) });
    assert_eq!(credits.take_waiter(101), None);
}
