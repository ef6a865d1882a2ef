//! What decoding does with messages of all kinds, and with frames that nobody meant well.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

fn names() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9._-]{1,64}".prop_map(|text| name(&text))
}

prop_compose! {
    fn fillings()(
        service in names(),
        instance in names(),
        endpoint in "tcp://([A-Za-z0-9._-]{1,253}|\\[::1\\]|\\*):([0-9]{1,4}|\\*)",
        life: u64,
        full: bool,
        list_length in 0..4_usize,
        // Short and long ones alike.
        numbers in vec((any::<u64>(), 0..64).prop_map(|(number, shift)| number >> shift), 1..60),
    ) -> Filling {
        let key = InstanceKey { service, instance };
        let (life, endpoint) = (Incarnation(life), endpoint.parse().unwrap());
        Filling { key, life, endpoint, full, list_length, numbers, next: 0 }
    }
}

proptest! {
    #[test]
    fn messages_survive_the_way_there_and_back(filling in fillings()) {
        samples(&filling);
    }

    #[test]
    fn a_message_ends_where_it_ends(
        filling in fillings(), cut: Index, more in vec(any::<u8>(), 1..20),
    ) {
        for Sample { message, frame, again } in samples(&filling) {
            let cut = cut.index(frame.len());
            let error = if cut == 0 { DecodeError::Empty } else { DecodeError::Malformed };
            prop_assert_eq!(again(&frame[..cut]), Err(error), "{} of {}", cut, message);
            let longer = [frame, more.clone()].concat();
            prop_assert_eq!(again(&longer), Err(DecodeError::TrailingBytes), "{}", message);
        }
    }

    #[test]
    fn a_changed_message_is_refused_or_is_a_message(
        filling in fillings(), changes in vec(any::<(Index, u8)>(), 1..4),
    ) {
        for Sample { mut frame, again, .. } in samples(&filling) {
            for (index, byte) in &changes {
                let index = index.index(frame.len());
                frame[index] = *byte;
            }
            if let Ok(frame) = again(&frame) {
                prop_assert_eq!(again(&frame), Ok(frame.clone()));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_are_a_message(bytes in vec(any::<u8>(), 0..300), kind in 0..9_u8) {
        for Sample { again, .. } in samples(&Filling::golden()) {
            for frame in [bytes.clone(), [&[VERSION, kind], &bytes[..]].concat()] {
                if let Ok(frame) = again(&frame) {
                    prop_assert_eq!(again(&frame), Ok(frame.clone()));
                }
            }
        }
    }

    #[test]
    fn another_version_is_refused_by_its_number(filling in fillings(), version: u8) {
        prop_assume!(version != VERSION);
        for Sample { message, mut frame, again } in samples(&filling) {
            frame[0] = version;
            // The answer to a wrong version, or what cannot be told from it.
            let readable = frame.len() == 4 && frame[1] == 0;
            if !readable {
                prop_assert_eq!(again(&frame), Err(DecodeError::Version(version)), "{}", message);
            }
        }
        let (oldest, newest) = (3, 200);
        let frame = [version, 0, oldest, newest];
        prop_assert_eq!(decode(&frame), Ok(FromWorker::WrongVersion { oldest, newest }));
        prop_assert_eq!(decode(&frame), Ok(FromMapper::WrongVersion { oldest, newest }));
    }

    #[test]
    fn parts_keep_everything_in_order_within_their_limits(
        runs in vec((0..3_usize, 0..6000_usize), 0..12),
    ) {
        // Runs of equally long items: a few long ones, or many short ones.
        let run = |(kind, n)| match kind { 0 => vec![vec![0; n]; 20], _ => vec![vec![1; kind]; n] };
        let items: Vec<Vec<u8>> = runs.into_iter().flat_map(run).collect();
        let mut parts = Parts::default();
        items.iter().for_each(|item| parts.push(item));
        let frames = parts.into_frames(|part, parts| (part, parts, Vec::<Vec<u8>>::new()));
        let message = |frame: &Vec<u8>| decode::<(u16, u16, Vec<Vec<u8>>)>(frame).unwrap();
        let messages: Vec<_> = frames.iter().map(message).collect();
        for (number, message) in (0..).zip(&messages) {
            prop_assert_eq!((message.0, usize::from(message.1)), (number, messages.len()));
        }
        let parts: Vec<_> = messages.into_iter().map(|message| message.2).collect();
        prop_assert_eq!(parts.concat(), items);
        prop_assert!(!parts.is_empty(), "no items make one empty part");
        let bytes_of = |item: &Vec<u8>| encode(item).len() - 1;
        let bytes: Vec<usize> = parts.iter().map(|p| p.iter().map(bytes_of).sum()).collect();
        for (part, bytes) in parts.iter().zip(&bytes) {
            prop_assert!(*bytes <= PART_BYTES_MAX && part.len() <= LIST_MAX);
            prop_assert!(!part.is_empty() || parts.len() == 1);
        }
        for (index, next) in parts.iter().enumerate().skip(1) {
            let full = bytes[index - 1] + bytes_of(&next[0]) > PART_BYTES_MAX;
            prop_assert!(full || parts[index - 1].len() == LIST_MAX, "a part too many");
        }
    }

    #[test]
    fn a_value_survives_as_a_payload(value: (String, Vec<Option<i64>>), cut: Index, more: u8) {
        let mut payload = encode_value(&value).unwrap();
        prop_assert_eq!(decode_value(&payload), Ok(value));
        type Value = (String, Vec<Option<i64>>);
        prop_assert!(decode_value::<Value>(&payload[..cut.index(payload.len())]).is_err());
        payload.push(more);
        prop_assert!(decode_value::<Value>(&payload).is_err());
    }
}
