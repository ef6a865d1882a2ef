//! One that asks for everything.

use svcmap_proto::io::Clock;

use super::*;

fn pinned(share: u32) -> Demand {
    Demand { pinned: true, ..want(share) }
}

#[test]
fn one_sender_has_half_of_the_slots_in_unused_credits_at_most_whatever_it_asks_for() {
    for demand in [pinned(u32::MAX), want(u32::MAX)] {
        let mut credits = credits(4, 60);
        for round in 0..100 {
            credits.handle_demand(at(round), A, demand);
            credits.grant(at(round), here(0));
        }
        assert_eq!((credits.promised().slots, credits.accounts.wanted()), (32, 0));
        credits.handle_demand(at(100), B, pinned(40));
        credits.grant(at(100), here(0));
        assert_eq!(credits.promised().slots, 64);
    }
}

#[test]
fn one_sender_has_half_of_the_bytes_in_unused_credits_at_most_however_many_slots_there_are() {
    let (payload_bytes_max, jobs_bytes_max) = (1 << 20, 64 << 20);
    let config = IntakeConfig { payload_bytes_max, jobs_bytes_max, ..config(1, 199) };
    let mut credits = Credits::new(&config);
    let large = Demand { payload_bytes: 1 << 20, ..pinned(u32::MAX) };
    credits.handle_demand(at(0), A, large);
    credits.grant(at(0), here(0));
    assert_eq!(credits.promised(), Promised { slots: 32, bytes: 32 << 20 });
    credits.handle_demand(at(0), B, Demand { share: 1, ..large });
    credits.grant(at(0), here(0));
    assert_eq!(credits.promised().slots, 33);
}

#[test]
fn who_uses_what_it_has_gets_more() {
    let mut credits = credits(1, 9);
    credits.handle_demand(at(0), A, pinned(10));
    credits.grant(at(0), here(0));
    for jobs in 1..=10 {
        assert!(claim(&mut credits, at(1), A, 0), "the {jobs}th");
        credits.handle_taken(A, 1);
        credits.handle_share(at(1), A, pinned(10 - jobs));
        credits.grant(at(1), here(jobs));
    }
}

#[test]
fn who_has_no_credit_that_is_large_enough_gets_one_all_the_same() {
    let mut credits = small();
    credits.handle_demand(at(0), A, pinned(10));
    credits.grant(at(0), here(0));
    assert_eq!(credits.promised(), Promised { slots: 5, bytes: 1000 });
    let large = Demand { payload_bytes: 900, ..pinned(10) };
    credits.handle_demand(at(0), A, large);
    assert_eq!(credits.accounts.wanted(), 1);
    credits.grant(at(0), here(0));
    assert_eq!(credits.promised(), Promised { slots: 6, bytes: 1900 });
    credits.handle_demand(at(0), A, large);
    assert_eq!(credits.accounts.wanted(), 0);
}

#[test]
fn who_wants_more_than_an_eighth_of_the_slots_is_to_use_them_soon() {
    for (share, lifetime_ms) in [(8, 1200), (9, 1000), (64, 1000)] {
        let mut credits = credits(4, 60);
        credits.handle_demand(at(0), A, pinned(share));
        credits.grant(at(0), here(0));
        let told = told(&mut credits, at(0));
        assert_eq!((told.len(), told[0].1.lifetime_ms), (1, lifetime_ms), "{share}");
    }
}

#[test]
fn credits_that_last_longer_than_others_are_told_apart() {
    let mut credits = credits(1, 9);
    for share in [1, 2] {
        credits.handle_demand(at(0), A, want(share));
        credits.grant(at(0), here(0));
    }
    let told = told(&mut credits, at(0)).into_iter();
    let told: Vec<_> = told.map(|(_, grant)| (grant.credits, grant.lifetime_ms)).collect();
    assert_eq!(told, [(1, 1200), (2, 1000)]);
}

#[test]
fn what_very_many_slots_were_promised_for_is_void_in_no_time() {
    let mut credits = credits(1, 65_000);
    for sender in [A, B] {
        credits.handle_demand(at(0), sender, pinned(u32::MAX));
        credits.grant(at(0), here(0));
    }
    assert!(credits.promised().slots > 65_000);
    let since = Clock.now();
    [A, B].into_iter().for_each(|sender| credits.void(sender));
    assert_eq!(credits.promised(), Promised::default());
    // In proportion to the square it takes seconds.
    let took = Clock.now().since(since);
    assert!(took < ms(1000), "{took:?}");
}
