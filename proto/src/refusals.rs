//! Counts of what was refused, so that a flood of bad messages is one line in the log, not a flood.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::codec::DecodeError;
use crate::time::Timestamp;

/// Least time between two summaries.
const INTERVAL: Duration = Duration::from_secs(1);

/// Why a message was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum BadMessage {
    /// Its frame is no message. The version does not tell kinds of refusals apart.
    #[error("{}", kind(.0))]
    Frame(DecodeError),
    /// It has more or fewer frames than its kind wants.
    #[error("wrong number of frames")]
    FrameCount,
    /// It came from a REQ socket and is not the JSON that is expected there.
    #[error("bad JSON")]
    Json,
    /// It is the reply of a worker of the JSON dialect to no job that it has.
    #[error("replies to no job")]
    Unasked,
    /// It is a HELLO of one more sender than there is room for.
    #[error("too many senders")]
    Senders,
    /// It came in plain text, where that is taken as JSON only.
    #[error("not JSON, in plain text")]
    Plain,
}

fn kind(error: &DecodeError) -> &'static str {
    match error {
        DecodeError::Empty => "empty",
        DecodeError::TooLarge => "too large",
        DecodeError::Version(_) => "wrong version",
        DecodeError::Malformed => "malformed",
        DecodeError::TrailingBytes => "trailing bytes",
        DecodeError::Payloads => "payloads that do not fit",
    }
}

impl From<DecodeError> for BadMessage {
    fn from(error: DecodeError) -> Self {
        BadMessage::Frame(match error {
            // One count for all versions: whoever sends them chooses the number.
            DecodeError::Version(_) => DecodeError::Version(0),
            error => error,
        })
    }
}

/// Counts of what was refused by reason, and when to speak of it.
#[derive(Clone, Debug)]
pub struct Refusals<R = BadMessage> {
    counts: BTreeMap<R, u64>,
    since_summary: BTreeMap<R, u64>,
    summarised_at: Option<Timestamp>,
}

impl<R> Default for Refusals<R> {
    fn default() -> Self {
        Self { counts: BTreeMap::new(), since_summary: BTreeMap::new(), summarised_at: None }
    }
}

impl<R: Ord + Copy> Refusals<R> {
    /// Something was refused.
    pub fn count(&mut self, reason: impl Into<R>) {
        let reason = reason.into();
        *self.counts.entry(reason).or_default() += 1;
        *self.since_summary.entry(reason).or_default() += 1;
    }

    /// What was refused so far.
    pub fn counts(&self) -> &BTreeMap<R, u64> {
        &self.counts
    }

    /// When a summary is due; `None` if nothing was refused since the last.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let last = self.summarised_at.unwrap_or_default();
        (!self.since_summary.is_empty()).then(|| last + INTERVAL)
    }

    /// What was refused since the last summary, if it is time for one.
    pub fn poll_summary(&mut self, now: Timestamp) -> Option<Summary<R>> {
        if self.poll_timeout()? > now {
            return None;
        }
        self.summarised_at = Some(now);
        let by_reason = std::mem::take(&mut self.since_summary);
        Some(Summary { by_reason, total: self.counts.values().sum() })
    }
}

/// What was refused; displays as `malformed 12, wrong version 3; 15 in all`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary<R = BadMessage> {
    by_reason: BTreeMap<R, u64>,
    total: u64,
}

impl<R: fmt::Display> fmt::Display for Summary<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (reason, count)) in self.by_reason.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{reason} {count}")?;
        }
        write!(f, "; {} in all", self.total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line() {
        let mut refusals = Refusals::<BadMessage>::default();
        assert_eq!(refusals.poll_timeout(), None);
        for version in 0..100 {
            refusals.count(DecodeError::Version(version));
        }
        refusals.count(BadMessage::FrameCount);
        let now = Timestamp::from_micros(5_000_000);
        let line = refusals.poll_summary(now).unwrap().to_string();
        assert_eq!(line, "wrong version 100, wrong number of frames 1; 101 in all");
        refusals.count(DecodeError::Malformed);
        assert_eq!(refusals.poll_summary(now), None);
        let later = refusals.poll_timeout().unwrap();
        assert_eq!(refusals.poll_summary(later).unwrap().to_string(), "malformed 1; 102 in all");
    }
}
