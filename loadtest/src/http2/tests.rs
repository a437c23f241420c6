//! The server's side made up of frames: answers in every form, and everything that can go wrong.

use super::*;
use crate::wire::Response;

type Seen = Vec<(u32, Result<(u32, String, Vec<u8>), Failure>)>;

fn feed(connection: &mut Http2<u32>, bytes: &[u8]) -> (Seen, Result<(), Failure>) {
    let mut seen = Vec::new();
    let result = connection.receive(bytes, &mut |ticket, outcome| {
        let outcome = outcome.map(|response| {
            let Response::Grpc { status, message, body } = response else { panic!("gRPC") };
            (status, message.into_owned(), body.to_vec())
        });
        seen.push((ticket, outcome));
    });
    (seen, result)
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Frame { length: payload.len(), kind, flags, stream }.write(&mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

fn settings(pairs: &[(u16, u32)]) -> Vec<u8> {
    let one = |(id, value): &(u16, u32)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(frame::SETTINGS, 0, 0, &pairs.iter().flat_map(one).collect::<Vec<u8>>())
}

fn block(headers: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in headers {
        hpack::write_plain(&mut block, name, value);
    }
    block
}

/// A connection to a server with these settings, and what it has written so far forgotten.
fn open(pairs: &[(u16, u32)]) -> Http2<u32> {
    let headers = [(":method", "POST"), (":path", "/s/m"), ("te", "trailers")];
    let mut connection = Http2::new(Encoded::new(&headers));
    assert!(connection.out.starts_with(PREFACE));
    assert!(!connection.has_room());
    feed(&mut connection, &settings(pairs)).1.unwrap();
    assert!(connection.out.ends_with(&frame(frame::SETTINGS, frame::ACK, 0, b"")));
    connection.out.clear();
    connection
}

fn begin(connection: &mut Http2<u32>, ticket: u32) {
    connection.begin(ticket, &with_prefix(b"question"), None);
}

/// The frames in some bytes: kind, flags, stream, payload.
fn frames(mut bytes: &[u8]) -> Vec<(u8, u8, u32, Vec<u8>)> {
    let mut frames = Vec::new();
    while let Some(head) = Frame::parse(bytes) {
        let payload = bytes[HEAD..HEAD + head.length].to_vec();
        frames.push((head.kind, head.flags, head.stream, payload));
        bytes = &bytes[HEAD + head.length..];
    }
    assert!(bytes.is_empty());
    frames
}

fn answer(stream: u32) -> Vec<u8> {
    let mut bytes =
        frame(frame::HEADERS, frame::END_HEADERS, stream, &block(&[(":status", "200")]));
    bytes.extend(frame(frame::DATA, 0, stream, &with_prefix(b"answer")));
    let trailers = block(&[("grpc-status", "0")]);
    let flags = frame::END_HEADERS | frame::END_STREAM;
    bytes.extend(frame(frame::HEADERS, flags, stream, &trailers));
    bytes
}

fn good() -> Result<(u32, String, Vec<u8>), Failure> {
    Ok((0, String::new(), b"answer".to_vec()))
}

#[test]
fn an_answer_may_be_cut_anywhere() {
    let bytes = answer(1);
    for cut in 1..bytes.len() {
        let mut connection = open(&[]);
        begin(&mut connection, 7);
        let (seen, result) = feed(&mut connection, &bytes[..cut]);
        assert!(seen.is_empty() && result.is_ok(), "{cut}");
        let (seen, _) = feed(&mut connection, &bytes[cut..]);
        assert_eq!(seen, [(7, good())], "{cut}");
        assert_eq!(connection.in_flight(), 0);
    }
}

#[test]
fn answers_come_in_any_order_to_their_own_calls() {
    let mut connection = open(&[]);
    for ticket in [10, 11, 12] {
        begin(&mut connection, ticket);
    }
    let bytes = [answer(5), answer(1), answer(3)].concat();
    let order: Vec<u32> = feed(&mut connection, &bytes).0.iter().map(|seen| seen.0).collect();
    assert_eq!(order, [12, 10, 11]);
}

#[test]
fn later_requests_name_their_headers_by_index() {
    let mut connection = open(&[]);
    begin(&mut connection, 1);
    begin(&mut connection, 2);
    let sent = frames(&connection.out);
    assert_eq!(sent.iter().map(|f| f.2).collect::<Vec<_>>(), [1, 1, 3, 3]);
    assert_eq!(sent[2].3.len(), 3);
    assert_eq!(sent[3], (frame::DATA, frame::END_STREAM, 3, with_prefix(b"question").to_vec()));
    let mut decoder = Decoder::default();
    let mut seen = Vec::new();
    for headers in [&sent[0].3, &sent[2].3] {
        decoder.decode(headers, |name, value| seen.push((name.to_vec(), value.to_vec()))).unwrap();
    }
    assert_eq!(seen[..3], seen[3..]);
}

#[test]
fn a_server_without_a_table_gets_plain_headers() {
    let mut connection = open(&[(SETTING_TABLE_SIZE, 0)]);
    connection.begin(1, &with_prefix(b"q"), Some(("a-key", "key-1")));
    begin(&mut connection, 2);
    let sent = frames(&connection.out);
    assert_eq!(sent[0].3[0], 0x20);
    let mut names = Vec::new();
    Decoder::default().decode(&sent[0].3, |name, _| names.push(name.to_vec())).unwrap();
    assert_eq!(names.last().unwrap(), b"a-key");
    assert_eq!(sent[2].3, connection.headers.plain);
}

#[test]
fn trailers_alone_refuse_with_their_text() {
    let mut connection = open(&[]);
    begin(&mut connection, 7);
    let headers =
        block(&[(":status", "200"), ("grpc-status", "14"), ("grpc-message", "full%3A 100%25")]);
    // The block goes on in a second frame.
    let (first, second) = headers.split_at(9);
    let bytes = [
        frame(frame::HEADERS, frame::END_STREAM, 1, first),
        frame(frame::CONTINUATION, frame::END_HEADERS, 1, second),
    ];
    let (seen, _) = feed(&mut connection, &bytes.concat());
    assert_eq!(seen, [(7, Ok((14, "full: 100%".to_owned(), vec![])))]);
}

#[test]
fn large_messages_wait_for_the_windows() {
    let mut connection = open(&[(SETTING_WINDOW, 20_000)]);
    let message = with_prefix(&[9; 100_000]);
    connection.begin(1, &message, None);
    let lengths = |out: &[u8]| {
        let data = frames(out).into_iter().filter(|frame| frame.0 == frame::DATA);
        data.map(|frame| (frame.3.len(), frame.1)).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&connection.out), [(16_384, 0), (3616, 0)]);
    connection.out.clear();
    let widen = |stream, more: u32| frame(frame::WINDOW_UPDATE, 0, stream, &more.to_be_bytes());
    feed(&mut connection, &widen(1, 1_000_000)).1.unwrap();
    // What is left of the connection's own 65,535.
    assert_eq!(lengths(&connection.out).iter().map(|data| data.0).sum::<usize>(), 45_535);
    connection.out.clear();
    feed(&mut connection, &widen(0, 1_000_000)).1.unwrap();
    let rest = lengths(&connection.out);
    assert_eq!(rest.iter().map(|data| data.0).sum::<usize>(), 100_005 - 65_535);
    assert_eq!(rest.last().unwrap().1, frame::END_STREAM);
    assert_eq!(feed(&mut connection, &answer(1)).0, [(1, good())]);
}

#[test]
fn resets_and_departures_are_told_apart() {
    let mut connection = open(&[]);
    for ticket in [10, 11, 12] {
        begin(&mut connection, ticket);
    }
    let reset = frame(frame::RST_STREAM, 0, 1, &7_u32.to_be_bytes());
    let (seen, _) = feed(&mut connection, &reset);
    let failure = Failure::new("stream reset", "the server said REFUSED_STREAM");
    assert_eq!(seen, [(10, Err(failure))]);
    let away = [3_u32.to_be_bytes(), 0_u32.to_be_bytes()].concat();
    let (seen, result) = feed(&mut connection, &frame(frame::GOAWAY, 0, 0, &away));
    assert_eq!(seen, [(12, Err(Failure::broken("the server goes away: NO_ERROR")))]);
    assert!(result.is_ok() && connection.is_leaving() && !connection.has_room());
    // The call before is answered still.
    assert_eq!(feed(&mut connection, &answer(3)).0, [(11, good())]);
}

#[test]
fn pings_are_answered_and_padding_is_cut_off() {
    let mut connection = open(&[]);
    begin(&mut connection, 7);
    connection.out.clear();
    feed(&mut connection, &frame(frame::PING, 0, 0, b"12345678")).1.unwrap();
    assert_eq!(frames(&connection.out), [(frame::PING, frame::ACK, 0, b"12345678".to_vec())]);
    let mut headers = vec![2, 0, 0, 0, 0, 16];
    headers.extend(block(&[(":status", "200")]));
    headers.extend([0, 0]);
    let flags = frame::PADDED | frame::PRIORITY | frame::END_HEADERS;
    feed(&mut connection, &frame(frame::HEADERS, flags, 1, &headers)).1.unwrap();
    let padded = [&[3][..], &with_prefix(b"answer"), &[0; 3]].concat();
    feed(&mut connection, &frame(frame::DATA, frame::PADDED, 1, &padded)).1.unwrap();
    let trailers = block(&[("grpc-status", "0")]);
    let flags = frame::END_HEADERS | frame::END_STREAM;
    let (seen, _) = feed(&mut connection, &frame(frame::HEADERS, flags, 1, &trailers));
    assert_eq!(seen, [(7, good())]);
}

#[test]
fn the_number_of_calls_follows_the_servers_limit() {
    let mut connection = open(&[(SETTING_MOST_STREAMS, 2)]);
    begin(&mut connection, 1);
    begin(&mut connection, 2);
    assert!(!connection.has_room());
    feed(&mut connection, &answer(1)).1.unwrap();
    assert!(connection.has_room());
}

#[test]
fn a_call_that_was_given_up_is_cancelled_and_its_late_answer_ignored() {
    let mut connection = open(&[]);
    begin(&mut connection, 1);
    begin(&mut connection, 2);
    connection.out.clear();
    let mut lost = Vec::new();
    connection.give_up(|ticket| *ticket == 1, |ticket| lost.push(ticket));
    assert_eq!(lost, [1]);
    assert_eq!(frames(&connection.out)[0].0, frame::RST_STREAM);
    assert_eq!(feed(&mut connection, &[answer(1), answer(3)].concat()).0, [(2, good())]);
}

#[test]
fn answers_that_are_none_are_said_to_be_none() {
    let flags = frame::END_HEADERS | frame::END_STREAM;
    let ended = |headers: &[(&str, &str)]| frame(frame::HEADERS, flags, 1, &block(headers));
    let headers = frame(frame::HEADERS, frame::END_HEADERS, 1, &block(&[(":status", "200")]));
    let trailed = |data: &[u8]| {
        let data = frame(frame::DATA, 0, 1, data);
        [headers.clone(), data, ended(&[("grpc-status", "0")])].concat()
    };
    for (bytes, kind) in [
        (ended(&[(":status", "502")]), "HTTP 502"),
        (ended(&[(":status", "200")]), "malformed answer"),
        (ended(&[(":status", "200"), ("grpc-status", "0")]), "malformed answer"),
        (trailed(&[1, 0, 0, 0, 0]), "malformed answer"),
        (trailed(&[0, 0, 0, 0, 9, 1]), "malformed answer"),
    ] {
        let mut connection = open(&[]);
        begin(&mut connection, 1);
        let (seen, _) = feed(&mut connection, &bytes);
        assert_eq!(seen[0].1.as_ref().unwrap_err().kind, kind);
    }
    let mut connection = open(&[]);
    assert!(feed(&mut connection, b"HTTP/1.1 400 Bad Request\r\n\r\n").1.is_err());
}
