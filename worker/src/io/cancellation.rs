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
    /// Some task has awaited it.
    was_awaited: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Cancellation {
    pub(super) fn is_set(&self) -> bool {
        self.is_set.load(Ordering::Relaxed)
    }

    /// Wakes tasks, which may do anything: not to be called under a lock.
    pub(super) fn set(&self) {
        let mut waiting = lock(&self.waiting);
        self.is_set.store(true, Ordering::Relaxed);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        woken.into_iter().for_each(Waker::wake);
    }

    /// Makes it that of another job, if nobody knows it as that of the one before.
    pub(super) fn reuse(this: &Arc<Self>) -> bool {
        let is_free = Arc::strong_count(this) == 1 && !this.was_awaited.load(Ordering::Relaxed);
        if is_free {
            this.is_set.store(false, Ordering::Relaxed);
        }
        is_free
    }
}

/// Is ready once nobody waits for a job any more: see [`Job::cancelled`](crate::Job::cancelled).
#[derive(Debug)]
#[must_use = "it does nothing unless it is awaited"]
pub struct Cancelled(pub(super) Arc<Cancellation>);

impl Future for Cancelled {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut waiting = lock(&self.0.waiting);
        if self.0.is_set() {
            return Poll::Ready(());
        }
        self.0.was_awaited.store(true, Ordering::Relaxed);
        if !waiting.iter().any(|waker| waker.will_wake(context.waker())) {
            waiting.push(context.waker().clone());
        }
        Poll::Pending
    }
}
