//! Between the frames of libzmq and the payloads of messages.

use bytes::Bytes;
use zmq::Message;

/// A frame that somebody keeps as bytes.
struct Kept(Message);

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// The frames that follow a message. The small payloads, which come first, are copied: they would keep
/// libzmq's receive buffer, which holds what came with them. Large ones stay where libzmq put them.
pub fn payloads(frames: &mut [Message]) -> impl Iterator<Item = Bytes> {
    frames.iter_mut().enumerate().map(|(index, frame)| match index {
        0 => Bytes::copy_from_slice(frame),
        _ => Bytes::from_owner(Kept(std::mem::replace(frame, Message::new()))),
    })
}
