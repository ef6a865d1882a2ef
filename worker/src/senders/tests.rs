use super::*;
use crate::testing::{SENDER, at, attempt};

fn hello(connection: u32, received_outcomes: u64) -> SenderHello {
    SenderHello { connection, received_outcomes, ..crate::testing::hello() }
}

fn greet(senders: &mut Senders, hello: &SenderHello) {
    let from = Connection(vec![1]);
    assert!(senders.handle_hello(at(0), from, hello, &BTreeSet::new()).is_some());
}

fn end(senders: &mut Senders, job: u64, bytes: usize) {
    let (verdict, here, payload) = (Verdict::Done, Duration::ZERO, vec![0; bytes]);
    senders.push(SENDER, attempt(job), Ended { verdict, here, payload, wanted_until: at(9000) });
}

#[test]
fn the_newest_result_is_sent_however_large_it_is() {
    let mut senders = Senders::new(100);
    greet(&mut senders, &hello(1, 0));
    for job in 1..=2 {
        end(&mut senders, job, 500);
    }
    let sent = senders.poll_delivery().map(|delivery| delivery.attempt);
    assert_eq!(sent, Some(attempt(2)));
    assert!(senders.poll_delivery().is_none() && senders.retained_bytes == 500);
}

#[test]
fn a_sender_that_acknowledges_more_than_anybody_can_have_sent_is_served() {
    let mut senders = Senders::new(100);
    greet(&mut senders, &hello(1, u64::MAX));
    for job in 1..=2 {
        end(&mut senders, job, 1);
        assert!(senders.poll_delivery().is_some_and(|sent| sent.attempt == attempt(job)));
        senders.acknowledge(SENDER, u64::MAX);
    }
    greet(&mut senders, &hello(2, u64::MAX));
}
