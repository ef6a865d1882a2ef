//! What goes wrong: connections break, processes stand still or end.

use std::time::Duration;

use svcmap::distribution::exponential;
use svcmap_proto::control::{Registration, ToMapper};
use svcmap_proto::time::Timestamp;
use svcmap_worker::JobId;
use svcmap_worker::pure::Process;

use super::{Event, World};
use crate::nodes::{Carrier, Line, Message, Node};
use crate::scenario::Span;

/// Beyond five ways, how long it takes until a connection that broke is there again.
const RECONNECT: Duration = Duration::from_millis(1);

/// Something goes wrong, or well again.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// That connection of a sender breaks.
    Break { sender: usize, line: Line },
    /// A sender's process ends, whichever.
    SenderEnds,
    /// The first worker's process ends.
    WorkerEnds,
    /// Another life of a worker starts, or its first.
    WorkerStarts(usize),
    /// A process stands still for so long.
    Pauses(Node, Duration),
    /// It goes on.
    Resumes(Node),
}

/// A process that does nothing.
#[derive(Debug)]
pub(super) enum Stop {
    /// Until it goes on, with what has come since.
    Paused(Vec<Event>),
    /// For ever.
    Ended,
}

impl World {
    /// How long a job takes at that worker until it fails, if it does.
    pub(super) fn failing_time(&mut self, worker: usize) -> Option<Duration> {
        let failing = self.scenario.faults.failing.filter(|failing| worker < failing.workers)?;
        let is_on = failing.from.is_none_or(|from| self.now >= self.measured_at + from);
        let fails = is_on && (failing.share >= 1.0 || self.luck.f64() < failing.share);
        fails.then_some(failing.takes)
    }

    /// Plans what the scenario wants to go wrong at its time; all else follows from what happens.
    pub(super) fn plan_faults(&mut self) {
        let faults = self.scenario.faults.clone();
        if let Some(Span { from, length }) = faults.mapper_away {
            let at = self.measured_at + from;
            self.queue.push(at, Event::Connections(false));
            self.queue.push(at + length, Event::Connections(true));
        }
        let (worker, sender) = (faults.worker_paused, faults.sender_paused);
        for (node, span) in [(Node::Worker(0), worker), (Node::Sender(0), sender)] {
            if let Some(Span { from, length }) = span {
                let fault = Fault::Pauses(node, length);
                self.queue.push(self.measured_at + from, Event::Fault(fault));
            }
        }
        if let Some(crash) = faults.worker_crash {
            self.queue.push(self.measured_at + crash.at, Event::Fault(Fault::WorkerEnds));
        }
        self.plan(faults.sender_crash, Fault::SenderEnds);
    }

    /// Plans the start of workers that come late.
    pub(super) fn plan_late(&mut self) {
        let Some(late) = self.scenario.late else { return };
        let all = self.scenario.workers;
        for worker in all - late.workers..all {
            // Who is not there has no room.
            self.truth.set(worker, usize::MAX);
            let at = self.measured_at + late.after;
            self.queue.push(at, Event::Fault(Fault::WorkerStarts(worker)));
        }
    }

    /// Plans what happens at random, so often in the mean.
    fn plan(&mut self, mean: Option<Duration>, fault: Fault) {
        if let Some(mean) = mean {
            let at = self.now + mean.mul_f64(exponential(&mut self.luck));
            if at < self.ends_at {
                self.queue.push(at, Event::Fault(fault));
            }
        }
    }

    /// Keeps an event from a process that does nothing now. Returns those for all others.
    pub(super) fn hold_back(&mut self, event: Event) -> Option<Event> {
        if self.stopped.is_empty() {
            return Some(event);
        }
        match event.process().and_then(|node| self.stopped.get_mut(&node)) {
            None => Some(event),
            Some(Stop::Ended) => None,
            Some(Stop::Paused(waiting)) => {
                waiting.push(event);
                None
            }
        }
    }

    pub(super) fn handle_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Break { sender, line } => self.lose(sender, line),
            Fault::SenderEnds => self.end_sender(),
            Fault::WorkerEnds => self.end_worker(),
            Fault::WorkerStarts(number) => self.start_worker(number),
            Fault::Pauses(node, length) => {
                self.stopped.entry(node).or_insert_with(|| Stop::Paused(Vec::new()));
                self.queue.push(self.now + length, Event::Fault(Fault::Resumes(node)));
            }
            Fault::Resumes(node) => self.resume(node),
        }
    }

    /// A connection is there: it will break some day.
    pub(super) fn plan_break(&mut self, sender: usize, line: Line) {
        self.plan(self.scenario.faults.connection_loss, Fault::Break { sender, line });
    }

    /// A connection breaks: its sender notices, its worker when it sends, and it comes back in a moment.
    fn lose(&mut self, sender: usize, line: Line) {
        if !self.senders[sender].carrier.is_open(line) {
            return;
        }
        let Some((worker, next)) = self.senders[sender].carrier.lose(self.now, line) else {
            return;
        };
        self.workers[worker].handle_gone(Node::Sender(sender), line);
        self.ledger.damage.connections_lost += 1;
        let at = self.now + 5 * self.scenario.delay + RECONNECT;
        let (from, to) = (Node::Worker(worker), Node::Sender(sender));
        let message = Box::new(Message::Connected(next));
        self.queue.push(at, Event::Deliver { from, to, message });
        self.act(to);
    }

    /// A sender's process ends with all of its jobs, and another one takes its place.
    fn end_sender(&mut self) {
        let stream = self.luck.usize(..self.processes.len());
        let number = self.processes[stream];
        let node = Node::Sender(number);
        self.stopped.insert(node, Stop::Ended);
        // What it sent last is on its way.
        let until = self.now + 3 * self.scenario.beat + 2 * self.scenario.delay;
        self.ledger.end_sender(stream, until);
        let lines: Vec<_> = self.senders[number].carrier.lines().collect();
        for (worker, line) in lines {
            self.send(node, Node::Worker(worker), Box::new(Message::Gone(line)));
        }
        self.processes[stream] = self.start_sender();
        self.connect(Node::Sender(self.processes[stream]));
        self.plan(self.scenario.faults.sender_crash, Fault::SenderEnds);
    }

    /// The first worker's process ends with all of its jobs.
    fn end_worker(&mut self) {
        let Some(crash) = self.scenario.faults.worker_crash else { return };
        let node = Node::Worker(0);
        self.stopped.insert(node, Stop::Ended);
        // Who ended has no room.
        self.truth.set(0, usize::MAX);
        for sender in self.processes.clone() {
            let to_it = self.senders[sender].carrier.lines().filter(|(worker, _)| *worker == 0);
            for (_, line) in to_it.collect::<Vec<_>>() {
                self.send(node, Node::Sender(sender), Box::new(Message::Gone(line)));
            }
        }
        if crash.is_told
            && let Some(Registration { key, incarnation, .. }) =
                self.workers[0].registration(self.now)
        {
            let leave = Message::ToMapper(ToMapper::Leave { key, incarnation });
            self.send(node, Node::Mapper, Box::new(leave));
        }
        if let Some(time) = crash.back_after {
            self.queue.push(self.now + time, Event::Fault(Fault::WorkerStarts(0)));
        }
    }

    /// A job comes: its user may take it back some time.
    pub(super) fn plan_cancel(&mut self, sender: usize, job: u64) {
        let share = self.scenario.faults.cancelled;
        if share > 0.0 && self.luck.f64() < share {
            let mean = 2 * self.scenario.service_time;
            let at = self.now + mean.mul_f64(exponential(&mut self.luck));
            self.queue.push(at, Event::Cancel { sender, job });
        }
    }

    /// A user takes a job back, if it has no outcome yet.
    pub(super) fn cancel(&mut self, sender: usize, job: u64) -> Option<Node> {
        if !self.ledger.cancel(self.now, job) {
            return None;
        }
        self.senders[sender].carrier.cancel(self.now, JobId(job));
        Some(Node::Sender(sender))
    }

    /// A process goes on: it reads all that waits before it does anything.
    fn resume(&mut self, node: Node) {
        if !matches!(self.stopped.get(&node), Some(Stop::Paused(_))) {
            return;
        }
        let Some(Stop::Paused(waiting)) = self.stopped.remove(&node) else { return };
        if let Node::Worker(worker) = node {
            let on_the_way: usize = waiting.iter().map(Event::jobs).sum();
            self.ledger.damage.jobs_trapped = (self.workers[worker].jobs() + on_the_way) as u64;
        }
        let due_at = self.carrier(node).and_then(Carrier::poll_timeout);
        for event in waiting {
            if let Some(other) = self.take(event).filter(|acting| *acting != node) {
                self.act(other);
            }
        }
        let now = self.now;
        if let Some(gap) = Process::suspended_for(due_at, Timestamp::default(), now)
            && let Some(carrier) = self.carrier_mut(node)
        {
            carrier.handle_suspension(now, gap);
        }
        *self.wake_at.of(node) = None;
        self.act(node);
    }
}
