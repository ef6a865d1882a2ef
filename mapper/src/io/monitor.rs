//! Questions of other threads to that of a mapper, and its answers.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use svcmap_proto::io::Waker;

use crate::listed::Listed;
use crate::metrics::Metrics;

/// Questions that may wait: whoever asks waits for an answer before asking again.
const QUESTIONS_MAX: usize = 64;

/// What is done with an answer, on the thread of the mapper.
type Reply<T> = Box<dyn FnOnce(T) + Send>;

/// What another thread wants to know.
pub(super) enum Question {
    Metrics(Reply<Metrics>),
    Listed(Reply<Listed>),
}

/// Asks a mapper how it is, from any thread. The mapper's own thread calls what it is given with the answer,
/// and does nothing else meanwhile: hand the answer on, and no more. What is given is dropped without a call if
/// the mapper has ended, or has not answered 64 others.
#[derive(Clone, Debug)]
pub struct Monitor {
    questions: SyncSender<Question>,
    waker: Waker,
}

impl Monitor {
    pub(super) fn new(waker: Waker) -> (Self, Receiver<Question>) {
        let (questions, asked) = sync_channel(QUESTIONS_MAX);
        (Self { questions, waker }, asked)
    }

    /// What it has counted, and how it is.
    pub fn metrics(&self, reply: impl FnOnce(Metrics) + Send + 'static) {
        self.ask(Question::Metrics(Box::new(reply)));
    }

    /// Who is listed: a copy, of which [`Listed::report`] makes a report on another thread.
    pub fn listed(&self, reply: impl FnOnce(Listed) + Send + 'static) {
        self.ask(Question::Listed(Box::new(reply)));
    }

    fn ask(&self, question: Question) {
        // What is not taken is dropped, as it says above.
        if self.questions.try_send(question).is_ok() {
            self.waker.wake();
        }
    }
}
