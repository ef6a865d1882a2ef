//! The JSON dialect: how the message of a REQ socket is told from a native one, and which JSON is
//! taken.
//!
//! A REQ socket puts an empty frame before its body, and no native message has one there. What
//! stands before the empty frame (the connection, and perhaps a REQ's correlation) belongs to
//! whoever asked and goes back as it came.
//!
//! JSON from outside is checked once, without allocating for what it holds; what passed is then
//! read where it lies.

use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use serde::de::{
    self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
};
use serde::{Deserialize, Serialize};
pub use serde_json::value::RawValue;

use crate::keys::PublicKey;
use crate::limits;

/// Longest error text in a reply, in characters: an error quotes what it is about.
const ERROR_CHARS_MAX: usize = 300;

/// How long a worker of the original system may be silent: it reports every 5 s.
pub const LEASE: Duration = Duration::from_secs(30);

/// What a worker of the original system says when it has no room: these very words.
pub const QUEUE_FULL: &str = "queue full";

/// The frames before a body, the connection's routing id first: kept until the reply goes out
/// behind them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    frames: Vec<Vec<u8>>,
    user: Option<PublicKey>,
}

impl Envelope {
    /// The same, with who has proven to be there, if somebody had to.
    #[must_use]
    pub fn of(self, user: Option<PublicKey>) -> Self {
        Self { user, ..self }
    }

    /// Who is there.
    pub fn user(&self) -> Option<&PublicKey> {
        self.user.as_ref()
    }

    /// The message that brings `body` back to where this came from.
    pub fn around<'a>(&'a self, body: &'a [u8]) -> Vec<&'a [u8]> {
        self.frames.iter().map(Vec::as_slice).chain([body]).collect()
    }

    /// The routing id of the connection.
    pub fn connection(&self) -> &[u8] {
        self.frames.first().map_or(&[], Vec::as_slice)
    }

    /// Whether it is short enough to be kept while its sender waits for an outcome.
    pub fn is_short(&self) -> bool {
        self.frames.iter().map(Vec::len).sum::<usize>() <= limits::ENVELOPE_BYTES_MAX
    }
}

/// Takes apart what a ROUTER received from a REQ socket. `None` if it is a native message.
///
/// The empty frame at the end of a message is none that precedes a body: it is the payload of a
/// native job.
pub fn open<F: Deref<Target = [u8]>>(frames: &[F]) -> Option<(Envelope, Result<&[u8], JsonError>)> {
    let empty = frames.iter().skip(1).position(|frame| frame.is_empty())?;
    let (envelope, rest) = frames.split_at(empty + 2);
    let body = match rest {
        [] => return None,
        [body] => Ok(&**body),
        _ => Err(JsonError::new("one frame with one JSON object is expected")),
    };
    let frames = envelope.iter().map(|frame| frame.to_vec()).collect();
    Some((Envelope { frames, user: None }, body))
}

/// Takes apart what a DEALER received from a REP socket, or from a ROUTER that answers like one: the
/// frame that was sent in front of the request, if there was one, and the body, which is empty if it is
/// not one frame. `None` if it is a native message.
pub fn open_reply<F: Deref<Target = [u8]>>(frames: &[F]) -> Option<(Option<&[u8]>, &[u8])> {
    let (tag, rest) = match frames {
        [first, rest @ ..] if first.is_empty() => (None, rest),
        // The empty frame at the end of a native message is a payload.
        [tag, second, rest @ ..] if second.is_empty() && !rest.is_empty() => (Some(&**tag), rest),
        _ => return None,
    };
    let body: &[u8] = if let [body] = rest { body } else { &[] };
    Some((tag, body))
}

/// Why a text is not what was expected: for people, to be sent back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl JsonError {
    /// An error in these words, or as many of them as a reply holds.
    pub fn new(message: impl fmt::Display) -> Self {
        Self(message.to_string().chars().take(ERROR_CHARS_MAX).collect())
    }
}

impl From<serde_json::Error> for JsonError {
    fn from(error: serde_json::Error) -> Self {
        Self::new(error)
    }
}

/// Checks that this is one JSON object and nothing else: UTF-8, numbers that a double holds, at
/// most 127 objects and lists within each other (`serde_json`'s own limit).
///
/// # Errors
/// Says what is wrong, and where.
pub fn object(body: &[u8]) -> Result<&str, JsonError> {
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(JsonError::new("a JSON object is expected"));
    }
    value(body)
}

/// Checks that this is one JSON value and nothing else, as [`object`] does.
///
/// # Errors
/// Says what is wrong, and where.
pub fn value(body: &[u8]) -> Result<&str, JsonError> {
    let text = std::str::from_utf8(body).map_err(JsonError::new)?;
    let mut reader = serde_json::Deserializer::from_str(text);
    Checked.deserialize(&mut reader)?;
    reader.end()?;
    Ok(text)
}

/// A command and what belongs to it, each as the text that it is.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
pub struct Command<'a> {
    /// Its name, if it has one and that is a string.
    #[serde(borrow)]
    command: Option<&'a RawValue>,
    #[serde(borrow)]
    payload: Option<&'a RawValue>,
}

impl<'a> Command<'a> {
    /// Reads an object that was checked; keys that it does not know do not matter.
    ///
    /// # Errors
    /// If a key stands there twice.
    pub fn read(object: &'a str) -> Result<Self, JsonError> {
        Ok(serde_json::from_str(object)?)
    }

    /// Its name; `None` if there is none, or it is no string.
    pub fn name(&self) -> Option<String> {
        serde_json::from_str(self.command?.get()).ok()
    }

    /// What belongs to it; a missing payload has no fields.
    ///
    /// # Errors
    /// Says which field is missing, there twice, or of the wrong type.
    pub fn payload<T: Deserialize<'a>>(&self) -> Result<T, JsonError> {
        let text = self.payload.map_or("{}", RawValue::get);
        // A list would do for serde: its items taken for the fields in their order.
        if !text.starts_with('{') {
            return Err(JsonError::new("`payload` must be an object"));
        }
        serde_json::from_str(text).map_err(|error| {
            let error = error.to_string();
            // The place is one within the payload, which nobody can find.
            let what = error.split_once(" at line ").map_or(error.as_str(), |(what, _)| what);
            JsonError::new(format_args!("payload: {what}"))
        })
    }
}

/// A whole number from 0 to 4,294,967,295. Languages that know only one kind of number write `5000`
/// as `5000.0` or `5e3`, and are understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Whole(pub u32);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WholeVisitor)
    }
}

struct WholeVisitor;

impl Visitor<'_> for WholeVisitor {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a whole number from 0 to {}", u32::MAX)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Whole, E> {
        let whole = u32::try_from(number);
        whole.map(Whole).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Whole, E> {
        let whole = u32::try_from(number);
        whole.map(Whole).map_err(|_| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Whole, E> {
        if number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(&number) {
            // In range and without a fraction, so nothing is lost.
            Ok(Whole(number as u32))
        } else {
            Err(E::invalid_value(Unexpected::Float(number), &self))
        }
    }
}

/// A reply as a frame.
pub fn reply<T: Serialize>(reply: &T) -> Vec<u8> {
    // Strings, numbers and lists: serialising them has no way to fail.
    serde_json::to_vec(reply).unwrap_or_default()
}

/// The reply that something was done, and `rest` besides: a map or a struct.
pub fn ok<T: Serialize>(rest: &T) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "status", rename = "ok")]
    struct OkReply<'a, T> {
        #[serde(flatten)]
        rest: &'a T,
    }
    reply(&OkReply { rest })
}

/// The reply to what cannot be done or was not understood, as a frame.
pub fn error(message: impl fmt::Display) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(tag = "status", rename = "error")]
    struct ErrorReply {
        message: String,
    }
    reply(&ErrorReply { message: message.to_string() })
}

/// Reads a value through every visitor that `serde_json` counts depth and checks ranges for, and
/// keeps nothing of it.
#[derive(Clone, Copy)]
struct Checked;

impl<'de> DeserializeSeed<'de> for Checked {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Checked {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        while fields.next_key::<IgnoredAny>()?.is_some() {
            fields.next_value_seed(self)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
