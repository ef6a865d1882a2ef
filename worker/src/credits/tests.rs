use svcmap_proto::jobs::Priority;

use super::*;
use crate::testing::*;

mod greed;
mod model;
mod offers;
mod standing;

// Not so long that a message takes no time beside it.
const MEAN: Duration = ms(40);

fn config(concurrency: u32, queue: u32) -> IntakeConfig {
    IntakeConfig { concurrency, queue, ..IntakeConfig::default() }
}

fn credits(concurrency: u32, queue: u32) -> Credits {
    Credits::new(&config(concurrency, queue))
}

/// Ten slots of 200 bytes, for payloads of up to 1000.
fn small() -> Credits {
    Credits::new(&IntakeConfig { payload_bytes_max: 1000, jobs_bytes_max: 2000, ..config(1, 9) })
}

fn here(jobs: u32) -> Occupancy {
    Occupancy { jobs, bytes: 0, mean_service: Some(MEAN) }
}

fn want(share: u32) -> Demand {
    Demand { share, ..Demand::default() }
}

fn sender(number: usize) -> SenderId {
    SenderId(number as u128)
}

const A: SenderId = SenderId(1);
const B: SenderId = SenderId(2);
const C: SenderId = SenderId(3);
const D: SenderId = SenderId(4);

/// All that is to be told.
fn told(credits: &mut Credits, now: Timestamp) -> Vec<(SenderId, Grant)> {
    std::iter::from_fn(|| {
        let sender = credits.poll_untold()?;
        Some((sender, credits.take_untold(now, sender).unwrap()))
    })
    .collect()
}

/// Who gets a credit, with room for one.
fn next(credits: &mut Credits) -> Vec<SenderId> {
    next_at(credits, at(0))
}

fn next_at(credits: &mut Credits, now: Timestamp) -> Vec<SenderId> {
    let jobs = credits.slots - credits.promised().slots - 1;
    // Jobs take no time, so only the slots count.
    credits.grant(now, Occupancy { mean_service: Some(Duration::ZERO), ..here(jobs) });
    told(credits, now).into_iter().map(|(sender, _)| sender).collect()
}

fn recalls(credits: &mut Credits) -> Vec<SenderId> {
    std::iter::from_fn(|| credits.poll_recall()).collect()
}

/// A job on a credit, which did not wait for it.
fn claim(credits: &mut Credits, now: Timestamp, sender: SenderId, bytes: usize) -> bool {
    credits.claim(now, sender, Claim::Credit, bytes, Duration::ZERO)
}

#[test]
fn who_has_fewest_jobs_and_unused_credits_comes_first_and_then_who_waits_longest() {
    let mut credits = credits(1, 20);
    credits.handle_demand(at(0), B, want(1));
    assert_eq!(next(&mut credits), [B]);
    (0..2).for_each(|_| credits.handle_taken(A, 1));
    for (sender, share, waited_us) in [(A, 1, 900), (B, 1, 10), (C, 2, 1), (D, 1, 2)] {
        credits.handle_demand(at(1), sender, Demand { waited_us, ..want(share) });
    }
    let order: Vec<_> = (0..6).flat_map(|_| next(&mut credits)).collect();
    assert_eq!(order, [D, C, B, C, A]);
}

#[test]
fn who_waits_with_a_job_of_a_higher_priority_comes_before_all_others() {
    let mut credits = credits(1, 20);
    (0..5).for_each(|_| credits.handle_taken(C, 1));
    for (sender, share, priority) in
        [(A, 2, Priority::Low), (B, 2, Priority::Normal), (C, 2, Priority::High)]
    {
        credits.handle_demand(at(1), sender, Demand { priority, ..want(share) });
    }
    let mut order = next(&mut credits);
    // Its next job is one of low priority.
    let low = Demand { priority: Priority::Low, ..want(1) };
    credits.handle_demand(at(2), C, low);
    order.extend((0..5).flat_map(|_| next(&mut credits)));
    assert_eq!(order, [C, B, B, A, A, C]);
}

#[test]
fn who_has_many_jobs_takes_turns_with_who_came_later_and_has_few() {
    let mut credits = credits(1, 20);
    credits.handle_demand(at(0), A, want(9));
    credits.handle_demand(at(5), B, want(2));
    let mut order = Vec::new();
    for round in 0..6 {
        let now = at(10 + 10 * round);
        for sender in next_at(&mut credits, now) {
            assert!(claim(&mut credits, now, sender, 1));
            credits.handle_taken(sender, 1);
            credits.handle_ended(sender);
            order.push(sender);
        }
    }
    assert_eq!(order, [A, B, A, B, A, A]);
}

#[test]
fn who_asks_for_less_or_whose_job_ends_keeps_its_place() {
    let mut credits = credits(1, 20);
    credits.handle_taken(A, 1);
    credits.handle_demand(at(5), A, want(1));
    credits.handle_demand(at(6), B, want(1));
    credits.handle_ended(A);
    assert_eq!(next(&mut credits), [A]);
    credits.handle_demand(at(7), C, want(1));
    credits.handle_demand(at(8), B, want(0));
    assert_eq!(credits.accounts.wanted(), 1);
    assert_eq!(next(&mut credits), [C]);
    assert_eq!(next(&mut credits), []);
}

#[test]
fn a_demand_replaces_the_one_before_and_is_cut_at_half_of_the_slots() {
    let mut credits = credits(1, 8);
    credits.handle_demand(at(0), A, want(u32::MAX));
    credits.handle_demand(at(0), B, want(3));
    assert_eq!(credits.accounts.wanted(), 8);
    credits.handle_demand(at(0), A, want(1));
    assert_eq!(credits.accounts.wanted(), 4);
}

#[test]
fn a_share_counts_beside_the_credits_that_are_unused() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), A, want(1));
    assert_eq!(next(&mut credits), [A]);
    credits.handle_share(at(0), A, want(3));
    assert_eq!(credits.accounts.wanted(), 2);
    credits.handle_share(at(0), A, want(1));
    assert_eq!(credits.accounts.wanted(), 0);
}

#[test]
fn no_more_is_granted_than_keeps_the_queue_short() {
    let mut credits = credits(2, 20);
    credits.handle_demand(at(0), A, want(22));
    credits.grant(at(0), here(5));
    assert_eq!(credits.promised().slots, 0);
    // Two that run, one on the way, and two against chance.
    credits.grant(at(0), here(3));
    assert_eq!(credits.promised().slots, 2);
    credits.grant(at(0), here(3));
    assert_eq!(credits.promised().slots, 2);
    let stale = at(0) + FRESH_WAYS * WAY_FIRST;
    assert_eq!(credits.poll_timeout(), Some(stale));
    credits.grant(stale.before(Duration::from_micros(1)), here(3));
    assert_eq!(credits.promised().slots, 2);
    // What did not come by now is not counted on.
    credits.grant(stale, here(3));
    assert_eq!(credits.promised().slots, 4);
}

#[test]
fn jobs_that_come_take_the_place_of_credits_that_were_fresh() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), A, want(9));
    credits.grant(at(0), here(0));
    assert_eq!(credits.promised().slots, 4);
    (0..4).for_each(|_| assert!(claim(&mut credits, at(0), A, 0)));
    credits.grant(at(0), here(4));
    assert_eq!(credits.promised().slots, 0);
    credits.grant(at(0), here(3));
    assert_eq!(credits.promised().slots, 1);
}

#[test]
fn the_way_is_learnt_from_jobs_that_waited_for_their_credit_and_grants_go_deeper_for_it() {
    let mut credits = credits(4, 60);
    credits.handle_demand(at(0), A, want(2));
    credits.grant(at(0), here(0));
    assert!(claim(&mut credits, at(48), A, 0));
    assert_eq!(credits.way(), WAY_FIRST);
    assert!(credits.claim(at(48), A, Claim::Credit, 0, ms(48)));
    assert_eq!(credits.way(), WAY_FIRST * 7 / 8 + ms(3));
    // The round trip takes 6.35 ms: four handlers do 2.54 jobs meanwhile.
    credits.handle_demand(at(48), A, want(64));
    credits.grant(at(48), Occupancy { mean_service: Some(ms(10)), ..here(0) });
    assert_eq!(credits.promised().slots, 4 + 3 + 2);
}

#[test]
fn who_stood_still_says_little_of_the_way() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), A, want(1));
    credits.grant(at(0), here(0));
    assert!(credits.claim(at(2000), A, Claim::Credit, 0, ms(2000)));
    assert_eq!(credits.way(), WAY_FIRST * 7 / 8 + ms(100) / 8);
}

#[test]
fn a_pinned_demand_is_held_by_the_slots_alone() {
    let mut credits = credits(1, 9);
    credits.handle_demand(at(0), A, want(1));
    credits.grant(at(0), here(8));
    assert_eq!(credits.promised().slots, 0);
    credits.handle_demand(at(0), A, Demand { pinned: true, ..want(9) });
    credits.grant(at(0), here(8));
    assert_eq!(credits.promised().slots, 2);
}

#[test]
fn a_credit_lapses_later_than_its_owner_knows() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), A, want(1));
    credits.grant(at(0), here(0));
    let (_, grant) = told(&mut credits, at(500))[0];
    assert_eq!(grant.lifetime_ms, 700);
    assert_eq!(credits.poll_timeout(), Some(at(1300)));
    credits.handle_timeout(at(1299));
    assert_eq!(credits.promised().slots, 1);
    credits.handle_timeout(at(1300));
    assert_eq!(credits.promised(), Promised::default());
    assert!(!claim(&mut credits, at(1300), A, 0));
    assert_eq!(credits.poll_timeout(), None);
}

#[test]
fn a_credit_lives_for_a_second_to_a_minute() {
    for (mean, lifetime_ms) in [(ms(1), 1000), (ms(50), 1500), (ms(10_000), 60_000)] {
        let mut credits = credits(1, 10);
        credits.handle_demand(at(0), A, want(1));
        credits.grant(at(0), Occupancy { mean_service: Some(mean), ..here(0) });
        assert_eq!(told(&mut credits, at(0))[0].1.lifetime_ms, lifetime_ms);
    }
}

#[test]
fn a_credit_that_was_given_later_can_lapse_sooner() {
    let mut credits = credits(1, 10);
    for (sender, mean) in [(A, ms(10_000)), (B, ms(1))] {
        credits.handle_demand(at(0), sender, want(1));
        credits.grant(at(0), Occupancy { mean_service: Some(mean), ..here(0) });
    }
    assert_eq!(credits.poll_timeout(), Some(at(1100)));
    credits.handle_timeout(at(1100));
    assert_eq!(credits.promised().slots, 1);
    assert!(claim(&mut credits, at(1100), A, 0) && !claim(&mut credits, at(1100), B, 0));
}

#[test]
fn the_longer_the_way_the_longer_a_credit_outlives_what_its_owner_knows() {
    let mut credits = credits(1, 10);
    for _ in 0..20 {
        credits.handle_demand(at(0), A, want(1));
        credits.grant(at(0), here(0));
        assert!(credits.claim(at(800), A, Claim::Credit, 0, ms(800)));
    }
    let margin = 8 * credits.way();
    assert!(margin > ms(400));
    credits.handle_demand(at(1000), A, want(1));
    credits.grant(at(1000), here(0));
    assert_eq!(told(&mut credits, at(1000))[0].1.lifetime_ms, 1200);
    credits.handle_demand(at(1000), A, want(0));
    assert_eq!(credits.poll_timeout(), Some(at(2200) + margin));
}

#[test]
fn a_suspension_extends_every_promise() {
    let mut credits = credits(1, 10);
    let (offer, _) = credits.offer(at(0), here(0)).unwrap();
    credits.grant_standing(at(0), here(0), A);
    credits.handle_suspension(ms(50_000));
    credits.handle_timeout(at(50_189));
    assert!(credits.has_offered());
    credits.handle_timeout(at(50_190));
    assert!(!credits.has_offered() && !credits.cancel_offer(offer));
    credits.handle_timeout(at(51_299));
    assert_eq!(credits.promised().slots, 1);
    credits.handle_timeout(at(51_300));
    assert_eq!(credits.promised().slots, 0);
}

#[test]
fn a_drain_makes_void_what_was_promised_and_nothing_is_promised_after_it() {
    let mut credits = credits(1, 10);
    let (offer, _) = credits.offer(at(0), here(0)).unwrap();
    credits.handle_demand(at(0), A, want(20));
    credits.grant(at(0), here(0));
    credits.drain();
    assert_eq!((credits.promised(), credits.accounts.wanted()), (Promised::default(), 0));
    assert_eq!(credits.poll_untold(), None);
    assert!(!claim(&mut credits, at(0), A, 0) && !credits.cancel_offer(offer));
    credits.handle_demand(at(1), A, Demand { pinned: true, ..want(1) });
    credits.handle_share(at(1), B, want(1));
    credits.grant(at(1), here(0));
    credits.grant_standing(at(1), here(0), A);
    assert_eq!(credits.offer(at(1), here(0)), None);
    assert_eq!((credits.promised(), credits.accounts.wanted()), (Promised::default(), 0));
}

#[test]
fn what_is_void_is_that_senders_alone() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), A, want(1));
    credits.handle_demand(at(0), B, want(1));
    credits.grant(at(0), here(0));
    credits.handle_demand(at(0), A, want(5));
    credits.void(A);
    assert_eq!((credits.promised().slots, credits.accounts.wanted()), (1, 0));
    assert!(!claim(&mut credits, at(0), A, 0));
    assert_eq!(told(&mut credits, at(0)).len(), 1);
    assert!(claim(&mut credits, at(0), B, 0));
}

#[test]
fn a_credit_for_a_large_payload_reserves_it_and_the_bytes_are_never_exceeded() {
    let mut credits = small();
    credits.handle_demand(at(0), A, Demand { payload_bytes: 700, ..want(1) });
    credits.handle_demand(at(0), B, Demand { payload_bytes: 5000, ..want(1) });
    credits.handle_demand(at(1), C, Demand { payload_bytes: 1, ..want(1) });
    credits.grant(at(1), Occupancy { bytes: 101, ..here(1) });
    let sizes: Vec<_> = told(&mut credits, at(1))
        .iter()
        .map(|(to, grant)| (*to, grant.payload_bytes_max))
        .collect();
    // Nobody may send more than the limit, whatever it asks for.
    assert_eq!(sizes, [(A, 700), (B, 1000)]);
    assert_eq!(credits.promised(), Promised { slots: 2, bytes: 1700 });
    credits.grant(at(1), Occupancy { bytes: 100, ..here(1) });
    assert_eq!(told(&mut credits, at(1))[0].1.payload_bytes_max, 200);
    assert_eq!(credits.promised(), Promised { slots: 3, bytes: 1900 });
}

#[test]
fn a_job_takes_the_oldest_credit_that_is_enough_for_it() {
    let mut credits = small();
    for payload_bytes in [0, 1000, 0] {
        credits.handle_demand(at(0), A, Demand { payload_bytes, ..want(1) });
        credits.grant(at(0), here(0));
    }
    assert!(!claim(&mut credits, at(0), A, 1001) && !claim(&mut credits, at(0), B, 0));
    assert!(claim(&mut credits, at(0), A, 201));
    assert_eq!(credits.promised(), Promised { slots: 2, bytes: 400 });
    assert!(!claim(&mut credits, at(0), A, 201));
    assert!(claim(&mut credits, at(0), A, 200) && claim(&mut credits, at(0), A, 0));
    assert!(!credits.claim(at(0), A, Claim::Nothing, 0, Duration::ZERO));
}

#[test]
fn a_returned_credit_is_the_oldest_and_its_slot_is_free() {
    let mut credits = small();
    for payload_bytes in [1000, 0] {
        credits.handle_demand(at(0), A, Demand { payload_bytes, ..want(1) });
        credits.grant(at(0), here(0));
    }
    credits.handle_return(A, Claim::Nothing);
    credits.handle_return(B, Claim::Credit);
    assert_eq!(credits.promised().slots, 2);
    credits.handle_return(A, Claim::Credit);
    assert_eq!(credits.promised(), Promised { slots: 1, bytes: 200 });
}

#[test]
fn what_was_granted_is_told_once_and_by_size() {
    let mut credits = small();
    for (share, payload_bytes) in [(2, 0), (1, 900)] {
        credits.handle_demand(at(0), A, Demand { payload_bytes, ..want(share) });
        credits.grant(at(0), here(0));
    }
    credits.handle_demand(at(0), B, want(1));
    credits.grant(at(0), here(0));
    let grant =
        |credits, lifetime_ms, payload_bytes_max| Grant { credits, lifetime_ms, payload_bytes_max };
    // The third is one too many to stand for long.
    assert_eq!(
        told(&mut credits, at(0)),
        [(A, grant(2, 1200, 200)), (A, grant(1, 1000, 900)), (B, grant(1, 1200, 200))]
    );
    assert_eq!(credits.take_untold(at(0), A), None);
    assert_eq!(credits.promised().slots, 4);
}

#[test]
fn a_claim_before_the_word_of_it_leaves_nothing_to_tell() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), A, want(2));
    credits.grant(at(0), here(0));
    assert!(claim(&mut credits, at(0), A, 0));
    assert_eq!(told(&mut credits, at(0))[0].1.credits, 1);
    credits.grant_standing(at(0), here(0), B);
    credits.handle_return(B, Claim::Credit);
    assert_eq!((credits.poll_untold(), credits.take_untold(at(0), B)), (None, None));
}

#[test]
fn without_a_queue_what_runs_is_all_that_is_promised() {
    let mut credits = credits(2, 0);
    [A, B].into_iter().for_each(|sender| credits.handle_demand(at(0), sender, want(1)));
    credits.grant(at(0), here(2));
    assert_eq!(credits.promised().slots, 0);
    credits.grant(at(0), here(0));
    assert_eq!((credits.promised().slots, credits.accounts.wanted()), (2, 0));
}

#[test]
fn of_far_more_senders_than_slots_everybody_gets_its_turn() {
    const SENDERS: usize = 128;
    let mut credits = credits(1, 0);
    let mut since = [at(0); SENDERS];
    (0..SENDERS).for_each(|number| credits.handle_demand(at(0), sender(number), want(1)));
    let mut turns = [0; SENDERS];
    for turn in 0..3 * SENDERS {
        let now = at(100 * (turn as u64 + 1));
        credits.handle_timeout(now);
        credits.grant(now, here(0));
        let [(to, Grant { credits: 1, .. })] = told(&mut credits, now)[..] else {
            panic!("not one credit in turn {turn}");
        };
        let number = to.0 as usize;
        turns[number] += 1;
        assert_eq!(turns[number], turn / SENDERS + 1, "{number} comes twice before others");
        let waited = now.since(since[number]);
        assert!(credits.claim(now, to, Claim::Credit, 0, waited));
        credits.handle_taken(to, 1);
        since[number] = now;
        credits.handle_share(now, to, want(1));
        credits.grant(now, here(1));
        assert_eq!(credits.promised().slots, 0);
        credits.handle_ended(to);
    }
    assert_eq!(turns, [3; SENDERS]);
}
