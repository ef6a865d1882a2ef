//! Outcomes that a sender has not acknowledged: they are kept, and sent, in the order of their numbers.

use bytes::Bytes;
use svcmap_proto::jobs::{AttemptId, OutcomeHeader, Verdict};
use svcmap_proto::limits;
use svcmap_proto::names::SenderId;
use svcmap_proto::payload::{self, Payloads};
use svcmap_proto::time::Timestamp;

use super::{Delivery, Sender};

/// One of them.
#[derive(Debug)]
pub(super) struct Retained {
    pub(super) number: u64,
    pub(super) attempt: AttemptId,
    pub(super) verdict: Verdict,
    pub(super) residence_us: u64,
    pub(super) ran_us: u64,
    pub(super) payload: Bytes,
    /// Its place among all that is retained.
    pub(super) order: u64,
    /// Until when it is worth keeping.
    pub(super) until: Timestamp,
}

impl Retained {
    fn header(&self) -> OutcomeHeader {
        let &Self { attempt, residence_us, ran_us, .. } = self;
        let (verdict, payload_bytes) = (self.verdict.clone(), payload::len(&self.payload));
        OutcomeHeader { attempt, verdict, residence_us, ran_us, payload_bytes }
    }
}

impl Sender {
    /// The place of its oldest retained outcome among all.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.retained.front().map(|oldest| oldest.order)
    }

    /// The next outcomes to send, unless what was sent and not acknowledged takes `bytes_max`
    /// already: what a peer does not read is kept by libzmq as well.
    pub(super) fn next_delivery(&mut self, id: SenderId, bytes_max: usize) -> Option<Delivery> {
        let to = self.connection.as_ref()?;
        let first = self.retained.front()?.number;
        let first_number = self.next_to_send.max(first);
        let index = usize::try_from(first_number - first).ok()?;
        let unsent = self.retained.iter().skip(index);
        let mut outcomes = Vec::with_capacity(limits::BATCH_MAX.min(unsent.len()));
        let mut batch_bytes = 0;
        for retained in unsent.clone().take(limits::BATCH_MAX) {
            let size = retained.payload.len();
            let bytes = self.unacknowledged_bytes + size;
            let is_too_much = bytes > bytes_max && self.unacknowledged_bytes > 0;
            let is_full = batch_bytes + size > limits::BATCH_BYTES_MAX && !outcomes.is_empty();
            if is_too_much || is_full {
                break;
            }
            self.unacknowledged_bytes = bytes;
            batch_bytes += size;
            outcomes.push(retained.header());
        }
        if outcomes.is_empty() {
            return None;
        }
        let sent = unsent.take(outcomes.len()).map(|retained| &retained.payload);
        let payloads = Payloads::new(sent);
        self.next_to_send = first_number + outcomes.len() as u64;
        let (to, received_jobs) = (to.clone(), self.received_jobs);
        Some(Delivery { to, sender: id, first_number, received_jobs, outcomes, payloads })
    }

    /// What is retained from this number on was not sent after all.
    pub(super) fn take_back(&mut self, number: u64) {
        let next = self.next_to_send;
        let unsent = self.retained.iter().filter(|r| (number..next).contains(&r.number));
        self.unacknowledged_bytes -= unsent.map(|r| r.payload.len()).sum::<usize>();
        self.next_to_send = next.min(number);
    }

    pub(super) fn forget_first(&mut self) -> Option<Retained> {
        let first = self.retained.pop_front()?;
        if first.number < self.next_to_send {
            self.unacknowledged_bytes -= first.payload.len();
        }
        Some(first)
    }
}
