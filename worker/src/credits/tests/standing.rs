//! Credits that nobody asked for, and how they are called back.

use super::*;

#[test]
fn a_standing_credit_is_given_while_there_is_room_beside_what_may_run() {
    for (jobs, given) in [(0, 1), (1, 1), (2, 0), (3, 0)] {
        let mut credits = credits(2, 2);
        credits.grant_standing(at(0), here(jobs), A);
        assert_eq!(credits.promised().slots, given, "{jobs} jobs");
    }
    let mut no_queue = credits(3, 0);
    no_queue.grant_standing(at(0), here(0), A);
    assert_eq!(no_queue.promised().slots, 0);
}

#[test]
fn a_standing_credit_is_one_and_only_while_nobody_waits() {
    let mut credits = credits(1, 10);
    credits.handle_demand(at(0), B, want(1));
    credits.grant_standing(at(0), here(0), A);
    assert_eq!(credits.promised().slots, 0);
    credits.handle_demand(at(0), B, want(0));
    for _ in 0..2 {
        credits.grant_standing(at(0), here(0), A);
        assert_eq!(credits.promised().slots, 1);
    }
    credits.grant_standing(at(0), here(0), B);
    assert_eq!(credits.promised().slots, 2);
}

#[test]
fn standing_credits_are_recalled_once_each_and_as_many_as_are_wanted() {
    let mut credits = credits(1, 3);
    [A, B, C].into_iter().for_each(|sender| credits.grant_standing(at(0), here(0), sender));
    credits.handle_demand(at(1), D, want(1));
    credits.grant(at(1), here(1));
    credits.grant(at(2), here(1));
    assert_eq!(recalls(&mut credits), [A]);
    credits.handle_demand(at(3), D, want(2));
    credits.grant(at(3), here(1));
    assert_eq!(recalls(&mut credits), [B]);
    // One was on its way as a job; that is one less to wait for.
    assert!(claim(&mut credits, at(4), A, 0));
    credits.grant(at(4), here(2));
    assert_eq!(recalls(&mut credits), [C]);
    credits.handle_demand(at(5), D, want(4));
    credits.grant(at(5), here(2));
    assert_eq!(recalls(&mut credits), []);
    credits.handle_return(B, Claim::Credit);
    told(&mut credits, at(5));
    credits.grant(at(6), here(2));
    assert_eq!(told(&mut credits, at(6)).into_iter().map(|(to, _)| to).collect::<Vec<_>>(), [D]);
}

#[test]
fn nothing_is_recalled_while_a_slot_is_left() {
    let mut credits = credits(1, 3);
    credits.grant_standing(at(0), here(0), A);
    credits.handle_demand(at(1), B, want(2));
    credits.handle_demand(at(1), C, want(1));
    credits.grant(at(1), here(0));
    assert_eq!(recalls(&mut credits), []);
    assert_eq!((credits.promised().slots, credits.accounts.wanted()), (4, 0));
    // Those of B and C are on their way there, or their jobs are on theirs.
    credits.handle_demand(at(1), D, want(4));
    credits.grant(at(1), here(0));
    assert_eq!(recalls(&mut credits), [A]);
}

#[test]
fn what_was_asked_for_and_not_used_for_a_while_is_recalled_like_the_rest() {
    let mut credits = credits(1, 2);
    for sender in [A, B, C, D] {
        credits.handle_demand(at(0), sender, want(1));
        credits.grant(at(0), here(0));
    }
    assert_eq!(recalls(&mut credits), []);
    credits.grant(at(99), here(0));
    assert_eq!(recalls(&mut credits), [], "its job may still come");
    assert_eq!(credits.poll_timeout(), Some(at(100)));
    credits.grant(at(100), here(0));
    assert_eq!(recalls(&mut credits), [A]);
}

#[test]
fn one_that_is_not_given_back_in_time_shows_that_its_owner_stands_still() {
    let mut credits = credits(1, 2);
    [A, B, C].into_iter().for_each(|sender| credits.grant_standing(at(0), here(0), sender));
    credits.handle_demand(at(10), D, want(2));
    credits.grant(at(10), here(1));
    assert_eq!(recalls(&mut credits), [A, B]);
    credits.handle_return(B, Claim::Credit);
    let due = at(1110);
    assert_eq!(credits.poll_timeout(), Some(due));
    assert_eq!(credits.poll_unreturned(due.before(ms(1))), None);
    assert_eq!((credits.poll_unreturned(due), credits.poll_unreturned(due)), (Some(A), None));
    credits.void(A);
    credits.grant(due, here(1));
    assert_eq!(credits.promised().slots, 2);
}

#[test]
fn the_time_that_this_process_stood_still_does_not_count_against_who_was_asked() {
    let mut credits = credits(1, 0);
    credits.handle_demand(at(0), A, want(1));
    credits.grant(at(0), here(0));
    credits.handle_demand(at(0), B, want(1));
    credits.grant(at(100), here(0));
    assert_eq!(recalls(&mut credits), [A]);
    credits.handle_suspension(ms(5000));
    assert_eq!(credits.poll_unreturned(at(6199)), None);
    assert_eq!(credits.poll_unreturned(at(6200)), Some(A));
}
