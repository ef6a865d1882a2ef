use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use svcmap_proto::io::EventLoop;

use super::super::handler;
use super::super::shared::Shared;
use super::*;
use crate::config::OutboxConfig;
use crate::testing::{Counting, key};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn assignment(id: u64) -> Assignment {
    let (origin, payload, terms) = (Origin::Nobody, Bytes::new(), Terms::default());
    Assignment { id: TaskId(id), origin, payload, arrived_at: Clock.now(), terms }
}

fn start(concurrency: u32, handler: Handler, event_loop: &EventLoop) -> Pool {
    let shared = Arc::new(Shared::new(event_loop.waker(), OutboxConfig::default()));
    let home = Home { key: key(), shared, log: None };
    Pool::start(concurrency, handler, home, 100, event_loop.waker()).unwrap()
}

/// Waits until so many jobs have ended: which, and how.
fn await_done(pool: &Pool, count: usize) -> Vec<(u64, Ending, String)> {
    let until = Clock.now() + PATIENCE;
    let mut done = Vec::new();
    while done.len() < count {
        assert!(Clock.now() < until, "{} of {count} jobs ended", done.len());
        std::thread::yield_now();
        let mut some = Vec::new();
        pool.take_done(&mut some);
        done.append(&mut some);
    }
    let told = |done: Completion| {
        (done.id.0, done.ending, String::from_utf8_lossy(&done.payload).into_owned())
    };
    done.into_iter().map(told).collect()
}

/// One handler that tells when it begins a job, and then waits until it may end.
struct Scene {
    pool: Pool,
    begun: mpsc::Receiver<Vec<u8>>,
    may_end: mpsc::Sender<()>,
    _event_loop: EventLoop,
}

impl Scene {
    fn new() -> Self {
        let event_loop = EventLoop::new(&[]).unwrap();
        let (tells, begun) = mpsc::channel();
        let (may_end, waits) = mpsc::channel();
        let waits = Mutex::new(waits);
        let handler = handler::plain(move |job: &Job| {
            tells.send(job.payload().to_vec()).unwrap();
            lock(&waits).recv_timeout(PATIENCE).unwrap();
            [u8::from(job.is_cancelled())]
        });
        let pool = start(1, handler, &event_loop);
        Self { pool, begun, may_end, _event_loop: event_loop }
    }

    fn assign(&self, id: u64) {
        let payload = Bytes::copy_from_slice(&[id as u8]);
        let assignment = Assignment { payload, ..assignment(id) };
        self.pool.assign([assignment].into_iter());
    }

    fn await_begun(&self, id: u64) {
        assert_eq!(self.begun.recv_timeout(PATIENCE).unwrap(), [id as u8]);
    }

    /// The job that runs ends. Returns whether its handler was told that nobody waits for it.
    fn end(&self, id: u64) -> bool {
        self.may_end.send(()).unwrap();
        let until = Clock.now() + PATIENCE;
        let mut done = Vec::new();
        while done.is_empty() {
            assert!(Clock.now() < until, "no job ended");
            std::thread::yield_now();
            self.pool.take_done(&mut done);
        }
        let [completion] = &done[..] else { panic!("{} ended", done.len()) };
        assert_eq!((completion.id, completion.ending), (TaskId(id), Ending::Done));
        assert!(completion.began_at <= completion.ended_at);
        completion.payload[0] == 1
    }
}

#[test]
fn what_no_handler_has_begun_can_be_taken_back_in_its_order() {
    let scene = Scene::new();
    (1..=4).for_each(|id| scene.assign(id));
    scene.await_begun(1);
    assert!(scene.pool.cancel(TaskId(3)), "it waited");
    let back: Vec<_> = scene.pool.take_back().into_iter().map(|back| back.id).collect();
    assert_eq!(back, [TaskId(2), TaskId(4)]);
    assert!(!scene.end(1));
    scene.assign(2);
    scene.await_begun(2);
    assert!(!scene.end(2));
}

#[test]
fn only_the_handler_of_a_cancelled_job_is_told() {
    let scene = Scene::new();
    (1..=2).for_each(|id| scene.assign(id));
    scene.await_begun(1);
    assert!(!scene.pool.cancel(TaskId(1)), "it runs");
    assert!(scene.end(1));
    scene.await_begun(2);
    assert!(!scene.pool.cancel(TaskId(1)), "it is over");
    assert!(!scene.end(2));
}

#[test]
fn who_runs_when_the_pool_goes_is_told() {
    let event_loop = EventLoop::new(&[]).unwrap();
    let (tells, told) = mpsc::channel();
    let handler = handler::plain(move |job: &Job| {
        tells.send(()).unwrap();
        let until = Clock.now() + PATIENCE;
        while !job.is_cancelled() && Clock.now() < until {
            std::thread::yield_now();
        }
        tells.send(()).unwrap();
    });
    let pool = start(1, handler, &event_loop);
    pool.assign([assignment(1)].into_iter());
    told.recv_timeout(PATIENCE).unwrap();
    drop(pool);
    told.recv_timeout(PATIENCE / 2).unwrap();
}

#[test]
fn jobs_that_are_handed_over_together_begin_together() {
    let event_loop = EventLoop::new(&[]).unwrap();
    let (tells, begun) = mpsc::channel();
    let (may_end, waits) = mpsc::channel();
    let waits = Mutex::new(waits);
    let handler = handler::plain(move |_: &Job| {
        tells.send(()).unwrap();
        lock(&waits).recv_timeout(PATIENCE).unwrap();
    });
    let pool = start(2, handler, &event_loop);
    for id in 0..50 {
        pool.assign([assignment(2 * id), assignment(2 * id + 1)].into_iter());
        (0..2).for_each(|_| begun.recv_timeout(PATIENCE / 2).unwrap());
        (0..2).for_each(|_| may_end.send(()).unwrap());
    }
}

/// Two jobs at once that somebody else answers, and those that were begun.
struct Later {
    pool: Pool,
    begun: mpsc::Receiver<(Job, Responder)>,
    _event_loop: EventLoop,
}

impl Later {
    fn new() -> Self {
        let event_loop = EventLoop::new(&[]).unwrap();
        let (tells, begun) = mpsc::channel();
        let begin = move |job: Job, responder| {
            assert!(job.id != TaskId(99), "on purpose");
            tells.send((job, responder)).unwrap();
        };
        let pool = start(2, Handler::Later(Box::new(begin)), &event_loop);
        Self { pool, begun, _event_loop: event_loop }
    }

    fn assign(&self, ids: impl ExactSizeIterator<Item = u64>) {
        self.pool.assign(ids.map(assignment));
    }

    fn await_begun(&self, id: u64) -> (Job, Responder) {
        let (job, responder) = self.begun.recv_timeout(PATIENCE).unwrap();
        assert_eq!(job.id, TaskId(id));
        (job, responder)
    }
}

#[test]
fn jobs_that_are_answered_later_run_as_many_at_once_as_may() {
    let later = Later::new();
    later.assign((1..4).collect::<Vec<_>>().into_iter());
    let (_, first) = later.await_begun(1);
    let (_, second) = later.await_begun(2);
    assert_eq!(later.pool.take_back().len(), 1, "the third has no place");
    later.assign([3].into_iter());
    std::thread::scope(|scope| scope.spawn(|| second.respond("2")).join().unwrap());
    let (_, third) = later.await_begun(3);
    drop(first);
    third.respond(Err::<(), _>(HandlerError::reject("not here")));
    let told = await_done(&later.pool, 3);
    let lost = "the handler let go of the job without an answer".to_owned();
    assert_eq!(told[0], (2, Ending::Done, "2".to_owned()));
    assert_eq!(told[1], (1, Ending::Failed { code: None }, lost));
    assert_eq!(told[2], (3, Ending::NotStarted, "not here".to_owned()));
}

#[test]
fn a_handler_that_panics_before_it_answers_fails_that_job_only() {
    let later = Later::new();
    later.assign([99, 1].into_iter());
    later.await_begun(1).1.respond(());
    let mut told = await_done(&later.pool, 2);
    told.sort_by_key(|(id, ..)| *id);
    assert_eq!(told[1], (99, Ending::Failed { code: None }, "the handler panicked".to_owned()));
}

#[test]
fn who_awaits_its_cancellation_is_woken_and_who_keeps_a_job_that_is_over_is_not() {
    let later = Later::new();
    later.assign([1, 2].into_iter());
    let ((kept, one), (job, other)) = (later.await_begun(1), later.await_begun(2));
    let woken = Arc::<Counting>::default();
    assert!(!is_cancelled(&job, &woken));
    assert!(!later.pool.cancel(TaskId(2)));
    assert_eq!(woken.count(), 1);
    assert!(is_cancelled(&job, &woken) && !is_cancelled(&kept, &woken));
    one.respond(());
    later.assign([3].into_iter());
    let (_, _third) = later.await_begun(3);
    later.pool.cancel(TaskId(3));
    assert!(!is_cancelled(&kept, &woken), "that was another job in its place");
    drop(other);
}

#[test]
fn whoever_awaited_the_cancellation_of_a_job_is_forgotten_with_it() {
    let later = Later::new();
    let woken = Arc::<Counting>::default();
    for id in 1..=10 {
        later.assign([id].into_iter());
        let (job, responder) = later.await_begun(id);
        assert!(!is_cancelled(&job, &woken));
        drop(job);
        responder.respond(());
    }
    later.assign([11].into_iter());
    let (_job, _responder) = later.await_begun(11);
    eventually(|| Arc::strong_count(&woken) == 1);
}

#[test]
fn a_waker_that_answers_a_job_does_not_stand_in_its_own_way() {
    struct Answers(Mutex<Option<Responder>>);
    impl std::task::Wake for Answers {
        fn wake(self: Arc<Self>) {
            let responder = self.0.lock().unwrap().take();
            responder.into_iter().for_each(|responder| responder.respond("cancelled"));
        }
    }
    let later = Later::new();
    later.assign([1].into_iter());
    let (job, responder) = later.await_begun(1);
    let answers = Arc::new(Answers(Mutex::new(Some(responder))));
    let waker = std::task::Waker::from(answers);
    let mut cancelled = job.cancelled();
    let mut context = std::task::Context::from_waker(&waker);
    assert!(std::pin::Pin::new(&mut cancelled).poll(&mut context).is_pending());
    later.pool.cancel(TaskId(1));
    assert_eq!(await_done(&later.pool, 1), [(1, Ending::Done, "cancelled".to_owned())]);
}

#[test]
fn who_answers_when_the_pool_is_gone_tells_nobody() {
    let later = Later::new();
    later.assign([1].into_iter());
    let (job, responder) = later.await_begun(1);
    drop(later);
    assert!(job.is_cancelled());
    responder.respond(());
}

fn is_cancelled(job: &Job, woken: &Arc<Counting>) -> bool {
    let waker = std::task::Waker::from(Arc::clone(woken));
    let mut context = std::task::Context::from_waker(&waker);
    std::pin::Pin::new(&mut job.cancelled()).poll(&mut context).is_ready()
}

fn eventually(is_so: impl Fn() -> bool) {
    let until = Clock.now() + PATIENCE;
    while !is_so() {
        assert!(Clock.now() < until, "waited in vain");
        std::thread::yield_now();
    }
}

#[test]
fn a_thread_keeps_its_state_until_it_panics() {
    let event_loop = EventLoop::new(&[]).unwrap();
    let made = Arc::new(AtomicU32::new(0));
    let makes = Arc::clone(&made);
    // Nothing of another thread could hold it.
    let state = move || {
        let number = makes.fetch_add(1, Ordering::SeqCst);
        assert!(number != 1, "not yet");
        std::rc::Rc::new(std::cell::Cell::new(10 * number))
    };
    let handler = handler::with_state(state, |state, job| {
        state.set(state.get() + 1);
        assert!(job.id != TaskId(3), "on purpose");
        state.get().to_string()
    });
    let pool = start(1, handler, &event_loop);
    pool.assign((1..=6).map(assignment).collect::<Vec<_>>().into_iter());
    let told = await_done(&pool, 6);
    let texts: Vec<_> = told.iter().map(|(_, _, text)| text.as_str()).collect();
    let failed = "the handler panicked: on purpose";
    let rejected = "what the handler needs could not be made: not yet";
    assert_eq!(texts, ["1", "2", failed, rejected, "21", "22"]);
    assert_eq!(told[3].1, Ending::NotStarted);
}

#[test]
fn a_handler_of_values_reads_and_writes_json() {
    let event_loop = EventLoop::new(&[]).unwrap();
    let half = |number: u32| {
        if number.is_multiple_of(2) {
            Ok(vec![number / 2])
        } else {
            Err(format!("{number} is odd"))
        }
    };
    let pool = start(1, handler::json(half), &event_loop);
    let payloads = ["4", "3", "\"four\""];
    let jobs = (1..).zip(payloads).map(|(id, payload)| Assignment {
        payload: Bytes::from_static(payload.as_bytes()),
        ..assignment(id)
    });
    pool.assign(jobs.collect::<Vec<_>>().into_iter());
    let told = await_done(&pool, 3);
    assert_eq!(told[0], (1, Ending::Done, "[2]".to_owned()));
    assert_eq!(told[1], (2, Ending::Failed { code: None }, "3 is odd".to_owned()));
    assert!(told[2].2.starts_with("the payload is no such value: invalid type"), "{told:?}");
}
