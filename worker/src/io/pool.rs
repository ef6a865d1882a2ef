//! The handler threads: how a job gets to one, and what it made of it back.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use slog::debug;
use svcmap_proto::io::{Clock, Waker};
use svcmap_proto::time::Timestamp;

use super::cancellation::Cancellation;
use super::context::JobContext;
use super::handler::{Handler, Run, caught};
use super::job::{Home, Job};
use super::progress::{Board, Reporter};
use super::responder::Responder;
use super::shared::lock;
use crate::answer::HandlerError;
use crate::intake::{Ending, Origin, TaskId, Terms};

/// Longest error text that goes back to a sender, in bytes; the rest is cut.
const ERROR_BYTES_MAX: usize = 8 * 1024;

/// A job on its way to a handler.
pub(super) struct Assignment {
    pub(super) id: TaskId,
    pub(super) origin: Origin,
    pub(super) payload: Bytes,
    pub(super) arrived_at: Timestamp,
    /// Its deadline is here that or its run limit, whichever comes first.
    pub(super) terms: Terms,
}

/// What a handler made of a job, and when it began and ended it.
pub(super) struct Completion {
    pub(super) id: TaskId,
    pub(super) began_at: Timestamp,
    pub(super) ended_at: Timestamp,
    pub(super) ending: Ending,
    pub(super) payload: Bytes,
}

/// The handler threads. They end when this is dropped and what they run is done.
pub(super) struct Pool {
    bench: Arc<Bench>,
}

/// Where the handlers find their work, and put what they have made of it.
pub(super) struct Bench {
    work: Mutex<Work>,
    has_work: Condvar,
    done: Mutex<Vec<Completion>>,
    progress: Arc<Board>,
    waker: Waker,
    home: Arc<Home>,
    payload_bytes_max: usize,
}

struct Work {
    /// What no handler has begun.
    queue: VecDeque<Assignment>,
    /// What runs, in as many places as may run at once.
    places: Vec<Place>,
    /// Those where nothing does.
    free: Vec<usize>,
    /// Handlers that sleep, and those of them that were woken and have not noticed yet.
    asleep: u32,
    woken: u32,
    is_over: bool,
    /// What tasks may have awaited, and is of no use any more.
    replaced: Option<Arc<Cancellation>>,
}

/// Where one job runs.
#[derive(Default)]
struct Place {
    job: Option<TaskId>,
    cancellation: Arc<Cancellation>,
}

/// A job that runs, for who ends it.
pub(super) struct Begun {
    pub(super) place: usize,
    id: TaskId,
    at: Timestamp,
    told: Option<Box<Told>>,
}

/// What is logged of a job besides its end.
struct Told {
    context: JobContext,
    waited: Duration,
}

impl Pool {
    /// Starts the threads for so many jobs at once.
    pub(super) fn start(
        concurrency: u32,
        handler: Handler,
        home: Home,
        payload_bytes_max: usize,
        waker: Waker,
    ) -> std::io::Result<Self> {
        let places = (0..concurrency).map(|_| Place::default()).collect();
        let (queue, free) = (VecDeque::new(), (0..concurrency as usize).rev().collect());
        let (asleep, woken, is_over, replaced) = (0, 0, false, None);
        let work = Work { queue, places, free, asleep, woken, is_over, replaced };
        let (work, has_work, done) = (Mutex::new(work), Condvar::new(), Mutex::default());
        let home = Arc::new(home);
        let progress = Arc::new(Board::new(waker.clone()));
        let bench = Bench { work, has_work, done, progress, waker, home, payload_bytes_max };
        let bench = Arc::new(bench);
        let pool = Self { bench };
        let handler = Arc::new(handler);
        for number in 1..=handler.threads(concurrency) {
            let (bench, handler) = (Arc::clone(&pool.bench), Arc::clone(&handler));
            let thread = std::thread::Builder::new().name(format!("svcmap-job-{number}"));
            thread.spawn(move || match &*handler {
                Handler::Now(make) => bench.serve(&mut *make()),
                Handler::Later(begin) => bench.begin_all(begin),
            })?;
        }
        Ok(pool)
    }

    /// Hands the handlers these jobs.
    pub(super) fn assign(&self, assignments: impl ExactSizeIterator<Item = Assignment>) {
        let jobs = u32::try_from(assignments.len()).unwrap_or(u32::MAX);
        let mut work = lock(&self.bench.work);
        work.queue.extend(assignments);
        // One that was woken looks for more before it sleeps again.
        let woken = jobs.min(work.asleep - work.woken);
        work.woken += woken;
        drop(work);
        (0..woken).for_each(|_| self.bench.has_work.notify_one());
    }

    /// Takes back all that no handler has begun.
    pub(super) fn take_back(&self) -> VecDeque<Assignment> {
        std::mem::take(&mut lock(&self.bench.work).queue)
    }

    /// Takes back that job. `false` if a handler has begun it: that is told then.
    pub(super) fn cancel(&self, id: TaskId) -> bool {
        let mut work = lock(&self.bench.work);
        let waiting = work.queue.iter().position(|assignment| assignment.id == id);
        if waiting.and_then(|waiting| work.queue.remove(waiting)).is_some() {
            return true;
        }
        let place = work.places.iter().find(|place| place.job == Some(id));
        // The next job of that place has another one, as long as this one is known here.
        let cancellation = place.map(|place| Arc::clone(&place.cancellation));
        drop(work);
        if let Some(cancellation) = cancellation {
            cancellation.set();
        }
        false
    }

    /// What handlers say of how far their jobs are.
    pub(super) fn progress(&self) -> &Board {
        &self.bench.progress
    }

    /// Whether any job has ended that was not taken yet.
    pub(super) fn has_done(&self) -> bool {
        !lock(&self.bench.done).is_empty()
    }

    /// Exchanges the jobs that have ended for an empty list.
    pub(super) fn take_done(&self, done: &mut Vec<Completion>) {
        std::mem::swap(&mut *lock(&self.bench.done), done);
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let mut work = lock(&self.bench.work);
        work.is_over = true;
        work.queue.clear();
        // What still runs is of use to nobody.
        let places = std::mem::take(&mut work.places);
        drop(work);
        places.iter().for_each(|place| place.cancellation.set());
        self.bench.has_work.notify_all();
    }
}

impl Bench {
    /// Does one job after the other.
    fn serve(&self, handler: &mut Run) {
        let mut ended = None;
        while let Some((begun, job)) = self.next(ended.take()) {
            let answer = caught(|| handler(&job)).unwrap_or_else(|why| {
                Err(HandlerError::new(format!("the handler panicked: {why}")))
            });
            ended = Some(begun.place);
            self.complete(begun, answer);
        }
    }

    /// Begins one job after the other.
    fn begin_all(self: &Arc<Self>, begin: &(impl Fn(Job, Responder) + ?Sized)) {
        while let Some((begun, job)) = self.next(None) {
            let responder = Responder::new(Arc::clone(self), begun);
            // Whatever became of the responder has answered.
            let _ = caught(|| begin(job, responder));
        }
    }

    /// Waits for a job and for a place where it may run; the job in that place has ended.
    fn next(&self, ended: Option<usize>) -> Option<(Begun, Job)> {
        let mut work = lock(&self.work);
        if let Some(place) = ended {
            work.release(place);
        }
        loop {
            if work.is_over {
                return None;
            }
            if let Some((place, assignment, cancellation)) = work.begin() {
                let before = work.replaced.take();
                drop(work);
                // With it go wakers of others, which may do anything.
                drop(before);
                let Assignment { id, origin, payload, arrived_at, terms } = assignment;
                let home = Arc::clone(&self.home);
                let reporter = Reporter::new(id, &self.progress);
                let job =
                    Job { id, origin, payload, arrived_at, terms, cancellation, home, reporter };
                let at = Clock.now();
                let told = self.home.log.as_ref().map(|_| {
                    Box::new(Told { context: job.context(), waited: at.since(arrived_at) })
                });
                return Some((Begun { place, id, at, told }, job));
            }
            work.asleep += 1;
            work = self.has_work.wait(work).unwrap_or_else(PoisonError::into_inner);
            work.asleep -= 1;
            work.woken = work.woken.saturating_sub(1);
        }
    }

    /// This is what became of a job.
    pub(super) fn complete(&self, begun: Begun, answer: Result<Bytes, HandlerError>) {
        let (id, began_at, ended_at) = (begun.id, begun.at, Clock.now());
        let (ending, payload) = ended(answer, self.payload_bytes_max);
        if let (Some(log), Some(told)) = (&self.home.log, begun.told) {
            debug!(log, "job ended"; told.context, "outcome" => ending.word(),
                "waited_us" => told.waited.as_micros(), "ran_us" => ended_at.since(began_at).as_micros());
        }
        lock(&self.done).push(Completion { id, began_at, ended_at, ending, payload });
        self.waker.wake();
    }

    /// Another job may run in that place: somebody else looks for one.
    pub(super) fn release(&self, place: usize) {
        let mut work = lock(&self.work);
        work.release(place);
        let is_wanted = !work.queue.is_empty() && work.asleep > work.woken;
        work.woken += u32::from(is_wanted);
        drop(work);
        if is_wanted {
            self.has_work.notify_one();
        }
    }
}

impl Work {
    /// The first job that waits gets a place, if there is one of each.
    fn begin(&mut self) -> Option<(usize, Assignment, Arc<Cancellation>)> {
        let number = self.free.pop()?;
        let Some(assignment) = self.queue.pop_front() else {
            self.free.push(number);
            return None;
        };
        let place = &mut self.places[number];
        place.job = Some(assignment.id);
        if !Cancellation::reuse(&place.cancellation) {
            self.replaced = Some(std::mem::take(&mut place.cancellation));
        }
        Some((number, assignment, Arc::clone(&place.cancellation)))
    }

    fn release(&mut self, number: usize) {
        if let Some(place) = self.places.get_mut(number) {
            place.job = None;
            self.free.push(number);
        }
    }
}

/// How a job with this answer ended, and what goes to its sender.
fn ended(answer: Result<Bytes, HandlerError>, payload_bytes_max: usize) -> (Ending, Bytes) {
    match answer {
        Ok(result) if result.len() <= payload_bytes_max => (Ending::Done, result),
        Ok(result) => {
            let bytes = result.len();
            let error = format!("the result has {bytes} bytes, the limit is {payload_bytes_max}");
            (Ending::Failed { code: None }, error.into())
        }
        Err(HandlerError { text, code, was_started }) => {
            let mut error = text.into_bytes();
            error.truncate(ERROR_BYTES_MAX);
            (if was_started { Ending::Failed { code } } else { Ending::NotStarted }, error.into())
        }
    }
}

#[cfg(test)]
mod tests;
