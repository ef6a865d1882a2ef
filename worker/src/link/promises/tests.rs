use svcmap_proto::jobs::FromWorker;
use svcmap_proto::load::{Load, State};
use svcmap_proto::names::Incarnation;

use super::super::{Attempt, Identity, Timing};
use super::*;
use crate::config::SLOTS_MAX;
use crate::testing::*;

fn new() -> Link {
    let identity = Identity { sender: SENDER, result_bytes_max: 100, takes_credits: true };
    let timing = Timing { beat: ms(100), expiry: ms(300), idle: ms(60_000) };
    Link::new(at(0), identity, key(), Incarnation(1), timing)
}

fn welcome(link: &mut Link, connection: u32) {
    let welcome = FromWorker::Welcome {
        connection,
        received_jobs: 0,
        payload_bytes_max: 1000,
        load: Load::default(),
        forgotten: Vec::new(),
    };
    link.handle_message(at(0), welcome);
}

fn ready() -> Link {
    let mut link = new();
    link.handle_writable(at(0));
    welcome(&mut link, 1);
    sent(&mut link);
    link
}

fn grant(link: &mut Link, now: Timestamp, credits: u32, payload_bytes_max: u32) {
    let grant = Grant { credits, lifetime_ms: 1000, payload_bytes_max };
    let load = Load::default();
    link.handle_message(now, FromWorker::Grant { grant, received_jobs: 0, load });
}

fn recall(link: &mut Link, now: Timestamp) -> Vec<ToWorker> {
    link.handle_message(now, FromWorker::Recall);
    sent(link)
}

fn outputs(link: &mut Link) -> Vec<LinkOutput> {
    std::iter::from_fn(|| link.poll_output()).collect()
}

/// What it says, but for HELLO.
fn sent(link: &mut Link) -> Vec<ToWorker> {
    let message = |output| match output {
        LinkOutput::Send(ToWorker::Hello(_)) => None,
        LinkOutput::Send(message) => Some(message),
        _ => None,
    };
    outputs(link).into_iter().filter_map(message).collect()
}

fn on_credit(job: u64, payload_bytes: usize) -> Attempt {
    Attempt { claim: Claim::Credit, ..unclaimed(attempt(job), at(90_000), payload_bytes) }
}

fn want(share: u32) -> Demand {
    Demand { share, ..Demand::default() }
}

const RETURN: ToWorker = ToWorker::Return(Claim::Credit);

#[test]
fn a_credit_counts_until_it_lapses_and_for_what_it_is_enough() {
    let mut link = ready();
    assert!(!link.has_credits());
    grant(&mut link, at(100), 2, 50);
    assert!(outputs(&mut link).contains(&LinkOutput::Granted { credits: 2 }));
    assert!(link.has_credit_for(at(1099), 50));
    assert!(!link.has_credit_for(at(1099), 51));
    assert!(!link.has_credit_for(at(1100), 50));
}

#[test]
fn a_job_takes_the_oldest_credit_that_is_enough_for_it_and_has_not_lapsed() {
    let mut link = ready();
    grant(&mut link, at(0), 1, 500);
    grant(&mut link, at(500), 1, 50);
    grant(&mut link, at(600), 2, 500);
    link.assign(at(700), on_credit(1, 51));
    // That took the one that lapses first.
    assert!(link.has_credit_for(at(1599), 51));
    link.assign(at(1500), on_credit(2, 10));
    link.assign(at(1500), on_credit(3, 10));
    assert!(!link.has_credit_for(at(1500), 0) && !link.has_credits());
}

#[test]
fn who_is_asked_for_a_credit_returns_an_unused_one_or_says_nothing() {
    let mut link = ready();
    assert_eq!(recall(&mut link, at(0)), []);
    grant(&mut link, at(0), 2, 50);
    link.assign(at(0), on_credit(1, 0));
    sent(&mut link);
    assert_eq!(recall(&mut link, at(1)), [RETURN]);
    assert!(!link.has_credits());
    assert_eq!(recall(&mut link, at(1)), []);
}

#[test]
fn one_that_has_lapsed_is_not_returned_in_place_of_one_that_stands() {
    let mut link = ready();
    grant(&mut link, at(0), 1, 50);
    grant(&mut link, at(900), 1, 50);
    // The worker, which has but one left, would take back that one.
    assert_eq!(recall(&mut link, at(1200)), [RETURN]);
    assert!(!link.has_credit_for(at(1200), 0));
    grant(&mut link, at(1300), 1, 50);
    assert_eq!(recall(&mut link, at(2300)), []);
}

#[test]
fn with_its_connection_a_credit_is_lost_and_what_was_asked_for_is_forgotten() {
    let mut link = ready();
    link.ask(at(0), want(5));
    grant(&mut link, at(0), 2, 50);
    assert_eq!(sent(&mut link), [ToWorker::Ask(want(5))]);
    // It owes an outcome, or the link would be closed.
    link.assign(at(0), on_credit(1, 0));
    link.set_share(3, Priority::Normal);
    sent(&mut link);
    link.handle_unwritable(at(1));
    assert!(!link.has_credits());
    grant(&mut link, at(1), 1, 50);
    link.handle_writable(at(2));
    assert_eq!(sent(&mut link), [], "others were asked meanwhile");
    grant(&mut link, at(2), 1, 50);
    assert_eq!(recall(&mut link, at(2)), []);
    assert!(!link.has_credits(), "that was granted before HELLO came");
    welcome(&mut link, 2);
    grant(&mut link, at(3), 1, 50);
    assert!(link.has_credits());
}

#[test]
fn a_worker_that_wants_to_be_greeted_again_has_promised_nothing() {
    let mut link = ready();
    grant(&mut link, at(0), 1, 50);
    link.ask(at(0), want(2));
    sent(&mut link);
    link.handle_message(at(1), FromWorker::HelloWanted);
    assert!(!link.has_credits());
    assert_eq!(sent(&mut link), [ToWorker::Ask(want(2))]);
}

#[test]
fn what_is_asked_before_there_is_a_connection_follows_the_greeting_once() {
    let mut link = new();
    link.ask(at(0), want(0));
    link.ask(at(0), want(2));
    assert_eq!(outputs(&mut link), []);
    link.handle_writable(at(0));
    assert_eq!(sent(&mut link), [ToWorker::Ask(want(2))]);
    link.ask(at(0), want(3));
    assert_eq!(sent(&mut link), [ToWorker::Ask(want(3))]);
    welcome(&mut link, 1);
    assert_eq!(sent(&mut link), []);
}

#[test]
fn nothing_is_cancelled_that_was_not_asked_for_or_has_been_granted() {
    let mut link = ready();
    link.ask(at(0), want(0));
    assert_eq!(sent(&mut link), []);
    link.ask(at(0), want(2));
    link.ask(at(0), want(0));
    assert_eq!(sent(&mut link), [ToWorker::Ask(want(2)), ToWorker::Ask(want(0))]);
    link.ask(at(0), want(2));
    grant(&mut link, at(0), 2, 50);
    sent(&mut link);
    link.ask(at(0), want(0));
    assert_eq!(sent(&mut link), []);
}

#[test]
fn what_was_read_after_a_suspension_may_have_lapsed_in_it() {
    let mut link = ready();
    grant(&mut link, at(5000), 1, 50);
    link.handle_suspension(at(5000), ms(400));
    assert!(link.has_credit_for(at(5599), 0));
    assert!(!link.has_credit_for(at(5600), 0));
    link.handle_suspension(at(5000), ms(5000));
    assert!(!link.has_credit_for(at(5000), 0));
}

#[test]
fn a_worker_that_drains_or_is_gone_has_promised_nothing() {
    let mut link = ready();
    grant(&mut link, at(0), 1, 50);
    let load = Load { state: State::Draining, ..Load::default() };
    link.handle_message(at(1), FromWorker::Pong { received_jobs: 0, load });
    assert!(!link.has_credits());
    let mut link = ready();
    grant(&mut link, at(0), 1, 50);
    link.handle_ended(at(1));
    assert!(!link.has_credits());
    let mut link = ready();
    link.ask(at(0), want(2));
    link.handle_unwritable(at(1));
    link.reopen(at(2));
    sent(&mut link);
    link.handle_writable(at(2));
    assert_eq!(sent(&mut link), [], "it is another time, with other jobs");
}

#[test]
fn what_was_granted_before_a_job_told_that_no_more_is_wanted_is_on_its_way() {
    let mut link = ready();
    let job = |link: &mut Link, number, share| {
        link.assign(at(0), on_credit(number, 0));
        link.set_share(share, Priority::Normal);
        sent(link);
    };
    link.ask(at(0), want(5));
    job(&mut link, 1, 3);
    assert!(!link.may_be_promised(), "it is asked for");
    job(&mut link, 2, 0);
    job(&mut link, 3, 0);
    for (received_jobs, may_be) in [(1, true), (2, false)] {
        let load = Load::default();
        link.handle_message(at(1), FromWorker::Pong { received_jobs, load });
        assert_eq!(link.may_be_promised(), may_be);
    }
    link.ask(at(0), want(1));
    job(&mut link, 4, 0);
    link.handle_unwritable(at(2));
    assert!(!link.may_be_promised(), "HELLO makes it void");
    let mut closed = ready();
    closed.ask(at(0), want(1));
    closed.handle_unwritable(at(2));
    assert!(closed.is_closed() && !closed.may_be_promised());
}

#[test]
fn a_slot_is_offered_and_returned_only_on_a_connection() {
    let slot = OfferedSlot {
        instance: name("b"),
        incarnation: Incarnation(2),
        offer: OfferId(7),
        lifetime_ms: 100,
        payload_bytes_max: 50,
    };
    let mut link = new();
    assert!(!link.offer(slot.clone()));
    link.return_offer(OfferId(7));
    assert_eq!(outputs(&mut link), []);
    let mut link = ready();
    assert!(link.offer(slot.clone()));
    link.return_offer(OfferId(7));
    let returned = ToWorker::Return(Claim::Offer(OfferId(7)));
    assert_eq!(sent(&mut link), [ToWorker::Offer(slot.clone()), returned]);
    link.handle_message(at(0), FromWorker::Offered(slot.clone()));
    link.handle_message(at(0), FromWorker::Declined(OfferId(8)));
    let told = [LinkOutput::Offered(slot), LinkOutput::Declined(OfferId(8))];
    assert_eq!(outputs(&mut link), told);
}

#[test]
fn few_credits_are_returned_one_by_one_and_many_by_a_greeting() {
    let mut link = ready();
    grant(&mut link, at(0), 2, 50);
    grant(&mut link, at(0), 1, 60);
    link.return_promises(at(1));
    assert_eq!(sent(&mut link), [RETURN; 3]);
    // Nobody asked for as many.
    for _ in 0..2 {
        grant(&mut link, at(2), u32::MAX, 50);
    }
    assert_eq!(link.credits(at(2), 50), (SLOTS_MAX, SLOTS_MAX));
    outputs(&mut link);
    link.return_promises(at(2));
    let said = outputs(&mut link);
    assert!(matches!(said[..], [LinkOutput::Send(ToWorker::Hello(_))]), "{said:?}");
    assert!(!link.has_credits());
}
