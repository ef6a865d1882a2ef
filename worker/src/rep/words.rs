//! What a worker of the JSON dialect that gives results is asked, and what the answers of workers of that
//! dialect mean.
//!
//! Such a worker is asked as a native one is by a client of the dialect, and answers in the same words.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use svcmap_proto::jobs::{AttemptId, JobHeader, Priority, Reason, Verdict};
use svcmap_proto::json::{self, JsonError, RawValue};
use svcmap_proto::load::Share;
use svcmap_proto::metadata::Metadata;

/// What a handler that said nothing has returned.
const NULL: &str = "null";

/// The request that asks for a job; `None` if its payload is no JSON.
pub(super) fn request(job: &JobHeader, metadata: &Metadata, payload: &[u8]) -> Option<Vec<u8>> {
    #[derive(Serialize)]
    struct Command<'a> {
        command: &'a str,
        payload: Submit<'a>,
    }
    #[derive(Serialize)]
    struct Submit<'a> {
        job: u64,
        attempt: u32,
        #[serde(skip_serializing_if = "Option::is_none")]
        deadline_ms: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        run_limit_ms: Option<u32>,
        #[serde(skip_serializing_if = "Option::is_none")]
        priority: Option<String>,
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        metadata: BTreeMap<&'a str, &'a str>,
        body: &'a RawValue,
    }
    let JobHeader { attempt, deadline_ms, run_limit_ms, priority, .. } = *job;
    let payload = Submit {
        job: attempt.job,
        attempt: attempt.attempt,
        deadline_ms,
        run_limit_ms,
        priority: (priority != Priority::default()).then(|| priority.to_string()),
        metadata: metadata.iter().collect(),
        body: serde_json::from_str(json::value(payload).ok()?).ok()?,
    };
    Some(json::reply(&Command { command: "SUBMIT", payload }))
}

/// The attempt that a reply says it is for, as [`AttemptId`] displays.
pub(super) fn attempt(tag: &[u8]) -> Option<AttemptId> {
    let (job, attempt) = std::str::from_utf8(tag).ok()?.split_once('.')?;
    Some(AttemptId { job: job.parse().ok()?, attempt: attempt.parse().ok()? })
}

/// What a reply means.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    /// How the job ended, or that it was taken.
    pub(super) verdict: Verdict,
    /// Result or error.
    pub(super) payload: Bytes,
    /// How long the job ran, if the worker says so.
    pub(super) ran: Option<Duration>,
    /// Which share of its room is taken, if it says so.
    pub(super) taken: Option<f64>,
    /// Whether it is no answer at all.
    pub(super) is_garbage: bool,
}

impl Answer {
    fn new(verdict: Verdict, payload: impl Into<Bytes>) -> Self {
        let payload = payload.into();
        Self { verdict, payload, ran: None, taken: None, is_garbage: false }
    }

    fn failed(message: impl Into<String>) -> Self {
        Self::new(Verdict::Failed { code: None }, message.into())
    }

    fn garbage(message: impl Into<String>) -> Self {
        Self { is_garbage: true, ..Self::failed(message) }
    }
}

/// What a worker says that answers when it takes a job.
pub(super) fn acceptance(body: &[u8]) -> Answer {
    #[derive(Deserialize)]
    struct Reply {
        status: String,
        message: Option<String>,
    }
    let reply: Option<Reply> =
        json::object(body).ok().and_then(|text| serde_json::from_str(text).ok());
    match reply {
        Some(Reply { status, .. }) if status == "ok" => {
            Answer::new(Verdict::Accepted, Bytes::new())
        }
        Some(Reply { message: Some(message), .. }) => refused_or_failed(message),
        _ => Answer::garbage("its reply has neither `status` \"ok\" nor a `message`"),
    }
}

/// An error in the words of the original system.
fn refused_or_failed(message: String) -> Answer {
    match &*message {
        json::QUEUE_FULL => Answer::new(Verdict::Rejected(Reason::Full), Bytes::new()),
        _ => Answer::failed(message),
    }
}

/// What a worker says of a job that has ended, or that it does not do.
#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow)]
    status: Cow<'a, str>,
    #[serde(borrow)]
    result: Option<&'a RawValue>,
    result_base64: Option<String>,
    message: Option<String>,
    reason: Option<String>,
    code: Option<i32>,
    ran_ms: Option<f64>,
    load: Option<f64>,
}

/// The same of one that answers when a job has ended. No result is larger than so many bytes.
pub(super) fn outcome(body: &[u8], result_bytes_max: usize) -> Answer {
    let read = json::object(body).and_then(|text| Ok(serde_json::from_str::<Outcome>(text)?));
    let reply = match read {
        Ok(reply) => reply,
        Err(error) => return Answer::garbage(format!("its reply is not understood: {error}")),
    };
    let (ran_ms, taken) = (reply.ran_ms, reply.load);
    let answer = reply.answer();
    let bytes = answer.payload.len();
    let answer = if bytes > result_bytes_max {
        Answer::failed(format!("its result of {bytes} bytes is larger than {result_bytes_max}"))
    } else {
        answer
    };
    let ran = ran_ms.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
    let taken = taken.and_then(Share::new).map(Share::get);
    Answer { ran, taken, ..answer }
}

impl Outcome<'_> {
    fn answer(self) -> Answer {
        let message = self.message.unwrap_or_default();
        match &*self.status {
            "done" => match result(self.result, self.result_base64) {
                Ok(result) => Answer::new(Verdict::Done, result),
                Err(error) => Answer::garbage(error.to_string()),
            },
            "failed" => Answer::new(Verdict::Failed { code: self.code }, message),
            "refused" | "rejected" => {
                let reason = self.reason.as_deref().map_or(Reason::CannotStart, reason);
                Answer::new(Verdict::Rejected(reason), Bytes::new())
            }
            "unknown" => Answer::new(Verdict::Abandoned, Bytes::new()),
            "ok" => Answer::new(Verdict::Accepted, Bytes::new()),
            "error" => refused_or_failed(message),
            other => Answer::garbage(format!("its reply has the `status` \"{other:.40}\"")),
        }
    }
}

/// What a handler returned: JSON as it was written, or bytes.
fn result(json: Option<&RawValue>, base64: Option<String>) -> Result<Vec<u8>, JsonError> {
    match base64 {
        None => Ok(json.map_or(NULL, RawValue::get).into()),
        Some(text) => BASE64
            .decode(text)
            .map_err(|error| JsonError::new(format_args!("its `result_base64` is none: {error}"))),
    }
}

/// A reason in the words of native workers; whoever has one of its own could not start the job.
fn reason(word: &str) -> Reason {
    let known = [
        Reason::Full,
        Reason::Draining,
        Reason::Expired,
        Reason::Cancelled,
        Reason::TooLarge,
        Reason::NotHere,
    ];
    let known = known.into_iter().find(|reason| reason.to_string() == word);
    known.unwrap_or(Reason::CannotStart)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    fn job() -> JobHeader {
        let message = crate::testing::job(1, AttemptId { job: 17, attempt: 2 }, 700).message();
        let svcmap_proto::jobs::ToWorker::Jobs(mut batch) = message else { unreachable!() };
        batch.jobs.remove(0)
    }

    #[test]
    fn it_is_asked_as_a_client_asks_a_native_worker() {
        let body = request(&job(), &Metadata::default(), b" [1, 2.50] ").unwrap();
        let text = std::str::from_utf8(&body).unwrap();
        let asked = r#"{"job":17,"attempt":2,"deadline_ms":700,"body":[1, 2.50]}"#;
        assert_eq!(text, format!(r#"{{"command":"SUBMIT","payload":{asked}}}"#));

        let metadata = Metadata::new([("input", "ä")]).unwrap();
        let more = JobHeader { priority: Priority::High, run_limit_ms: Some(5), ..job() };
        let body = request(&more, &metadata, b"null").unwrap();
        let read = crate::json::read(&body).unwrap();
        assert_eq!((&*read.payload, read.priority), (&b"null"[..], Priority::High));
        assert_eq!((read.deadline, read.run_limit), (Some(ms(700)), Some(ms(5))));
        assert_eq!(read.metadata, metadata);
        assert_eq!(request(&job(), &metadata, b"\xff"), None);
    }

    #[test]
    fn a_reply_names_its_attempt() {
        let id = AttemptId { job: u64::MAX, attempt: 3 };
        assert_eq!(super::attempt(id.to_string().as_bytes()), Some(id));
        for none in ["", "1", "1.", ".1", "1.2.3", "-1.1", "1.4294967296", "a.b"] {
            assert_eq!(super::attempt(none.as_bytes()), None, "{none}");
        }
    }

    fn ended(body: &str) -> (Verdict, String) {
        let answer = outcome(body.as_bytes(), 100);
        assert!(!answer.is_garbage, "{body}");
        (answer.verdict, String::from_utf8(answer.payload.to_vec()).unwrap())
    }

    #[test]
    fn how_a_job_ended_is_said_in_the_words_of_native_workers() {
        use Verdict::{Abandoned, Accepted, Done, Failed, Rejected};
        let of = |verdict, payload: &str| (verdict, payload.to_owned());
        assert_eq!(ended(r#"{"status":"done","result":{"a": [1]}}"#), of(Done, r#"{"a": [1]}"#));
        assert_eq!(ended(r#"{"status":"done","result":null}"#), of(Done, "null"));
        assert_eq!(ended(r#"{"status":"done"}"#), of(Done, "null"));
        assert_eq!(ended(r#"{"status":"done","result_base64":"aGk="}"#), of(Done, "hi"));
        let failed = |code| of(Failed { code }, "no way");
        assert_eq!(ended(r#"{"status":"failed","message":"no way"}"#), failed(None));
        assert_eq!(ended(r#"{"status":"failed","message":"no way","code":-3}"#), failed(Some(-3)));
        assert_eq!(ended(r#"{"status":"error","message":"no way"}"#), failed(None));
        let rejected = |reason| of(Rejected(reason), "");
        for full in [
            r#"{"status":"error","message":"queue full"}"#,
            r#"{"status":"refused","reason":"full","load":1.0}"#,
        ] {
            assert_eq!(ended(full), rejected(Reason::Full));
        }
        let draining = r#"{"status":"refused","reason":"draining"}"#;
        assert_eq!(ended(draining), rejected(Reason::Draining));
        for own in [
            r#"{"status":"rejected","message":"no camera here"}"#,
            r#"{"status":"refused","reason":"no camera here"}"#,
        ] {
            assert_eq!(ended(own), rejected(Reason::CannotStart));
        }
        assert_eq!(ended(r#"{"status":"unknown","message":"?"}"#), of(Abandoned, ""));
        assert_eq!(ended(r#"{"status":"ok","message":"job accepted"}"#), of(Accepted, ""));
    }

    #[test]
    fn what_each_native_reply_means_is_what_was_meant() {
        use crate::json::{Style, ended, rejected};
        let load = svcmap_proto::load::Load { queued: 1, slots: 4, ..Default::default() };
        let verdicts = [
            (Verdict::Done, "[1]"),
            (Verdict::Failed { code: Some(7) }, "no"),
            (Verdict::Rejected(Reason::Draining), ""),
            (Verdict::Abandoned, ""),
            (Verdict::Accepted, ""),
        ];
        for (verdict, payload) in verdicts {
            let answer = outcome(&ended(Style::Outcome, &verdict, payload.as_bytes(), &load), 100);
            assert_eq!((answer.verdict, &answer.payload[..]), (verdict, payload.as_bytes()));
        }
        for reason in [Reason::Full, Reason::Expired, Reason::TooLarge, Reason::CannotStart] {
            let answer = outcome(&rejected(Style::Outcome, reason, &load), 100);
            assert_eq!(answer.verdict, Verdict::Rejected(reason));
            assert_eq!(answer.taken, Some(0.25));
        }
    }

    #[test]
    fn what_it_says_of_itself_is_believed_if_it_can_be() {
        let said = |more: &str| {
            let answer = outcome(format!(r#"{{"status":"done",{more}}}"#).as_bytes(), 100);
            (answer.ran, answer.taken)
        };
        assert_eq!(said(r#""ran_ms":1.5,"load":0.5"#), (Some(ms(3) / 2), Some(0.5)));
        assert_eq!(said(r#""ran_ms":-1,"load":2"#), (None, None));
        assert_eq!(said(r#""ran_ms":1e300,"load":null"#), (None, None));
    }

    #[test]
    fn what_is_no_answer_fails_the_job_and_says_why() {
        let failed = |body: &[u8]| {
            let answer = outcome(body, 100);
            assert_eq!(answer.verdict, FAILED);
            (answer.is_garbage, String::from_utf8(answer.payload.to_vec()).unwrap())
        };
        for (body, why) in [
            (&b""[..], "a JSON object is expected"),
            (b"hello", "a JSON object is expected"),
            (b"{}", "missing field `status`"),
            (br#"{"status":"failed","code":"one"}"#, "invalid type"),
            (br#"{"status":"finished"}"#, r#"its reply has the `status` "finished""#),
            (br#"{"status":"done","result_base64":"%"}"#, "its `result_base64` is none"),
        ] {
            let (is_garbage, error) = failed(body);
            assert!(is_garbage && error.contains(why), "{error}");
        }
        let long = format!(r#"{{"status":"done","result":"{}"}}"#, "x".repeat(99));
        let larger = "its result of 101 bytes is larger than 100".to_owned();
        assert_eq!(failed(long.as_bytes()), (false, larger));
    }
}
