//! A worker of the JSON dialect, as a link sees it.
//!
//! Behind its address is a REP socket: it takes one request at a time, and its one reply says
//! whether it took the job. [`RepWorker`] says in its stead what a native worker would say, so that
//! a [`Link`](crate::link::Link) needs not know the difference.

use std::time::Duration;

use serde::Deserialize;
use svcmap_proto::jobs::{
    AttemptId, FromWorker, OutcomeBatch, OutcomeHeader, Reason, ToWorker, Verdict,
};
use svcmap_proto::json;
use svcmap_proto::load::Load;
use svcmap_proto::payload::{self, Payloads};
use svcmap_proto::time::Timestamp;

/// See the module.
#[derive(Clone, Debug)]
pub struct RepWorker {
    /// Its newest load, as a mapper told.
    load: Load,
    /// Jobs that it took since then, and of which that load says nothing.
    accepted: u32,
    /// It said that it was full, and is left alone until then: it may have room long before it
    /// tells a mapper so.
    full_until: Option<Timestamp>,
    received_jobs: u64,
    outcomes: u64,
    /// The job that it has not replied to, and by when it should.
    unanswered: Option<(AttemptId, Option<Timestamp>)>,
}

impl RepWorker {
    /// The worker that a mapper lists with that load; `None` if it is a native one.
    pub fn new(load: Load) -> Option<Self> {
        load.share?;
        let (accepted, received_jobs, outcomes) = (0, 0, 0);
        let (full_until, unanswered) = (None, None);
        Some(Self { load, accepted, full_until, received_jobs, outcomes, unanswered })
    }

    /// A mapper told of its load.
    pub fn handle_load(&mut self, load: &Load) {
        // The cache knows which is newer; a mapper that was started again counts anew.
        if load.sequence != self.load.sequence {
            (self.load, self.accepted, self.full_until) = (*load, 0, None);
        }
    }

    /// Until when it is full by its own word.
    pub fn full_until(&self) -> Option<Timestamp> {
        self.full_until
    }

    /// Returns whether it may be tried again from now on.
    pub fn handle_timeout(&mut self, now: Timestamp) -> bool {
        self.full_until.take_if(|until| *until <= now).is_some()
    }

    /// Jobs that it took since its newest load.
    pub fn accepted(&self) -> u32 {
        self.accepted
    }

    /// What a native worker would answer to that at once. A job has no answer yet: its payload is
    /// to be sent. A ping has none if the worker is not a `member` any more, or owes a reply beyond
    /// its deadline: then only its own word shows that it is there.
    pub fn handle_message(
        &mut self,
        now: Timestamp,
        message: &ToWorker,
        member: bool,
    ) -> Option<FromWorker> {
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
            ToWorker::Jobs(batch) => {
                let jobs = batch.jobs.len() as u64;
                self.received_jobs = batch.first_number + jobs.saturating_sub(1);
                // There is one: it is not given another before it has replied.
                if let Some(job) = batch.jobs.last() {
                    let left = job.deadline_ms.map(|ms| Duration::from_millis(ms.into()));
                    self.unanswered = Some((job.attempt, left.map(|left| now + left)));
                }
                None
            }
            ToWorker::Ping { .. } => {
                let deadline = self.unanswered.and_then(|(_, deadline)| deadline);
                let late = deadline.is_some_and(|deadline| deadline <= now);
                (member && !late).then_some(FromWorker::Pong { received_jobs, load })
            }
            ToWorker::Cancel { .. }
            | ToWorker::TakeBack { .. }
            | ToWorker::Received { .. }
            | ToWorker::Ask(_)
            | ToWorker::Return(_)
            | ToWorker::Offer(_)
            | ToWorker::Goodbye => None,
        }
    }

    /// The newest job did not get out: which one.
    pub fn handle_unsent(&mut self) -> Option<AttemptId> {
        self.unanswered.take().map(|(attempt, _)| attempt)
    }

    /// It replied: what a native worker would say to that. `None` if no job waits for a reply. One that
    /// is full is left alone for a `beat`.
    pub fn handle_reply(
        &mut self,
        now: Timestamp,
        beat: Duration,
        body: &[u8],
    ) -> Option<FromWorker> {
        let (attempt, _) = self.unanswered.take()?;
        let (verdict, payload) = verdict(body);
        match verdict {
            Verdict::Accepted => self.accepted = self.accepted.saturating_add(1),
            Verdict::Rejected(Reason::Full) => self.full_until = Some(now + beat),
            _ => {}
        }
        self.outcomes += 1;
        let payload = payload.into();
        let (payload_bytes, payloads) = (payload::len(&payload), Payloads::new([&payload]));
        Some(FromWorker::Outcomes(OutcomeBatch {
            first_number: self.outcomes,
            received_jobs: self.received_jobs,
            load: self.load,
            grant: None,
            outcomes: vec![OutcomeHeader {
                attempt,
                verdict,
                residence_us: 0,
                ran_us: 0,
                payload_bytes,
            }],
            payloads,
        }))
    }
}

const NOT_DONE: Verdict = Verdict::Failed { code: None };

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
        Some(Reply { message: Some(message), .. }) => (NOT_DONE, message.into_bytes()),
        _ => (NOT_DONE, b"its reply has neither `status` \"ok\" nor a `message`".to_vec()),
    }
}

#[cfg(test)]
mod tests {
    use svcmap_proto::load::Share;

    use super::*;
    use crate::testing::*;

    fn worker() -> RepWorker {
        RepWorker::new(Load { sequence: 3, share: Share::new(0.5), ..Load::default() }).unwrap()
    }

    fn give(worker: &mut RepWorker, number: u64) -> AttemptId {
        let attempt = AttemptId { job: number, attempt: 1 };
        let job = job(number, attempt, 1000).message();
        assert_eq!(worker.handle_message(at(0), &job, true), None);
        attempt
    }

    fn reply(worker: &mut RepWorker, body: &str) -> (OutcomeBatch, OutcomeHeader) {
        match worker.handle_reply(at(0), ms(1000), body.as_bytes()) {
            Some(FromWorker::Outcomes(mut batch)) => {
                let outcome = batch.outcomes.remove(0);
                (batch, outcome)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn replies_are_verdicts() {
        let mut worker = worker();
        let verdicts = [
            (r#"{"status":"ok","message":"job accepted"}"#, Verdict::Accepted, ""),
            (r#"{"status":"error","message":"no such task"}"#, FAILED, "no such task"),
            (r#"{"status":"error","message":"queue full"}"#, Verdict::Rejected(Reason::Full), ""),
            ("", FAILED, "its reply has neither `status` \"ok\" nor a `message`"),
            ("hello", FAILED, "its reply has neither `status` \"ok\" nor a `message`"),
        ];
        for (number, (body, verdict, payload)) in (1..).zip(verdicts) {
            let attempt = give(&mut worker, number);
            let (mut batch, outcome) = reply(&mut worker, body);
            assert_eq!((batch.first_number, outcome.attempt), (number, attempt));
            assert_eq!(
                (outcome.verdict, &batch.payloads.take(outcome.payload_bytes)[..]),
                (verdict, payload.as_bytes())
            );
        }
        assert_eq!(worker.handle_reply(at(0), ms(1000), b"{}"), None, "nothing was asked");
    }

    #[test]
    fn it_is_there_while_it_is_listed_and_in_time() {
        let mut worker = worker();
        let ping = ToWorker::Ping { received_outcomes: 0 };
        let mut answers = |now, member| worker.handle_message(at(now), &ping, member).is_some();
        assert!(answers(9999, true) && !answers(9999, false));
        give(&mut worker, 1);
        let mut answers = |now, member| worker.handle_message(at(now), &ping, member).is_some();
        assert!(answers(999, true) && !answers(999, false) && !answers(1000, true));
    }

    #[test]
    fn what_it_took_counts_until_it_reports_and_full_is_full_for_a_beat() {
        let mut worker = worker();
        give(&mut worker, 1);
        let (batch, _) = reply(&mut worker, r#"{"status":"ok"}"#);
        assert_eq!((worker.accepted(), batch.load.ratio()), (1, 0.5));
        give(&mut worker, 2);
        let (batch, _) = reply(&mut worker, r#"{"status":"error","message":"queue full"}"#);
        assert_eq!(batch.load.ratio(), 0.5, "its load is what it says to a mapper");
        assert_eq!(worker.full_until(), Some(at(1000)));
        assert!(!worker.handle_timeout(at(999)) && worker.handle_timeout(at(1000)));
        assert_eq!(worker.full_until(), None);
        give(&mut worker, 3);
        reply(&mut worker, r#"{"status":"error","message":"queue full"}"#);
        let newer = Load { sequence: 4, share: Share::new(0.2), ..Load::default() };
        worker.handle_load(&newer);
        assert_eq!((worker.accepted(), worker.full_until()), (0, None));
        give(&mut worker, 4);
        assert_eq!(reply(&mut worker, r#"{"status":"ok"}"#).0.load.ratio(), 0.2);
    }
}
