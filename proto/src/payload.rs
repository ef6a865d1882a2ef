//! The bytes of jobs and results, beside the message that they belong to.
//!
//! In the message itself stands only how long each payload is. Small ones follow in its second
//! frame, one behind the other; each large one is a frame of its own, so that nobody has to copy it.
//! No frame is empty: that would be taken for the one before a body of the JSON dialect.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{self, DecodeError};
use crate::jobs::{FromWorker, ToWorker};
use crate::limits;

/// The payload of a job or an outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    /// How long it is, as a message says whose other frames were not looked at yet.
    announced: u32,
}

impl Payload {
    /// Its bytes.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// Its bytes, for whoever keeps them.
    pub fn into_bytes(self) -> Bytes {
        self.bytes
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Its size as one that messages can tell.
    fn wire_len(&self) -> u32 {
        u32::try_from(self.bytes.len()).unwrap_or(u32::MAX)
    }
}

impl<T: Into<Bytes>> From<T> for Payload {
    fn from(bytes: T) -> Self {
        let payload = Self { bytes: bytes.into(), announced: 0 };
        Self { announced: payload.wire_len(), ..payload }
    }
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.wire_len().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Payload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { bytes: Bytes::new(), announced: u32::deserialize(deserializer)? })
    }
}

/// A message that may have payloads.
pub trait Laden {
    /// Its payloads; `None` if it is of a kind that has none.
    fn payloads(&self) -> Option<impl Iterator<Item = &Payload>>;

    /// The same, to be filled.
    fn payloads_mut(&mut self) -> Option<impl Iterator<Item = &mut Payload>>;
}

impl Laden for ToWorker {
    fn payloads(&self) -> Option<impl Iterator<Item = &Payload>> {
        let ToWorker::Jobs(batch) = self else { return None };
        Some(batch.jobs.iter().map(|job| &job.payload))
    }

    fn payloads_mut(&mut self) -> Option<impl Iterator<Item = &mut Payload>> {
        let ToWorker::Jobs(batch) = self else { return None };
        Some(batch.jobs.iter_mut().map(|job| &mut job.payload))
    }
}

impl Laden for FromWorker {
    fn payloads(&self) -> Option<impl Iterator<Item = &Payload>> {
        let FromWorker::Outcomes(batch) = self else { return None };
        Some(batch.outcomes.iter().map(|outcome| &outcome.payload))
    }

    fn payloads_mut(&mut self) -> Option<impl Iterator<Item = &mut Payload>> {
        let FromWorker::Outcomes(batch) = self else { return None };
        Some(batch.outcomes.iter_mut().map(|outcome| &mut outcome.payload))
    }
}

/// The frames of a message, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// The message.
    pub message: Vec<u8>,
    /// Its small payloads; without any there is no such frame.
    pub small: Vec<u8>,
    /// Its large ones.
    pub large: Vec<Bytes>,
}

impl Frames {
    /// What the message and its payloads take together, in bytes.
    pub fn bytes(&self) -> usize {
        self.iter().map(|frame| frame.bytes().len()).sum()
    }

    /// One after the other.
    pub fn iter(&self) -> impl Iterator<Item = Frame<'_>> {
        let small = Some(&self.small[..]).filter(|small| !small.is_empty());
        let short = std::iter::once(&self.message[..]).chain(small);
        short.map(Frame::Short).chain(self.large.iter().map(Frame::Large))
    }
}

/// A frame of a message, on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// To be copied.
    Short(&'a [u8]),
    /// To be sent from where it lies.
    Large(&'a Bytes),
}

impl<'a> From<&'a [u8]> for Frame<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Frame::Short(bytes)
    }
}

impl<'a> Frame<'a> {
    /// Its bytes.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Frame::Short(bytes) => bytes,
            Frame::Large(bytes) => bytes,
        }
    }
}

/// A message as frames.
pub fn encode<T: Laden + Serialize>(message: &T) -> Frames {
    let mut frames = Frames { message: codec::encode(message), ..Frames::default() };
    let Some(payloads) = message.payloads() else { return frames };
    let sizes = message.payloads().into_iter().flatten().map(Payload::len);
    let mut small = Vec::with_capacity(sizes.filter(|bytes| !limits::is_large(*bytes)).sum());
    for payload in payloads {
        match limits::is_large(payload.len()) {
            true => frames.large.push(payload.bytes.clone()),
            false => small.extend_from_slice(&payload.bytes),
        }
    }
    frames.small = small;
    frames
}

/// The message in a frame, with its payloads out of those that follow it.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode<'de, T: Laden + Deserialize<'de>>(
    frame: &'de [u8],
    others: impl IntoIterator<Item = Bytes>,
) -> Result<T, DecodeError> {
    let mut message: T = codec::decode(frame)?;
    let mut others = others.into_iter();
    let sizes = message.payloads().into_iter().flatten().map(|payload| payload.announced as usize);
    // None overflows: a list is short, and so is each of these.
    let small_bytes: usize = sizes.filter(|bytes| !limits::is_large(*bytes)).sum();
    let mut small = match small_bytes {
        0 => Bytes::new(),
        1..=limits::BATCH_BYTES_MAX => others.next().ok_or(DecodeError::Payloads)?,
        _ => return Err(DecodeError::Payloads),
    };
    if small.len() != small_bytes {
        return Err(DecodeError::Payloads);
    }
    if let Some(payloads) = message.payloads_mut() {
        for payload in payloads {
            let len = payload.announced as usize;
            payload.bytes = if limits::is_large(len) {
                others.next().filter(|bytes| bytes.len() == len).ok_or(DecodeError::Payloads)?
            } else {
                small.split_to(len)
            };
        }
    }
    if others.next().is_some() { Err(DecodeError::Payloads) } else { Ok(message) }
}

#[cfg(test)]
mod tests;
