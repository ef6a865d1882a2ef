use super::*;

#[test]
fn a_reply_may_have_one_frame_in_front() {
    let open = |frames: &[&str]| {
        let frames: Vec<&[u8]> = frames.iter().map(|frame| frame.as_bytes()).collect();
        let opened = open_reply(&frames);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        opened.map(|(tag, body)| (tag.map(text), text(body)))
    };
    let reply = |tag: Option<&str>, body: &str| Some((tag.map(str::to_owned), body.to_owned()));
    assert_eq!(open(&["", "{}"]), reply(None, "{}"));
    assert_eq!(open(&["7.1", "", "{}"]), reply(Some("7.1"), "{}"));
    for native in [&["m"][..], &["m", ""], &["m", "payload", ""], &[]] {
        assert_eq!(open(native), None);
    }
    for (several, tag) in
        [(&["", "{}", "{}"][..], None), (&[""], None), (&["7.1", "", "{}", "{}"], Some("7.1"))]
    {
        assert_eq!(open(several), reply(tag, ""));
    }
}

/// The frames of an envelope, and the body behind it.
type Opened = (Vec<Vec<u8>>, Result<Vec<u8>, JsonError>);

fn opened(frames: &[&[u8]]) -> Option<Opened> {
    let frames: Vec<Vec<u8>> = frames.iter().map(|frame| frame.to_vec()).collect();
    let (envelope, body) = open(&frames)?;
    Some((envelope.frames, body.map(<[u8]>::to_vec)))
}

#[test]
fn an_empty_frame_before_a_body_is_what_a_req_socket_sends() {
    let plain = opened(&[b"id", b"", b"{}"]).unwrap();
    assert_eq!(plain, (vec![b"id".to_vec(), vec![]], Ok(b"{}".to_vec())));
    let correlated = opened(&[b"id", b"\x01\x02\x03\x04", b"", b"{}"]).unwrap();
    assert_eq!(correlated.0, [b"id".to_vec(), vec![1, 2, 3, 4], vec![]]);
    assert_eq!(opened(&[b"id", b"", b""]).unwrap().1, Ok(Vec::new()), "an empty body is one");
    assert!(opened(&[b"id", b"", b"{}", b"{}"]).unwrap().1.is_err());
    // Native: one frame, a job, a job without payload.
    assert_eq!(opened(&[b"id", b"\x01\x05"]), None);
    assert_eq!(opened(&[b"id", b"\x01\x01", b"payload"]), None);
    assert_eq!(opened(&[b"id", b"\x01\x01", b""]), None);
    assert_eq!(opened(&[b"id", b""]), None);
    assert_eq!(opened(&[b"id"]), None);
    assert_eq!(opened(&[]), None);
}

fn refused(body: &[u8]) -> String {
    object(body).unwrap_err().to_string()
}

#[test]
fn one_object_and_nothing_else() {
    for good in
        ["{}", " \n{\"a\": [1, -2.5e3, null, true, \"\\u00e4 \\ud83d\\ude00\"]}\t", "{\"\":{}}"]
    {
        assert_eq!(object(good.as_bytes()), Ok(good));
    }
    for bad in ["", " ", "[]", "\"{}\"", "1"] {
        assert_eq!(refused(bad.as_bytes()), "a JSON object is expected");
    }
    assert!(refused(b"{} {}").contains("trailing characters"));
    assert!(refused(b"{\"a\":NaN}").contains("expected"));
    assert!(refused(b"{\"a\":-Infinity}").contains("invalid number"));
    assert!(refused(b"{\"a\":1e999}").contains("out of range"));
    assert!(refused(b"{\"a\":\"\xff\"}").contains("utf-8"));
    assert!(refused(b"{\"a\":\"\\ud800\"}").contains("hex escape"), "half a surrogate pair");
    assert!(refused(b"{\"a\":1,}").contains("line 1 column 8"));
    assert!(refused(b"{\"a\"").contains("EOF"));
}

#[test]
fn depth_has_a_limit() {
    let nested = |depth: usize| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
    assert!(object(nested(126).as_bytes()).is_ok());
    assert!(refused(nested(127).as_bytes()).contains("recursion limit"));
    assert!(refused("{\"a\":".repeat(100_000).as_bytes()).contains("recursion limit"));
}

#[test]
fn a_command_is_read_where_it_lies() {
    #[derive(Debug, Deserialize, PartialEq)]
    struct Named {
        name: String,
        load: Option<f64>,
    }
    let command = Command::read(r#"{"x":1,"payload":{"name":"a"},"command":"GET_PEER"}"#).unwrap();
    assert_eq!(command.name().as_deref(), Some("GET_PEER"));
    assert_eq!(command.payload(), Ok(Named { name: "a".to_owned(), load: None }));
    let error = |object| Command::read(object).unwrap().payload::<Named>().unwrap_err().to_string();
    assert_eq!(error("{}"), "payload: missing field `name`");
    assert_eq!(error(r#"{"payload":null}"#), "payload: missing field `name`");
    assert_eq!(error(r#"{"payload":["a",1]}"#), "`payload` must be an object");
    assert_eq!(error(r#"{"payload":{"name":"a","name":"b"}}"#), "payload: duplicate field `name`");
    let wrong = error(r#"{"payload":{"name":"a","load":"high"}}"#);
    assert_eq!(wrong, "payload: invalid type: string \"high\", expected f64");
    assert!(Command::read(r#"{"command":"A","command":"B"}"#).is_err());
    assert_eq!(Command::read(r#"{"command":1}"#).unwrap().name(), None);
}

#[test]
fn an_error_does_not_send_back_what_it_was_sent() {
    #[derive(Debug, Deserialize)]
    struct Number {
        #[allow(dead_code)]
        number: u32,
    }
    let long = "x".repeat(100_000);
    let object = format!(r#"{{"payload":{{"number":"{long}"}}}}"#);
    let error = Command::read(&object).unwrap().payload::<Number>().unwrap_err();
    assert!(error.to_string().len() <= ERROR_CHARS_MAX);
}
