//! The bytes of jobs and results, beside the message that they belong to; a job's metadata is one of
//! them.
//!
//! In the message itself stands only how long each payload is. Small ones follow in its second
//! frame, one behind the other; each large one is a frame of its own, so that nobody has to copy it.
//! No frame is empty: that would be taken for the one before a body of the JSON dialect.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::{self, DecodeError};
use crate::jobs::{FromWorker, ToWorker};
use crate::limits;

/// Room that is made for a message before it is encoded, in bytes: so much for itself, and so much for each
/// of its payloads, as it tells of a job or an outcome. If that is too little, it grows.
const HEADER_BYTES: usize = 24;

/// The payloads of the jobs or outcomes of one message, in their order. Their lengths stand there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payloads {
    /// Small ones, one behind the other.
    small: Bytes,
    /// How many bytes of these were taken.
    taken: usize,
    /// Large ones.
    large: VecDeque<Bytes>,
}

impl Payloads {
    /// These. Small ones are copied.
    pub fn new<'a>(payloads: impl IntoIterator<Item = &'a Bytes, IntoIter: Clone>) -> Self {
        let payloads = payloads.into_iter();
        let is_large = |payload: &&Bytes| limits::is_large(payload.len());
        let small = payloads.clone().filter(|payload| !is_large(payload));
        let mut all = Vec::with_capacity(small.clone().map(Bytes::len).sum());
        small.for_each(|payload| all.extend_from_slice(payload));
        Self { small: all.into(), taken: 0, large: payloads.filter(is_large).cloned().collect() }
    }

    /// The next one, which is so long. It shares its memory with no other, so that whoever keeps it keeps
    /// only that. Empty if there is none as long, which [`decode`] has made sure of.
    pub fn take(&mut self, bytes: u32) -> Bytes {
        let len = bytes as usize;
        if limits::is_large(len) {
            let is_next = self.large.front().is_some_and(|next| next.len() == len);
            return self.large.pop_front().filter(|_| is_next).unwrap_or_default();
        }
        let payload = self.small.get(self.taken..self.taken + len).unwrap_or_default();
        self.taken += payload.len();
        Bytes::copy_from_slice(payload)
    }

    /// Those out of the frames that follow a message which tells of so many bytes each.
    fn from_frames(
        sizes: impl Iterator<Item = u32> + Clone,
        frames: impl IntoIterator<Item = Bytes>,
    ) -> Result<Self, DecodeError> {
        let mut frames = frames.into_iter();
        let is_large = |bytes: &u32| limits::is_large(*bytes as usize);
        // None overflows: a list is short, and so is each of these.
        let small_bytes: usize =
            sizes.clone().filter(|bytes| !is_large(bytes)).map(|bytes| bytes as usize).sum();
        let small = match small_bytes {
            0 => Bytes::new(),
            1..=limits::BATCH_BYTES_MAX => frames.next().ok_or(DecodeError::Payloads)?,
            _ => return Err(DecodeError::Payloads),
        };
        let mut large = VecDeque::new();
        for bytes in sizes.filter(is_large) {
            let frame = frames.next().filter(|frame| frame.len() == bytes as usize);
            large.push_back(frame.ok_or(DecodeError::Payloads)?);
        }
        match small.len() == small_bytes && frames.next().is_none() {
            true => Ok(Self { small, taken: 0, large }),
            false => Err(DecodeError::Payloads),
        }
    }
}

/// How long a payload is, as the job or outcome says to which it belongs.
pub fn len(payload: &Bytes) -> u32 {
    // None is as long as that.
    u32::try_from(payload.len()).unwrap_or(u32::MAX)
}

/// A message that may have payloads.
pub trait Laden {
    /// How long each of its payloads is.
    fn sizes(&self) -> impl Iterator<Item = u32> + Clone;

    /// Its payloads; `None` if it is of a kind that has none.
    fn payloads_mut(&mut self) -> Option<&mut Payloads>;
}

impl Laden for ToWorker {
    fn sizes(&self) -> impl Iterator<Item = u32> + Clone {
        let jobs = if let ToWorker::Jobs(batch) = self { &batch.jobs[..] } else { &[] };
        jobs.iter().flat_map(|job| [job.metadata_bytes.into(), job.payload_bytes])
    }

    fn payloads_mut(&mut self) -> Option<&mut Payloads> {
        if let ToWorker::Jobs(batch) = self { Some(&mut batch.payloads) } else { None }
    }
}

impl Laden for FromWorker {
    fn sizes(&self) -> impl Iterator<Item = u32> + Clone {
        let outcomes =
            if let FromWorker::Outcomes(batch) = self { &batch.outcomes[..] } else { &[] };
        outcomes.iter().map(|outcome| outcome.payload_bytes)
    }

    fn payloads_mut(&mut self) -> Option<&mut Payloads> {
        if let FromWorker::Outcomes(batch) = self { Some(&mut batch.payloads) } else { None }
    }
}

/// The frames of a message, in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// The message.
    pub message: Vec<u8>,
    /// Its small payloads; without any there is no such frame.
    pub small: Bytes,
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
pub fn encode<T: Laden + Serialize>(mut message: T) -> Frames {
    let room = HEADER_BYTES * (1 + message.sizes().count());
    let encoded = codec::encode_into(Vec::with_capacity(room), &message);
    let payloads = message.payloads_mut().map(std::mem::take).unwrap_or_default();
    let Payloads { small, large, .. } = payloads;
    Frames { message: encoded, small, large: large.into() }
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
    let payloads = Payloads::from_frames(message.sizes(), others)?;
    if let Some(place) = message.payloads_mut() {
        *place = payloads;
    }
    Ok(message)
}

#[cfg(test)]
mod tests;
