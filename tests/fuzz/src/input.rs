//! Frames, steps and times in the bytes of an input.
//!
//! No text has the bytes of the marks, and hardly any message. So what is put in or left out somewhere
//! leaves all else as it was.

use std::time::Duration;

use bytes::Bytes;

/// What stands between two frames of a message.
pub(crate) const FRAME: [u8; 2] = [0xff, 0xfd];

/// What stands between two steps.
pub(crate) const STEP: [u8; 2] = [0xff, 0xfe];

/// What begins a long frame that is not written out: its length follows, in two bytes.
pub(crate) const LONG: u8 = b'*';

/// Most steps that are taken of one input.
const STEPS_MAX: usize = 64;

/// Something that happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step<'a> {
    /// What it is.
    pub(crate) kind: u8,
    /// How long after the one before.
    pub(crate) pause: Duration,
    /// What is said.
    pub(crate) body: &'a [u8],
}

impl Step<'_> {
    /// What it is, in the lower half of the byte, and to whom it happens, in the upper one.
    pub(crate) fn halves(&self) -> (u8, usize) {
        (self.kind & 15, usize::from(self.kind >> 4))
    }
}

/// The steps of an input: of each a byte that says what it is, one for the time, and what is said.
pub(crate) fn steps(input: &[u8]) -> impl Iterator<Item = Step<'_>> {
    let steps = split(input, STEP).take(STEPS_MAX);
    steps.filter_map(|step| {
        let [kind, pause, body @ ..] = step else { return None };
        // From a microsecond to half a minute.
        let pause = Duration::from_micros(1 << (pause % 26));
        Some(Step { kind: *kind, pause, body })
    })
}

/// The frames of a message.
pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = Bytes> {
    split(bytes, FRAME).map(|frame| match frame {
        &[LONG, high, low] => vec![LONG; u16::from_be_bytes([high, low]).into()].into(),
        frame => Bytes::copy_from_slice(frame),
    })
}

/// What stands before, between and behind the marks.
fn split(bytes: &[u8], mark: [u8; 2]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(bytes);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let Some(end) = bytes.windows(2).position(|pair| pair == mark) else {
            return rest.take();
        };
        rest = Some(&bytes[end + 2..]);
        Some(&bytes[..end])
    })
}
