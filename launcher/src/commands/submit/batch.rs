//! Jobs on their way: as many at once as is of use, until all have their outcome or are to end.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_channel::{Receiver, Sender, never, select, unbounded};
use svcmap_proto::io::Clock;
use svcmap_proto::time::{Timestamp, earliest};
use svcmap_worker::{Cause, Client, JobBuilder, NotTaken, Outcome, Reason, SubmitError, Ticket};

use super::follow::{self, Follow};
use super::reader::{Item, Job};
use super::record::{Ending, Record, Trouble};
use super::sink::{Ended, Sink, WAITING_BYTES_MAX};
use super::stop::{Stop, Why};
use crate::cli::SubmitArgs;
use crate::errors::{Error, Exit, print_note};
use crate::io::stderr_columns;
use crate::parse;
use crate::progress::INTERVAL;

/// Jobs that have no outcome, or whose result waits for that of a job before: more than most
/// deployments have slots, and few enough to be taken back at once.
const UNDER_WAY_MAX: usize = 4096;

/// A job that a client has.
struct UnderWay {
    job: Job,
    ticket: Ticket,
    history: History,
}

/// What a job has behind it.
struct History {
    retries_left: u32,
    attempts: u32,
    /// How it failed before.
    failed: Option<Outcome>,
}

impl History {
    /// How it failed before, if it did: that is its outcome then, and no longer counts as what was before.
    fn take_failed(&mut self) -> Option<Outcome> {
        let failed = self.failed.take()?;
        if let Outcome::Failed(failure) = &failed {
            self.attempts = self.attempts.saturating_sub(failure.attempts);
        }
        Some(failed)
    }
}

/// Rings when a job has its outcome.
struct Bell {
    number: u64,
    settled: Sender<u64>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        // Nobody listens at the end.
        let _ = self.settled.send(self.number);
    }
}

/// What happened.
enum Event {
    Signal(i32),
    Settled(u64),
    Item(Item),
    EndOfInputs,
    Nothing,
}

/// See the module.
pub struct Batch<'a> {
    args: &'a SubmitArgs,
    /// Until everything is to end at once.
    client: Option<Client>,
    inputs: Option<Receiver<Item>>,
    signals: Receiver<i32>,
    settled: Receiver<u64>,
    bells: Sender<u64>,
    under_way: BTreeMap<u64, UnderWay>,
    /// Those that the client has no room for yet.
    stalled: VecDeque<(Job, History)>,
    /// Where outcomes go.
    pub sink: Sink<'a>,
    /// Why no more is sent, if that is so.
    pub stop: Option<Stop>,
    follow: Follow,
    began_at: Timestamp,
    /// The trace that all of it is part of.
    trace: Option<String>,
    look_at: Timestamp,
}

impl<'a> Batch<'a> {
    /// Nothing is sent yet.
    pub fn new(
        args: &'a SubmitArgs,
        client: Client,
        inputs: Receiver<Item>,
        signals: Receiver<i32>,
        sink: Sink<'a>,
        began_at: Timestamp,
    ) -> Self {
        let (bells, settled) = unbounded();
        Self {
            args,
            client: Some(client),
            inputs: Some(inputs),
            signals,
            settled,
            bells,
            under_way: BTreeMap::new(),
            stalled: VecDeque::new(),
            sink,
            stop: None,
            follow: Follow::default(),
            began_at,
            trace: parse::trace(std::env::var_os(parse::TRACE_VARIABLE).as_deref()),
            look_at: Clock.now() + INTERVAL,
        }
    }

    /// Until all have their outcome.
    pub fn run(&mut self) {
        while self.inputs.is_some() || !self.under_way.is_empty() || !self.stalled.is_empty() {
            match self.next_event() {
                Event::Signal(signal) => self.handle_signal(signal),
                Event::Settled(number) => self.handle_settled(number),
                Event::Item(item) => self.handle_item(item),
                Event::EndOfInputs => self.inputs = None,
                Event::Nothing => {}
            }
            self.handle_timeout(Clock.now());
            self.flush();
        }
        // What came of the end itself.
        self.flush();
    }

    fn next_event(&self) -> Event {
        let never = never();
        let (jobs, bytes) = self.sink.waiting();
        let has_room = self.under_way.len() + jobs < UNDER_WAY_MAX && bytes < WAITING_BYTES_MAX;
        let wanted = self.inputs.as_ref().filter(|_| has_room && self.stalled.is_empty());
        let now = Clock.now();
        select! {
            recv(self.signals) -> signal => signal.map_or(Event::Nothing, Event::Signal),
            recv(self.settled) -> number => number.map_or(Event::Nothing, Event::Settled),
            recv(wanted.unwrap_or(&never)) -> item => item.map_or(Event::EndOfInputs, Event::Item),
            default(self.poll_timeout().since(now)) => Event::Nothing,
        }
    }

    fn handle_item(&mut self, item: Item) {
        match item {
            Item::Job(job) => {
                let retries_left = self.args.retries;
                self.send(job, History { retries_left, attempts: 0, failed: None });
            }
            Item::NotSent(number, name, trouble) => {
                let ending = Ending::NotSent(trouble);
                let (is_interrupted, attempts_before) = (false, 0);
                let record = Record { number, name, ending, is_interrupted, attempts_before };
                self.sink.add(Ended { record, output: None });
            }
            Item::Ended(word) => self.sink.report.add_before(word),
            Item::Failed(failure) => self.stop(Why::Failure(failure)),
        }
    }

    fn send(&mut self, job: Job, history: History) {
        let Some(client) = &self.client else { return };
        match self.builder(client, &job).try_submit() {
            Ok(ticket) => {
                let number = job.number;
                self.under_way.insert(number, UnderWay { job, ticket, history });
                self.look(number, Waker::from(self.bell(number)));
            }
            Err(NotTaken { error: SubmitError::OutboxFull, .. }) => {
                self.stalled.push_front((job, history))
            }
            Err(NotTaken { error, .. }) => {
                let ending = Ending::NotSent(Trouble::new(explain(&error)));
                self.conclude(job, &history, ending, false);
            }
        }
    }

    fn bell(&self, number: u64) -> Arc<Bell> {
        Arc::new(Bell { number, settled: self.bells.clone() })
    }

    fn builder<'b>(&'b self, client: &'b Client, job: &Job) -> JobBuilder<'b> {
        let args = self.args;
        let builder = client.job(args.service.as_str(), job.payload.clone());
        let mut builder = builder.priority(args.priority);
        if let Some(hold) = args.hold {
            builder = builder.hold(hold);
        }
        if let Some(run_limit) = args.run_limit {
            builder = builder.run_limit(run_limit);
        }
        if let Some(deadline) = args.deadline {
            // For all of it: who has to wait for others to end has less left.
            builder = builder.deadline(deadline.saturating_sub(Clock.now().since(self.began_at)));
        }
        if args.idempotent {
            builder = builder.idempotent();
        }
        if args.detach {
            builder = builder.fire_and_forget();
        }
        for (name, value) in job.name.metadata(self.trace.as_deref()) {
            builder = builder.metadata(name, value);
        }
        if let Some(instance) = &args.instance {
            builder = builder.instance(instance.as_str());
        }
        builder
    }

    fn handle_settled(&mut self, number: u64) {
        self.look(number, Waker::noop().clone());
        // There is room for one now.
        if let Some((job, history)) = self.stalled.pop_front() {
            self.send(job, history);
        }
    }

    /// Takes a job's outcome, or has its bell ring when there is one.
    fn look(&mut self, number: u64, waker: Waker) {
        let Some(one) = self.under_way.get_mut(&number) else { return };
        let mut context = Context::from_waker(&waker);
        let Poll::Ready(mut outcome) = Pin::new(&mut one.ticket).poll(&mut context) else { return };
        let Some(UnderWay { job, mut history, .. }) = self.under_way.remove(&number) else {
            return;
        };
        if let Outcome::Failed(failure) = &outcome
            && history.retries_left > 0
            && self.stop.is_none()
        {
            history.retries_left -= 1;
            history.attempts += failure.attempts;
            history.failed = Some(outcome);
            return self.send(job, history);
        }
        let is_interrupted = self.stop.as_ref().is_some_and(|stop| match &outcome {
            Outcome::Refused(refusal) => refusal.reason == Reason::Cancelled,
            Outcome::Failed(_) => stop.has_cancelled(),
            Outcome::Unknown(cause) => *cause == Cause::Stopped,
            Outcome::Done(_) | Outcome::Accepted => false,
        });
        // It ran, and nobody is to think that it did not.
        if let Outcome::Refused(refusal) = &outcome
            && let Some(failed) = history.take_failed()
        {
            history.attempts += refusal.attempts;
            outcome = failed;
        }
        self.conclude(job, &history, Ending::Outcome(outcome), is_interrupted);
    }

    fn conclude(&mut self, job: Job, history: &History, ending: Ending, is_interrupted: bool) {
        let Job { number, name, output, .. } = job;
        let attempts_before = history.attempts;
        let record = Record { number, name, ending, is_interrupted, attempts_before };
        self.sink.add(Ended { record, output });
    }

    /// Deals with outcomes that have their turn, and with what follows from that.
    fn flush(&mut self) {
        while let Err(error) = self.sink.flush(self.oldest()) {
            self.stop(match error {
                Error::OutputClosed => Why::OutputClosed,
                Error::Failure(failure) => Why::Failure(failure),
            });
        }
        let enough = self.args.stop_after.map_or(u64::MAX, |count| count.get());
        if self.stop.is_none() && self.sink.not_done() >= enough {
            self.stop(Why::Enough);
        }
        if self.inputs.is_none() && self.stop.is_none() && self.sink.progress.count().is_none() {
            let (waiting, _) = self.sink.waiting();
            let left = self.under_way.len() + self.stalled.len() + waiting;
            self.sink.progress.set_count(self.sink.report.len() + left);
        }
    }

    /// The first job without an outcome.
    fn oldest(&self) -> Option<u64> {
        let first = self.under_way.first_key_value().map(|(number, _)| *number);
        self.stalled.iter().map(|(job, _)| job.number).chain(first).min()
    }

    fn handle_signal(&mut self, signal: i32) {
        if self.stop.as_mut().is_some_and(|stop| stop.is_ended_by(signal)) {
            self.leave();
        } else {
            self.stop(Why::Signal(signal));
        }
    }

    /// Sends no more, and takes back what was not begun.
    fn stop(&mut self, why: Why) {
        self.inputs = None;
        for (job, mut history) in std::mem::take(&mut self.stalled) {
            // What was never sent is not spoken of, as all that follows it.
            if let Some(outcome) = history.take_failed() {
                self.conclude(job, &history, Ending::Outcome(outcome), true);
            }
        }
        self.under_way.values().for_each(|one| one.ticket.take_back());
        let stop = Stop::new(why, Clock.now(), self.args.grace);
        let note = stop.note(self.args, self.under_way.is_empty());
        if let Some(note) = note.filter(|_| self.stop.is_none() || stop.is_by_signal()) {
            self.sink.progress.suspend(|| print_note(&note));
        }
        self.stop = Some(match self.stop.take() {
            Some(before) => before.and(stop),
            None => stop,
        });
    }

    /// When [`Batch::handle_timeout`] is due.
    fn poll_timeout(&self) -> Timestamp {
        let stop = self.stop.as_ref().and_then(Stop::poll_timeout);
        earliest(Some(self.look_at), stop).unwrap_or(self.look_at)
    }

    fn handle_timeout(&mut self, now: Timestamp) {
        if let Some(stop) = &mut self.stop {
            if stop.poll_cancel(now) {
                self.under_way.values().for_each(|one| one.ticket.cancel());
            }
            if stop.is_over(now) {
                return self.leave();
            }
        }
        if now < self.look_at {
            return;
        }
        self.look_at = now + INTERVAL;
        self.sink.show_progress();
        if self.args.follow {
            self.show_progress(now);
        }
        if self.stop.is_none() && self.sink.is_closed() {
            self.stop(Why::OutputClosed);
        }
        let is_list = self.args.lines.is_some() || self.args.files_from.is_some();
        let is_late = self.args.deadline.is_some_and(|limit| now >= self.began_at + limit);
        if is_list && is_late && self.inputs.take().is_some() {
            self.sink.report.add_exit(Exit::Refused);
            let note = "the deadline came before the end of the list: the rest was not sent";
            self.sink.progress.suspend(|| print_note(note));
        }
    }

    /// Shows how far the jobs are that run.
    fn show_progress(&mut self, now: Timestamp) {
        let report = |(&number, one): (&u64, &UnderWay)| {
            let text = one.ticket.progress()?;
            Some(follow::Report { number, name: one.job.name.label(number), text })
        };
        let reports: Vec<_> = self.under_way.iter().filter_map(report).collect();
        match stderr_columns() {
            Some(columns) => self.sink.progress.show_below(&follow::below(&reports, columns)),
            None => self.follow.lines(now, reports).iter().for_each(|line| print_note(line)),
        }
    }

    /// Waits for nothing any more: what has no outcome is refused or unknown now.
    fn leave(&mut self) {
        // Takes back what it can, and settles every ticket.
        self.client = None;
        let numbers: Vec<_> = self.under_way.keys().copied().collect();
        numbers.into_iter().for_each(|number| self.look(number, Waker::noop().clone()));
        for (_, UnderWay { job, history, .. }) in std::mem::take(&mut self.under_way) {
            let outcome = Outcome::Unknown(Cause::Stopped);
            self.conclude(job, &history, Ending::Outcome(outcome), true);
        }
    }
}

/// A job that was not taken, in words that say what to do.
fn explain(error: &SubmitError) -> String {
    match error {
        SubmitError::TooLarge { limit, .. } => {
            format!("{error}; nothing was sent ({limit} bytes: see --payload-max)")
        }
        error => error.to_string(),
    }
}
