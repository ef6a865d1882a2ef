use std::sync::mpsc;

use svcmap_proto::io::EventLoop;

use super::*;
use crate::config::OutboxConfig;
use crate::testing::Counting;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn shared() -> Arc<Shared> {
    let waker = EventLoop::new(&[]).unwrap().waker();
    Arc::new(Shared::new(waker, OutboxConfig::default()))
}

#[test]
fn who_awaits_an_outcome_is_woken_once_its_wakeup_is_dropped() {
    let (mut ticket, completer) = ticket(JobId(1), 0, &shared());
    let counting = Arc::new(Counting::default());
    let waker = Waker::from(Arc::clone(&counting));
    let mut context = Context::from_waker(&waker);
    assert!(Pin::new(&mut ticket).poll(&mut context).is_pending());
    let wakeup = completer.settle(Outcome::Accepted);
    assert_eq!(counting.count(), 0);
    drop(wakeup);
    assert_eq!(counting.count(), 1);
    assert_eq!(Pin::new(&mut ticket).poll(&mut context), Poll::Ready(Outcome::Accepted));
}

#[test]
fn a_thread_that_waits_is_woken_however_the_other_end_goes() {
    let (tells, told) = mpsc::channel();
    for settles in [true, false].repeat(10) {
        let (ticket, completer) = ticket(JobId(1), 0, &shared());
        let (tells, place) = (tells.clone(), Arc::clone(&ticket.place));
        let wait = move || tells.send(ticket.wait()).unwrap();
        let waiting = std::thread::Builder::new().spawn(wait).unwrap();
        while !place.lock().is_awaited {
            std::thread::yield_now();
        }
        let expected = if settles {
            drop(completer.settle(Outcome::Accepted));
            Outcome::Accepted
        } else {
            drop(completer);
            Outcome::Unknown(Cause::Stopped)
        };
        assert_eq!(told.recv_timeout(PATIENCE), Ok(expected));
        waiting.join().unwrap();
    }
}

#[test]
fn nobody_is_woken_for_an_outcome_that_nobody_waits_for() {
    let (ticket, completer) = ticket(JobId(1), 0, &shared());
    assert!(completer.settle(Outcome::Accepted).is_none());
    assert_eq!(ticket.wait(), Outcome::Accepted);
}

#[test]
fn progress_is_seen_again_and_news_once() {
    let (ticket, completer) = ticket(JobId(1), 0, &shared());
    assert_eq!((ticket.progress(), ticket.wait_progress(Duration::ZERO)), (None, None));
    let say = |text: &str| completer.set_progress(Some(text.to_owned()));
    say("10 %");
    say("20 %");
    assert_eq!(ticket.wait_progress(PATIENCE).as_deref(), Some("20 %"));
    assert_eq!(ticket.wait_progress(Duration::ZERO), None);
    assert_eq!(ticket.progress().as_deref(), Some("20 %"));
    say("30 %");
    completer.set_progress(None);
    assert_eq!((ticket.progress(), ticket.wait_progress(Duration::ZERO)), (None, None));
}

#[test]
fn who_waits_for_progress_is_woken_by_it_and_by_the_outcome() {
    let (ticket, completer) = ticket(JobId(1), 0, &shared());
    let (tells, told) = mpsc::channel();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let tells = tells;
            while let Some(text) = ticket.wait_progress(PATIENCE) {
                tells.send(text).unwrap();
            }
        });
        for text in ["10 %", "20 %"] {
            completer.set_progress(Some(text.to_owned()));
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), text);
        }
        drop(completer.settle(Outcome::Accepted));
        assert!(
            told.recv_timeout(PATIENCE / 2)
                .is_err_and(|error| error == mpsc::RecvTimeoutError::Disconnected)
        );
    });
    assert_eq!(ticket.wait(), Outcome::Accepted);
}

#[test]
fn a_ticket_that_was_awaited_keeps_its_outcome() {
    let (mut ticket, completer) = ticket(JobId(1), 0, &shared());
    drop(completer.settle(Outcome::Accepted));
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..2 {
        let polled = Pin::new(&mut ticket).poll(&mut context);
        assert_eq!(polled, Poll::Ready(Outcome::Accepted));
    }
    assert_eq!(ticket.wait_progress(PATIENCE), None);
    assert_eq!(ticket.wait(), Outcome::Accepted);
}
