//! A worker of the JSON dialect, as a link sees it.
//!
//! Behind its address is a REP socket, or a ROUTER that answers like one. Most such workers take one
//! request at a time, and their one reply says whether they took the job. Those that have registered as
//! giving results reply when a job has ended, and have as many at once as they have room for; their
//! requests have a frame of their own in front, by which a reply tells whose it is.
//!
//! [`RepWorker`] says in its stead what a native worker would say, so that a
//! [`Link`](crate::link::Link) needs not know the difference.

mod words;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use svcmap_proto::jobs::{
    AttemptId, FromWorker, JobHeader, OutcomeBatch, OutcomeHeader, Reason, ToWorker, Verdict,
};
use svcmap_proto::load::{Load, Share, State};
use svcmap_proto::metadata::Metadata;
use svcmap_proto::payload::{self, Payloads};
use svcmap_proto::time::{Timestamp, wire_us};

use words::Answer;

/// See the module.
#[derive(Clone, Debug)]
pub struct RepWorker {
    /// Its newest load, as a mapper told or it said itself.
    load: Load,
    /// Jobs that it took since then, and of which that load says nothing.
    accepted: u32,
    /// It said that it was full, and is left alone until then: it may have room long before it
    /// tells a mapper so.
    full_until: Option<Timestamp>,
    received_jobs: u64,
    outcomes: u64,
    /// Largest result that its sender takes.
    result_bytes_max: usize,
    /// The jobs that it has not replied to.
    unanswered: BTreeMap<AttemptId, Unanswered>,
}

/// A job that its worker has not replied to.
#[derive(Clone, Copy, Debug)]
struct Unanswered {
    sent_at: Timestamp,
    /// By when it should.
    deadline: Option<Timestamp>,
}

/// What a reply comes to.
#[derive(Clone, Debug, PartialEq)]
pub struct Replied {
    /// What a native worker would say.
    pub message: FromWorker,
    /// Whether nobody could make anything of the reply.
    pub is_garbage: bool,
}

impl RepWorker {
    /// The worker that a mapper lists with that load; `None` if it is a native one.
    pub fn new(load: Load) -> Option<Self> {
        load.share?;
        Some(Self {
            load,
            accepted: 0,
            full_until: None,
            received_jobs: 0,
            outcomes: 0,
            result_bytes_max: usize::MAX,
            unanswered: BTreeMap::new(),
        })
    }

    /// A mapper told of its load.
    pub fn handle_load(&mut self, load: &Load) {
        // The cache knows which is newer; a mapper that was started again counts anew.
        if load.sequence != self.load.sequence {
            (self.load, self.accepted, self.full_until) = (*load, 0, None);
        }
    }

    /// Its newest load.
    pub fn load(&self) -> &Load {
        &self.load
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

    fn gives_results(&self) -> bool {
        self.load.share.is_some_and(Share::gives_results)
    }

    /// What a native worker would answer to that at once. Jobs have no answer yet: a [`RepWorker::request`]
    /// is to be sent for each. A ping has none if the worker is not a `member` any more, or owes replies
    /// only beyond their deadlines: then only its own word shows that it is there.
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
                self.unanswered.clear();
                self.result_bytes_max =
                    usize::try_from(hello.payload_bytes_max).unwrap_or(usize::MAX);
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
                for job in &batch.jobs {
                    let left = job.deadline_ms.map(|ms| Duration::from_millis(ms.into()));
                    let deadline = left.map(|left| now + left);
                    self.unanswered.insert(job.attempt, Unanswered { sent_at: now, deadline });
                }
                None
            }
            ToWorker::Ping { .. } => {
                let mut owed = self.unanswered.values().peekable();
                let is_late = owed.peek().is_some()
                    && owed.all(|job| job.deadline.is_some_and(|deadline| deadline <= now));
                (member && !is_late).then_some(FromWorker::Pong { received_jobs, load })
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

    /// What asks it for a job, and the frame by which its reply is known, if there is to be one; `None`
    /// if the payload is no JSON, which is what it needs.
    pub fn request(
        &self,
        job: &JobHeader,
        metadata: &Metadata,
        payload: &Bytes,
    ) -> Option<(Option<String>, Bytes)> {
        if !self.gives_results() {
            return Some((None, payload.clone()));
        }
        let body = words::request(job, metadata, payload)?;
        Some((Some(job.attempt.to_string()), body.into()))
    }

    /// A job did not get out.
    pub fn handle_unsent(&mut self, attempt: AttemptId) {
        self.unanswered.remove(&attempt);
    }

    /// It replied, with that frame in front of its reply, if any. `None` if no job waits for that. One
    /// that is full is left alone for a `beat`.
    pub fn handle_reply(
        &mut self,
        now: Timestamp,
        beat: Duration,
        tag: Option<&[u8]>,
        body: &[u8],
    ) -> Option<Replied> {
        let attempt = match tag {
            Some(tag) => words::attempt(tag)?,
            None => self.only_unanswered()?,
        };
        let Unanswered { sent_at, .. } = self.unanswered.remove(&attempt)?;
        let answer = match self.gives_results() {
            true => words::outcome(body, self.result_bytes_max),
            false => words::acceptance(body),
        };
        self.learn(now, beat, &answer);
        self.outcomes += 1;
        let Answer { verdict, payload, ran, is_garbage, .. } = answer;
        // Who says nothing of how long it worked did so from the request to the reply.
        let residence = if self.gives_results() { now.since(sent_at) } else { Duration::ZERO };
        let was_run = matches!(verdict, Verdict::Done | Verdict::Failed { .. });
        let ran = if was_run { ran.unwrap_or(residence).min(residence) } else { Duration::ZERO };
        let (payload_bytes, payloads) = (payload::len(&payload), Payloads::new([&payload]));
        let message = FromWorker::Outcomes(OutcomeBatch {
            first_number: self.outcomes,
            received_jobs: self.received_jobs,
            load: self.load,
            grant: None,
            outcomes: vec![OutcomeHeader {
                attempt,
                verdict,
                residence_us: wire_us(residence),
                ran_us: wire_us(ran),
                payload_bytes,
            }],
            payloads,
        });
        Some(Replied { message, is_garbage })
    }

    /// Whose a reply is that does not say so.
    fn only_unanswered(&self) -> Option<AttemptId> {
        let mut attempts = self.unanswered.keys();
        attempts.next().copied().filter(|_| attempts.next().is_none())
    }

    /// What a reply says of the worker itself.
    fn learn(&mut self, now: Timestamp, beat: Duration, answer: &Answer) {
        match answer.verdict {
            Verdict::Accepted => self.accepted = self.accepted.saturating_add(1),
            Verdict::Rejected(Reason::Full) => self.full_until = Some(now + beat),
            Verdict::Rejected(Reason::Draining) => self.load.state = State::Draining,
            // One job less is there.
            Verdict::Done | Verdict::Failed { .. } if self.gives_results() => {
                self.full_until = None;
            }
            _ => {}
        }
        if let (true, Some(share)) = (self.gives_results(), self.load.share) {
            let has_ended = matches!(answer.verdict, Verdict::Done | Verdict::Failed { .. });
            // One that does not say how full it is has one place more than before then.
            let place = if has_ended { 1.0 / f64::from(self.load.open_max()) } else { 0.0 };
            let taken = answer.taken.unwrap_or((share.get() - place).max(0.0));
            self.load.share = Share::new(taken).map(|share| share.giving_results(true));
        }
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

    fn give_all(worker: &mut RepWorker, jobs: std::ops::RangeInclusive<u64>) {
        for job in jobs {
            give(worker, job);
        }
    }

    /// One that gives results, and has room for so many jobs.
    fn with_results(slots: u32) -> RepWorker {
        let share = Share::new(0.5).map(|share| share.giving_results(true));
        RepWorker::new(Load { sequence: 3, slots, share, ..Load::default() }).unwrap()
    }

    fn reply(worker: &mut RepWorker, body: &str) -> (OutcomeBatch, OutcomeHeader) {
        let replied = worker.handle_reply(at(0), ms(1000), None, body.as_bytes());
        match replied.map(|replied| replied.message) {
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
        assert_eq!(worker.handle_reply(at(0), ms(1000), None, b"{}"), None, "nothing was asked");
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

    /// The outcome that a reply is, for the job whose number is its tag.
    fn outcome(worker: &mut RepWorker, now: u64, job: u64, body: &str) -> OutcomeHeader {
        let tag = attempt(job).to_string();
        let replied = worker.handle_reply(at(now), ms(1000), Some(tag.as_bytes()), body.as_bytes());
        match replied.unwrap().message {
            FromWorker::Outcomes(mut batch) => batch.outcomes.remove(0),
            other => panic!("{other:?}"),
        }
    }

    const DONE: &str = r#"{"status":"done","result":1}"#;

    #[test]
    fn replies_of_several_jobs_come_in_any_order_and_each_once() {
        let mut worker = with_results(3);
        give_all(&mut worker, 1..=3);
        for job in [2, 3, 1] {
            let outcome = outcome(&mut worker, 1, job, DONE);
            assert_eq!((outcome.attempt, outcome.verdict), (attempt(job), Verdict::Done));
        }
        give(&mut worker, 4);
        for tag in [&b"1.1"[..], b"4.2", b"5.1", b"", b"\xff"] {
            assert_eq!(worker.handle_reply(at(1), ms(1000), Some(tag), DONE.as_bytes()), None);
        }
        // It is clear whose it is as long as there is one.
        assert_eq!(reply(&mut worker, DONE).1.attempt, attempt(4));
        give_all(&mut worker, 5..=6);
        assert_eq!(worker.handle_reply(at(1), ms(1000), None, DONE.as_bytes()), None);
    }

    #[test]
    fn a_job_ran_as_long_as_its_worker_says_and_no_longer_than_it_was_there() {
        let mut worker = with_results(3);
        give_all(&mut worker, 1..=4);
        let times = |outcome: OutcomeHeader| (outcome.residence_us, outcome.ran_us);
        let said = r#"{"status":"done","ran_ms":3}"#;
        assert_eq!(times(outcome(&mut worker, 5, 1, DONE)), (5000, 5000));
        assert_eq!(times(outcome(&mut worker, 5, 2, said)), (5000, 3000));
        assert_eq!(times(outcome(&mut worker, 2, 3, said)), (2000, 2000));
        let rejected = r#"{"status":"rejected","message":"not here"}"#;
        assert_eq!(times(outcome(&mut worker, 5, 4, rejected)), (5000, 0));
    }

    #[test]
    fn a_reply_tells_of_room_whether_it_says_so_or_not() {
        let mut worker = with_results(4);
        let taken = |worker: &RepWorker| (worker.load().ratio(), worker.load().open_max());
        give_all(&mut worker, 1..=4);
        outcome(&mut worker, 1, 1, DONE);
        assert_eq!(taken(&worker), (0.25, 4));
        outcome(&mut worker, 1, 2, r#"{"status":"done","load":1.0}"#);
        assert_eq!(taken(&worker), (1.0, 4));
        let share = Share::new(0.3).map(|share| share.giving_results(true));
        worker.handle_load(&Load { sequence: 4, share, ..*worker.load() });
        give(&mut worker, 6);
        outcome(&mut worker, 1, 6, r#"{"status":"rejected","message":"no device"}"#);
        assert_eq!(taken(&worker), (0.3, 4), "who does nothing is no emptier for it");
        outcome(&mut worker, 1, 3, r#"{"status":"refused","reason":"full","load":1.0}"#);
        assert_eq!(worker.full_until(), Some(at(1001)));
        give(&mut worker, 5);
        outcome(&mut worker, 1, 5, DONE);
        assert_eq!(worker.full_until(), None, "there is room where a job has ended");
        outcome(&mut worker, 1, 4, r#"{"status":"refused","reason":"draining"}"#);
        assert_eq!(worker.load().state, State::Draining);
    }

    #[test]
    fn a_job_beyond_its_deadline_does_not_speak_for_the_others() {
        let mut worker = with_results(2);
        give(&mut worker, 1);
        let later = job(2, attempt(2), 9000).message();
        worker.handle_message(at(0), &later, true);
        let ping = ToWorker::Ping { received_outcomes: 0 };
        let mut answers = |now| worker.handle_message(at(now), &ping, true).is_some();
        assert!(answers(8999) && !answers(9000));
    }

    #[test]
    fn a_reply_that_is_none_is_a_failure_that_counts() {
        for mut worker in [worker(), with_results(1)] {
            give(&mut worker, 1);
            let replied = worker.handle_reply(at(0), ms(1000), None, b"hello").unwrap();
            assert!(replied.is_garbage);
            let FromWorker::Outcomes(batch) = replied.message else { panic!("no outcome") };
            assert_eq!(batch.outcomes[0].verdict, FAILED);
        }
    }
}
