//! A ticket: the place where the one outcome of a job arrives.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::shared::{Command, Shared};
use crate::outbox::JobId;
use crate::outcome::{Cause, Outcome};

/// A claim on the outcome of a job. It can be waited for or awaited, on any runtime.
///
/// Dropping it lets go of the outcome: the job goes on while its sender lives, and its outcome is only
/// counted, unless [`Ticket::cancel_on_drop`] says otherwise. To have it done even if the sender ends is
/// [`JobBuilder::detached`](crate::JobBuilder::detached).
#[derive(Debug)]
pub struct Ticket {
    id: JobId,
    cancels_on_drop: bool,
    place: Arc<Place>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Place {
    state: Mutex<State>,
    arrived: Condvar,
}

#[derive(Debug, Default)]
struct State {
    outcome: Option<Outcome>,
    /// How far the job is, and whether whoever has the ticket has not seen that yet.
    progress: Option<String>,
    is_news: bool,
    waker: Option<Waker>,
    /// It has come, whether or not it was taken.
    is_settled: bool,
    /// A thread waits for it.
    is_awaited: bool,
}

impl Place {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The other end of a [`Ticket`]. However it ends, the ticket gets an outcome, once.
#[derive(Debug)]
pub(super) struct Completer {
    job: JobId,
    /// The room that its job takes.
    bytes: usize,
    place: Option<Arc<Place>>,
}

/// The ticket of a job of so many bytes, and its other end.
pub(super) fn ticket(job: JobId, bytes: usize, shared: &Arc<Shared>) -> (Ticket, Completer) {
    let place = Arc::new(Place::default());
    let completer = Completer { job, bytes, place: Some(Arc::clone(&place)) };
    let shared = Arc::clone(shared);
    (Ticket { id: job, cancels_on_drop: false, place, shared }, completer)
}

impl Completer {
    pub(super) fn job(&self) -> JobId {
        self.job
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The job is that far, or begins anew.
    pub(super) fn set_progress(&self, progress: Option<String>) {
        let Some(place) = &self.place else { return };
        let mut state = place.lock();
        let is_awaited = progress.is_some() && state.is_awaited;
        state.is_news = progress.is_some();
        state.progress = progress;
        drop(state);
        if is_awaited {
            place.arrived.notify_all();
        }
    }

    /// Delivers the outcome. Whoever waits for it is woken once what is returned is dropped.
    pub(super) fn settle(mut self, outcome: Outcome) -> Option<Wakeup> {
        self.deliver(outcome)
    }

    fn deliver(&mut self, outcome: Outcome) -> Option<Wakeup> {
        let place = self.place.take()?;
        let mut state = place.lock();
        state.outcome = Some(outcome);
        state.is_settled = true;
        let (waker, is_awaited) = (state.waker.take(), state.is_awaited);
        drop(state);
        // To tell nobody costs as much as to tell somebody.
        let is_wanted = is_awaited || waker.is_some();
        is_wanted.then_some(Wakeup { place: is_awaited.then_some(place), waker })
    }
}

impl Drop for Completer {
    fn drop(&mut self) {
        // The thread that would have delivered it is gone.
        drop(self.deliver(Outcome::Unknown(Cause::Stopped)));
    }
}

/// Wakes those that wait for an outcome, when it is dropped: however the thread ends that has it.
#[derive(Debug)]
pub(super) struct Wakeup {
    place: Option<Arc<Place>>,
    waker: Option<Waker>,
}

impl Drop for Wakeup {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            place.arrived.notify_all();
        }
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Ticket {
    /// The job's number at its sender, as [`Observation`](crate::Observation)s name it.
    pub fn job(&self) -> JobId {
        self.id
    }

    /// Waits for the outcome: until the job's deadline at most, and a tick, if it has one.
    pub fn wait(self) -> Outcome {
        let mut state = self.place.lock();
        if state.outcome.is_none() {
            drop(state);
            self.shared.look_for(|| self.place.lock().outcome.is_some());
            state = self.place.lock();
        }
        loop {
            if let Some(outcome) = state.outcome.take() {
                return outcome;
            }
            state.is_awaited = true;
            state = self.place.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for the outcome, at most so long.
    ///
    /// # Errors
    /// The ticket itself, if no outcome came in that time.
    pub fn wait_timeout(self, limit: Duration) -> Result<Outcome, Ticket> {
        let mut state = self.place.lock();
        state.is_awaited = true;
        let waited = self.place.arrived.wait_timeout_while(state, limit, |s| s.outcome.is_none());
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let outcome = state.outcome.take();
        drop(state);
        outcome.ok_or(self)
    }

    /// From now on, to drop this before there is an outcome is to [`cancel`](Self::cancel) the job: as
    /// when a task that awaits it ends, or a limit of its runtime does.
    #[must_use]
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancels_on_drop = true;
        self
    }

    /// How far the job is, in the words of its handler ([`Job::progress`](crate::Job::progress)): the newest
    /// that came. `None`: it has said nothing, or began anew elsewhere and has not since.
    pub fn progress(&self) -> Option<String> {
        let mut state = self.place.lock();
        state.is_news = false;
        state.progress.clone()
    }

    /// Waits until the handler says how far the job is, unless it has since this or [`Ticket::progress`]
    /// was last asked: at most so long, and no longer than until the outcome comes. `None`: it has said
    /// nothing new.
    pub fn wait_progress(&self, limit: Duration) -> Option<String> {
        let mut state = self.place.lock();
        state.is_awaited = true;
        let is_quiet = |state: &mut State| !state.is_news && state.outcome.is_none();
        let waited = self.place.arrived.wait_timeout_while(state, limit, is_quiet);
        (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let is_news = std::mem::take(&mut state.is_news);
        state.progress.clone().filter(|_| is_news)
    }

    /// Takes the job back, if that is still possible. The outcome says whether it was: a job that
    /// no handler started is refused as cancelled, otherwise what the handler returns counts.
    pub fn cancel(&self) {
        self.shared.command(Command::Cancel(self.id));
    }

    /// Takes the job back, unless a handler has begun it: that goes on, and its outcome comes. What
    /// was taken back is refused as cancelled, and neither is tried again.
    pub fn take_back(&self) {
        self.shared.command(Command::TakeBack(self.id));
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.cancels_on_drop && !self.place.lock().is_settled {
            self.cancel();
        }
    }
}

impl Future for Ticket {
    type Output = Outcome;

    /// Polled again after it was ready, it is ready again.
    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Outcome> {
        let mut state = self.place.lock();
        match &state.outcome {
            Some(outcome) => Poll::Ready(outcome.clone()),
            None => {
                state.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests;
