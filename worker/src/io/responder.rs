//! The right to answer a job, from any thread or task, when its result is there.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::pool::{Begun, Bench};
use crate::answer::{HandlerError, IntoAnswer};

/// Answers a job that [`serve_later`](crate::WorkerBuilder::serve_later) began, from any thread or task.
///
/// Until then the job counts as running. One that is dropped without an answer fails its job.
pub struct Responder {
    bench: Arc<Bench>,
    /// Until it is answered.
    begun: Option<Begun>,
}

impl Responder {
    pub(super) fn new(bench: Arc<Bench>, begun: Begun) -> Self {
        Self { bench, begun: Some(begun) }
    }

    /// The job is over, with this result or this error.
    pub fn respond(mut self, answer: impl IntoAnswer) {
        self.finish(answer.into_answer());
    }

    fn finish(&mut self, answer: Result<Bytes, HandlerError>) {
        if let Some(begun) = self.begun.take() {
            let place = begun.place;
            self.bench.complete(begun, answer);
            self.bench.release(place);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        let why = if std::thread::panicking() {
            "the handler panicked"
        } else {
            "the handler let go of the job without an answer"
        };
        self.finish(Err(HandlerError::new(why)));
    }
}

impl fmt::Debug for Responder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder").finish_non_exhaustive()
    }
}
