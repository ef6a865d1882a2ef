//! What is sent: one input after another, from files, lines or lists of files, however many there
//! are. Names are bytes, as the system has them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use svcmap_proto::metadata::TRACEPARENT;
use svcmap_worker::Metadata;

use crate::cli::{SubmitArgs, is_stdin};
use crate::errors::Failure;
use crate::text::{printable_bytes, printable_path};

/// How much of a line names it in a message.
const SHOWN_BYTES: usize = 40;

/// How much of a line that is too long names it anywhere.
const NAME_BYTES: usize = 1024;

/// Longest name of a file in a list: no system takes one that is longer.
const PATH_BYTES_MAX: usize = 64 * 1024;

/// What an input is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// The text of `--data`.
    Data,
    /// All of stdin.
    Stdin,
    /// A file.
    File(PathBuf),
    /// A line is called what it says.
    Line(Vec<u8>),
}

impl Name {
    /// As the joblog and JSON have it.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Name::Data => b"--data",
            Name::Stdin => b"-",
            Name::File(path) => path.as_os_str().as_bytes(),
            Name::Line(line) => line,
        }
    }

    /// What a handler may be told: the trace that its job is part of, and the name of a file, if it is text
    /// and not too long.
    pub fn metadata<'a>(&'a self, trace: Option<&'a str>) -> Vec<(&'static str, &'a str)> {
        let mut said: Vec<_> = trace.map(|trace| (TRACEPARENT, trace)).into_iter().collect();
        if let Name::File(path) = self
            && let Some(name) = path.to_str()
            && Metadata::new(said.iter().copied().chain([("input", name)])).is_ok()
        {
            said.push(("input", name));
        }
        said
    }

    /// What to call the job of that number in a message.
    pub fn label(&self, number: u64) -> String {
        let shown = |bytes: &[u8]| printable_bytes(bytes).replace('\n', "\\n");
        match self {
            Name::Line(line) if line.len() > SHOWN_BYTES => {
                format!("line {number} ({}…)", shown(&line[..SHOWN_BYTES]))
            }
            Name::Line(line) => format!("line {number} ({})", shown(line)),
            name => shown(name.bytes()),
        }
    }
}

/// An input, before it is read.
#[derive(Debug)]
pub struct Input {
    /// What it is called.
    pub name: Name,
    payload: Source,
}

#[derive(Debug)]
enum Source {
    Here(Vec<u8>),
    TooLong,
    File(PathBuf),
    Stdin,
}

/// Why a payload could not be read.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// In the system's words.
    #[error("cannot be read: {0}")]
    Read(#[from] std::io::Error),
    /// It was not read to its end.
    #[error("larger than {limit} bytes; nothing was sent (see --payload-max)")]
    TooLarge {
        /// The limit.
        limit: usize,
    },
}

impl Input {
    fn file(path: PathBuf) -> Self {
        Self { name: Name::File(path.clone()), payload: Source::File(path) }
    }

    fn line(line: Vec<u8>, limit: usize) -> Self {
        if line.len() > limit {
            let start = line[..line.len().min(NAME_BYTES)].to_vec();
            return Self { name: Name::Line(start), payload: Source::TooLong };
        }
        Self { name: Name::Line(line.clone()), payload: Source::Here(line) }
    }

    /// Reads it; what exceeds the limit is an error, and is not read to its end.
    ///
    /// # Errors
    /// See [`InputError`].
    pub fn read(self, limit: usize) -> Result<Bytes, InputError> {
        let payload = match self.payload {
            Source::Here(payload) => payload,
            Source::TooLong => return Err(InputError::TooLarge { limit }),
            Source::File(path) => read_at_most(File::open(path)?, limit)?,
            Source::Stdin => read_at_most(std::io::stdin().lock(), limit)?,
        };
        if payload.len() > limit {
            return Err(InputError::TooLarge { limit });
        }
        Ok(payload.into())
    }
}

fn read_at_most(reader: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut payload)?;
    Ok(payload)
}

/// Everything that was given, in its order.
pub enum Inputs {
    /// What stood on the command line.
    Given(std::vec::IntoIter<Input>),
    /// A job for each line.
    Lines(Lines),
    /// A job for each file that a line names.
    FilesFrom(Lines),
}

impl Inputs {
    /// What the command line asks for.
    ///
    /// # Errors
    /// If the list cannot be opened.
    pub fn open(args: &SubmitArgs) -> Result<Self, Failure> {
        if let Some(path) = &args.lines {
            return Ok(Inputs::Lines(Lines::open(path, args.null, args.payload_max)?));
        }
        if let Some(path) = &args.files_from {
            return Ok(Inputs::FilesFrom(Lines::open(path, args.null, PATH_BYTES_MAX)?));
        }
        let data = args.data.iter().map(|text| Input {
            name: Name::Data,
            payload: Source::Here(text.clone().into_bytes()),
        });
        let files = args.files.iter().map(|file| match is_stdin(file) {
            true => Input { name: Name::Stdin, payload: Source::Stdin },
            false => Input::file(file.clone()),
        });
        Ok(Inputs::Given(data.chain(files).collect::<Vec<_>>().into_iter()))
    }

    /// How many there are, unless a list has to be read to tell.
    pub fn known_count(&self) -> Option<usize> {
        match self {
            Inputs::Given(inputs) => Some(inputs.len()),
            Inputs::Lines(_) | Inputs::FilesFrom(_) => None,
        }
    }
}

impl Iterator for Inputs {
    type Item = std::io::Result<Input>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Inputs::Given(inputs) => inputs.next().map(Ok),
            Inputs::Lines(lines) => {
                let limit = lines.limit;
                Some(lines.next()?.map(|line| Input::line(line, limit)))
            }
            // An empty line names no file.
            Inputs::FilesFrom(lines) => {
                let line = lines.find(|line| line.as_ref().map_or(true, |line| !line.is_empty()));
                let path = |line| PathBuf::from(OsString::from_vec(line));
                Some(line?.map(|line| Input::file(path(line))))
            }
        }
    }
}

/// The lines of a file, without what ends them. Of one that is longer than the limit only so much
/// comes, and one byte more.
pub struct Lines {
    reader: Box<dyn BufRead + Send>,
    end: u8,
    limit: usize,
}

impl Lines {
    fn open(path: &Path, null: bool, limit: usize) -> Result<Self, Failure> {
        let reader: Box<dyn BufRead + Send> = if is_stdin(path) {
            Box::new(BufReader::new(std::io::stdin()))
        } else {
            let file = File::open(path);
            let shown = printable_path(path);
            Box::new(BufReader::new(
                file.map_err(|error| Failure::usage(format!("{shown} cannot be read: {error}")))?,
            ))
        };
        Ok(Self { reader, end: if null { 0 } else { b'\n' }, limit })
    }

    fn read(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let longest = u64::try_from(self.limit).unwrap_or(u64::MAX).saturating_add(1);
        (&mut self.reader).take(longest).read_until(self.end, &mut line)?;
        if line.is_empty() {
            return Ok(None);
        }
        if line.pop_if(|last| *last == self.end).is_none() && line.len() > self.limit {
            self.reader.skip_until(self.end)?;
        }
        Ok(Some(line))
    }
}

impl Iterator for Lines {
    type Item = std::io::Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &'static [u8], end: u8, limit: usize) -> Lines {
        Lines { reader: Box::new(text), end, limit }
    }

    fn all(text: &'static [u8], end: u8, limit: usize) -> Vec<Vec<u8>> {
        lines(text, end, limit).map(Result::unwrap).collect()
    }

    #[test]
    fn a_line_is_what_stands_before_its_end() {
        assert_eq!(all(b"a\n\nb\xff\r\n", b'\n', 9), [&b"a"[..], b"", b"b\xff\r"]);
        assert_eq!(all(b"a\n\nlast", b'\n', 9), [&b"a"[..], b"", b"last"]);
        assert_eq!(all(b"a\nb\0c\0", 0, 9), [&b"a\nb"[..], b"c"]);
        assert!(all(b"", b'\n', 9).is_empty());
    }

    #[test]
    fn what_is_too_long_is_not_kept_and_the_next_line_is_whole() {
        assert_eq!(all(b"123\n12345678\n12\n", b'\n', 3), [&b"123"[..], b"1234", b"12"]);
        let mut inputs = Inputs::Lines(lines(b"1234\n12\n", b'\n', 3));
        let first = inputs.next().unwrap().unwrap();
        assert!(matches!(first.read(3), Err(InputError::TooLarge { limit: 3 })));
        assert_eq!(&inputs.next().unwrap().unwrap().read(3).unwrap()[..], b"12");
        // Of an endless one, too.
        let mut endless = Lines {
            reader: Box::new(BufReader::new(std::io::repeat(b'x').take(1 << 24))),
            end: b'\n',
            limit: 10,
        };
        assert_eq!(endless.next().unwrap().unwrap().len(), 11);
        assert!(endless.next().is_none());
    }

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let endless = std::io::repeat(b'x');
        assert_eq!(read_at_most(endless, 10).unwrap().len(), 11);
    }

    #[test]
    fn an_empty_line_names_no_file() {
        let names: Vec<_> = Inputs::FilesFrom(lines(b"\na\xff\n\n\nb\n", b'\n', 99))
            .map(|input| input.unwrap().name.bytes().to_vec())
            .collect();
        assert_eq!(names, [&b"a\xff"[..], b"b"]);
    }

    #[test]
    fn a_message_names_an_input_on_one_line() {
        assert_eq!(Name::File("a\nb\u{1b}".into()).label(7), "a\\nb\\u{1b}");
        assert_eq!(Name::Line(b"x".to_vec()).label(7), "line 7 (x)");
        assert_eq!(Name::Line(vec![b'x'; 50]).label(7), format!("line 7 ({}…)", "x".repeat(40)));
    }
}
