use proptest::prelude::*;
use serde_json::Value;

use super::*;

const LIMIT_BYTES: usize = 1000;

/// What becomes of that stream if it is read in such pieces: the answers to jobs 1, 2, …, as many as
/// are whole.
fn answers(stream: &[u8], pieces: &[usize]) -> Result<Vec<Answer>, FrameError> {
    let (mut incoming, mut unread, mut found) = (Incoming::default(), stream, Vec::new());
    let mut pieces = pieces.iter().copied().cycle();
    let mut answering = Answering::new(1, LIMIT_BYTES);
    loop {
        while let Some(answer) = answering.advance(&mut incoming)? {
            found.push(answer);
            answering = Answering::new(found.len() as u64 + 1, LIMIT_BYTES);
        }
        if unread.is_empty() {
            return Ok(found);
        }
        let room = incoming.room();
        let count = pieces.next().unwrap_or(usize::MAX).min(room.len()).min(unread.len());
        assert!(count > 0, "no room is made");
        room[..count].copy_from_slice(&unread[..count]);
        incoming.add(count);
        unread = &unread[count..];
    }
}

fn one(stream: &str) -> Result<Answer, FrameError> {
    answers(stream.as_bytes(), &[usize::MAX]).map(|mut all| all.remove(0))
}

fn failed(error: &str, code: Option<i32>) -> Result<Answer, FrameError> {
    Ok(Answer::Failed { error: error.to_owned(), code })
}

#[test]
fn a_job_is_announced_on_one_line() {
    let metadata = Metadata::new([("input", "a\n\"b\"")]).unwrap();
    let header = Header {
        job: 17,
        attempt: 1,
        service: "shout",
        instance: "a",
        bytes: 1234,
        seconds_left: None,
        metadata: &metadata,
    };
    assert_eq!(
        String::from_utf8(header.to_line().unwrap()).unwrap(),
        "{\"job\":17,\"attempt\":1,\"service\":\"shout\",\"instance\":\"a\",\"bytes\":1234,\
         \"seconds_left\":null,\"metadata\":{\"input\":\"a\\n\\\"b\\\"\"}}\n"
    );
    let limited = Header { seconds_left: Some(0.25), metadata: &Metadata::default(), ..header };
    let value: Value = serde_json::from_slice(&limited.to_line().unwrap()).unwrap();
    assert_eq!(
        (&value["seconds_left"], &value["metadata"]),
        (&0.25.into(), &Value::Object([].into_iter().collect()))
    );
}

#[test]
fn answers_are_results_or_errors() {
    assert_eq!(one("{\"bytes\":5}\nHELLO"), Ok(Answer::Done(b"HELLO".to_vec())));
    assert_eq!(one("{\"job\":1,\"bytes\":0,\"more\":[]}\n"), Ok(Answer::Done(Vec::new())));
    assert_eq!(one("{\"error\":\"no model\",\"code\":3}\n"), failed("no model", Some(3)));
    assert_eq!(one("{\"error\":\"no\",\"bytes\":4}\ntrue"), failed("no\ntrue", None));
    assert_eq!(one(&format!("{{\"bytes\":1001}}\n{}", "x".repeat(1001))), Ok(Answer::TooLarge));
}

#[test]
fn what_is_no_answer_is_shown() {
    for text in
        ["loading model", "", "[1]", "{}", "{\"ready\":true}", "{\"bytes\":-1}", "{\"code\":1}"]
    {
        let error = one(&format!("{text}\nmore\n"));
        assert_eq!(error, Err(FrameError::NoAnswer(text.to_owned())), "{text}");
    }
    let Err(error) = one(&format!("\u{1b}{}\n", "ä".repeat(200))) else { unreachable!() };
    let shown = format!("\\u{{1b}}{}…", "ä".repeat(94));
    assert!(error.to_string().contains(&format!("`{shown}`")), "{error}");
    assert_eq!(
        one("{\"job\":2,\"bytes\":0}\n"),
        Err(FrameError::OutOfStep { asked: 1, answered: 2 })
    );
}

#[test]
fn a_line_has_an_end() {
    let endless = vec![b'{'; LINE_BYTES_MAX];
    assert_eq!(answers(&endless, &[1000]), Err(FrameError::LineTooLong));
    let padded = format!("{{\"bytes\":1{}}}\nx", " ".repeat(LINE_BYTES_MAX - 12));
    assert_eq!(one(&padded), Ok(Answer::Done(b"x".to_vec())));
}

#[test]
fn the_first_line_says_that_it_is_ready() {
    let first = |text: &str| {
        let mut incoming = Incoming::default();
        incoming.room()[..text.len()].copy_from_slice(text.as_bytes());
        incoming.add(text.len());
        incoming.is_ready().and_then(|ready| incoming.expect_nothing().map(|()| ready))
    };
    assert_eq!(first("{\"ready\":true}\n"), Ok(true));
    assert_eq!(first("{\"ready\": true, \"version\": 2}\n"), Ok(true));
    assert_eq!(first(""), Ok(false));
    let not_ready = |text: &str| Err(FrameError::NotReady(text.to_owned()));
    assert_eq!(first("{\"ready\":false}\n"), not_ready("{\"ready\":false}"));
    assert_eq!(first("loading\n{\"ready\":true}\n"), not_ready("loading"));
    assert_eq!(first("{\"ready\":true}\nhello\n"), Err(FrameError::NotAsked("hello".to_owned())));
}

/// An answer and what it looks like.
fn answer() -> impl Strategy<Value = (Answer, Vec<u8>)> {
    let line = |value: Value, body: &[u8]| [format!("{value}\n").as_bytes(), body].concat();
    let done = prop::collection::vec(any::<u8>(), 0..=LIMIT_BYTES).prop_map(move |body| {
        let stream = line(serde_json::json!({ "bytes": body.len() }), &body);
        (Answer::Done(body), stream)
    });
    let failed = (".{0,50}", any::<Option<i32>>()).prop_map(move |(error, code)| {
        let stream = line(serde_json::json!({ "error": error, "code": code }), b"");
        (Answer::Failed { error, code }, stream)
    });
    let large = (LIMIT_BYTES + 1..3 * LINE_BYTES_MAX).prop_map(move |bytes| {
        (Answer::TooLarge, line(serde_json::json!({ "bytes": bytes }), &vec![b'\n'; bytes]))
    });
    prop_oneof![4 => done, 2 => failed, 1 => large]
}

proptest! {
    #[test]
    fn answers_are_understood_however_they_are_cut(
        all in prop::collection::vec(answer(), 1..6),
        pieces in prop::collection::vec(1..5000_usize, 1..20),
    ) {
        let stream: Vec<u8> = all.iter().flat_map(|(_, stream)| stream.clone()).collect();
        let expected: Vec<Answer> = all.into_iter().map(|(answer, _)| answer).collect();
        prop_assert_eq!(answers(&stream, &pieces), Ok(expected));
    }

    #[test]
    fn no_program_makes_it_panic(
        stream in prop::collection::vec(any::<u8>(), 0..3000),
        pieces in prop::collection::vec(1..100_usize, 1..20),
    ) {
        let whole = answers(&stream, &[usize::MAX]);
        prop_assert_eq!(answers(&stream, &pieces), whole);
    }
}

#[test]
fn before_its_answer_a_program_may_say_how_far_it_is() {
    let mut incoming = Incoming::default();
    let mut answering = Answering::new(17, LIMIT_BYTES);
    let mut say = |line: &str| {
        incoming.room()[..line.len()].copy_from_slice(line.as_bytes());
        incoming.add(line.len());
        let answer = answering.advance(&mut incoming);
        (answering.take_progress(), answer)
    };
    let progress = |text: &str| (Some(text.to_owned()), Ok(None));
    assert_eq!(say("{\"progress\":\"1 %\"}\n{\"prog"), progress("1 %"));
    // Of several the newest counts.
    assert_eq!(say("ress\":\"2 %\"}\n{\"progress\":\"3 %\",\"job\":17}\n"), progress("3 %"));
    assert_eq!(say("{\"progress\":40}\n"), progress("40"));
    assert_eq!(say("{\"bytes\":1,\"progress\":\"all\"}\n"), (None, Ok(None)));
    assert_eq!(say("x"), (None, Ok(Some(Answer::Done(b"x".to_vec())))));
    let other = one("{\"progress\":\"1 %\",\"job\":18}\n");
    assert_eq!(other, Err(FrameError::OutOfStep { asked: 1, answered: 18 }));
}
