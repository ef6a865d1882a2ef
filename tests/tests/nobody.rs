//! No work for nobody: jobs whose sender is gone, and the queue of a worker that drains, with real
//! processes.

use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::{Builder, JoinHandle};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use svcmap::deployment::Deployment;
use svcmap::supervisor::Supervisor;
use svcmap_proto::io::Clock;
use svcmap_proto::status::Shown;
use svcmap_tests::{Count, PATIENCE, deployment, executable, wait_for};
use svcmap_worker::config::IntakeConfig;
use svcmap_worker::{Client, DrainReport, HandlerError, Job, Outcome, Ticket, Worker};

/// A mapper with that beat, and one worker `w-1` of the service `nap`.
fn deployment_with(beat: &str, flags: &[&str]) -> Deployment {
    let supervisor = Supervisor::with_executable(executable());
    let beat = vec!["--beat".to_owned(), beat.to_owned()];
    let mut deployment = Deployment::open_with(supervisor, beat).expect("a mapper starts");
    deployment.start_worker("nap", "w-1", flags).expect("a worker starts");
    deployment.wait_ready(&[("nap", 1)]).expect("it registers");
    deployment
}

/// `submit` of jobs to `w-1`, as a process of its own.
struct Sender(Child);

impl Sender {
    fn start(deployment: &Deployment, data: &str, count: &str) -> Self {
        let child = Command::new(executable())
            .args(["submit", "nap", "--instance", "w-1", "--data", data, "--count", count])
            .args(["--hold", "60s", "--deadline", "60s"])
            .envs(deployment.environment())
            .stdout(Stdio::null())
            .spawn();
        Self(child.expect("it starts"))
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it can be signalled");
    }

    /// Waits until it has ended by itself. Returns whether all of its jobs were done.
    fn is_content(&mut self) -> bool {
        self.0.wait().expect("it ends").success()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        // One that has ended needs no signal.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_queue_of_a_killed_sender_is_dropped_within_an_expiry() {
    let folder = tempfile::tempdir().unwrap();
    let marker = folder.path().join("ran");
    let exec = format!("sh -c 'echo ran >> {}; sleep 0.05'", marker.display());
    let deployment = deployment_with("200ms", &["--queue", "511", "--exec", &exec]);
    let sender = Sender::start(&deployment, "x", "511");
    wait_for(&deployment, "some of its jobs to be done", |row| row.done > 5 && row.queued > 300);
    drop(sender);
    // That takes three beats, and all of them would take 25 seconds.
    wait_for(&deployment, "its queue to be empty", |row| row.queued + row.running == 0);
    let ran = || std::fs::read_to_string(&marker).unwrap().lines().count();
    let before = ran();
    assert!(before < 200, "{before}");
    let client = deployment.client().unwrap();
    let ticket = client.submit("nap", Vec::new()).unwrap();
    assert!(matches!(ticket.wait(), Outcome::Done(_)));
    assert_eq!(ran(), before + 1);
}

#[test]
fn a_sender_that_stands_still_for_less_than_an_expiry_loses_nothing() {
    let deployment = deployment_with("2s", &["--builtin", "sleep", "--queue", "40"]);
    let mut sender = Sender::start(&deployment, "100ms", "40");
    wait_for(&deployment, "its jobs to be there", |row| row.accepted == 40 && row.queued > 5);
    sender.signal(Signal::STOP);
    // All of them take four seconds, and the expiry is six.
    wait_for(&deployment, "all to be done", |row| row.done == 40);
    sender.signal(Signal::CONT);
    assert!(sender.is_content());
}

#[test]
fn a_sender_that_stood_still_for_longer_gets_its_jobs_done_all_the_same() {
    let deployment = deployment_with("300ms", &["--builtin", "sleep", "--queue", "40"]);
    let mut sender = Sender::start(&deployment, "100ms", "40");
    wait_for(&deployment, "its jobs to be there", |row| row.accepted == 40 && row.queued > 20);
    sender.signal(Signal::STOP);
    wait_for(&deployment, "its queue to be empty", |row| row.queued + row.running == 0);
    wait_for(&deployment, "not all to be done", |row| row.done < 35);
    sender.signal(Signal::CONT);
    assert!(sender.is_content());
    wait_for(&deployment, "all to be done once", |row| row.done == 40);
}

#[test]
fn a_client_that_is_dropped_takes_back_what_is_not_detached() {
    // Nobody is taken for gone within the patience of this test, and no job ends by itself.
    let deployment = deployment_with("10s", &["--builtin", "sleep", "--queue", "40"]);
    let client = deployment.client().unwrap();
    let job = |time: &str| {
        let job = client.job("nap", time.as_bytes().to_vec());
        job.instance("w-1").hold(6 * PATIENCE)
    };
    let tickets: Vec<_> = (0..9).map(|_| job("60s").submit().unwrap()).collect();
    let detached = job("1ms").detached().submit().unwrap();
    wait_for(&deployment, "its jobs to be there", |row| row.running == 1 && row.queued == 9);
    drop(client);
    // The one that ran saw that it was cancelled.
    wait_for(&deployment, "the queue to be empty", |row| {
        (row.queued, row.running, row.failed, row.done) == (0, 0, 1, 1)
    });
    assert_eq!(Count::of(tickets).unknown, 9);
    assert!(matches!(detached.wait(), Outcome::Unknown(_)));
}

#[test]
fn handlers_of_a_worker_that_is_dropped_are_told() {
    let deployment = deployment_with("10s", &["--builtin", "sleep"]);
    let (saw, seen) = mpsc::channel();
    let saw = Mutex::new(saw);
    let handler = move |job: &Job| -> Result<Vec<u8>, HandlerError> {
        let saw = saw.lock().unwrap().clone();
        saw.send("began").unwrap();
        let until = Clock.now() + PATIENCE;
        while !job.is_cancelled() && Clock.now() < until {
            std::thread::park_timeout(Duration::from_millis(1));
        }
        saw.send(if job.is_cancelled() { "cancelled" } else { "not told" }).unwrap();
        Ok(Vec::new())
    };
    let worker = deployment.access().worker("watch").serve(handler).unwrap();
    let client = deployment.client().unwrap();
    let _ticket = client.submit("watch", Vec::new()).unwrap();
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "began");
    drop(worker);
    assert_eq!(seen.recv_timeout(2 * PATIENCE).unwrap(), "cancelled");
}

/// A worker whose handlers count, and wait until they are let go.
struct Held {
    worker: Worker,
    started: Arc<AtomicUsize>,
    release: mpsc::Sender<()>,
}

impl Held {
    fn start(deployment: &Deployment) -> Self {
        let (release, released) = mpsc::channel();
        let (started, released) = (Arc::new(AtomicUsize::new(0)), Mutex::new(released));
        let count = Arc::clone(&started);
        let handler = move |_: &Job| -> Result<Vec<u8>, HandlerError> {
            count.fetch_add(1, Ordering::Relaxed);
            // Whoever holds the other end may have gone.
            let _ = released.lock().unwrap().recv_timeout(PATIENCE);
            Ok(Vec::new())
        };
        let worker = deployment
            .access()
            .worker("nap")
            .instance("held")
            .intake(IntakeConfig { concurrency: 1, queue: 9, ..IntakeConfig::default() })
            .serve(handler)
            .unwrap();
        assert!(worker.wait_registered(PATIENCE));
        Self { worker, started, release }
    }

    /// Three jobs for it, the first of which runs, and their senders. Each comes on a credit that its sender
    /// got with the outcome of a first one, as nobody is granted any where jobs are long.
    fn fill(&self, deployment: &Deployment) -> (Vec<Client>, Vec<Ticket>) {
        let clients: Vec<_> = (0..3).map(|_| deployment.client().unwrap()).collect();
        let submit = |client: &Client| {
            let job = client.job("nap", Vec::new()).hold(2 * PATIENCE).deadline(2 * PATIENCE);
            job.submit().unwrap()
        };
        for client in &clients {
            self.release.send(()).unwrap();
            assert!(matches!(submit(client).wait(), Outcome::Done(_)));
        }
        self.started.store(0, Ordering::Relaxed);
        let mut tickets = vec![submit(&clients[0])];
        wait_for(deployment, "the first to run", |row| row.running == 1);
        tickets.extend(clients[1..].iter().map(submit));
        wait_for(deployment, "its jobs to be there", |row| row.running == 1 && row.queued == 2);
        (clients, tickets)
    }
}

fn start_drain(worker: Worker) -> JoinHandle<DrainReport> {
    let drain = move || worker.drain(2 * PATIENCE).unwrap();
    Builder::new().name("drain".to_owned()).spawn(drain).unwrap()
}

#[test]
fn a_drain_leaves_its_queue_to_others_at_once_and_starts_nothing_more() {
    let mut deployment = deployment();
    let held = Held::start(&deployment);
    let (_clients, mut tickets) = held.fill(&deployment);
    deployment.start_worker("nap", "other", &["--builtin", "echo"]).unwrap();
    deployment.wait_ready(&[("nap", 2)]).unwrap();
    let Held { worker, started, release } = held;
    let drain = start_drain(worker);
    // While its handler goes on with the first.
    let others = tickets.split_off(1);
    assert_eq!(Count::of(others).done, 2);
    assert_eq!(started.load(Ordering::Relaxed), 1);
    release.send(()).unwrap();
    let report = drain.join().unwrap();
    assert_eq!((report.finished, report.handed_back, report.abandoned), (1, 2, 0), "{report:?}");
    assert_eq!(Count::of(tickets).done, 1);
}

#[test]
fn a_drain_without_others_finishes_its_queue() {
    let deployment = deployment();
    let held = Held::start(&deployment);
    let (_clients, tickets) = held.fill(&deployment);
    let Held { worker, started, release } = held;
    let drain = start_drain(worker);
    wait_for(&deployment, "it to say so", |row| row.state == Shown::Draining);
    (0..3).for_each(|_| release.send(()).unwrap());
    let report = drain.join().unwrap();
    assert_eq!((report.finished, report.handed_back), (3, 0), "{report:?}");
    assert_eq!((started.load(Ordering::Relaxed), Count::of(tickets).done), (3, 3));
}
