use proptest::prelude::*;

use super::*;
use crate::jobs::{AttemptId, Claim, JobBatch, JobHeader, Priority};

/// Of every other job.
const METADATA_BYTES: u16 = 5;

const SMALL_MAX: usize = limits::LARGE_BYTES - 1;

fn job(number: usize, payload_bytes: u32) -> JobHeader {
    JobHeader {
        attempt: AttemptId { job: number as u64, attempt: 1 },
        deadline_ms: None,
        run_limit_ms: None,
        claim: Claim::Credit,
        redirects_left: 3,
        waited_us: 0,
        detachment: Default::default(),
        priority: Priority::Normal,
        metadata_bytes: if number.is_multiple_of(2) { 0 } else { METADATA_BYTES },
        payload_bytes,
    }
}

fn batch(sizes: &[usize]) -> ToWorker {
    let jobs = sizes.iter().enumerate().map(|(number, len)| job(number, *len as u32));
    let jobs: Vec<_> = jobs.collect();
    let sizes = jobs.iter().flat_map(|job| [job.metadata_bytes.into(), job.payload_bytes]);
    let payloads: Vec<Bytes> =
        sizes.enumerate().map(|(n, len)| vec![n as u8; len as usize].into()).collect();
    let payloads = Payloads::new(&payloads);
    let (share, share_priority) = Default::default();
    ToWorker::Jobs(JobBatch {
        first_number: 1,
        received_outcomes: 0,
        share,
        share_priority,
        jobs,
        payloads,
    })
}

/// All frames but the message's own.
fn others(frames: &Frames) -> Vec<Bytes> {
    frames.iter().skip(1).map(|frame| Bytes::copy_from_slice(frame.bytes())).collect()
}

#[test]
fn small_payloads_share_a_frame_and_large_ones_have_their_own() {
    let frames = encode(batch(&[3, limits::LARGE_BYTES, 0, SMALL_MAX, 9000]));
    assert_eq!(frames.small.len(), 3 + SMALL_MAX + 2 * usize::from(METADATA_BYTES));
    let large: Vec<_> = frames.large.iter().map(Bytes::len).collect();
    assert_eq!(large, [limits::LARGE_BYTES, 9000]);
}

#[test]
fn a_message_without_payloads_is_one_frame() {
    let ping = ToWorker::Ping { received_outcomes: 1 };
    let frames = encode(ping.clone());
    assert_eq!(frames.iter().count(), 1);
    assert_eq!(decode::<ToWorker>(&frames.message, []), Ok(ping));
    let more = decode::<ToWorker>(&frames.message, [Bytes::new()]);
    assert_eq!(more, Err(DecodeError::Payloads));
}

#[test]
fn no_frame_is_empty() {
    for sizes in [&[0, 0][..], &[9000], &[0, 9000]] {
        let message = batch(sizes);
        let frames = encode(message.clone());
        assert!(frames.iter().all(|frame| !frame.bytes().is_empty()), "{sizes:?}");
        assert_eq!(decode::<ToWorker>(&frames.message, others(&frames)), Ok(message));
    }
}

#[test]
fn small_payloads_are_no_more_than_a_message_may_have() {
    let sizes = [SMALL_MAX; limits::BATCH_BYTES_MAX / SMALL_MAX + 1];
    let frames = encode(batch(&sizes));
    let decoded = decode::<ToWorker>(&frames.message, others(&frames));
    assert_eq!(decoded, Err(DecodeError::Payloads));
}

proptest! {
    #[test]
    fn payloads_come_out_as_they_went_in(
        sizes in prop::collection::vec(prop_oneof![0..50usize, 4090..4100usize], 0..8),
    ) {
        let message = batch(&sizes);
        let frames = encode(message.clone());
        let bytes = others(&frames).iter().map(Bytes::len).sum::<usize>();
        let metadata_bytes = sizes.len() / 2 * usize::from(METADATA_BYTES);
        prop_assert_eq!(bytes, sizes.iter().sum::<usize>() + metadata_bytes);
        prop_assert_eq!(decode::<ToWorker>(&frames.message, others(&frames)), Ok(message));
    }

    /// Whatever else follows a message, it is refused, and nothing panics.
    #[test]
    fn frames_that_do_not_fit_are_refused(
        sizes in prop::collection::vec(prop_oneof![0..50usize, 4000..5000usize], 0..8),
        others in prop::collection::vec(prop_oneof![0..50usize, 4000..5000usize], 0..8),
    ) {
        let message = batch(&sizes);
        let frames = encode(message.clone());
        let frames_of = |sizes: &[usize]| -> Vec<Bytes> {
            sizes.iter().map(|bytes| vec![7; *bytes].into()).collect()
        };
        let fits = others.iter().copied().eq(self::others(&frames).iter().map(Bytes::len));
        let decoded = decode::<ToWorker>(&frames.message, frames_of(&others));
        prop_assert_eq!(decoded.is_ok(), fits);
    }
}
