//! How much a frame, a part and a list may hold.

use super::*;

/// Why decoding these messages fails, each of which has a list of so many of the shortest items.
fn errors_of_lists(n: usize) -> [Option<DecodeError>; 11] {
    fn error<T: Message>(frame: Vec<u8>) -> Option<DecodeError> {
        decode::<T>(&frame).err()
    }
    let list = |before: &str, item: &str, after: &str| {
        [bytes(before), encode(&n).split_off(1), bytes(item).repeat(n), bytes(after)].concat()
    };
    let load = "0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0";
    let (of_registration, of_entry) = (format!("0 0 {load} 0"), format!("0 0 {load} 0 0 0"));
    [
        error::<ToWorker>(list("2 0 1 1 1 1 key life 0 0 0", "0 0 0 0", "")),
        error::<FromWorker>(list(&format!("2 1 1 2 3 {load}"), "0 0", "")),
        error::<ToWorker>(list("2 1 1 0 0 0", "0 0 0 0 0 0 0 0 1 0 0", "")),
        error::<FromWorker>(list(&format!("2 4 1 0 {load} 0"), "0 0 0 0 0 0", "")),
        error::<FromWorker>(list("2 b", "0 0 0", "")),
        error::<ToMapper>(list("2 1 key life", "'tcp://h:1", &of_registration)),
        error::<FromMapper>(list("2 7", "'a", "0 0 0 0")),
        error::<FromMapper>(list("2 7 0 0 0 0", "'a 0 0 0 0 0 0", "")),
        error::<ToMapper>(list("2 8", "'a 1", "")),
        error::<Publication>(list("2 1 0 0 0 0 0 0 1 'a life", "'tcp://h:1", &of_entry)),
        error::<Publication>(list("2 2 0 0 0 0 0", "2 'a 0", "")),
    ]
}

#[test]
fn every_list_has_its_limit() {
    assert_eq!(errors_of_lists(LIST_MAX), [None; 11]);
    assert_eq!(errors_of_lists(LIST_MAX + 1), [Some(DecodeError::Malformed); 11]);
}

/// Tells of far more items than come.
struct Announced(usize, std::vec::IntoIter<u64>);

impl Iterator for Announced {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.1.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.0, Some(self.0))
    }
}

#[test]
fn a_list_takes_the_room_of_what_came_and_not_of_what_was_announced() {
    for announced in [1000, 1 << 32, usize::MAX] {
        let list = Announced(announced, vec![7, 8, 9].into_iter());
        let items: Vec<u64> = bounded_list(value::SeqDeserializer::<_, value::Error>::new(list))
            .expect("three items");
        assert_eq!(items, [7, 8, 9]);
        assert!(items.capacity() < 10, "room for {} items", items.capacity());
    }
    let mut left = 2 * LIST_MAX;
    let many = std::iter::repeat_n(7_u64, left).inspect(|_| left -= 1);
    assert!(bounded_list::<_, u64>(value::SeqDeserializer::<_, value::Error>::new(many)).is_err());
    assert_eq!(left, LIST_MAX - 1, "it is not read to its end");
    let of_names = [bytes("02 07"), encode(&u64::MAX).split_off(1)].concat();
    assert_eq!(decode::<FromMapper>(&of_names), Err(DecodeError::Malformed));
}

#[test]
fn an_error_that_is_told_has_its_limit() {
    let mut filling = Filling::golden();
    let mut put = |bytes| {
        let entry = Entry { error: Some("x".repeat(bytes)), ..filling.entry() };
        decode::<Change>(&encode(&Change::Put(entry))).map(|_| ())
    };
    assert_eq!(put(ERROR_BYTES_MAX), Ok(()));
    assert_eq!(put(ERROR_BYTES_MAX + 1), Err(DecodeError::Malformed));
}

#[test]
fn how_far_a_job_is_has_its_limit_and_is_text() {
    let attempt = AttemptId { job: u64::MAX, attempt: u32::MAX };
    let report = |bytes| ProgressReport { attempt, text: "x".repeat(bytes) };
    let frame = |reports| encode(&FromWorker::Progress(reports));
    let decoded = |frame: &[u8]| decode::<FromWorker>(frame).map(|_| ());
    let full = frame(vec![report(PROGRESS_BYTES_MAX); PROGRESS_BATCH_MAX]);
    assert_eq!(decoded(&full), Ok(()), "{} bytes", full.len());
    let too_long = frame(vec![report(PROGRESS_BYTES_MAX + 1)]);
    assert_eq!(decoded(&too_long), Err(DecodeError::Malformed));
    let mut no_text = frame(vec![report(1)]);
    *no_text.last_mut().unwrap() = 0xff;
    assert_eq!(decoded(&no_text), Err(DecodeError::Malformed));
}

#[test]
fn a_frame_has_its_limit() {
    let FromMapper::Welcome(welcome) = FROM_MAPPER[1].0(&mut Filling::golden()) else {
        unreachable!()
    };
    let frame = |bytes: usize| {
        encode(&FromMapper::Welcome(Welcome { observed: "x".repeat(bytes), ..welcome.clone() }))
    };
    let room = 2 * CONTROL_BYTES_MAX - frame(CONTROL_BYTES_MAX).len();
    assert_eq!(frame(room).len(), CONTROL_BYTES_MAX);
    assert!(decode::<FromMapper>(&frame(room)).is_ok());
    assert_eq!(decode::<FromMapper>(&frame(room + 1)), Err(DecodeError::TooLarge));
    assert_eq!(decode::<FromMapper>(&[]), Err(DecodeError::Empty));
}

#[test]
fn what_our_limits_allow_fits_into_a_frame() {
    let longest = name(&"x".repeat(NAME_BYTES_MAX));
    let host = "x".repeat(ENDPOINT_BYTES_MAX - "tcp://:65535".len());
    let mut filling = Filling {
        key: InstanceKey { service: longest.clone(), instance: longest.clone() },
        life: Incarnation(u64::MAX),
        endpoint: Endpoint::tcp(&host, 65535).unwrap(),
        list_length: ENDPOINTS_MAX,
        numbers: vec![u64::MAX],
        ..Filling::golden()
    };
    // What surrounds a part, with two bytes more for the number of its entries.
    let part = SnapshotPart { entries: Vec::new(), ..filling.snapshot_part() };
    let surroundings = encode(&FromMapper::Snapshot { service: longest, part }).len() + 2;
    assert!(PART_BYTES_MAX + surroundings <= CONTROL_BYTES_MAX, "{surroundings} bytes more");
    assert!(encode(&filling.entry()).len() < PART_BYTES_MAX);
    // 15 bytes for each open attempt: numbers far beyond what a sender reaches in years.
    let (number, attempt) = ((1 << 42) - 1, AttemptId { job: (1 << 42) - 1, attempt: 9999 });
    let ToWorker::Hello(hello) = TO_WORKER[0].0(&mut filling) else { unreachable!() };
    let open = vec![OpenAttempt { number, attempt, cancelled: true }; OPEN_ATTEMPTS_MAX];
    let hello = encode(&ToWorker::Hello(SenderHello { open, ..hello }));
    assert!(decode::<ToWorker>(&hello).is_ok(), "{} bytes", hello.len());
}
