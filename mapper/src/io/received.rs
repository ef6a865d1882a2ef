//! What came on the ROUTER: taken apart, and said to the registry.

use svcmap_proto::codec::{self, DecodeError};
use svcmap_proto::control::ReportRef;
use svcmap_proto::io::{self, Clock};
use svcmap_proto::json::{self, JsonError};
use svcmap_proto::keys::PublicKey;
use svcmap_proto::limits;
use svcmap_proto::refusals::BadMessage;
use svcmap_proto::time::Timestamp;
use zmq::Message;

use crate::registry::{Connection, Registry};

/// Handles the report of an instance that is listed. `false` if the message is anything else.
pub(super) fn handle_report(
    registry: &mut Registry,
    now: Timestamp,
    frames: &mut [Message],
) -> bool {
    let user = io::user(frames);
    let [from, frame] = &*frames else { return false };
    let Some(report) = ReportRef::in_frame(frame) else { return false };
    is_heard(registry, user) && {
        registry.handle_report(now, &Connection::new(from).of(user), &report)
    }
}

/// Handles any other message: the connection it came on, and one frame, or what a REQ socket sends.
pub(super) fn handle(registry: &mut Registry, frames: &mut [Message]) -> Result<(), BadMessage> {
    let (now, unix_us) = (Clock.now(), Clock.unix_us());
    let (observed, user) = (observed(frames), io::user(frames));
    if let Some((from, body)) = json::open(frames) {
        let body = body.and_then(within_limit);
        let handled = registry.handle_request(now, unix_us, from.of(user), &observed, body);
        return handled.map_err(|_| BadMessage::Json);
    }
    if !is_heard(registry, user) {
        return Err(BadMessage::Plain);
    }
    let [from, frame] = &*frames else { return Err(BadMessage::FrameCount) };
    let from = Connection::new(from).of(user);
    match codec::decode(frame) {
        Ok(message) => registry.handle_message(now, unix_us, &from, &observed, message),
        Err(error) => {
            if let DecodeError::Version(_) = error {
                registry.refuse_version(&from);
            }
            return Err(error.into());
        }
    }
    Ok(())
}

/// Whether who is there may speak natively: where there are keys, plain text is for the JSON dialect.
fn is_heard(registry: &Registry, user: Option<PublicKey>) -> bool {
    registry.rights().is_none() || user.is_some()
}

/// Refuses a message of too many frames, of which these are the first.
pub(super) fn refuse_frames(registry: &mut Registry, frames: &[Message]) -> BadMessage {
    let Some((from, _)) = json::open(frames) else { return BadMessage::FrameCount };
    // A REQ socket waits for its reply all the same.
    let error = Err(JsonError::new("too many frames: one JSON object is expected"));
    // It is wrong, as this says.
    let _ = registry.handle_request(Clock.now(), Clock.unix_us(), from, "", error);
    BadMessage::Json
}

/// The address that a message came from; empty if unknown.
fn observed(frames: &mut [Message]) -> String {
    let observed = frames.last_mut().and_then(|frame| frame.gets("Peer-Address"));
    let observed = observed.unwrap_or_default();
    // A mapped address is the IPv4 address that it maps.
    observed.strip_prefix("::ffff:").unwrap_or(observed).to_owned()
}

fn within_limit(body: &[u8]) -> Result<&[u8], JsonError> {
    if body.len() > limits::CONTROL_BYTES_MAX {
        let limit = limits::CONTROL_BYTES_MAX;
        return Err(JsonError::new(format_args!("larger than {limit} bytes")));
    }
    Ok(body)
}
