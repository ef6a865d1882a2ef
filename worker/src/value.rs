//! Values as payloads: JSON, which every language reads, or postcard, which is smaller and faster but is
//! read by Rust programs only that are built with the same types.
//!
//! Each is told from the other, so that one that is read as the other is an error.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use svcmap_proto::codec;

/// What a postcard value begins with: no text does, and so no JSON.
const POSTCARD_MARK: [u8; 4] = [0xff, b'p', b'c', 1];

/// A payload that does not hold the value that was asked for, or a value that is no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// It cannot be written: its `Serialize` says why, or its keys are no text.
    #[error("the value cannot be a payload: {0}")]
    Unwritable(String),
    /// It is no such value, and the text says why.
    #[error("the payload is no such value: {0}")]
    Other(String),
    /// A postcard value that was to be read as JSON.
    #[error("the payload is a postcard value: read it with `postcard`, or submit it as JSON")]
    IsPostcard,
    /// JSON that was to be read as a postcard value.
    #[error("the payload is JSON: read it with `json`, or submit it as postcard")]
    IsJson,
    /// Bytes that were to be read as a postcard value.
    #[error("the payload is no postcard value: one that `svcmap_worker::value` wrote was expected")]
    IsBytes,
}

impl ValueError {
    fn unwritable(why: impl fmt::Display) -> Self {
        Self::Unwritable(why.to_string())
    }

    fn other(why: impl fmt::Display) -> Self {
        Self::Other(why.to_string())
    }
}

/// The JSON of a value.
///
/// # Errors
/// [`ValueError::Unwritable`].
pub fn to_json<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, ValueError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(ValueError::unwritable)
}

/// The value that is in this JSON.
///
/// # Errors
/// If it is no JSON, or no such value.
pub fn from_json<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ValueError> {
    if payload.starts_with(&POSTCARD_MARK) {
        return Err(ValueError::IsPostcard);
    }
    serde_json::from_slice(payload).map_err(ValueError::other)
}

/// A value in postcard, after four bytes that say so.
///
/// # Errors
/// [`ValueError::Unwritable`].
pub fn to_postcard<T: Serialize + ?Sized>(value: &T) -> Result<Bytes, ValueError> {
    codec::encode_value_after(&POSTCARD_MARK, value)
        .map(Bytes::from)
        .map_err(ValueError::unwritable)
}

/// The value that [`to_postcard`] wrote. Every byte of it must be used, but postcard does not say what type
/// it holds: one of the same shape is taken for another. Read the type that was written.
///
/// A list of something that takes no bytes, such as `Vec<()>`, is as long as the payload says, be
/// it billions: do not read such a type from those whom you do not trust. The same
/// holds for a type that holds itself, such as a tree: it is as deep as the payload says, and a stack
/// is not.
///
/// # Errors
/// If it is no postcard, or holds no such value, or more than one.
pub fn from_postcard<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ValueError> {
    match payload.strip_prefix(&POSTCARD_MARK) {
        Some(value) => codec::decode_value(value).map_err(ValueError::other),
        None if serde_json::from_slice::<IgnoredAny>(payload).is_ok() => Err(ValueError::IsJson),
        None => Err(ValueError::IsBytes),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Resize {
        width: u32,
        path: String,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Rotate {
        degrees: u32,
        path: String,
    }

    fn resize() -> Resize {
        Resize { width: 640, path: "a.jpg".to_owned() }
    }

    #[test]
    fn a_value_comes_back_as_it_was() {
        assert_eq!(from_json(&to_json(&resize()).unwrap()), Ok(resize()));
        assert_eq!(from_postcard(&to_postcard(&resize()).unwrap()), Ok(resize()));
    }

    #[test]
    fn json_of_another_type_is_an_error_that_says_what_is_missing() {
        let error = from_json::<Rotate>(&to_json(&resize()).unwrap()).unwrap_err();
        assert!(error.to_string().contains("missing field `degrees`"), "{error}");
    }

    #[test]
    fn a_payload_of_the_other_kind_is_an_error_and_never_garbage() {
        let (json, postcard) = (to_json(&640).unwrap(), to_postcard(&640).unwrap());
        assert_eq!(from_json::<u32>(&postcard), Err(ValueError::IsPostcard));
        assert_eq!(from_postcard::<u32>(&json), Err(ValueError::IsJson));
        assert_eq!(from_postcard::<u32>(&[1]), Err(ValueError::IsBytes));
        assert_eq!(from_postcard::<u32>(&[]), Err(ValueError::IsBytes));
        assert!(from_json::<u32>(&[]).is_err());
        let longer = [&postcard[..], &[0]].concat();
        assert!(matches!(from_postcard::<u32>(&longer), Err(ValueError::Other(_))));
    }

    #[test]
    fn a_value_that_json_does_not_know_is_no_payload() {
        let map = BTreeMap::from([(vec![1], 2)]);
        assert!(matches!(to_json(&map), Err(ValueError::Unwritable(_))));
        assert_eq!(from_postcard(&to_postcard(&map).unwrap()), Ok(map));
    }
}
