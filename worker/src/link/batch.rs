//! What is about to be sent goes together: one message for all jobs that there are. Whoever sends it adds
//! their payloads.

use svcmap_proto::jobs::{JobBatch, JobHeader, Priority, Reason, ToWorker, Verdict};
use svcmap_proto::limits;
use svcmap_proto::payload::Payloads;
use svcmap_proto::time::{wire_ms, wire_us};

use super::{Attempt, Ended, Link, LinkOutput, Phase};

impl Link {
    /// Says something, after the jobs that came before it.
    pub(super) fn say(&mut self, message: ToWorker) {
        self.flush();
        self.outputs.push_back(LinkOutput::Send(message));
    }

    /// Sends the attempts that wait, if there is a connection.
    pub(super) fn flush(&mut self) {
        while let Some(batch) = self.next_batch() {
            self.spoke_at = self.now;
            self.outputs.push_back(LinkOutput::Send(ToWorker::Jobs(batch)));
        }
    }

    /// As many of them as fit into one message.
    fn next_batch(&mut self) -> Option<JobBatch> {
        let mut batch: Option<JobBatch> = None;
        let mut bytes_left = limits::BATCH_BYTES_MAX;
        while self.phase == Phase::Ready && self.window.len() < limits::OPEN_ATTEMPTS_MAX {
            let size = self.pending.front().map_or(0, Attempt::bytes);
            let jobs = batch.as_ref().map_or(0, |batch| batch.jobs.len());
            if jobs > 0 && (size > bytes_left || jobs == limits::BATCH_MAX) {
                break;
            }
            let Some(attempt) = self.pending.pop_front() else { break };
            let Some(attempt) = self.check(attempt) else { continue };
            bytes_left = bytes_left.saturating_sub(size);
            self.expect_answer(self.now);
            let number = self.window.send(self.now, attempt.id);
            let batch = batch.get_or_insert_with(|| JobBatch {
                first_number: number,
                received_outcomes: self.receipts.acknowledge(),
                share: 0,
                share_priority: Priority::default(),
                jobs: Vec::with_capacity(limits::BATCH_MAX.min(1 + self.pending.len())),
                payloads: Payloads::default(),
            });
            batch.jobs.push(self.header(attempt));
        }
        let mut batch = batch?;
        if self.pending.is_empty() {
            (batch.share, batch.share_priority) = std::mem::take(&mut self.share);
        }
        let last = batch.first_number + batch.jobs.len() as u64 - 1;
        self.told_share(batch.share, batch.share_priority, last);
        Some(batch)
    }

    /// An attempt, if it can still be sent there.
    fn check(&mut self, attempt: Attempt) -> Option<Attempt> {
        let id = attempt.id;
        if attempt.claimed_until.is_some_and(|until| until <= self.now) {
            self.outputs.push_back(LinkOutput::NeverSeen(id));
            return None;
        }
        if !self.takes(attempt.payload_bytes) {
            // libzmq at the other end would close the connection over it.
            let verdict = Verdict::Rejected(Reason::TooLarge);
            let (payload, ran, journey) = Default::default();
            let ended = Ended { attempt: id, verdict, payload, ran, journey };
            self.outputs.push_back(LinkOutput::Ended(vec![ended]));
            return None;
        }
        Some(attempt)
    }

    fn header(&self, attempt: Attempt) -> JobHeader {
        let Attempt { id, deadline, run_limit, claim, redirects_left, submitted_at, .. } = attempt;
        JobHeader {
            attempt: id,
            deadline_ms: deadline.map(|deadline| wire_ms(deadline.since(self.now))),
            run_limit_ms: run_limit.map(wire_ms),
            claim,
            redirects_left,
            waited_us: wire_us(self.now.since(submitted_at)),
            detachment: attempt.detachment,
            priority: attempt.priority,
            metadata_bytes: attempt.metadata_bytes,
            payload_bytes: u32::try_from(attempt.payload_bytes).unwrap_or(u32::MAX),
        }
    }
}
