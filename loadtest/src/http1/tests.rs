//! Answers cut in every place, and answers that are none.

use super::*;

type Seen = Vec<(u32, u16, Option<usize>, Vec<u8>)>;

fn feed(connection: &mut Http1<u32>, bytes: &[u8]) -> (Seen, Result<(), Failure>) {
    let mut seen = Vec::new();
    let result = connection.receive(bytes, &mut |ticket, outcome| keep(&mut seen, ticket, outcome));
    (seen, result)
}

fn keep(seen: &mut Seen, ticket: u32, outcome: Result<Response<'_>, Failure>) {
    let Ok(Response::Http { status, json_length, body }) = outcome else { panic!("{outcome:?}") };
    seen.push((ticket, status, json_length, body.to_vec()));
}

fn busy() -> Http1<u32> {
    let mut connection = Http1::default();
    connection.begin(7);
    connection
}

const PLAIN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\
    Inference-Header-Content-Length: 3\r\n\r\nhello";
const CHUNKED: &[u8] = b"HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n\
    3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\ntrailer: x\r\n\r\n";

#[test]
fn an_answer_may_be_cut_anywhere() {
    for (answer, status, json_length) in [(PLAIN, 200, Some(3)), (CHUNKED, 503, None)] {
        for cut in 1..answer.len() {
            let mut connection = busy();
            let (seen, result) = feed(&mut connection, &answer[..cut]);
            assert!(seen.is_empty() && result.is_ok(), "{cut}");
            let (seen, result) = feed(&mut connection, &answer[cut..]);
            assert_eq!(seen, [(7, status, json_length, b"hello".to_vec())], "{cut}");
            assert!(result.is_ok() && connection.is_idle() && connection.input.is_empty());
        }
        let mut connection = busy();
        let mut all = Vec::new();
        for byte in answer {
            all.extend(feed(&mut connection, &[*byte]).0);
        }
        assert_eq!(all.len(), 1);
    }
}

#[test]
fn a_connection_serves_one_call_after_the_other() {
    let mut connection = busy();
    assert_eq!(feed(&mut connection, PLAIN).0.len(), 1);
    connection.begin(8);
    assert_eq!(feed(&mut connection, CHUNKED).0[0].0, 8);
}

#[test]
fn interim_answers_are_skipped_and_bodiless_ones_end_at_once() {
    let answer = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n";
    assert_eq!(feed(&mut busy(), answer).0, [(7, 204, None, vec![])]);
}

#[test]
fn an_answer_without_a_length_ends_with_the_connection() {
    let mut connection = busy();
    let (seen, result) = feed(&mut connection, b"HTTP/1.0 200 OK\r\n\r\nhel");
    assert!(seen.is_empty() && result.is_ok());
    feed(&mut connection, b"lo").1.unwrap();
    let mut seen = Vec::new();
    connection.end(&mut |ticket, outcome| keep(&mut seen, ticket, outcome));
    assert_eq!(seen, [(7, 200, None, b"hello".to_vec())]);
}

#[test]
fn an_answer_cut_by_the_end_is_none() {
    let mut connection = busy();
    feed(&mut connection, &PLAIN[..PLAIN.len() - 1]).1.unwrap();
    connection.end(&mut |_, outcome| panic!("{outcome:?}"));
    assert_eq!(connection.abandon(), Some(7));
}

#[test]
fn a_server_that_closes_after_its_answer_has_answered() {
    let answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    let (seen, result) = feed(&mut busy(), answer);
    assert_eq!(seen.len(), 1);
    assert!(result.is_err());
}

#[test]
fn what_is_no_answer_is_said_to_be_none() {
    for (answer, message) in [
        (&b"SSH-2.0-OpenSSH\r\n"[..], "invalid HTTP version"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n", "its content-length is no number"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n", "its content-length is no number"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "the size of a chunk is no number",
        ),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n",
            "a chunk is longer than it says",
        ),
    ] {
        let failure = feed(&mut busy(), answer).1.unwrap_err();
        assert_eq!(
            (failure.kind.as_ref(), failure.message.as_str()),
            ("malformed answer", message)
        );
    }
    let failure = feed(&mut Http1::default(), PLAIN).1.unwrap_err();
    assert_eq!(failure.kind, "connection broke");
}
