use std::sync::mpsc;
use std::time::Duration;

use svcmap_proto::io::EventLoop;

use super::*;
use crate::testing::key;

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);

fn assignment(id: u64) -> Assignment {
    let (origin, payload, terms) = (Origin::Nobody, Bytes::new(), Terms::default());
    Assignment { id: TaskId(id), origin, payload, arrived_at: Clock.now(), terms }
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
        let handler: Arc<Handler> = Arc::new(move |job: &Job| {
            tells.send(job.payload().to_vec()).unwrap();
            lock(&waits).recv_timeout(PATIENCE).unwrap();
            Ok(vec![u8::from(job.is_cancelled())])
        });
        let pool = Pool::start(1, &handler, &Arc::new(key()), 100, event_loop.waker()).unwrap();
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
    let handler: Arc<Handler> = Arc::new(move |job: &Job| {
        tells.send(()).unwrap();
        let until = Clock.now() + PATIENCE;
        while !job.is_cancelled() && Clock.now() < until {
            std::thread::yield_now();
        }
        tells.send(()).unwrap();
        Ok(Vec::new())
    });
    let pool = Pool::start(1, &handler, &Arc::new(key()), 100, event_loop.waker()).unwrap();
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
    let handler: Arc<Handler> = Arc::new(move |_: &Job| {
        tells.send(()).unwrap();
        lock(&waits).recv_timeout(PATIENCE).unwrap();
        Ok(Vec::new())
    });
    let pool = Pool::start(2, &handler, &Arc::new(key()), 100, event_loop.waker()).unwrap();
    for id in 0..50 {
        pool.assign([assignment(2 * id), assignment(2 * id + 1)].into_iter());
        (0..2).for_each(|_| begun.recv_timeout(PATIENCE / 2).unwrap());
        (0..2).for_each(|_| may_end.send(()).unwrap());
    }
}
