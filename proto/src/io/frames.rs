//! Between the frames of libzmq and the payloads of messages.

use bytes::Bytes;
use zmq::Message;

/// From that size on, in bytes, libzmq gives a frame memory of its own: its receive buffer has as many.
const KEPT_BYTES: usize = 8192;

/// A frame that somebody keeps as bytes.
struct Kept(Message);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The frames that follow a message. Short ones are copied: they would keep libzmq's receive buffer,
/// which holds what came with them. Long ones stay where libzmq put them.
pub fn payloads(frames: &mut [Message]) -> impl Iterator<Item = Bytes> {
    frames.iter_mut().map(|frame| match frame.len() >= KEPT_BYTES {
        true => Bytes::from_owner(Kept(std::mem::replace(frame, Message::new()))),
        false => Bytes::copy_from_slice(frame),
    })
}
