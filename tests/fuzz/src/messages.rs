//! Native messages of both planes: what is one is the same one when it is written again, and has what
//! its limits allow.

use std::fmt::Debug;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use svcmap_proto::control::{
    Change, Entry, FromMapper, Publication, Registration, ReportRef, ToMapper, topic, topic_service,
};
use svcmap_proto::jobs::{FromWorker, ToWorker};
use svcmap_proto::limits;
use svcmap_proto::payload::{self, Frame, Laden};
use svcmap_proto::{codec, limits::LIST_MAX};

use crate::input;
use crate::memory::bounded;

/// How much larger a message is in memory than on the wire, at most: a short item of a list is an enum
/// with large variants, of which the vector has up to twice as many.
const TIMES: usize = 256;

/// What a message of this kind is.
pub(crate) trait Message: Debug + PartialEq + Serialize + DeserializeOwned {}

impl<T: Debug + PartialEq + Serialize + DeserializeOwned> Message for T {}

/// The message in a frame, if there is one.
///
/// # Panics
/// If it is not the same after it was written again.
pub(crate) fn decoded<T: Message>(frame: &[u8]) -> Option<T> {
    let message: T = bounded(frame.len(), TIMES, || codec::decode(frame)).ok()?;
    let again = codec::encode(&message);
    assert!(again.len() <= frame.len(), "{message:?} became longer");
    assert_eq!(codec::decode(&again).as_ref(), Ok(&message));
    Some(message)
}

/// # Panics
/// If whoever it is for could not read this.
pub(crate) fn assert_readable<T: Message>(message: &T) {
    let frame = codec::encode(message);
    assert_eq!(codec::decode::<T>(&frame).as_ref(), Ok(message));
}

/// The same for one with payloads.
///
/// # Panics
/// If whoever it is for could not read this.
pub(crate) fn assert_laden<T: Message + Laden + Clone>(message: &T) {
    let frames = payload::encode(message.clone());
    assert!(frames.iter().count() <= limits::FRAMES_MAX, "{message:?}");
    let others = frames.iter().skip(1).map(|frame| Bytes::copy_from_slice(frame.bytes()));
    let again: Result<T, _> = payload::decode(&frames.message, others);
    assert_eq!(again.as_ref(), Ok(message));
}

/// What a mapper is told.
pub(crate) fn to_mapper(frame: &[u8]) {
    let message = decoded::<ToMapper>(frame);
    match &message {
        Some(ToMapper::Register(registration)) => check_registration(registration),
        Some(ToMapper::Report { key, incarnation, load }) => {
            let (service, instance) = (key.service.as_str(), key.instance.as_str());
            let report = ReportRef { service, instance, incarnation: *incarnation, load: *load };
            assert_eq!(ReportRef::in_frame(frame), Some(report));
        }
        _ => {}
    }
    if let Some(report) = bounded(frame.len(), 1, || ReportRef::in_frame(frame)) {
        // Only its names may be none.
        let are_names = [report.service, report.instance].iter().all(|name| {
            let name: Result<svcmap_proto::names::Name, _> = name.parse();
            name.is_ok()
        });
        assert_eq!(are_names, matches!(message, Some(ToMapper::Report { .. })));
    }
}

/// What a mapper answers.
pub(crate) fn from_mapper(frame: &[u8]) {
    match decoded(frame) {
        Some(FromMapper::Snapshot { part, .. }) => check_entries(&part.entries),
        Some(FromMapper::Services { names, .. }) => assert!(names.len() <= LIST_MAX),
        _ => {}
    }
}

/// What a mapper publishes: the topic, and the message.
pub(crate) fn publication(bytes: &[u8]) {
    let frames: Vec<_> = input::frames(bytes).take(2).collect();
    let [title, frame] = &frames[..] else { return };
    if let Some(service) = topic_service(title) {
        assert_eq!(topic(&service), **title);
    }
    match decoded(frame) {
        Some(Publication::Snapshot(part)) => check_entries(&part.entries),
        Some(Publication::Changes(part)) => {
            assert!(part.changes.len() <= LIST_MAX);
            for change in &part.changes {
                if let Change::Put(entry) = change {
                    check_entries(std::slice::from_ref(entry));
                }
            }
        }
        _ => {}
    }
}

/// What a sender says, and the payloads of its jobs.
pub(crate) fn to_worker(bytes: &[u8]) {
    let Some(message) = laden(bytes) else { return };
    match message {
        ToWorker::Hello(hello) => assert!(hello.open.len() <= LIST_MAX),
        ToWorker::Jobs(mut batch) => {
            assert!(batch.jobs.len() <= LIST_MAX);
            for job in &batch.jobs {
                let metadata = batch.payloads.take(job.metadata_bytes.into());
                assert_eq!(metadata.len(), usize::from(job.metadata_bytes));
                assert_eq!(
                    payload::len(&batch.payloads.take(job.payload_bytes)),
                    job.payload_bytes
                );
            }
        }
        _ => {}
    }
}

/// What a worker answers, and the payloads of its outcomes.
pub(crate) fn from_worker(bytes: &[u8]) {
    let Some(message) = laden(bytes) else { return };
    match message {
        FromWorker::Outcomes(mut batch) => {
            assert!(batch.outcomes.len() <= LIST_MAX);
            for outcome in &batch.outcomes {
                let payload = batch.payloads.take(outcome.payload_bytes);
                assert_eq!(payload::len(&payload), outcome.payload_bytes);
            }
        }
        FromWorker::Progress(reports) => {
            assert!(reports.len() <= LIST_MAX);
            assert!(reports.iter().all(|report| report.text.len() <= limits::PROGRESS_BYTES_MAX));
        }
        FromWorker::Welcome { forgotten, .. } => assert!(forgotten.len() <= LIST_MAX),
        _ => {}
    }
}

/// A message with its payloads, which is the same one when it is written again.
fn laden<T: Message + Laden + Clone>(bytes: &[u8]) -> Option<T> {
    let mut frames = input::frames(bytes);
    let frame = frames.next()?;
    decoded::<T>(&frame)?;
    let others: Vec<_> = frames.collect();
    let message: T = bounded(frame.len(), TIMES, || payload::decode(&frame, others)).ok()?;
    let frames = payload::encode(message.clone());
    let others = frames.iter().skip(1).map(|frame| match frame {
        Frame::Short(bytes) => Bytes::copy_from_slice(bytes),
        Frame::Large(bytes) => bytes.clone(),
    });
    assert_eq!(payload::decode(&frames.message, others).as_ref(), Ok(&message));
    Some(message)
}

fn check_registration(registration: &Registration) {
    assert!(registration.endpoints.len() <= LIST_MAX);
    check_error(registration.error.as_deref());
}

fn check_entries(entries: &[Entry]) {
    assert!(entries.len() <= LIST_MAX);
    for entry in entries {
        assert!(entry.endpoints.len() <= LIST_MAX);
        check_error(entry.error.as_deref());
    }
}

fn check_error(error: Option<&str>) {
    assert!(error.is_none_or(|error| error.len() <= limits::ERROR_BYTES_MAX));
}
