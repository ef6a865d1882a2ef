//! Messages to frames and back: a version byte, then the message in postcard, whose first byte is
//! the kind.
//!
//! Decoding never panics, allocates little more than the input's own size, and refuses what is too
//! large, of another version, malformed, or followed by anything.

use std::fmt;

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits;

/// The protocol version of this build: the first byte of every message.
pub const VERSION: u8 = 2;

/// The oldest version that this build still speaks.
pub const VERSION_OLDEST: u8 = 2;

/// Why a frame is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum DecodeError {
    /// Nothing to decode.
    #[error("empty")]
    Empty,
    /// Above [`limits::CONTROL_BYTES_MAX`].
    #[error("too large")]
    TooLarge,
    /// Of a version that this build does not speak: answer so, and let the other side decide.
    #[error("protocol version {0}, this build speaks {VERSION_OLDEST} to {VERSION}")]
    Version(u8),
    /// Not a message, or one whose content is out of its limits.
    #[error("malformed")]
    Malformed,
    /// A message with something behind it.
    #[error("trailing bytes")]
    TrailingBytes,
    /// The frames behind it are not the payloads that it tells of.
    #[error("payloads that do not fit")]
    Payloads,
}

/// A message as a frame.
///
/// # Panics
/// Never for the messages of this crate, which serialise whatever their content is.
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    encode_into(Vec::new(), message)
}

/// The same, into a vector that is empty and has room.
pub(crate) fn encode_into<T: Serialize>(mut frame: Vec<u8>, message: &T) -> Vec<u8> {
    frame.push(VERSION);
    let frame = postcard::to_extend(message, frame);
    // Our types serialise infallibly into a growing vector; an empty frame is refused by anyone.
    debug_assert!(frame.is_ok());
    frame.unwrap_or_default()
}

/// The message in a frame.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<'de, T: Deserialize<'de>>(frame: &'de [u8]) -> Result<T, DecodeError> {
    if frame.len() > limits::CONTROL_BYTES_MAX {
        return Err(DecodeError::TooLarge);
    }
    let (&version, body) = frame.split_first().ok_or(DecodeError::Empty)?;
    // The version error has one form for ever, so it is read whatever version it comes from.
    let is_version_error = body.first() == Some(&0) && body.len() == 3;
    if !(VERSION_OLDEST..=VERSION).contains(&version) && !is_version_error {
        return Err(DecodeError::Version(version));
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(DecodeError::TrailingBytes),
        Err(_) => Err(DecodeError::Malformed),
    }
}

/// What stands behind the kind byte of a frame of this version, if it is of that kind and holds nothing
/// else: for reading the most frequent messages without a copy.
pub(crate) fn decode_kind<'de, T: Deserialize<'de>>(frame: &'de [u8], kind: u8) -> Option<T> {
    let [VERSION_OLDEST..=VERSION, its_kind, body @ ..] = frame else { return None };
    if *its_kind != kind || frame.len() > limits::CONTROL_BYTES_MAX {
        return None;
    }
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Some(message),
        _ => None,
    }
}

/// A list on its way into messages: each item is encoded once, and dealt into parts that stay below
/// [`limits::PART_BYTES_MAX`] and [`limits::LIST_MAX`].
#[derive(Debug, Default)]
pub struct Parts {
    full: Vec<Part>,
    last: Part,
}

/// So many items, and their encodings one after another.
#[derive(Debug, Default)]
struct Part {
    items: usize,
    bytes: Vec<u8>,
}

impl Parts {
    /// One more item.
    pub fn push<T: Serialize>(&mut self, item: &T) {
        let before = self.last.bytes.len();
        let bytes = postcard::to_extend(item, std::mem::take(&mut self.last.bytes));
        // As in `encode`: ours serialise infallibly.
        debug_assert!(bytes.is_ok());
        self.last.bytes = bytes.unwrap_or_default();
        let is_full =
            self.last.bytes.len() > limits::PART_BYTES_MAX || self.last.items == limits::LIST_MAX;
        if is_full && self.last.items > 0 {
            let next = self.last.bytes.split_off(before);
            let next = Part { items: 0, bytes: next };
            self.full.push(std::mem::replace(&mut self.last, next));
        }
        self.last.items += 1;
    }

    /// The messages, at least one. `message` makes part i of n, with an empty list at its very end, in
    /// whose place the items come.
    pub fn into_frames<T: Serialize>(self, message: impl Fn(u16, u16) -> T) -> Vec<Vec<u8>> {
        let parts: Vec<_> = self.full.into_iter().chain([self.last]).collect();
        // The limit of instances keeps it far below the largest number.
        let count = u16::try_from(parts.len()).unwrap_or(u16::MAX);
        let frame = |(number, part): (u16, Part)| {
            let mut frame = encode(&message(number, count));
            let empty = frame.pop();
            debug_assert_eq!(empty, Some(0));
            frame.reserve_exact(part.bytes.len() + 3);
            let mut frame = postcard::to_extend(&part.items, frame).unwrap_or_default();
            frame.extend_from_slice(&part.bytes);
            frame
        };
        (0..count).zip(parts).map(frame).collect()
    }
}

/// A value that a user sends as a payload, through serde and postcard.
///
/// # Errors
/// If the value's `Serialize` fails.
pub fn encode_value<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, ValueError> {
    postcard::to_stdvec(value).map_err(ValueError)
}

/// The same after a prefix.
///
/// # Errors
/// If the value's `Serialize` fails.
pub fn encode_value_after<T: Serialize + ?Sized>(
    prefix: &[u8],
    value: &T,
) -> Result<Vec<u8>, ValueError> {
    postcard::to_extend(value, prefix.to_vec()).map_err(ValueError)
}

/// The value in a payload that [`encode_value`] made. Every byte of it must be used.
///
/// A list of something that takes no bytes, such as `Vec<()>`, is as long as the payload says, be
/// it billions: do not decode such a type from those whom you do not trust. The same
/// holds for a type that holds itself, such as a tree: it is as deep as the payload says, and a stack
/// is not.
///
/// # Errors
/// If the payload holds no such value, or more than one.
pub fn decode_value<T: DeserializeOwned>(payload: &[u8]) -> Result<T, ValueError> {
    match postcard::take_from_bytes(payload).map_err(ValueError)? {
        (value, []) => Ok(value),
        _ => Err(ValueError(postcard::Error::DeserializeBadEncoding)),
    }
}

/// A payload that does not hold the value that was asked for, or a value that is no payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the payload is no such value: {0}")]
pub struct ValueError(postcard::Error);

/// Reads a list of at most [`limits::LIST_MAX`] items and allocates as they come, not as announced.
pub(crate) fn bounded_list<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de>> Visitor<'de> for Bounded<T> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {} items", limits::LIST_MAX)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = sequence.next_element()? {
                if items.len() == limits::LIST_MAX {
                    return Err(serde::de::Error::custom("list too long"));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Bounded(std::marker::PhantomData))
}

/// Reads an error of at most [`limits::ERROR_BYTES_MAX`], if there is one.
pub(crate) fn bounded_error<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    let error = Option::<String>::deserialize(deserializer)?;
    if error.as_ref().is_some_and(|error| error.len() > limits::ERROR_BYTES_MAX) {
        return Err(serde::de::Error::custom("error too long"));
    }
    Ok(error)
}

#[cfg(test)]
mod tests;
