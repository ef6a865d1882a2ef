//! Names, endpoints, metadata, and the JSON dialect as far as it is text.

use bytes::Bytes;
use serde::Deserialize;
use svcmap_proto::control::{topic, topic_service};
use svcmap_proto::jobs::Priority;
use svcmap_proto::json::{self, Command, RawValue, Whole};
use svcmap_proto::limits;
use svcmap_proto::metadata::Metadata;
use svcmap_proto::names::{Endpoint, Name};

use crate::input;
use crate::memory::bounded;

/// How much more than a text is allocated to read it, at most: a name or an address of it is a copy, and
/// so is an error, a few hundred letters of it escaped.
const TIMES: usize = 4;

/// The same where an error quotes a text that is of the wrong kind: escaped, a few times over.
const QUOTED_TIMES: usize = 32;

/// A name, an endpoint, a priority: each is written as it was read.
pub(crate) fn names(bytes: &[u8]) {
    assert!(topic_service(bytes).is_none_or(|name| topic(&name) == bytes));
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(name) = bounded(text.len(), TIMES, || text.parse::<Name>()) {
        assert_eq!(name.as_str(), text);
        assert!(text.len() <= limits::NAME_BYTES_MAX);
        assert_eq!(topic_service(&topic(&name)), Some(name));
    }
    if let Ok(priority) = text.parse::<Priority>() {
        assert_eq!(priority.to_string(), text);
    }
    let Ok(endpoint) = bounded(text.len(), TIMES, || text.parse::<Endpoint>()) else { return };
    assert_eq!(endpoint.as_str(), text);
    assert!(text.len() <= limits::ENDPOINT_BYTES_MAX && !text.contains('\0'));
    assert!(!endpoint.host().is_empty());
    assert!(!(endpoint.is_wildcard() && endpoint.is_loopback()));
    if let Some(port) = endpoint.port() {
        let again = Endpoint::tcp(endpoint.host(), port).expect("it is a host");
        assert_eq!((again.host(), again.port()), (endpoint.host(), endpoint.port()));
    }
}

/// Metadata as it travels.
pub(crate) fn metadata(bytes: &[u8]) {
    // The entries are looked at as a list of pairs of slices.
    let encoded = Bytes::copy_from_slice(bytes);
    let Ok(metadata) = bounded(bytes.len(), TIMES, || Metadata::decode(encoded)) else { return };
    assert!(bytes.len() <= limits::METADATA_BYTES_MAX);
    assert!(metadata.iter().count() <= limits::METADATA_ENTRIES_MAX);
    assert_eq!(usize::from(metadata.len()), bytes.len());
    for (name, value) in metadata.iter() {
        assert_eq!(metadata.get(name), Some(value));
    }
    assert_eq!(Metadata::new(metadata.iter()).as_ref(), Ok(&metadata));
    assert_eq!(metadata.encoded(), bytes);
}

/// One of everything that requests of the dialect hold.
#[derive(Deserialize)]
struct Anything<'a> {
    name: Option<String>,
    #[serde(borrow)]
    body: Option<&'a RawValue>,
    number: Option<Whole>,
}

/// A message of a REQ or REP socket, and the JSON in it.
pub(crate) fn json(bytes: &[u8]) {
    let frames: Vec<_> = input::frames(bytes).collect();
    json::open_reply(&frames);
    let came = frames.iter().map(|frame| frame.len()).sum::<usize>() + bytes.len();
    let opened = bounded(came, 64, || json::open(&frames));
    let body = match &opened {
        Some((envelope, Ok(body))) => {
            let again = envelope.around(body);
            assert!(again.iter().eq(frames.iter()), "it goes back as it came");
            body
        }
        Some((_, Err(error))) => return assert_error(error),
        None => bytes,
    };
    let Ok(value) = bounded(body.len(), TIMES, || json::value(body)).inspect_err(assert_error)
    else {
        assert!(json::object(body).is_err());
        return;
    };
    // What passed is read where it lies.
    let raw = format!("{{\"payload\":{{\"body\":{value}}}}}");
    let command = Command::read(&raw).expect("it is an object");
    let anything: Anything = command.payload().expect("it is another");
    assert_eq!(anything.body.map_or("null", RawValue::get), value.trim_ascii());
    let Ok(object) = json::object(body) else { return };
    let Ok(command) = bounded(body.len(), TIMES, || Command::read(object)) else { return };
    command.name();
    match bounded(body.len(), QUOTED_TIMES, || command.payload::<Anything>()) {
        Ok(Anything { name, number, .. }) => {
            assert!(name.is_none_or(|name| name.len() <= body.len()));
            number.map(|number| number.0);
        }
        Err(error) => assert_error(&error),
    }
}

/// It can be said to whoever caused it.
fn assert_error(error: &json::JsonError) {
    let reply = json::error(error);
    assert!(json::object(&reply).is_ok() && reply.len() < 4096);
}
