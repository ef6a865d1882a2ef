use super::*;
use crate::testing::{SENDER, at, attempt};

fn hello(connection: u32, received_outcomes: u64) -> SenderHello {
    SenderHello { connection, received_outcomes, ..crate::testing::hello() }
}

pub(super) fn config(results_bytes_max: usize) -> IntakeConfig {
    IntakeConfig { results_bytes_max, payload_bytes_max: 1 << 20, ..IntakeConfig::default() }
}

fn greet(senders: &mut Senders, hello: &SenderHello) {
    let from = Connection::from(vec![1]);
    assert!(senders.handle_hello(at(0), from, hello, &BTreeSet::new()).is_ok());
}

fn end(senders: &mut Senders, job: u64, bytes: usize) {
    let (verdict, here, payload) = (Verdict::Done, Duration::ZERO, vec![0; bytes].into());
    let ended = Ended { verdict, here, ran: here, payload, wanted_until: at(9000) };
    senders.push(SENDER, attempt(job), ended);
}

#[test]
fn the_newest_result_is_sent_however_large_it_is() {
    let mut senders = Senders::new(&config(100));
    greet(&mut senders, &hello(1, 0));
    for job in 1..=2 {
        end(&mut senders, job, 500);
    }
    let sent = senders.poll_delivery().unwrap();
    assert_eq!((sent.outcomes.len(), sent.outcomes[0].attempt), (1, attempt(2)));
    assert!(senders.poll_delivery().is_none() && senders.retained_bytes == 500);
}

#[test]
fn a_sender_that_acknowledges_more_than_anybody_can_have_sent_is_served() {
    let mut senders = Senders::new(&config(100));
    greet(&mut senders, &hello(1, u64::MAX));
    for job in 1..=2 {
        end(&mut senders, job, 1);
        assert!(
            senders.poll_delivery().is_some_and(|sent| sent.outcomes[0].attempt == attempt(job))
        );
        senders.acknowledge(SENDER, u64::MAX);
    }
    greet(&mut senders, &hello(2, u64::MAX));
}

#[test]
fn a_sender_is_sent_no_more_than_it_acknowledges_within_a_window() {
    let mut senders = Senders::new(&config(1 << 26));
    let hello = |connection, received_outcomes| SenderHello {
        payload_bytes_max: 8 << 20,
        ..hello(connection, received_outcomes)
    };
    greet(&mut senders, &hello(1, 0));
    (1..=10).for_each(|job| end(&mut senders, job, 1 << 20));
    let sent = |senders: &mut Senders| -> Vec<u64> {
        std::iter::from_fn(|| senders.poll_delivery()).map(|sent| sent.first_number).collect()
    };
    assert_eq!(sent(&mut senders), [1, 2, 3, 4]);
    // One that could not be sent after all makes room for itself.
    senders.handle_blocked(at(0), SENDER, 4);
    assert!(sent(&mut senders).is_empty());
    senders.handle_timeout(at(20));
    assert_eq!(sent(&mut senders), [4]);
    senders.acknowledge(SENDER, 3);
    assert_eq!(sent(&mut senders), [5, 6, 7]);
    // After a reset all of it goes out again, as far as the window goes.
    greet(&mut senders, &hello(2, 5));
    assert_eq!(sent(&mut senders), [6, 7, 8, 9]);
    senders.acknowledge(SENDER, 10);
    assert!(sent(&mut senders).is_empty() && senders.is_flushed());
    end(&mut senders, 11, 5 << 20);
    assert_eq!(sent(&mut senders), [11], "one is sent, however large");
}

#[test]
fn nobody_speaks_for_a_sender_with_another_key() {
    let mut senders = Senders::new(&config(100));
    let from = |id: u8, who: Option<u8>| Connection {
        id: vec![id],
        user: who.map(|number| PublicKey([number; 32])),
    };
    let greet = |senders: &mut Senders, from, connection| {
        let hello = hello(connection, 0);
        senders.handle_hello(at(0), from, &hello, &BTreeSet::new()).map(|_| ())
    };
    assert_eq!(greet(&mut senders, from(1, Some(1)), 1), Ok(()));
    end(&mut senders, 1, 10);
    for thief in [from(2, Some(2)), from(2, None), from(1, Some(2))] {
        assert_eq!(greet(&mut senders, thief.clone(), 9), Err(Unwelcome::TurnedAway));
        assert_eq!(senders.sender(at(0), &thief), None);
    }
    assert_eq!(senders.poll_delivery().map(|sent| sent.to), Some(from(1, Some(1))));
    // Itself, on another connection.
    assert_eq!(greet(&mut senders, from(3, Some(1)), 2), Ok(()));
    assert_eq!(senders.poll_delivery().map(|sent| sent.to), Some(from(3, Some(1))));
}
