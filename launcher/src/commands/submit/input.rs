//! Where payloads come from.

use std::fs::File;
use std::io::Read;
use std::path::PathBuf;

use crate::cli::SubmitArgs;

/// A payload that was read.
pub struct Input(pub Vec<u8>);

/// One thing that was given to send.
pub enum Source {
    /// The text of `--data`.
    Data(String),
    /// A file.
    File(PathBuf),
    /// Standard input.
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

impl Source {
    /// Everything that was given, in its order.
    pub fn all(args: &SubmitArgs) -> Vec<Self> {
        if let Some(data) = &args.data {
            return vec![Source::Data(data.clone())];
        }
        let is_stdin = |file: &PathBuf| file.as_os_str() == "-";
        let source = |file: &PathBuf| match is_stdin(file) {
            true => Source::Stdin,
            false => Source::File(file.clone()),
        };
        args.files.iter().map(source).collect()
    }

    /// What to call it on screen.
    pub fn label(&self) -> String {
        match self {
            Source::Data(_) => "--data".to_owned(),
            Source::File(path) => path.display().to_string(),
            Source::Stdin => "-".to_owned(),
        }
    }

    /// Reads it; what exceeds the limit is an error, and is not read to its end.
    pub fn read(&self, limit: usize) -> Result<Input, InputError> {
        let payload = match self {
            Source::Data(text) => text.clone().into_bytes(),
            Source::File(path) => read_at_most(File::open(path)?, limit)?,
            Source::Stdin => read_at_most(std::io::stdin().lock(), limit)?,
        };
        if payload.len() > limit { Err(InputError::TooLarge { limit }) } else { Ok(Input(payload)) }
    }
}

fn read_at_most(reader: impl Read, limit: usize) -> std::io::Result<Vec<u8>> {
    let mut payload = Vec::new();
    let one_more = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    reader.take(one_more).read_to_end(&mut payload)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_is_not_read_to_its_end() {
        let endless = std::io::repeat(b'x');
        assert_eq!(read_at_most(endless, 10).unwrap().len(), 11);
        let data = Source::Data("12345".to_owned());
        assert_eq!(data.read(5).ok().unwrap().0, b"12345");
        assert!(matches!(data.read(4), Err(InputError::TooLarge { limit: 4 })));
    }
}
