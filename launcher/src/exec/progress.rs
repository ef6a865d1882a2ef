//! Lines in which a program under `--exec` says how far its job is, among all that it writes to stderr.

use svcmap_proto::limits::PROGRESS_BYTES_MAX;

use super::stderr::Tail;

/// How such a line begins.
const MARK: &[u8] = b"progress: ";

/// How much of such a line is kept: what is too long is cut later, where a character ends.
const KEPT_BYTES: usize = 2 * PROGRESS_BYTES_MAX;

/// What a program wrote to stderr: how far it is, and the end of all else.
#[derive(Debug, Default)]
pub struct Words {
    line: Line,
    /// The newest that was not taken.
    progress: Option<String>,
    tail: Tail,
}

/// The line that has no end yet.
#[derive(Debug)]
enum Line {
    /// As far as it has come, it begins as the mark does: with so many bytes of it.
    Begun(usize),
    /// What is behind the mark.
    Progress(Vec<u8>),
    Other,
}

impl Default for Line {
    fn default() -> Self {
        Line::Begun(0)
    }
}

impl Words {
    /// More was written.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match &mut self.line {
                Line::Begun(count) => {
                    let mark = &MARK[*count..];
                    let same = mark.iter().zip(bytes).take_while(|(a, b)| a == b).count();
                    *count += same;
                    if same == mark.len() {
                        self.line = Line::Progress(Vec::new());
                    } else if same < bytes.len() {
                        self.end_mark();
                    }
                    same
                }
                Line::Progress(text) => {
                    let (part, taken) = part_of_line(bytes);
                    let room = KEPT_BYTES - text.len();
                    text.extend_from_slice(&part[..part.len().min(room)]);
                    if taken > part.len() {
                        let text = String::from_utf8_lossy(text).trim_end().to_owned();
                        (self.progress, self.line) = (Some(text), Line::default());
                    }
                    taken
                }
                Line::Other => {
                    let (part, taken) = part_of_line(bytes);
                    self.tail.push(&bytes[..taken]);
                    if taken > part.len() {
                        self.line = Line::default();
                    }
                    taken
                }
            };
            bytes = &bytes[taken..];
        }
    }

    /// What began as the mark does goes on in another way, or not at all.
    fn end_mark(&mut self) {
        if let Line::Begun(count) = self.line {
            self.tail.push(&MARK[..count]);
            self.line = Line::Other;
        }
    }

    /// The newest that it said of how far it is, once.
    pub fn take_progress(&mut self) -> Option<String> {
        self.progress.take()
    }

    /// All else, once nothing follows.
    pub fn tail(&mut self) -> &Tail {
        self.end_mark();
        &self.tail
    }
}

/// What belongs to a line, and how much that is with its end, if it is there.
fn part_of_line(bytes: &[u8]) -> (&[u8], usize) {
    match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], end + 1),
        None => (bytes, bytes.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is made of a text that is read in pieces of that size.
    fn read(text: &[u8], piece: usize) -> (Vec<String>, String) {
        let (mut words, mut progress) = (Words::default(), Vec::new());
        for piece in text.chunks(piece) {
            words.push(piece);
            progress.extend(words.take_progress());
        }
        (progress, words.tail().text())
    }

    #[test]
    fn lines_with_the_mark_are_progress_however_they_come() {
        let text =
            "one\nprogress: 40 %\r\nprogress:50\n progress: 60\n\nprogress: é\nprogress: pro";
        let others = "one\nprogress:50\n progress: 60\n\n";
        for piece in 1..text.len() {
            let (progress, rest) = read(text.as_bytes(), piece);
            // Of those in one piece the newest counts.
            assert_eq!(progress.last().map(String::as_str), Some("é"), "{piece}");
            assert!(piece > 20 || progress.len() == 2, "{progress:?} in pieces of {piece}");
            assert_eq!(rest, others, "{piece}");
        }
    }

    #[test]
    fn what_only_begins_like_one_is_among_the_last_words() {
        for text in ["prog", "progress:", "progressive", "p\nprogress", "\n", ""] {
            for piece in 1..=text.len().max(1) {
                assert_eq!(read(text.as_bytes(), piece), (vec![], text.to_owned()), "{piece}");
            }
        }
    }

    #[test]
    fn a_line_without_end_takes_no_room() {
        let mut words = Words::default();
        words.push(MARK);
        (0..100).for_each(|_| words.push(&[b'x'; 1000]));
        assert!(matches!(&words.line, Line::Progress(text) if text.len() == KEPT_BYTES));
        words.push(b"\nno \xff\n");
        assert_eq!(words.take_progress(), Some("x".repeat(KEPT_BYTES)));
        assert_eq!((words.take_progress(), words.tail().text().as_str()), (None, "no \u{fffd}\n"));
    }
}
