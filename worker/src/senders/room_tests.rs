//! Room for one more sender.

use super::*;
use crate::testing::{self, at, attempt};

/// A connection of its own for each sender, unless said otherwise.
fn connection(number: u32) -> Connection {
    Connection::from(number.to_be_bytes().to_vec())
}

fn greet_on(
    senders: &mut Senders,
    now: Timestamp,
    on: u32,
    number: u32,
) -> Result<HelloAnswer, Unwelcome> {
    let hello = SenderHello { sender: SenderId(number.into()), ..crate::testing::hello() };
    senders.handle_hello(now, connection(on), &hello, &BTreeSet::new())
}

fn greet(senders: &mut Senders, now: Timestamp, number: u32) -> Result<HelloAnswer, Unwelcome> {
    greet_on(senders, now, number, number)
}

fn id(number: u32) -> SenderId {
    SenderId(number.into())
}

fn knows(senders: &Senders, number: u32) -> bool {
    senders.senders.contains_key(&id(number))
}

/// A job of that sender comes.
fn job(senders: &mut Senders, number: u32) {
    assert_eq!(senders.handle_jobs(id(number), &testing::job(1, attempt(1), 1000).batch()), 0);
}

fn end(senders: &mut Senders, number: u32, bytes: usize) {
    let (verdict, here, payload) = (Verdict::Done, Duration::ZERO, vec![0; bytes].into());
    let ended = Ended { verdict, here, ran: here, payload, wanted_until: at(9000) };
    senders.push(id(number), attempt(1), ended);
}

fn parted(senders: &mut Senders) -> Vec<SenderId> {
    std::iter::from_fn(|| senders.poll_parted()).collect()
}

fn with_room_for(most: usize) -> Senders {
    Senders { senders_max: most, ..Senders::new(&super::tests::config(100)) }
}

#[test]
fn any_number_of_senders_that_have_nothing_here_shut_out_nobody() {
    let mut senders = Senders::new(&super::tests::config(100));
    let newcomers = 2 * SENDERS_MAX as u32;
    for number in 0..newcomers {
        assert!(greet(&mut senders, at(number.into()), number).is_ok(), "the {number}th");
    }
    assert_eq!(senders.senders.len(), SENDERS_MAX);
    assert_eq!(senders.connections.iter().count(), SENDERS_MAX);
    assert_eq!(senders.idle.first(), Some((id(newcomers / 2), at((newcomers / 2).into()))));
    assert_eq!((senders.turned_away(), parted(&mut senders).len()), (0, SENDERS_MAX));
}

#[test]
fn who_has_no_connection_goes_first_and_then_who_was_silent_for_longest() {
    let mut senders = with_room_for(3);
    (1..=3).for_each(|number| assert!(greet(&mut senders, at(number.into()), number).is_ok()));
    assert_eq!(senders.sender(at(4), &connection(1)), Some(id(1)));
    assert_eq!(senders.handle_gone(&connection(3)), Some(id(3)));
    let mut gone = |number| {
        assert!(greet(&mut senders, at(10), number).is_ok());
        parted(&mut senders)
    };
    assert_eq!(gone(11), [id(3)]);
    assert_eq!(gone(12), [id(2)]);
    assert_eq!(gone(13), [id(1)]);
    // It says HELLO again, as what it says comes from nobody.
    assert_eq!(senders.sender(at(11), &connection(1)), None);
}

#[test]
fn where_everybody_has_something_the_newcomer_is_turned_away_and_counted() {
    let mut senders = with_room_for(2);
    (1..=2).for_each(|number| assert!(greet(&mut senders, at(0), number).is_ok()));
    job(&mut senders, 1);
    job(&mut senders, 2);
    end(&mut senders, 2, 1);
    senders.handle_gone(&connection(2));
    assert_eq!(greet(&mut senders, at(1), 3), Err(Unwelcome::TurnedAway));
    assert_eq!((senders.turned_away(), knows(&senders, 3)), (1, false));
    // Those that are known may come and go.
    assert!(greet(&mut senders, at(2), 1).is_ok());
    // An outcome that arrived is no reason to stay.
    senders.acknowledge(id(2), 1);
    assert!(greet(&mut senders, at(3), 3).is_ok());
    assert!(!knows(&senders, 2) && knows(&senders, 1));
}

#[test]
fn who_may_ask_for_an_outcome_that_was_dropped_stays_until_it_can_no_more() {
    let mut senders = with_room_for(2);
    (1..=2).for_each(|number| assert!(greet(&mut senders, at(0), number).is_ok()));
    [1, 2].into_iter().for_each(|number| job(&mut senders, number));
    end(&mut senders, 1, 80);
    end(&mut senders, 2, 80);
    senders.acknowledge(id(2), 1);
    job_again(&mut senders, 2);
    assert_eq!(greet(&mut senders, at(10), 3), Err(Unwelcome::TurnedAway));
    let until = at(9000) + RETAIN_SLACK;
    assert_eq!(greet(&mut senders, until.before(Duration::from_millis(1)), 3).ok(), None);
    assert!(greet(&mut senders, until, 3).is_ok());
    assert!(!knows(&senders, 1));
}

/// Another one, which stays.
fn job_again(senders: &mut Senders, number: u32) {
    assert_eq!(senders.handle_jobs(id(number), &testing::job(2, attempt(2), 1000).batch()), 0);
}

#[test]
fn a_connection_that_speaks_for_one_after_another_leaves_nothing_behind() {
    let mut senders = Senders::new(&super::tests::config(100));
    let mut turned_away = 0;
    for number in 0..1000 {
        let answer = greet_on(&mut senders, at(0), 1, number);
        turned_away += u64::from(answer == Err(Unwelcome::TurnedAway));
        assert_eq!(senders.senders.len(), 1);
    }
    assert_eq!((turned_away, senders.turned_away()), (992, 992));
    assert_eq!(senders.sender(at(1), &connection(1)), Some(id(7)));
    assert_eq!(parted(&mut senders).len(), 7);
    // The one that it speaks for is not concerned, nor are other connections, nor is it later.
    assert!(greet_on(&mut senders, at(2), 1, 7).is_ok());
    assert!(greet_on(&mut senders, at(3), 2, 2000).is_ok());
    assert!(greet_on(&mut senders, at(9999), 1, 2001).is_err());
    assert!(greet_on(&mut senders, at(10_000), 1, 2001).is_ok());
}

#[test]
fn who_lost_its_connection_to_another_stays_while_it_has_something() {
    let mut senders = Senders::new(&super::tests::config(100));
    assert!(greet_on(&mut senders, at(0), 1, 1).is_ok());
    job(&mut senders, 1);
    assert!(greet_on(&mut senders, at(1), 1, 2).is_ok());
    assert_eq!((knows(&senders, 1), senders.connection(id(1))), (true, None));
    assert_eq!(parted(&mut senders), [id(1)]);
    end(&mut senders, 1, 1);
    assert!(greet_on(&mut senders, at(2), 3, 1).is_ok());
    assert_eq!(senders.poll_delivery().map(|delivery| delivery.to), Some(connection(3)));
}
