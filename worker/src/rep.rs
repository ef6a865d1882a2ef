//! A worker of the JSON dialect, as a link sees it.
//!
//! Behind its address is a REP socket: it takes one request at a time, and its one reply says
//! whether it took the job. [`RepWorker`] says in its stead what a native worker would say, so that
//! a [`Link`](crate::link::Link) needs not know the difference.

use serde::Deserialize;
use svcmap_proto::jobs::{AttemptId, FromWorker, OutcomeHeader, Reason, ToWorker, Verdict};
use svcmap_proto::json;
use svcmap_proto::load::{Load, Share};

/// See the module.
#[derive(Clone, Debug)]
pub struct RepWorker {
    /// Its newest load, as a mapper told.
    load: Load,
    /// Jobs that it took since then, and of which that load says nothing.
    accepted: u32,
    received_jobs: u64,
    outcomes: u64,
    /// The job that it has not replied to.
    unanswered: Option<AttemptId>,
}

impl RepWorker {
    /// The worker that a mapper lists with that load; `None` if it is a native one.
    pub fn new(load: Load) -> Option<Self> {
        load.share?;
        Some(Self { load, accepted: 0, received_jobs: 0, outcomes: 0, unanswered: None })
    }

    /// A mapper told of its load.
    pub fn handle_load(&mut self, load: &Load) {
        if load.sequence > self.load.sequence {
            (self.load, self.accepted) = (*load, 0);
        }
    }

    /// Jobs that it took since its newest load.
    pub fn accepted(&self) -> u32 {
        self.accepted
    }

    /// What a native worker would answer to that at once. A job has no answer yet: its payload is
    /// to be sent.
    pub fn handle_message(&mut self, message: &ToWorker) -> Option<FromWorker> {
        let (received_jobs, load) = (self.received_jobs, self.load);
        match message {
            ToWorker::Hello(hello) => {
                // What was sent on an earlier connection is not replied to on another.
                self.unanswered = None;
                Some(FromWorker::Welcome {
                    connection: hello.connection,
                    received_jobs,
                    // It may have a limit, but does not tell.
                    payload_bytes_max: u32::MAX,
                    load,
                    forgotten: hello.open.iter().map(|open| open.attempt).collect(),
                })
            }
            ToWorker::Job(header) => {
                self.received_jobs = header.number;
                self.unanswered = Some(header.attempt);
                None
            }
            ToWorker::Ping { .. } => Some(FromWorker::Pong { received_jobs, load }),
            ToWorker::Cancel { .. } | ToWorker::Received { .. } => None,
        }
    }

    /// It replied: what a native worker would say to that, and the second frame. `None` if no job
    /// waits for a reply.
    pub fn handle_reply(&mut self, body: &[u8]) -> Option<(FromWorker, Vec<u8>)> {
        let attempt = self.unanswered.take()?;
        let (verdict, payload) = verdict(body);
        match verdict {
            Verdict::Accepted => self.accepted = self.accepted.saturating_add(1),
            // Until a mapper tells of its load again, each beat: it may have room long before it
            // says so.
            Verdict::Rejected(Reason::Full) => self.load.share = Share::new(1.0),
            _ => {}
        }
        self.outcomes += 1;
        let outcome = FromWorker::Outcome(OutcomeHeader {
            number: self.outcomes,
            attempt,
            verdict,
            received_jobs: self.received_jobs,
            load: self.load,
        });
        Some((outcome, payload))
    }
}

/// What a reply means: the job was taken, or there was no room, or an error that is the payload.
fn verdict(body: &[u8]) -> (Verdict, Vec<u8>) {
    #[derive(Deserialize)]
    struct Reply {
        status: String,
        message: Option<String>,
    }
    let reply: Option<Reply> =
        json::object(body).ok().and_then(|text| serde_json::from_str(text).ok());
    match reply {
        Some(Reply { status, .. }) if status == "ok" => (Verdict::Accepted, Vec::new()),
        Some(Reply { message: Some(message), .. }) if message == json::QUEUE_FULL => {
            (Verdict::Rejected(Reason::Full), Vec::new())
        }
        Some(Reply { message: Some(message), .. }) => (Verdict::Failed, message.into_bytes()),
        _ => (Verdict::Failed, b"its reply has neither `status` \"ok\" nor a `message`".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use svcmap_proto::jobs::JobHeader;

    use super::*;

    fn worker() -> RepWorker {
        RepWorker::new(Load { sequence: 3, share: Share::new(0.5), ..Load::default() }).unwrap()
    }

    fn give(worker: &mut RepWorker, number: u64) -> AttemptId {
        let attempt = AttemptId { job: number, attempt: 1 };
        let header = JobHeader { number, attempt, deadline_ms: 1000, received_outcomes: 0 };
        assert_eq!(worker.handle_message(&ToWorker::Job(header)), None);
        attempt
    }

    fn reply(worker: &mut RepWorker, body: &str) -> (OutcomeHeader, String) {
        match worker.handle_reply(body.as_bytes()) {
            Some((FromWorker::Outcome(header), payload)) => {
                (header, String::from_utf8(payload).unwrap())
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_are_verdicts() {
        let mut worker = worker();
        let verdicts = [
            (r#"{"status":"ok","message":"job accepted"}"#, Verdict::Accepted, ""),
            (r#"{"status":"error","message":"no such task"}"#, Verdict::Failed, "no such task"),
            (r#"{"status":"error","message":"queue full"}"#, Verdict::Rejected(Reason::Full), ""),
            ("hello", Verdict::Failed, "its reply has neither `status` \"ok\" nor a `message`"),
        ];
        for (number, (body, verdict, payload)) in (1..).zip(verdicts) {
            let attempt = give(&mut worker, number);
            let (header, said) = reply(&mut worker, body);
            assert_eq!((header.number, header.attempt, header.verdict), (number, attempt, verdict));
            assert_eq!(said, payload);
        }
        assert_eq!(worker.handle_reply(b"{}"), None, "nothing was asked");
    }

    #[test]
    fn what_it_took_counts_until_it_reports_and_full_is_full() {
        let mut worker = worker();
        give(&mut worker, 1);
        let (header, _) = reply(&mut worker, r#"{"status":"ok"}"#);
        assert_eq!((worker.accepted(), header.load.ratio()), (1, 0.5));
        give(&mut worker, 2);
        let (header, _) = reply(&mut worker, r#"{"status":"error","message":"queue full"}"#);
        assert!(header.load.is_full());
        let newer = Load { sequence: 4, share: Share::new(0.2), ..Load::default() };
        worker.handle_load(&newer);
        assert_eq!(worker.accepted(), 0);
        give(&mut worker, 3);
        assert_eq!(reply(&mut worker, r#"{"status":"ok"}"#).0.load.ratio(), 0.2);
    }
}
