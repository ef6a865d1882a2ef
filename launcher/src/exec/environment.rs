//! What a program finds in its environment: who runs it, and under `--exec` for which job.

use svcmap_proto::metadata::{Metadata, TRACEPARENT};
use svcmap_proto::names::InstanceKey;
use svcmap_proto::time::Timestamp;

use super::Task;
use super::frames::as_object;
use crate::parse::TRACE_VARIABLE;

/// Under which name a sender says what the payload was made of, such as a file.
const INPUT: &str = "input";

/// All that may be set for a job: whatever of these the worker itself was started with is of another
/// job.
pub const OF_JOB: [&str; 6] = [
    "SVCMAP_JOB",
    "SVCMAP_ATTEMPT",
    "SVCMAP_INPUT",
    "SVCMAP_SECONDS_LEFT",
    "SVCMAP_METADATA",
    TRACE_VARIABLE,
];

/// What all programs of an instance get.
pub fn of_instance(key: &InstanceKey) -> [(&'static str, &str); 2] {
    [("SVCMAP_SERVICE", key.service.as_str()), ("SVCMAP_INSTANCE", key.instance.as_str())]
}

/// What the program of a job gets: at most some 8 KiB, as metadata has at most 1 KiB, and no NUL.
pub fn of_job(task: &Task<'_>, now: Timestamp) -> Vec<(String, String)> {
    let [job, attempt, input, seconds_left, metadata, trace] = OF_JOB;
    let mut variables = vec![
        (job, task.number.to_string()),
        (attempt, task.attempt.to_string()),
        (metadata, object(task.metadata)),
    ];
    variables.extend(task.seconds_left(now).map(|left| (seconds_left, format!("{left}"))));
    for (name, variable) in [(INPUT, input), (TRACEPARENT, trace)] {
        variables.extend(task.metadata.get(name).map(|value| (variable, value.to_owned())));
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Metadata as one JSON object.
fn object(metadata: &Metadata) -> String {
    let mut text = Vec::new();
    // Neither writing text to memory nor text as JSON fails.
    let _ = as_object(metadata, &mut serde_json::Serializer::new(&mut text));
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use slog::{Discard, Logger, o};

    use super::*;

    fn variables(deadline_ms: Option<u64>, metadata: &[(&str, &str)]) -> Vec<(String, String)> {
        let now = Timestamp::from_micros(1_000_000);
        let metadata = &Metadata::new(metadata.iter().copied()).unwrap();
        let task = Task {
            number: 17,
            attempt: 2,
            log: &Logger::root(Discard, o!()),
            metadata,
            payload: b"",
            deadline: deadline_ms.map(|ms| now + Duration::from_millis(ms)),
            is_cancelled: &|| false,
            report: &|_| {},
        };
        of_job(&task, now)
    }

    fn value<'a>(variables: &'a [(String, String)], name: &str) -> Option<&'a str> {
        variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_program_is_told_of_its_job() {
        let all = variables(Some(1500), &[("input", "a b.jpg"), ("traceparent", "00-1")]);
        for (name, expected) in [
            ("SVCMAP_JOB", "17"),
            ("SVCMAP_ATTEMPT", "2"),
            ("SVCMAP_INPUT", "a b.jpg"),
            ("SVCMAP_SECONDS_LEFT", "1.5"),
            ("SVCMAP_METADATA", r#"{"input":"a b.jpg","traceparent":"00-1"}"#),
            ("TRACEPARENT", "00-1"),
        ] {
            assert_eq!(value(&all, name), Some(expected), "{name}");
        }
        assert!(all.iter().all(|(name, _)| OF_JOB.contains(&name.as_str())));
    }

    #[test]
    fn what_is_not_known_is_not_set() {
        let all = variables(None, &[]);
        assert_eq!(value(&all, "SVCMAP_METADATA"), Some("{}"));
        assert_eq!((value(&all, "SVCMAP_INPUT"), value(&all, "SVCMAP_SECONDS_LEFT")), (None, None));
    }
}
