//! The library as a program uses it: values, handlers of every shape, and senders on a runtime.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use svcmap_mapper::Mapper;
use svcmap_proto::io::Clock;
use svcmap_proto::status::Shown;
use svcmap_tests::{Deployment, PATIENCE, deployment, wait_for};
use svcmap_worker::config::OutboxConfig;
use svcmap_worker::{
    Client, HandlerError, Job, Outcome, Reason, Responder, SubmitError, ValueError, Worker,
    WorkerBuilder, value,
};
use tokio::runtime::Runtime;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Resize {
    path: String,
    width: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Thumbnail {
    name: String,
    bytes: u64,
}

fn resize(request: Resize) -> anyhow::Result<Thumbnail> {
    let stem = request.path.strip_suffix(".jpg").context("only .jpg")?;
    Ok(Thumbnail { name: format!("{stem}.{}.jpg", request.width), bytes: 1234 })
}

fn job_of(path: &str) -> Resize {
    Resize { path: path.to_owned(), width: 640 }
}

/// A worker of the mapper there, registered.
fn started(worker: Result<Worker, svcmap_worker::StartError>) -> Worker {
    let worker = worker.unwrap();
    assert!(worker.wait_registered(PATIENCE));
    worker
}

fn worker(service: &str, deployment: &Deployment) -> WorkerBuilder {
    deployment.access().worker(service)
}

/// The answer of who is asked by this; `None` if there is nobody any more.
fn answer<T: Send + 'static>(ask: impl FnOnce(Box<dyn FnOnce(T) + Send>)) -> Option<T> {
    let (reply, answer) = mpsc::channel();
    ask(Box::new(move |answer| reply.send(answer).unwrap()));
    answer.recv_timeout(PATIENCE).ok()
}

#[test]
fn a_mapper_and_a_worker_can_be_asked_how_they_are_for_as_long_as_they_run() {
    let any = "tcp://127.0.0.1:0";
    let mapper = Mapper::builder().bind(any).publish(any).start().unwrap();
    let worker = Worker::builder("count").mapper(mapper.endpoint());
    let worker = started(worker.serve(|_: &Job| ()));
    let client = worker.client();
    assert!(matches!(client.submit("count", "").unwrap().wait(), Outcome::Done(_)));
    let (of_mapper, of_worker) = (mapper.monitor(), worker.monitor());
    let counted = answer(|reply| of_worker.metrics(reply)).unwrap();
    let served = counted.served.unwrap();
    assert_eq!((served.load.done, served.service_times.len(), counted.sent.done), (1, 1, 1));
    assert_eq!((counted.mappers_connected, counted.mappers_listing), (1, 1));
    let sender = Client::connect(mapper.endpoint()).unwrap();
    assert!(sender.wait_connected(PATIENCE));
    let of_sender = sender.monitor();
    let counted = answer(|reply| of_sender.metrics(reply)).unwrap();
    assert_eq!((counted.served, counted.mappers_connected), (None, 1));
    drop(sender);
    assert_eq!(answer(|reply| of_sender.metrics(reply)), None);
    let counted = answer(|reply| of_mapper.metrics(reply)).unwrap();
    assert_eq!((counted.registrations.listed, counted.services.len()), (1, 1));
    let report = answer(|reply| of_mapper.listed(reply)).unwrap().report();
    assert_eq!(report.instances[0].instance, worker.key().instance);
    worker.drain(PATIENCE).unwrap();
    mapper.stop();
    mapper.wait().unwrap();
    assert_eq!(answer(|reply| of_worker.metrics(reply)), None);
    assert_eq!(answer(|reply| of_mapper.metrics(reply)), None);
    assert_eq!(answer(|reply| of_mapper.listed(reply)), None);
}

#[test]
fn values_travel_as_json_that_other_programs_read() {
    let deployment = deployment();
    let _worker = started(worker("resize", &deployment).serve_json(resize));
    let client = deployment.access().client().start().unwrap();
    let reply = client.submit_json("resize", &job_of("a.jpg")).unwrap().wait().done().unwrap();
    let expected = Thumbnail { name: "a.640.jpg".to_owned(), bytes: 1234 };
    assert_eq!(reply.json::<Thumbnail>(), Ok(expected));
    // As anybody else would say and read it.
    let text = client.submit("resize", r#"{"path": "b.jpg", "width": 1}"#).unwrap().wait();
    assert_eq!(text.done().unwrap()[..], *br#"{"name":"b.1.jpg","bytes":1234}"#);
    let error = |outcome: Outcome| match outcome {
        Outcome::Failed(failure) => failure.error,
        other => panic!("{other:?}"),
    };
    assert_eq!(error(client.submit_json("resize", &job_of("a.png")).unwrap().wait()), "only .jpg");
    let other = error(client.submit_json("resize", &expected_of_nobody()).unwrap().wait());
    assert!(other.starts_with("the payload is no such value: missing field `path`"), "{other}");
    let postcard = error(client.submit_postcard("resize", &job_of("a.jpg")).unwrap().wait());
    assert_eq!(postcard, ValueError::IsPostcard.to_string());
}

fn expected_of_nobody() -> Thumbnail {
    Thumbnail { name: "a".to_owned(), bytes: 1 }
}

#[test]
fn values_as_postcard_are_read_as_that_or_are_an_error() {
    let deployment = deployment();
    let handler = |job: &Job| -> Result<_, Box<dyn std::error::Error + Send + Sync>> {
        let thumbnail = resize(job.postcard()?)?;
        Ok(value::to_postcard(&thumbnail)?)
    };
    let _worker = started(worker("resize", &deployment).serve(handler));
    let client = deployment.client().unwrap();
    let reply = client.submit_postcard("resize", &job_of("a.jpg")).unwrap().wait().done().unwrap();
    assert_eq!(reply.postcard::<Thumbnail>().unwrap().name, "a.640.jpg");
    assert_eq!(reply.json::<Thumbnail>(), Err(ValueError::IsPostcard));
    let Outcome::Failed(failure) = client.submit_json("resize", &job_of("a.jpg")).unwrap().wait()
    else {
        panic!("JSON was taken for postcard")
    };
    assert_eq!(failure.error, ValueError::IsJson.to_string());
}

#[test]
fn a_handler_sends_jobs_by_the_client_of_its_worker() {
    let deployment = deployment();
    let _double =
        started(worker("double", &deployment).serve_json(|n: u64| Ok::<_, String>(2 * n)));
    let twice = |job: &Job| -> anyhow::Result<_> {
        let ticket = job.client().job("double", job.payload_bytes()).deadline(PATIENCE).submit()?;
        Ok(ticket.wait().done()?.payload)
    };
    let _twice = started(worker("twice", &deployment).serve(twice));
    let client = deployment.client().unwrap();
    let reply = client.submit_json("twice", &21).unwrap().wait().done().unwrap();
    assert_eq!(reply.json(), Ok(42));
}

#[test]
fn a_job_that_one_handler_rejects_is_done_by_another() {
    let deployment = deployment();
    let asked = Arc::new(AtomicU32::new(0));
    let asks = Arc::clone(&asked);
    let _busy = started(worker("render", &deployment).instance("busy").serve(move |_: &Job| {
        asks.fetch_add(1, Ordering::SeqCst);
        Err::<(), _>(HandlerError::reject("no device"))
    }));
    let client = deployment.client().unwrap();
    let alone = client.job("render", ()).hold(Duration::from_millis(200)).submit().unwrap().wait();
    let Outcome::Refused(refusal) = alone else { panic!("{alone:?}") };
    assert_eq!(refusal.reason, Reason::CannotStart);
    assert!(asked.load(Ordering::SeqCst) > 0);
    let _able = started(worker("render", &deployment).instance("able").serve(|_: &Job| "done"));
    for _ in 0..10 {
        let reply = client.submit("render", ()).unwrap().wait().done().unwrap();
        assert_eq!((&reply[..], reply.by.instance.as_str()), (&b"done"[..], "able"));
    }
}

/// Sleeps for as many milliseconds as the job says, or until nobody waits for it.
async fn nap(job: &Job) -> Result<String, HandlerError> {
    let time = Duration::from_millis(job.json()?);
    match tokio::time::timeout(time, job.cancelled()).await {
        Err(_) => Ok(format!("{} ms", time.as_millis())),
        Ok(()) => Err(HandlerError::new("cancelled")),
    }
}

#[test]
fn handlers_on_a_runtime_do_a_hundred_jobs_at_once_without_a_thread_for_each() {
    let deployment = deployment();
    let runtime = Arc::new(Runtime::new().unwrap());
    let handle = runtime.handle().clone();
    let begin = move |job: Job, responder: Responder| {
        handle.spawn(async move { responder.respond(nap(&job).await) });
    };
    let worker = worker("nap", &deployment).concurrency(100).queue(10).serve_later(begin);
    let worker = started(worker);
    let client = deployment.client().unwrap();
    let naps: Vec<_> = (0..100).map(|_| client.submit_json("nap", &60_000).unwrap()).collect();
    wait_for(&deployment, "all of them to run", |row| row.running == 100);
    naps.iter().for_each(svcmap_worker::Ticket::cancel);
    for nap in naps {
        let Ok(Outcome::Failed(failure)) = nap.wait_timeout(PATIENCE) else { panic!("not ended") };
        assert_eq!(failure.error, "cancelled");
    }
    let short = client.submit_json("nap", &5).unwrap().wait_timeout(PATIENCE).unwrap();
    let short = short.done().unwrap();
    assert!(short.ran >= Duration::from_millis(5), "{short:?}");
    assert_eq!(&short[..], b"5 ms");
    worker.drain(PATIENCE).unwrap();
}

#[test]
fn senders_on_a_runtime_wait_for_room_without_a_thread() {
    let deployment = deployment();
    let _worker = started(worker("echo", &deployment).serve(Job::payload_bytes));
    let outbox = OutboxConfig { jobs_max: 2, ..OutboxConfig::default() };
    let client = deployment.access().client().outbox(outbox).start().unwrap();
    let mut one_thread = tokio::runtime::Builder::new_multi_thread();
    let runtime = one_thread.worker_threads(1).enable_time().build().unwrap();
    let tasks: Vec<_> = (0..200_u32)
        .map(|number| {
            let client = client.clone();
            runtime.spawn(async move {
                let job = client.job("echo", value::to_json(&number).unwrap());
                let reply = job.submit_async().await.unwrap().await.done().unwrap();
                assert_eq!(reply.json(), Ok(number));
            })
        })
        .collect();
    runtime.block_on(async {
        for task in tasks {
            tokio::time::timeout(PATIENCE, task).await.unwrap().unwrap();
        }
    });
    assert_eq!(client.statistics().done, 200);
}

#[test]
fn a_job_for_which_there_is_no_room_comes_back_or_waits_until_its_sender_stops() {
    let outbox = OutboxConfig { jobs_max: 1, ..OutboxConfig::default() };
    let nobody = Worker::builder("idle").mapper("tcp://127.0.0.1:1").outbox(outbox);
    let worker = nobody.serve(|_: &Job| ()).unwrap();
    let client = worker.client();
    let _ticket = client.submit("echo", "first").unwrap();
    let untaken = client.job("echo", "second").metadata("name", "b").try_submit().unwrap_err();
    assert_eq!(untaken.error, SubmitError::OutboxFull);
    let untaken = untaken.job.try_submit().unwrap_err();
    assert_eq!(untaken.error, SubmitError::OutboxFull);
    let runtime = Runtime::new().unwrap();
    let waits = untaken.job.submit_async();
    let taken = runtime.block_on(async {
        let mut waits = std::pin::pin!(waits);
        let at_once = tokio::time::timeout(Duration::ZERO, &mut waits).await;
        assert!(at_once.is_err(), "there is no room");
        drop(worker);
        tokio::time::timeout(PATIENCE, waits).await
    });
    assert_eq!(taken.unwrap().unwrap_err(), SubmitError::Stopped);
}

#[test]
fn a_ticket_that_is_dropped_cancels_its_job_if_that_was_wanted() {
    let deployment = deployment();
    let (tells, told) = mpsc::channel();
    let handler = move |job: &Job| {
        let until = Clock.now() + PATIENCE;
        while !job.is_cancelled() && Clock.now() < until {
            std::thread::yield_now();
        }
        tells.send(job.is_cancelled()).unwrap();
    };
    let _worker = started(worker("watch", &deployment).serve(handler));
    let client = deployment.client().unwrap();
    let ticket = client.submit("watch", ()).unwrap().cancel_on_drop();
    wait_for(&deployment, "it to run", |row| row.running == 1);
    drop(ticket);
    assert_eq!(told.recv_timeout(PATIENCE), Ok(true));
}

#[test]
fn a_worker_that_is_dropped_finishes_what_it_has() {
    let deployment = deployment();
    let (may_end, waits) = mpsc::channel::<()>();
    let waits = std::sync::Mutex::new(waits);
    let handler = move |_: &Job| {
        let _ = waits.lock().unwrap().recv_timeout(PATIENCE);
        "done"
    };
    let worker = started(worker("slow", &deployment).serve(handler));
    let client = deployment.client().unwrap();
    let ticket = client.submit("slow", ()).unwrap();
    wait_for(&deployment, "it to run", |row| row.running == 1);
    std::thread::scope(|scope| {
        scope.spawn(|| drop(worker));
        wait_for(&deployment, "the drain to begin", |row| row.state == Shown::Draining);
        may_end.send(()).unwrap();
    });
    assert_eq!(&ticket.wait_timeout(PATIENCE).unwrap().done().unwrap()[..], b"done");
}
