//! What a sender says of a job beside its payload: a few names and values, for handlers, programs and
//! logs to read. svcmap itself goes by none of them.

use std::sync::Arc;

use bytes::Bytes;

use crate::codec::DecodeError;
use crate::limits::{METADATA_BYTES_MAX, METADATA_ENTRIES_MAX, METADATA_NAME_BYTES_MAX};

/// Under which name a sender says which trace a job is part of, as W3C Trace Context writes it.
pub const TRACEPARENT: &str = "traceparent";

/// Names and values of a job, in the order in which they were added; mostly there are none, which
/// costs nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Metadata {
    /// As it travels: names and values by turns, a NUL after each.
    encoded: Option<Arc<Bytes>>,
}

static NONE: Bytes = Bytes::new();

/// Names and values that are not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// Programs get them as parts of environment variables, and logs as keys.
    #[error(
        "`{}` is no name of metadata: 1 to {METADATA_NAME_BYTES_MAX} letters, digits, `-`, `_` and `.`",
        .0.escape_debug().take(80).collect::<String>()
    )]
    Name(String),
    /// The environment of a program cannot hold it.
    #[error("the metadata `{0}` has a NUL byte: leave it out")]
    Nul(String),
    /// There is one of that name: each may stand there once.
    #[error("the metadata `{0}` stands there twice")]
    Twice(String),
    /// Too many, or too long together: put what is large into the payload.
    #[error(
        "metadata takes {METADATA_ENTRIES_MAX} names, and {METADATA_BYTES_MAX} bytes with their \
            values: put what is large into the payload"
    )]
    TooLarge,
}

impl Metadata {
    /// These names and values.
    ///
    /// # Errors
    /// See [`MetadataError`].
    pub fn new<'a>(
        entries: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, MetadataError> {
        let entries: Vec<_> = entries.into_iter().take(METADATA_ENTRIES_MAX + 1).collect();
        check(&entries)?;
        let fields = entries.iter().flat_map(|(name, value)| [name, value]);
        let encoded: String = fields.flat_map(|field| [field, "\0"]).collect();
        Ok(Self::of(encoded.into()))
    }

    /// The same as it came.
    ///
    /// # Errors
    /// If it is none, or more than is taken.
    pub fn decode(encoded: Bytes) -> Result<Self, DecodeError> {
        if encoded.is_empty() {
            return Ok(Self::default());
        }
        let metadata = Self::of(encoded);
        let entries: Vec<_> = metadata.iter().take(METADATA_ENTRIES_MAX + 1).collect();
        let is_whole = Self::new(entries).is_ok_and(|same| same == metadata);
        if is_whole { Ok(metadata) } else { Err(DecodeError::Payloads) }
    }

    /// As it travels: no bytes if there is none.
    pub fn encoded(&self) -> &Bytes {
        self.encoded.as_deref().unwrap_or(&NONE)
    }

    fn of(encoded: Bytes) -> Self {
        Self { encoded: (!encoded.is_empty()).then(|| Arc::new(encoded)) }
    }

    /// How many bytes that is, at most [`METADATA_BYTES_MAX`].
    pub fn len(&self) -> u16 {
        u16::try_from(self.encoded().len()).unwrap_or(u16::MAX)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.encoded.is_none()
    }

    /// Each name with its value.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        let mut fields = str::from_utf8(self.encoded()).unwrap_or_default().split('\0');
        std::iter::from_fn(move || Some((fields.next()?, fields.next()?)))
    }

    /// The value of that name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(other, _)| *other == name).map(|(_, value)| value)
    }
}

fn check(entries: &[(&str, &str)]) -> Result<(), MetadataError> {
    let bytes: usize = entries.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
    if entries.len() > METADATA_ENTRIES_MAX || bytes > METADATA_BYTES_MAX {
        return Err(MetadataError::TooLarge);
    }
    for (number, (name, value)) in entries.iter().enumerate() {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = (1..=METADATA_NAME_BYTES_MAX).contains(&name.len());
        if !is_name || !name.bytes().all(is_plain) {
            return Err(MetadataError::Name((*name).to_owned()));
        }
        if value.contains('\0') {
            return Err(MetadataError::Nul((*name).to_owned()));
        }
        if entries[..number].iter().any(|(other, _)| other == name) {
            return Err(MetadataError::Twice((*name).to_owned()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn new(entries: &[(&str, &str)]) -> Result<Metadata, MetadataError> {
        Metadata::new(entries.iter().copied())
    }

    #[test]
    fn they_come_as_they_went() {
        let metadata = new(&[("input", "a\nb.jpg"), ("traceparent", "")]).unwrap();
        assert_eq!(metadata.get("input"), Some("a\nb.jpg"));
        assert_eq!(metadata.get("output"), None);
        let came = Metadata::decode(metadata.encoded().clone()).unwrap();
        assert!(came.iter().eq([("input", "a\nb.jpg"), ("traceparent", "")]));
        assert_eq!(Metadata::decode(Bytes::new()), Ok(Metadata::default()));
        assert!(new(&[]).unwrap().encoded().is_empty());
    }

    #[test]
    fn what_is_not_taken_is_said() {
        assert_eq!(new(&[("a b", "")]), Err(MetadataError::Name("a b".to_owned())));
        assert_eq!(new(&[("", "")]), Err(MetadataError::Name(String::new())));
        assert_eq!(new(&[("a", "\0")]), Err(MetadataError::Nul("a".to_owned())));
        assert_eq!(new(&[("a", ""), ("a", "")]), Err(MetadataError::Twice("a".to_owned())));
        let long = "x".repeat(METADATA_BYTES_MAX);
        assert_eq!(new(&[("a", &long)]), Err(MetadataError::TooLarge));
        let names: Vec<_> = (0..=METADATA_ENTRIES_MAX).map(|n| format!("n{n}")).collect();
        let many: Vec<_> = names.iter().map(|name| (name.as_str(), "")).collect();
        assert_eq!(new(&many), Err(MetadataError::TooLarge));
        assert!(new(&many[1..]).is_ok());
        // What somebody else has encoded is looked at in the same way.
        for bytes in ["a\0\0a\0\0", "a\0b", "a", "\0\0", "a\0b\0c\0"] {
            assert!(Metadata::decode(bytes.into()).is_err(), "{bytes:?}");
        }
        assert!(Metadata::decode(Bytes::from_static(b"a\0\xff\0")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            if let Ok(metadata) = Metadata::decode(bytes.into()) {
                prop_assert!(metadata.iter().count() <= METADATA_ENTRIES_MAX);
            }
        }
    }
}
