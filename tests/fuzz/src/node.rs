//! A process of the library, and what lies outside it: connections, handlers, tickets.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::codec;
use svcmap_proto::control::{
    Entry, FromMapper, Publication, ServiceStanding, SnapshotPart, Welcome,
};
use svcmap_proto::jobs::{Detachment, FromWorker, ToWorker};
use svcmap_proto::json::{self, Envelope, JsonError};
use svcmap_proto::limits;
use svcmap_proto::load::{Load, Share};
use svcmap_proto::names::{Endpoint, Epoch, HostId, Incarnation, InstanceKey, Name, SenderId};
use svcmap_proto::time::Timestamp;
use svcmap_worker::JobId;
use svcmap_worker::Policy;
use svcmap_worker::config::{IntakeConfig, OutboxConfig};
use svcmap_worker::pure::{
    Connection, Ending, Instance, JobSpec, Process, ProcessOutput, Sender, SenderOutput,
    ServerOutput, TaskId,
};

use crate::messages::{assert_laden, assert_readable};

const HOST: HostId = HostId(1);

/// Few and small enough that an input gets there.
const CONCURRENCY: u32 = 2;
const QUEUE: u32 = 3;
const PAYLOAD_BYTES_MAX: usize = 8192;
const JOBS_MAX: usize = 16;

/// More turns than that at one time, or outputs in one, are a loop without end.
const TURNS_MAX: usize = 100;
const OUTPUTS_MAX: usize = 10_000;

/// So often it is woken while time passes; then it stands still.
const WAKES_MAX: usize = 40;

/// Why something cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Who it is for does not read.
    Full,
    /// Who it is for is gone.
    Unreachable,
}

/// See the module.
pub(crate) struct Node {
    process: Process,
    now: Timestamp,
    /// The connections of links, in the order in which they were made.
    links: Vec<u64>,
    /// What workers of the JSON dialect were asked and have not replied to.
    asked: Vec<(u64, Option<String>)>,
    /// Jobs without an outcome.
    jobs: BTreeSet<JobId>,
    submitted: u64,
    /// What handlers have; the first ones have begun.
    tasks: VecDeque<TaskId>,
    progress: Option<String>,
    /// Requests of clients without a reply.
    unanswered: usize,
    fault: Option<Fault>,
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint::tcp("127.0.0.1", port).expect("an endpoint")
}

impl Node {
    /// One that a mapper has welcomed. It serves as `s/a`, or serves nothing.
    pub(crate) fn new(serves: bool) -> Self {
        let now = Timestamp::from_micros(1_000_000_000);
        let outbox =
            OutboxConfig { payload_bytes_max: PAYLOAD_BYTES_MAX, ..OutboxConfig::default() };
        let sender = Sender::new(SenderId(7), HOST, 1, outbox, Policy::Svcmap.choice(), 1);
        let intake = IntakeConfig {
            concurrency: CONCURRENCY,
            queue: QUEUE,
            run_limit: None,
            payload_bytes_max: PAYLOAD_BYTES_MAX,
            jobs_bytes_max: 2 * PAYLOAD_BYTES_MAX,
            results_bytes_max: 2 * PAYLOAD_BYTES_MAX,
        };
        let instance = Instance {
            key: InstanceKey { service: name("s"), instance: name("a") },
            incarnation: Some(Incarnation(5)),
            endpoint: endpoint(1),
            advertise: Vec::new(),
            host: HOST,
            pid: 1,
            config: intake,
        };
        let process = Process::new(now, vec![endpoint(1)], sender, serves.then_some(instance), 1);
        let mut node = Self {
            process,
            now,
            links: Vec::new(),
            asked: Vec::new(),
            jobs: BTreeSet::new(),
            submitted: 0,
            tasks: VecDeque::new(),
            progress: None,
            unanswered: 0,
            fault: None,
        };
        node.connect_mapper();
        let welcome = Welcome {
            epoch: Epoch(1),
            warming: false,
            beat_ms: 1000,
            expiry_ms: 3000,
            publish_ms: 10,
            publish: endpoint(9),
            observed: "127.0.0.1".to_owned(),
            highest: None,
        };
        node.process.handle_mapper_message(now, 0, 0, FromMapper::Welcome(welcome));
        node.act();
        node
    }

    /// A mapper tells of `s/a`, which this is, and of `s/b`, as of `t/j`, which gives results in JSON, and
    /// of `t/k`, which takes jobs in JSON.
    pub(crate) fn hear_of_workers(&mut self) {
        for service in ["s", "t"] {
            self.process.sender().follow(self.now, &name(service));
        }
        let native = Load { slots: 4, concurrency: 2, ..Load::default() };
        let share = Share::new(0.25);
        let takes = Load { share, ..Load::default() };
        let gives = Load { share: share.map(|share| share.giving_results(true)), ..native };
        let entry = |instance, port, load| Entry {
            instance: name(instance),
            incarnation: Incarnation(5),
            endpoints: vec![endpoint(port)],
            host: HOST,
            pid: 1,
            load,
            age_ms: 0,
            error: None,
            key: None,
        };
        for (service, entries) in [
            ("s", vec![entry("a", 1, native), entry("b", 2, native)]),
            ("t", vec![entry("j", 3, gives), entry("k", 4, takes)]),
        ] {
            let snapshot = Publication::Snapshot(SnapshotPart {
                epoch: Epoch(1),
                revision: 1,
                warming: false,
                standing: ServiceStanding::Heard,
                part: 0,
                parts: 1,
                entries,
            });
            self.process.handle_publication(self.now, 0, Some(&name(service)), &snapshot);
        }
        self.act();
    }

    /// Time passes.
    pub(crate) fn wait(&mut self, pause: Duration) {
        let until = self.now + pause;
        for _ in 0..WAKES_MAX {
            let Some(at) = self.process.poll_timeout().filter(|at| *at < until) else { break };
            if self.is_over() {
                return;
            }
            self.now = self.now.max(at);
            self.act();
        }
        self.now = until;
        self.act();
    }

    /// The mapper says something.
    pub(crate) fn hear_mapper(&mut self, frame: &[u8]) {
        if let Ok(message) = codec::decode(frame) {
            let unix_us = self.now.as_micros();
            self.process.handle_mapper_message(self.now, unix_us, 0, message);
            self.act();
        }
    }

    /// The mapper publishes something.
    pub(crate) fn hear_publication(&mut self, service: Option<&str>, frame: &[u8]) {
        if let Ok(publication) = codec::decode(frame) {
            let service = service.map(name);
            self.process.handle_publication(self.now, 0, service.as_ref(), &publication);
            self.act();
        }
    }

    /// A sender says something.
    pub(crate) fn hear_sender(&mut self, from: Connection, message: ToWorker) {
        self.process.handle_message(self.now, from, message);
        self.act();
    }

    /// A client of the JSON dialect says something.
    pub(crate) fn hear_client(&mut self, from: Envelope, body: Result<&[u8], JsonError>) {
        self.unanswered += 1;
        // What is wrong with it is said as well.
        let _ = self.process.handle_request(self.now, from, body);
        self.act();
    }

    fn link(&self, which: usize) -> Option<u64> {
        self.links.get(which.checked_rem(self.links.len())?).copied()
    }

    /// A worker says something.
    pub(crate) fn hear_worker(&mut self, which: usize, message: FromWorker) {
        if let Some(link) = self.link(which) {
            self.process.sender().handle_link_message(self.now, link, message);
            self.act();
        }
    }

    /// A worker of the JSON dialect replies.
    pub(crate) fn hear_reply(&mut self, which: usize, tag: Option<&[u8]>, body: &[u8]) {
        if let Some(link) = self.link(which) {
            // What is wrong with it has ended its job all the same.
            let _ = self.process.sender().handle_link_reply(self.now, link, tag, body);
            self.act();
        }
    }

    /// The same in answer to what it was asked.
    pub(crate) fn hear_answer(&mut self, which: usize, body: &[u8]) {
        let Some(place) = which.checked_rem(self.asked.len()) else { return };
        let (link, tag) = self.asked.remove(place);
        let tag = tag.as_deref().map(str::as_bytes);
        let _ = self.process.sender().handle_link_reply(self.now, link, tag, body);
        self.act();
    }

    /// Whether a worker of the JSON dialect was asked something.
    pub(crate) fn has_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    /// A connection is there, or gone.
    pub(crate) fn handle_link(&mut self, which: usize, is_there: bool) {
        let Some(link) = self.link(which) else { return };
        let (now, sender) = (self.now, self.process.sender());
        match is_there {
            true => sender.handle_link_writable(now, link),
            false => sender.handle_link_unwritable(now, link),
        }
        self.act();
    }

    /// A user submits a job. Of the number the bits say for which service and of which kind.
    pub(crate) fn submit(&mut self, kind: usize, payload: &[u8]) {
        let service = name(["s", "t"][kind & 1]);
        let detachment = if kind & 4 == 0 { Detachment::default() } else { Detachment::Released };
        self.hand_in(JobSpec {
            idempotent: kind & 2 != 0,
            detachment,
            deadline: (kind & 8 != 0).then_some(Duration::from_secs(5)),
            ..JobSpec::new(service, Bytes::copy_from_slice(payload))
        });
    }

    /// A user submits a job for one instance.
    pub(crate) fn submit_to(&mut self, service: &str, instance: &str, payload: &[u8]) {
        let spec = JobSpec::new(name(service), Bytes::copy_from_slice(payload));
        self.hand_in(JobSpec { instance: Some(name(instance)), ..spec });
    }

    fn hand_in(&mut self, spec: JobSpec) {
        if self.jobs.len() < JOBS_MAX && spec.payload.len() <= PAYLOAD_BYTES_MAX {
            self.submitted += 1;
            let job = JobId(self.submitted);
            self.jobs.insert(job);
            self.process.sender().handle_submit(self.now, job, spec);
            self.act();
        }
    }

    /// A user takes a job back.
    pub(crate) fn withdraw(&mut self, number: usize) {
        let job = JobId(number as u64 / 2 + 1);
        match number % 2 {
            0 => self.process.sender().handle_cancel(self.now, job),
            _ => self.process.sender().handle_take_back(self.now, job),
        }
        self.act();
    }

    /// A handler has ended.
    pub(crate) fn finish(&mut self, ending: Ending, payload: &[u8]) {
        let Some(task) = self.tasks.pop_front() else { return };
        let (times, payload) = ((self.now, self.now), Bytes::copy_from_slice(payload));
        self.process.handle_finished(self.now, task, times, ending, payload);
        self.act();
    }

    /// A handler says how far it is.
    pub(crate) fn progress(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text).into_owned();
        self.progress = Some(svcmap_proto::jobs::cut_progress(text));
        if let Some(server) = self.process.server() {
            server.handle_progress_news(self.now);
        }
        self.act();
    }

    /// The connection to the mapper is gone.
    pub(crate) fn lose_mapper(&mut self) {
        self.process.handle_mapper_lost(self.now, 0);
        self.act();
    }

    /// It is there again.
    pub(crate) fn connect_mapper(&mut self) {
        self.process.handle_mapper_connected(self.now, 0);
        self.act();
    }

    /// It is to end.
    pub(crate) fn drain(&mut self, grace: Duration) {
        self.process.drain(self.now, grace);
        self.act();
    }

    /// It did not run for so long.
    pub(crate) fn suspend(&mut self, gap: Duration) {
        self.process.handle_suspension(self.now, gap);
        self.act();
    }

    /// The next outcomes cannot be sent.
    pub(crate) fn fail_next(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Whether a drain is over: it ends then.
    pub(crate) fn is_over(&self) -> bool {
        self.process.drained(self.now).is_some()
    }

    /// It ends, and so has every job.
    pub(crate) fn stop(&mut self) {
        self.process.stop(self.now);
        self.act();
        assert_eq!(self.jobs, BTreeSet::new(), "jobs without an outcome");
    }

    /// Does what it wants done, until it is at rest.
    fn act(&mut self) {
        let mut turns = 0;
        loop {
            self.process.handle_timeout(self.now);
            let mut outputs = 0;
            while let Some(output) = self.process.poll_output(self.now) {
                self.handle_output(output);
                outputs += 1;
                assert!(outputs < OUTPUTS_MAX, "it never ends");
            }
            // Whoever drives it ends with the drain.
            if self.is_over() || self.process.poll_timeout().is_none_or(|at| at > self.now) {
                break;
            }
            turns += 1;
            assert!(turns < TURNS_MAX, "it is never at rest");
        }
        let now = self.now;
        if let Some(server) = self.process.server() {
            let load = server.load(now);
            assert!(load.busy() <= load.slots, "no slot is promised twice: {load:?}");
            assert!(server.intake().len() <= (CONCURRENCY + QUEUE) as usize);
        }
    }

    fn handle_output(&mut self, output: ProcessOutput) {
        match output {
            ProcessOutput::Server(output) => self.serve(output),
            ProcessOutput::Sender(output) => self.send(output),
            ProcessOutput::ToMapper { message, .. } => assert_readable(&message),
            ProcessOutput::Welcomed { .. }
            | ProcessOutput::Dial { .. }
            | ProcessOutput::HangUp { .. }
            | ProcessOutput::LookUp(_)
            | ProcessOutput::Relisten { .. }
            | ProcessOutput::Admit(_)
            | ProcessOutput::Event(_) => {}
        }
    }

    fn serve(&mut self, output: ServerOutput) {
        let now = self.now;
        let fault = self.fault;
        if matches!(output, ServerOutput::Answer { .. } | ServerOutput::Outcomes { .. }) {
            self.fault = None;
        }
        let Some(server) = self.process.server() else { return };
        match output {
            ServerOutput::Start(task) => self.tasks.push_back(task.id),
            ServerOutput::Cancel(task) => {
                let waiting = self.tasks.iter().skip(CONCURRENCY as usize);
                if waiting.clone().any(|other| *other == task) {
                    self.tasks.retain(|other| *other != task);
                    server.handle_withdrawn(now, task);
                }
            }
            ServerOutput::TakeBack => {
                let kept = self.tasks.len().min(CONCURRENCY as usize);
                let back = self.tasks.split_off(kept);
                server.handle_taken_back(now, back.into_iter().map(|task| (task, Bytes::new())));
            }
            ServerOutput::TakeProgress => {
                let said = self.progress.take();
                let said =
                    self.tasks.iter().take(1).filter_map(|task| Some((*task, said.clone()?)));
                server.handle_progress(now, said);
            }
            ServerOutput::Reply { body, .. } => {
                json::object(&body).expect("a reply is an object");
                self.unanswered = self.unanswered.checked_sub(1).expect("nobody asked");
            }
            ServerOutput::Answer { to, message } => {
                assert_readable(&message);
                match fault {
                    Some(Fault::Full) => server.handle_unread(now, &to, &message),
                    Some(Fault::Unreachable) => server.handle_gone(now, &to),
                    None => {}
                }
            }
            ServerOutput::Outcomes { sender, batch, .. } => {
                let (number, is_granted) = (batch.first_number, batch.grant.is_some());
                assert_laden(&FromWorker::Outcomes(batch));
                match fault {
                    Some(Fault::Full) => server.handle_blocked(now, sender, number, is_granted),
                    Some(Fault::Unreachable) => server.handle_unreachable(now, sender, number),
                    None => {}
                }
            }
            ServerOutput::SetAside { .. }
            | ServerOutput::FailsAlike { .. }
            | ServerOutput::Untold { .. }
            | ServerOutput::UntoldMore(_)
            | ServerOutput::Trusted
            | ServerOutput::Offer { .. } => {}
        }
    }

    fn send(&mut self, output: SenderOutput) {
        match output {
            SenderOutput::Send { message, .. } => assert_laden(&message),
            SenderOutput::Connect { link, .. } => {
                self.links.retain(|other| *other != link);
                self.links.push(link);
            }
            SenderOutput::Disconnect { link } => {
                self.links.retain(|other| *other != link);
                self.asked.retain(|(other, _)| *other != link);
            }
            SenderOutput::Request { link, attempt, tag, .. } => match self.fault.take() {
                Some(_) => self.process.sender().handle_unsent(self.now, link, attempt),
                None => self.asked.push((link, tag)),
            },
            SenderOutput::Progress { text, .. } => {
                assert!(text.is_none_or(|text| text.len() <= limits::PROGRESS_BYTES_MAX));
            }
            SenderOutput::Settled { job, .. } => {
                assert!(self.jobs.remove(&job), "{job:?} has ended before");
            }
            _ => {}
        }
    }
}
