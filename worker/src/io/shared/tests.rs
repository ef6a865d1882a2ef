use svcmap_proto::io::EventLoop;

use super::*;
use crate::testing::Counting;

/// Room for one job, and for 100 bytes.
struct Scene {
    shared: Arc<Shared>,
    _event_loop: EventLoop,
}

/// A task that submits.
struct Task {
    taking: Taking,
    woken: Arc<Counting>,
}

impl Task {
    fn poll(&mut self) -> Option<Result<Ticket, SubmitError>> {
        let waker = task::Waker::from(Arc::clone(&self.woken));
        match Pin::new(&mut self.taking).poll(&mut task::Context::from_waker(&waker)) {
            Poll::Ready(taken) => Some(taken),
            Poll::Pending => None,
        }
    }

    fn is_taken(&mut self) -> bool {
        self.poll().is_some_and(|taken| taken.is_ok())
    }

    fn woken(&self) -> u32 {
        self.woken.count()
    }
}

impl Scene {
    fn new(jobs_max: usize) -> Self {
        let event_loop = EventLoop::new(&[]).unwrap();
        let config = OutboxConfig { jobs_max, jobs_bytes_max: 100, ..OutboxConfig::default() };
        Self { shared: Arc::new(Shared::new(event_loop.waker(), config)), _event_loop: event_loop }
    }

    fn task(&self, bytes: usize) -> Task {
        let spec = JobSpec::new("echo".parse().unwrap(), vec![0; bytes].into());
        let taking = Taking::new(Arc::clone(&self.shared), spec);
        Task { taking, woken: Arc::default() }
    }

    fn end_job(&self, bytes: usize) {
        self.shared.give_back(Room { jobs: 1, bytes });
    }
}

#[test]
fn a_task_that_finds_room_unasked_takes_nobodys_turn() {
    let scene = Scene::new(1);
    let [mut zeroth, mut first, mut second, mut third] = [(); 4].map(|()| scene.task(0));
    assert!(zeroth.is_taken());
    assert!(!first.is_taken() && !second.is_taken());
    scene.end_job(0);
    assert_eq!((first.woken(), second.woken()), (1, 0));
    // It looks before the one that was woken does.
    assert!(second.is_taken() && !first.is_taken() && !third.is_taken());
    scene.end_job(0);
    assert!(first.woken() == 2 && first.is_taken());
    scene.end_job(0);
    assert!(third.woken() == 1 && third.is_taken());
}

#[test]
fn a_task_that_was_woken_and_ends_wakes_the_next() {
    let scene = Scene::new(1);
    let [mut zeroth, mut first, mut second, mut third] = [(); 4].map(|()| scene.task(0));
    assert!(zeroth.is_taken());
    assert!(!first.is_taken() && !second.is_taken() && !third.is_taken());
    drop(second);
    scene.end_job(0);
    assert_eq!((first.woken(), third.woken()), (1, 0));
    drop(first);
    assert!(third.woken() == 1 && third.is_taken());
}

#[test]
fn as_many_tasks_are_woken_as_there_is_room_for_and_all_at_the_end() {
    let scene = Scene::new(10);
    let mut whole = scene.task(100);
    assert!(whole.is_taken());
    let mut tasks = [60, 30, 30].map(|bytes| scene.task(bytes));
    assert!(tasks.iter_mut().all(|task| !task.is_taken()));
    scene.end_job(100);
    assert_eq!(tasks.each_ref().map(Task::woken), [1, 1, 0]);
    scene.shared.close();
    assert_eq!(tasks[2].woken(), 1);
    assert_eq!(tasks[2].poll().unwrap().unwrap_err(), SubmitError::Stopped);
}
