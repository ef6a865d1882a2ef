//! What programs write to stderr: the last words of each job, and how many of them are logged.

use std::collections::VecDeque;
use std::time::Duration;

use svcmap_proto::time::Timestamp;

/// How much of a program's stderr is kept for each job: the last words matter.
pub const BYTES_KEPT: usize = 4096;

/// Lines that one worker logs in a second of all its programs: enough to see what is wrong, too few to
/// hide what else is.
pub const LINES_PER_SECOND: u32 = 10;

/// The end of what was written, however much that is.
#[derive(Debug, Default)]
pub struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

impl Tail {
    /// More was written.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(&bytes[bytes.len().saturating_sub(BYTES_KEPT + 1)..]);
        let excess = self.bytes.len().saturating_sub(BYTES_KEPT);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// As text; what is no UTF-8 is replaced, and `…` stands for what is missing.
    pub fn text(&self) -> String {
        let (front, back) = self.bytes.as_slices();
        let text = String::from_utf8_lossy(&[front, back].concat()).into_owned();
        if self.cut { format!("…{text}") } else { text }
    }
}

/// How many lines may still be logged.
#[derive(Debug)]
pub struct LineLimit {
    /// When the second began that is counted.
    since: Timestamp,
    logged: u32,
    left_out: u64,
}

impl Default for LineLimit {
    fn default() -> Self {
        Self { since: Timestamp::from_micros(0), logged: 0, left_out: 0 }
    }
}

impl LineLimit {
    /// Whether a line may be logged now. With the first one after some that might not comes their
    /// number.
    pub fn admit(&mut self, now: Timestamp) -> Option<u64> {
        if now.since(self.since) >= Duration::from_secs(1) {
            (self.since, self.logged) = (now, 0);
        }
        if self.logged >= LINES_PER_SECOND {
            self.left_out += 1;
            return None;
        }
        self.logged += 1;
        Some(self.take_left_out())
    }

    /// How many were not logged since that was last told.
    pub fn take_left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_words_are_kept() {
        let mut tail = Tail::default();
        assert!(tail.is_empty());
        tail.push(b"first ");
        assert_eq!(tail.text(), "first ");
        for _ in 0..100 {
            tail.push(&[b'x'; 1000]);
        }
        tail.push(b"last\xff");
        assert!(tail.text().starts_with("…x") && tail.text().ends_with("xlast\u{fffd}"));
        assert_eq!(tail.bytes.len(), BYTES_KEPT);
        tail.push(&[b'y'; 3 * BYTES_KEPT]);
        assert_eq!(tail.text(), format!("…{}", "y".repeat(BYTES_KEPT)));
        let mut whole = Tail::default();
        whole.push(&[b'y'; BYTES_KEPT]);
        assert_eq!(whole.text(), "y".repeat(BYTES_KEPT));
        let mut cut = Tail::default();
        cut.push(&[b'y'; BYTES_KEPT + 1]);
        assert!(cut.text().starts_with('…'));
    }

    #[test]
    fn ten_lines_a_second_are_logged_and_the_others_counted() {
        let at = |ms: u64| Timestamp::from_micros(5_000_000 + ms * 1000);
        let mut limit = LineLimit::default();
        let admitted: Vec<_> = (0..15).filter_map(|ms| limit.admit(at(ms))).collect();
        assert_eq!(admitted, [0; 10]);
        assert_eq!(limit.admit(at(999)), None);
        assert_eq!((limit.admit(at(1000)), limit.admit(at(1001))), (Some(6), Some(0)));
    }
}
