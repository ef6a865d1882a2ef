//! Lines out of what a process writes, and the last ones of each.

use std::collections::VecDeque;

/// Longest line; what is longer is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// Lines that are kept of each process, to be shown later.
const KEPT_MAX: usize = 1000;

/// How much of each process is kept.
const KEPT_BYTES_MAX: usize = 256 * 1024;

/// What was written, until a line of it is whole.
#[derive(Debug, Default)]
pub(super) struct Splitter {
    bytes: Vec<u8>,
}

impl Splitter {
    /// More was written: the lines that are whole now, without their ends. What is no UTF-8 is replaced.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in bytes {
            if byte == b'\n' {
                lines.extend(self.take());
            } else {
                self.bytes.push(byte);
                if self.bytes.len() == LINE_BYTES_MAX {
                    lines.extend(self.take());
                }
            }
        }
        lines
    }

    /// What is left at the end.
    pub(super) fn take(&mut self) -> Option<String> {
        let bytes = std::mem::take(&mut self.bytes);
        let line = String::from_utf8_lossy(&bytes);
        let line = line.trim_end_matches('\r');
        (!line.is_empty()).then(|| line.to_owned())
    }
}

/// The last lines of a process, and about it.
#[derive(Debug, Default)]
pub(super) struct Recent {
    lines: VecDeque<Line>,
    bytes: usize,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) text: String,
    /// Whether somebody else has said it, of this process.
    pub(super) is_about: bool,
}

impl Recent {
    /// It has written that.
    pub(super) fn push(&mut self, text: &str) {
        self.keep(text, false);
    }

    /// That was said of it.
    pub(super) fn push_about(&mut self, text: &str) {
        self.keep(text, true);
    }

    fn keep(&mut self, text: &str, is_about: bool) {
        self.bytes += text.len();
        self.lines.push_back(Line { text: text.to_owned(), is_about });
        while self.lines.len() > KEPT_MAX || self.bytes > KEPT_BYTES_MAX {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.text.len();
        }
    }

    /// The last so many, oldest first.
    pub(super) fn last(&self, count: usize) -> impl Iterator<Item = &Line> {
        self.lines.iter().skip(self.lines.len().saturating_sub(count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_they_are_written() {
        let mut splitter = Splitter::default();
        assert_eq!(splitter.push(b"a\nb\r\n\nc"), ["a", "b"]);
        assert_eq!(splitter.push(b"d\n\xff\n"), ["cd", "\u{fffd}"]);
        assert_eq!(splitter.take(), None);
        assert_eq!(splitter.push(&[b'x'; LINE_BYTES_MAX + 1]).len(), 1);
        assert_eq!(splitter.take().as_deref(), Some("x"));
    }

    #[test]
    fn the_last_lines_are_kept_and_no_more() {
        let mut recent = Recent::default();
        (0..KEPT_MAX + 5).for_each(|n| recent.push(&n.to_string()));
        let last: Vec<&str> = recent.last(2).map(|line| line.text.as_str()).collect();
        assert_eq!(last, ["1003", "1004"]);
        assert_eq!(recent.last(usize::MAX).count(), KEPT_MAX);
        (0..100).for_each(|_| recent.push(&"y".repeat(10_000)));
        assert!(recent.lines.iter().map(|line| line.text.len()).sum::<usize>() <= KEPT_BYTES_MAX);
    }
}
