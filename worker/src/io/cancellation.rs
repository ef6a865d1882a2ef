//! Whether anybody still waits for a job, and which tasks want to know.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use super::shared::lock;

/// Tells the handler of a job that nobody waits for it any more.
#[derive(Debug, Default)]
pub(super) struct Cancellation {
    is_set: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Cancellation {
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self) {
        let mut waiting = lock(&self.waiting);
        self.is_set.store(true, Ordering::Relaxed);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    /// It is that of another job from now on.
    pub(super) fn reset(&self) {
        self.is_set.store(false, Ordering::Relaxed);
    }
}

/// Is ready once nobody waits for a job any more: see [`Job::cancelled`](crate::Job::cancelled).
#[derive(Debug)]
pub struct Cancelled(pub(super) Arc<Cancellation>);

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.0.waiting);
        if self.0.is_set() {
            return Poll::Ready(());
        }
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
