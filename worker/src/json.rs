//! What clients of the JSON dialect say to a worker, and what they are told.
//!
//! Any JSON object is a job whose sender waits only for its acceptance, but one whose `command` is
//! `SUBMIT`: that sender wants the outcome, or a deadline, or has a payload that is no JSON.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::{Deserialize, Deserializer, Serialize};
use svcmap_proto::jobs::{Priority, Reason, Verdict};
use svcmap_proto::json::{self, Command, JsonError, RawValue, Whole};
use svcmap_proto::load::Load;
use svcmap_proto::metadata::Metadata;

use crate::outcome::Cause;

/// A job that came as JSON.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What the handler gets.
    pub payload: Cow<'a, [u8]>,
    /// When its sender stops waiting, from now, if it does.
    pub deadline: Option<Duration>,
    /// How long it may run.
    pub run_limit: Option<Duration>,
    /// Before which others it goes.
    pub priority: Priority,
    /// What its sender says of it besides.
    pub metadata: Metadata,
    /// How the sender wants to be answered.
    pub style: Style,
}

/// How a sender wants to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// At once, in the words of the original system.
    Original,
    /// At once, in the words of `SUBMIT`.
    Acceptance,
    /// When the job has its outcome; with a result that is JSON as JSON.
    Outcome,
    /// When the job has its outcome; with the result in base64, as the payload came.
    OutcomeBase64,
}

impl Style {
    /// Whether the answer is that the job was taken, and no more is said.
    pub fn is_immediate(self) -> bool {
        matches!(self, Style::Original | Style::Acceptance)
    }
}

#[derive(Deserialize)]
struct Submit<'a> {
    #[serde(borrow, default, deserialize_with = "present")]
    body: Option<&'a RawValue>,
    body_base64: Option<String>,
    deadline_ms: Option<Whole>,
    run_limit_ms: Option<Whole>,
    priority: Option<Cow<'a, str>>,
    metadata: Option<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
    wait: Option<bool>,
}

/// `null` is a value like any other here.
fn present<'a, D: Deserializer<'a>>(reader: D) -> Result<Option<&'a RawValue>, D::Error> {
    Deserialize::deserialize(reader).map(Some)
}

/// Reads the body of a request.
///
/// # Errors
/// Says what is wrong with it.
pub fn read(body: &[u8]) -> Result<Request<'_>, JsonError> {
    let text = json::object(body)?;
    let command = Command::read(text)?;
    if command.name().as_deref() != Some("SUBMIT") {
        let payload = text.trim_ascii().as_bytes().into();
        return Ok(Request {
            payload,
            deadline: None,
            run_limit: None,
            priority: Priority::default(),
            metadata: Metadata::default(),
            style: Style::Original,
        });
    }
    let submit: Submit = command.payload()?;
    let wrong =
        |what: &str, error: &dyn Display| JsonError::new(format_args!("payload: {what}: {error}"));
    let is_binary = submit.body_base64.is_some();
    // Some write `null` for what they do not say.
    let body = submit.body.filter(|body| !(is_binary && body.get() == "null"));
    let payload = match (body, submit.body_base64) {
        (Some(body), None) => body.get().as_bytes().into(),
        (None, Some(text)) => {
            BASE64.decode(text).map_err(|error| wrong("body_base64", &error))?.into()
        }
        _ => return Err(JsonError::new("payload: one of `body` and `body_base64` is needed")),
    };
    let from_ms = |ms: Whole| Duration::from_millis(ms.0.into());
    let (deadline, run_limit) = (submit.deadline_ms.map(from_ms), submit.run_limit_ms.map(from_ms));
    let priority = submit.priority.map(|name| name.parse()).transpose();
    let priority = priority.map_err(|error| wrong("priority", &error))?.unwrap_or_default();
    let metadata = submit.metadata.unwrap_or_default();
    let metadata = Metadata::new(metadata.iter().map(|(name, value)| (&**name, &**value)));
    let metadata = metadata.map_err(|error| wrong("metadata", &error))?;
    let style = match submit.wait {
        Some(false) => Style::Acceptance,
        _ if is_binary => Style::OutcomeBase64,
        _ => Style::Outcome,
    };
    Ok(Request { payload, deadline, run_limit, priority, metadata, style })
}

#[derive(Serialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Reply<'a> {
    Done(DoneReply<'a>),
    Failed {
        message: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        code: Option<i32>,
    },
    Refused {
        reason: String,
        load: f64,
    },
    Unknown {
        message: String,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum DoneReply<'a> {
    Result(&'a RawValue),
    ResultBase64(String),
}

/// Tells a sender that its job was taken.
pub fn accepted() -> Vec<u8> {
    json::ok(&BTreeMap::from([("message", "job accepted")]))
}

/// Tells a sender that its job was not taken.
pub fn rejected(style: Style, reason: Reason, load: &Load) -> Vec<u8> {
    match style {
        Style::Original => json::error(match reason {
            Reason::Full => json::QUEUE_FULL.to_owned(),
            other => other.to_string(),
        }),
        _ => json::reply(&Reply::Refused { reason: reason.to_string(), load: load.ratio() }),
    }
}

/// Tells a sender how its job ended.
pub fn ended(style: Style, verdict: &Verdict, payload: &[u8], load: &Load) -> Vec<u8> {
    match verdict {
        Verdict::Done => done(style, payload),
        &Verdict::Failed { code } => {
            let message = String::from_utf8_lossy(payload);
            json::reply(&Reply::Failed { message: &message, code })
        }
        Verdict::Rejected(reason) => rejected(style, *reason, load),
        Verdict::Abandoned => unknown(Cause::Drain),
        Verdict::Accepted => accepted(),
        // A client cannot be told to go elsewhere, so none of its jobs is handed over.
        Verdict::HandedOver(_) => unknown(Cause::PeerEnded),
    }
}

/// Tells a sender that nobody knows how its job ended.
pub fn unknown(cause: Cause) -> Vec<u8> {
    json::reply(&Reply::Unknown { message: cause.to_string() })
}

/// A result is JSON if its sender spoke JSON and its handler did; bytes go in base64.
fn done(style: Style, result: &[u8]) -> Vec<u8> {
    let as_json = || serde_json::from_str(json::value(result).ok()?).ok();
    let reply = match as_json().filter(|_| style == Style::Outcome) {
        Some(result) => DoneReply::Result(result),
        None => DoneReply::ResultBase64(BASE64.encode(result)),
    };
    json::reply(&Reply::Done(reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str) -> String {
        read(body.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn any_object_is_a_job_of_the_original_system() {
        for body in [
            r#" {"task": "process_video", "duration": 4} "#,
            "{}",
            r#"{"command": 5, "payload": []}"#,
            r#"{"command": "STATUS"}"#,
        ] {
            let request = read(body.as_bytes()).unwrap();
            assert_eq!(*request.payload, *body.trim().as_bytes());
            assert_eq!((request.style, request.deadline), (Style::Original, None));
        }
    }

    #[test]
    fn submit_says_what_it_wants() {
        let read = |payload: &str| {
            let body = format!(r#"{{"command":"SUBMIT","payload":{payload}}}"#);
            let Request { payload, deadline, run_limit, style, .. } =
                read(body.as_bytes()).unwrap();
            (payload.into_owned(), (deadline, run_limit), style)
        };
        let (as_written, ms) = (b"[1, 2.50]".to_vec(), Duration::from_millis);
        assert_eq!(read(r#"{"body": [1, 2.50]}"#), (as_written, (None, None), Style::Outcome));
        assert_eq!(
            read(r#"{"body_base64": "AP8=", "deadline_ms": 70, "run_limit_ms": 30}"#),
            (vec![0, 255], (Some(ms(70)), Some(ms(30))), Style::OutcomeBase64)
        );
        assert_eq!(read(r#"{"body": null, "body_base64": ""}"#).0, b"");
        assert_eq!(read(r#"{"body": 1, "wait": false}"#).2, Style::Acceptance);
        for null in [r#"{"body": null}"#, r#"{"body": null, "body_base64": null}"#] {
            assert_eq!(read(null), (b"null".to_vec(), (None, None), Style::Outcome));
        }
        for five in ["5000", "5000.0", "5e3"] {
            let payload = format!(r#"{{"body": 1, "deadline_ms": {five}, "wait": null}}"#);
            assert_eq!(read(&payload).1, (Some(ms(5000)), None));
        }
    }

    #[test]
    fn submit_says_more_of_a_job() {
        let body = r#"{"command":"SUBMIT","payload":{"body":1,"priority":"high","metadata":{"b":"ü","a":""}}}"#;
        let request = read(body.as_bytes()).unwrap();
        assert_eq!(request.priority, Priority::High);
        assert!(request.metadata.iter().eq([("a", ""), ("b", "ü")]));
        let body = r#"{"command":"SUBMIT","payload":{"body":1,"priority":null,"metadata":null}}"#;
        let request = read(body.as_bytes()).unwrap();
        assert_eq!((request.priority, request.metadata), Default::default());
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(refused("[]"), "a JSON object is expected");
        assert_eq!(
            refused(r#"{"command":"SUBMIT"}"#),
            "payload: one of `body` and `body_base64` is needed"
        );
        let with = |payload| refused(&format!(r#"{{"command":"SUBMIT","payload":{payload}}}"#));
        assert_eq!(with(r#"{"body":1,"body_base64":""}"#), with("{}"));
        assert_eq!(with("[1]"), "`payload` must be an object");
        assert!(
            with(r#"{"body_base64":"%"}"#).contains("body_base64"),
            "{}",
            with(r#"{"body_base64":"%"}"#)
        );
        assert!(with(r#"{"body":1,"deadline_ms":-1}"#).contains("-1"));
        assert!(with(r#"{"body":1,"deadline_ms":4294967296}"#).contains("4294967296"));
        assert!(with(r#"{"body":1,"deadline_ms":0.5}"#).contains("0.5"));
        assert!(with(r#"{"body":1,"deadline_ms":"5"}"#).contains("a whole number"));
        assert!(with(r#"{"body":1,"body":2}"#).contains("duplicate field `body`"));
        assert_eq!(
            with(r#"{"body":1,"priority":"urgent"}"#),
            "payload: priority: `urgent` is no priority: low, normal or high"
        );
        assert!(with(r#"{"body":1,"metadata":{"a b":""}}"#).contains("`a b` is no name"));
        assert!(with(r#"{"body":1,"metadata":{"a":1}}"#).contains("expected a string"));
        assert!(with(r#"{"body":1,"wait":"no"}"#).contains("expected a boolean"));
        assert!(refused(r#"{"command":"SUBMIT","command":"x"}"#).contains("duplicate field"));
    }

    #[test]
    fn the_words_of_the_replies() {
        let load = Load { queued: 3, slots: 4, ..Load::default() };
        let text = |reply: Vec<u8>| String::from_utf8(reply).unwrap();
        assert_eq!(text(accepted()), r#"{"status":"ok","message":"job accepted"}"#);
        assert_eq!(
            text(rejected(Style::Original, Reason::Full, &load)),
            r#"{"status":"error","message":"queue full"}"#
        );
        assert_eq!(
            text(rejected(Style::Acceptance, Reason::Draining, &load)),
            r#"{"status":"refused","reason":"draining","load":0.75}"#
        );
        let ended = |style, verdict, payload: &[u8]| text(ended(style, verdict, payload, &load));
        assert_eq!(
            ended(Style::Outcome, &Verdict::Done, br#"{"a": [1]}"#),
            r#"{"status":"done","result":{"a": [1]}}"#
        );
        assert_eq!(
            ended(Style::Outcome, &Verdict::Done, b"no JSON"),
            r#"{"status":"done","result_base64":"bm8gSlNPTg=="}"#
        );
        assert_eq!(
            ended(Style::OutcomeBase64, &Verdict::Done, b"17"),
            r#"{"status":"done","result_base64":"MTc="}"#
        );
        assert_eq!(
            ended(Style::Outcome, &Verdict::Failed { code: None }, b"no\xffway"),
            "{\"status\":\"failed\",\"message\":\"no\u{fffd}way\"}"
        );
        assert_eq!(
            ended(Style::Outcome, &Verdict::Failed { code: Some(3) }, b"no"),
            r#"{"status":"failed","message":"no","code":3}"#
        );
        assert_eq!(
            ended(Style::Outcome, &Verdict::Abandoned, b""),
            r#"{"status":"unknown","message":"the worker stopped while it ran"}"#
        );
    }
}
