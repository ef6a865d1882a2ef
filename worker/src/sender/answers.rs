//! What links have found out: outcomes, load, promises, and that they are of no use any more.

use bytes::Bytes;
use svcmap_proto::jobs::{JobBatch, JobHeader, Reason, ToWorker, Verdict};
use svcmap_proto::load::State;
use svcmap_proto::names::{InstanceKey, Name};
use svcmap_proto::payload::Payloads;
use svcmap_proto::time::Timestamp;

use super::concurrency_limit::{self, ConcurrencyLimit};
use super::estimates::ServiceEstimates;
use super::{Sender, SenderOutput, Trouble};
use crate::link::{Closing, Ended, LinkOutput};
use crate::observation::Observation;
use crate::outbox::{JobId, Outbox};

impl Sender {
    pub(super) fn handle_link_output(&mut self, now: Timestamp, number: u64, output: LinkOutput) {
        let Some(state) = self.links.get_mut(number) else { return };
        let key = state.link.key().clone();
        match output {
            LinkOutput::Send(mut message) => {
                if let ToWorker::Jobs(batch) = &mut message {
                    let is_complete = add_payloads(&self.outbox, batch).is_some();
                    // A job has its outcome only once its link has said so, or was asked to take it
                    // back, and the link says one thing after the other.
                    debug_assert!(is_complete, "a job without an outcome has a payload");
                    if !is_complete {
                        return;
                    }
                    self.statistics.peer(&key).sent += batch.jobs.len() as u64;
                }
                let Some(rep) = &mut state.rep else {
                    return self.outputs.push_back(SenderOutput::Send { link: number, message });
                };
                let member = self.peers.is_member(&key, state.link.incarnation());
                if let Some(answer) = rep.handle_message(now, &message, member) {
                    state.link.handle_message(now, answer);
                } else if let ToWorker::Jobs(batch) = message {
                    batch.jobs.iter().for_each(|job| self.request(now, number, job));
                }
            }
            // A worker of the JSON dialect tells none: see `handle_link_reply`.
            LinkOutput::Load { .. } if state.rep.is_some() => {}
            LinkOutput::Load { load, received_jobs } => {
                state.handle_answer();
                if load.state != State::Ready {
                    self.asks.forget(&key.service, number);
                }
                self.learn(&key.service, |estimates| estimates.learn_load(&load));
                let Some(state) = self.links.get_mut(number) else { return };
                if self.placement.learns_from_answers() {
                    state.handle_answered_load(load.sequence, received_jobs);
                    self.peers.handle_load(now, &key, state.link.incarnation(), &load);
                    self.outbox.touch(&key.service);
                }
            }
            LinkOutput::Ended(ended) => {
                let is_native = state.rep.is_none();
                self.handle_ended(now, &key, is_native, ended);
            }
            LinkOutput::Progress(reports) => {
                let outbox = &mut self.outbox;
                reports.into_iter().for_each(|report| outbox.handle_progress(report));
            }
            LinkOutput::Granted { credits } => {
                let was_asked = self.asks.is_asked(number);
                self.asks.handle_granted(&key.service, number, credits);
                self.outbox.touch(&key.service);
                if was_asked {
                    self.return_unwanted(now, &key.service, number);
                }
            }
            LinkOutput::Offered(slot) => {
                self.asks.handle_offered(&key.service, number);
                self.take_slot(now, &key.service, None, &slot);
                // Whoever could not use it asks again.
                self.outbox.touch(&key.service);
            }
            LinkOutput::Declined(offer) => {
                self.outputs.push_back(SenderOutput::Declined(offer));
            }
            LinkOutput::NeverSeen(attempt) => {
                self.statistics.peer(&key).never_seen += 1;
                self.outbox.handle_never_seen(now, attempt);
            }
            LinkOutput::Lost { attempt, cause } => {
                self.statistics.peer(&key).lost += 1;
                self.outbox.handle_lost(now, attempt, cause);
            }
            LinkOutput::Closed(closing) => self.handle_closed(now, number, closing),
        }
    }

    /// A worker of the JSON dialect gets a job.
    fn request(&mut self, now: Timestamp, link: u64, job: &JobHeader) {
        let attempt = job.attempt;
        let contents = self.outbox.contents(JobId(attempt.job));
        let rep = self.links.get(link).and_then(|state| state.rep.as_ref());
        let request = rep
            .zip(contents)
            .and_then(|(rep, (metadata, payload))| rep.request(job, metadata, payload));
        match request {
            Some((tag, body)) => {
                self.outputs.push_back(SenderOutput::Request { link, attempt, tag, body });
            }
            None => self.handle_unsent(now, link, attempt),
        }
    }

    /// Attempts ended at a worker.
    fn handle_ended(
        &mut self,
        now: Timestamp,
        key: &InstanceKey,
        is_native: bool,
        ended: Vec<Ended>,
    ) {
        let tally = self.statistics.peer(key);
        ended.iter().for_each(|ended| tally.count(&ended.verdict));
        if is_native {
            let was_taken = |ended: &&Ended| {
                matches!(ended.verdict, Verdict::Done | Verdict::Failed { .. } | Verdict::Accepted)
            };
            self.learn(&key.service, |estimates| {
                ended
                    .iter()
                    .filter(was_taken)
                    .for_each(|ended| estimates.learn_journey(ended.journey));
            });
            self.learn_crowd(now, key, &ended);
        }
        for ended in ended {
            let (attempt, verdict) = (ended.attempt, ended.verdict.clone());
            if let (true, &Verdict::Rejected(reason)) = (self.observe, &verdict) {
                let rejected = Observation::Rejected { attempt, key: key.clone(), reason };
                self.outputs.push_back(SenderOutput::Observed(rejected));
            }
            self.outbox.handle_ended(now, key, ended);
            if let Verdict::HandedOver(slot) = verdict {
                self.take_slot(now, &key.service, Some(JobId(attempt.job)), &slot);
            }
        }
    }

    fn handle_closed(&mut self, now: Timestamp, number: u64, closing: Closing) {
        let Some(state) = self.links.get_mut(number) else { return };
        let trouble = match closing {
            Closing::WrongVersion => Trouble::WrongVersion,
            Closing::TurnedAway => Trouble::TurnedAway,
            _ => Trouble::NoAnswer,
        };
        if let Some((failures, endpoint)) = state.handle_closed(now, closing) {
            let key = state.link.key().clone();
            let output = SenderOutput::Unreachable { key, endpoint, failures, trouble };
            self.outputs.push_back(output);
        }
        self.asks.forget(&state.link.key().service, number);
        self.outputs.push_back(SenderOutput::Disconnect { link: number });
        self.outbox.touch(&state.link.key().service);
    }

    /// Outcomes tell whether their worker has more to do than it should have.
    fn learn_crowd(&mut self, now: Timestamp, key: &InstanceKey, ended: &[Ended]) {
        if !self.services.estimates(&key.service).is_short() {
            return;
        }
        let load = self.peers.member(key).map(|member| member.load);
        let is_busy = load.is_some_and(|load| concurrency_limit::is_crowded(&load));
        let is_crowded = |ended: &Ended| match ended.verdict {
            Verdict::Done | Verdict::Failed { .. } | Verdict::Accepted => Some(is_busy),
            Verdict::Rejected(Reason::Full) => Some(true),
            _ => None,
        };
        let mut outcomes = ended.iter().filter_map(is_crowded).peekable();
        if outcomes.peek().is_none() {
            return;
        }
        let known = self.services.get_mut(&key.service).concurrency_limit;
        let first = || ConcurrencyLimit::new(self.situation(now).native_under_way(&key.service));
        let mut limit = known.unwrap_or_else(first);
        outcomes.for_each(|is_crowded| limit.handle_outcome(is_crowded));
        self.services.get_mut(&key.service).concurrency_limit = Some(limit);
    }

    /// Learns something about the pace of a service.
    pub(super) fn learn(&mut self, service: &Name, learn: impl FnOnce(&mut ServiceEstimates)) {
        if self.peers.follows(service) {
            learn(&mut self.services.get_mut(service).estimates);
        }
    }
}

/// Adds metadata and payloads to jobs that are about to be sent. `None` if one of these is not in the
/// outbox.
fn add_payloads(outbox: &Outbox, batch: &mut JobBatch) -> Option<()> {
    let mut contents: Vec<&Bytes> = Vec::with_capacity(batch.jobs.len());
    for job in &batch.jobs {
        let (metadata, payload) = outbox.contents(JobId(job.attempt.job))?;
        contents.extend((!metadata.is_empty()).then(|| metadata.encoded()));
        contents.push(payload);
    }
    batch.payloads = Payloads::new(contents.iter().copied());
    Some(())
}
