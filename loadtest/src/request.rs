//! Requests as the bytes that go onto the wire, made before the load starts.

use std::io::Write as _;

use anyhow::Context;
use bytes::Bytes;

use crate::answer::JSON_LENGTH;
use crate::dataset::Dataset;
use crate::http2::with_prefix;
use crate::payload::{self, Payload, Shape, Wire};
use crate::target::model_path;

/// One request, ready to send.
#[derive(Debug, Clone)]
pub struct Request {
    /// Over HTTP the whole request, over gRPC the message with its prefix.
    pub bytes: Bytes,
    /// Where one more header goes in, over HTTP.
    pub split: usize,
    /// The first of the rows that it carries.
    pub first_row: usize,
}

/// All requests of one wire, for a server at `host:port`.
///
/// # Errors
/// When one cannot be built.
pub fn build(
    data: &Dataset,
    shape: &Shape,
    wire: Wire,
    authority: &str,
) -> anyhow::Result<Vec<Request>> {
    let path = format!("{}/infer", model_path(&shape.model, &shape.version));
    // A name that is no path must not become another request.
    path.parse::<http::uri::PathAndQuery>()
        .with_context(|| format!("'{}' is no name of a model", shape.model))?;
    let payloads = payload::build(data, shape, wire)?;
    payloads.iter().map(|payload| request(payload, wire, &path, authority)).collect()
}

fn request(payload: &Payload, wire: Wire, path: &str, authority: &str) -> anyhow::Result<Request> {
    let Payload { body, json_length, first_row } = payload;
    if wire == Wire::Grpc {
        return Ok(Request { bytes: with_prefix(body), split: 0, first_row: *first_row });
    }
    let mut bytes = Vec::with_capacity(body.len() + 256);
    let kind = if json_length.is_some() { "application/octet-stream" } else { "application/json" };
    write!(bytes, "POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: {kind}\r\n")?;
    if let Some(length) = json_length {
        write!(bytes, "{JSON_LENGTH}: {length}\r\n")?;
    }
    write!(bytes, "content-length: {}\r\n", body.len())?;
    let split = bytes.len();
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    Ok(Request { bytes: bytes.into(), split, first_row: *first_row })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(json_length: Option<usize>) -> Payload {
        Payload { body: Bytes::from_static(b"body"), json_length, first_row: 3 }
    }

    #[test]
    fn a_request_over_http_is_whole_and_has_room_for_a_header() {
        let request =
            request(&payload(Some(2)), Wire::HttpBinary, "/v2/models/m/infer", "h:1").unwrap();
        let (head, rest) = request.bytes.split_at(request.split);
        assert_eq!(
            std::str::from_utf8(head).unwrap(),
            "POST /v2/models/m/infer HTTP/1.1\r\nhost: h:1\r\n\
             content-type: application/octet-stream\r\n\
             inference-header-content-length: 2\r\ncontent-length: 4\r\n"
        );
        assert_eq!(rest, b"\r\nbody");
        assert_eq!(request.first_row, 3);
    }

    #[test]
    fn a_request_over_grpc_is_a_message_with_its_prefix() {
        let request = request(&payload(None), Wire::Grpc, "", "").unwrap();
        assert_eq!(request.bytes[..], *b"\0\0\0\0\x04body");
    }
}
