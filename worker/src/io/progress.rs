//! What handlers say of how far their jobs are, on its way to the I/O thread: of each job the newest.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rustc_hash::FxHashMap;
use svcmap_proto::io::Waker;
use svcmap_proto::jobs::cut_progress;

use super::shared::lock;
use crate::intake::TaskId;

/// Where the handlers put it, and the I/O thread finds it.
#[derive(Debug)]
pub(super) struct Board {
    newest: Mutex<FxHashMap<TaskId, String>>,
    /// Something was put onto it when nothing was there.
    is_news: AtomicBool,
    waker: Waker,
}

impl Board {
    pub(super) fn new(waker: Waker) -> Self {
        Self { newest: Mutex::default(), is_news: AtomicBool::new(false), waker }
    }

    fn put(&self, task: TaskId, text: String) {
        let mut newest = lock(&self.newest);
        let is_first = newest.is_empty();
        newest.insert(task, text);
        drop(newest);
        if is_first {
            self.is_news.store(true, Ordering::Relaxed);
            self.waker.wake();
        }
    }

    /// Whether something is there that was not when this was last asked.
    pub(super) fn has_news(&self) -> bool {
        self.is_news.load(Ordering::Relaxed) && self.is_news.swap(false, Ordering::Relaxed)
    }

    /// Takes all that is there.
    pub(super) fn take(&self) -> FxHashMap<TaskId, String> {
        std::mem::take(&mut lock(&self.newest))
    }
}

/// Tells of one job, from whatever thread has it. A job that says nothing costs nothing here, and of one
/// that has ended nothing is left.
#[derive(Debug)]
pub(super) struct Reporter {
    task: TaskId,
    board: Arc<Board>,
    has_spoken: AtomicBool,
}

impl Reporter {
    pub(super) fn new(task: TaskId, board: &Arc<Board>) -> Self {
        Self { task, board: Arc::clone(board), has_spoken: AtomicBool::new(false) }
    }

    /// The job is that far.
    pub(super) fn report(&self, text: String) {
        self.has_spoken.store(true, Ordering::Relaxed);
        self.board.put(self.task, cut_progress(text));
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        if *self.has_spoken.get_mut() {
            lock(&self.board.newest).remove(&self.task);
        }
    }
}

#[cfg(test)]
mod tests {
    use svcmap_proto::io::EventLoop;

    use super::*;

    #[test]
    fn of_each_job_the_newest_is_there_once_until_it_ends() {
        let board = Arc::new(Board::new(EventLoop::new(&[]).unwrap().waker()));
        let [a, b, silent] = [1, 2, 3].map(|id| Reporter::new(TaskId(id), &board));
        assert!(!board.has_news() && board.take().is_empty());
        a.report("10 %".to_owned());
        a.report("20 %".to_owned());
        b.report("x".repeat(1000));
        assert!(board.has_news() && !board.has_news());
        let taken = board.take();
        assert_eq!(taken[&TaskId(1)], "20 %");
        assert_eq!((taken.len(), taken[&TaskId(2)].len()), (2, 256));
        a.report("30 %".to_owned());
        b.report("all".to_owned());
        assert!(board.has_news());
        drop((b, silent));
        assert_eq!(board.take().into_keys().collect::<Vec<_>>(), [TaskId(1)]);
    }
}
