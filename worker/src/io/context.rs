//! What a log line about a job says, so that it is found: which job, whose, and of which trace.

use slog::{KV, Record, Result, Serializer};
use svcmap_proto::metadata::{Metadata, TRACEPARENT};
use svcmap_proto::names::SenderId;

/// Which job, whose and of which trace: values for a log line about it.
///
/// ```
/// # use slog::{Discard, Logger, info, o};
/// # let log = Logger::root(Discard, o!());
/// let handler = move |job: &svcmap_worker::Job| {
///     info!(log, "resized"; job.context(), "pixels" => 640 * 480);
/// };
/// ```
///
/// These are `job`, `attempt`, `sender` (the first half of its number; not for jobs of the JSON dialect), and
/// `traceparent`, as W3C Trace Context has it, if the metadata names one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobContext {
    job: u64,
    attempt: u32,
    sender: Option<SenderId>,
    traceparent: Option<String>,
}

impl JobContext {
    pub(super) fn new(
        job: u64,
        attempt: u32,
        sender: Option<SenderId>,
        metadata: &Metadata,
    ) -> Self {
        let traceparent = metadata.get(TRACEPARENT).map(str::to_owned);
        Self { job, attempt, sender, traceparent }
    }
}

impl KV for JobContext {
    fn serialize(&self, _: &Record<'_>, values: &mut dyn Serializer) -> Result {
        values.emit_u64("job", self.job)?;
        values.emit_u32("attempt", self.attempt)?;
        if let Some(sender) = self.sender {
            values.emit_arguments("sender", &format_args!("{sender}"))?;
        }
        match &self.traceparent {
            Some(traceparent) => values.emit_str("traceparent", traceparent),
            None => Ok(()),
        }
    }
}
