//! Log lines for people, in which nothing that others wrote commands the terminal or looks like a
//! line of its own.

use std::io::{self, Write};

use slog::{OwnedKVList, Record};
use slog_term::{Decorator, RecordDecorator};

use crate::text::{printable_bytes, printable_line};

/// A decorator whose messages, keys and values are escaped.
pub struct Escaped<D>(pub D);

impl<D: Decorator> Decorator for Escaped<D> {
    fn with_record<F>(&self, record: &Record, values: &OwnedKVList, write: F) -> io::Result<()>
    where
        F: FnOnce(&mut dyn RecordDecorator) -> io::Result<()>,
    {
        self.0.with_record(record, values, |line| write(&mut Line { line, is_quoting: false }))
    }
}

/// One record on its way out.
struct Line<'a> {
    line: &'a mut dyn RecordDecorator,
    /// Whether what comes is text of the record, and not of the line around it.
    is_quoting: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        if self.is_quoting {
            let shown = printable_bytes(text);
            let line = if shown.contains('\n') { printable_line(&shown) } else { shown };
            self.line.write_all(line.as_bytes())?;
        } else {
            self.line.write_all(text)?;
        }
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.line.flush()
    }
}

impl RecordDecorator for Line<'_> {
    fn reset(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.reset()
    }

    fn start_whitespace(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.start_whitespace()
    }

    fn start_msg(&mut self) -> io::Result<()> {
        self.is_quoting = true;
        self.line.start_msg()
    }

    fn start_timestamp(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.start_timestamp()
    }

    fn start_level(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.start_level()
    }

    fn start_comma(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.start_comma()
    }

    fn start_key(&mut self) -> io::Result<()> {
        self.is_quoting = true;
        self.line.start_key()
    }

    fn start_value(&mut self) -> io::Result<()> {
        self.is_quoting = true;
        self.line.start_value()
    }

    fn start_location(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.start_location()
    }

    fn start_separator(&mut self) -> io::Result<()> {
        self.is_quoting = false;
        self.line.start_separator()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use slog::{Drain, Logger, info, o};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_record_is_one_line_whatever_it_quotes() {
        let written = Written::default();
        let decorator = Escaped(slog_term::PlainSyncDecorator::new(written.clone()));
        let format = slog_term::FullFormat::new(decorator).use_original_order().build();
        let log = Logger::root(format.fuse(), o!("of" => "a\u{9b}b"));
        info!(log, "said: {}", "\u{1b}[2J"; "error" => "one\ntwo", "plain" => "ä 1");
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 1, "{text:?}");
        assert!(
            text.contains(r"said: \u{1b}[2J, of: a\u{9b}b, error: one\ntwo, plain: ä 1"),
            "{text:?}"
        );
    }
}
