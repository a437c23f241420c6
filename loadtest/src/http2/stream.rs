//! One gRPC call on an HTTP/2 connection: what is left to send, what came back, and how it ended.

use std::borrow::Cow;

use bytes::Bytes;

use crate::failure::Failure;
use crate::wire::Response;

/// Bytes in front of a gRPC message: whether it is compressed, and its length.
pub(super) const PREFIX: usize = 5;
/// How a call ended.
const OK: u32 = 0;
const UNKNOWN: u32 = 2;

/// A call under way.
#[derive(Debug)]
pub(super) struct Stream<T> {
    pub(super) ticket: T,
    /// What the server still takes on this stream.
    pub(super) window: i64,
    /// What is left of the request's message.
    pub(super) upload: Bytes,
    pub(super) reply: Reply,
}

/// What came back so far.
#[derive(Debug, Default)]
pub(super) struct Reply {
    pub(super) body: Vec<u8>,
    status: Option<u16>,
    grpc_status: Option<u32>,
    grpc_message: Vec<u8>,
}

impl Reply {
    /// Takes a header or trailer.
    pub(super) fn header(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b":status" => self.status = number(value),
            b"grpc-status" => self.grpc_status = number(value),
            b"grpc-message" => self.grpc_message = value.to_vec(),
            _ => {}
        }
    }

    /// The headers so far are an interim answer's (1xx): forget them.
    pub(super) fn skip_interim(&mut self) -> bool {
        let interim = self.status.is_some_and(|status| status < 200);
        if interim {
            self.status = None;
        }
        interim
    }

    /// The answer, now that the stream has ended.
    pub(super) fn finish(&self) -> Result<Response<'_>, Failure> {
        let Some(status) = self.grpc_status else {
            return Err(match self.status {
                Some(200) => Failure::malformed("it ended without a grpc-status"),
                Some(status) => Failure::new(
                    format!("HTTP {status}"),
                    "a gRPC call was answered by something that speaks plain HTTP",
                ),
                None => Failure::malformed("it ended without a status"),
            });
        };
        if status != OK {
            let message = percent_decoded(&self.grpc_message);
            return Ok(Response::Grpc { status, message, body: &[] });
        }
        Ok(Response::Grpc { status, message: Cow::Borrowed(""), body: self.message()? })
    }

    /// The one message in the body.
    fn message(&self) -> Result<&[u8], Failure> {
        let Some((prefix, message)) = self.body.split_first_chunk::<PREFIX>() else {
            return Err(Failure::malformed("it says OK and has no message"));
        };
        let [compressed, length @ ..] = *prefix;
        if compressed != 0 {
            return Err(Failure::malformed("it is compressed, which was not asked for"));
        }
        if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
            return Err(Failure::malformed("its message has another length than it says"));
        }
        Ok(message)
    }

    /// Empties it for the next call.
    pub(super) fn clear(&mut self) {
        self.body.clear();
        (self.status, self.grpc_status) = (None, None);
        self.grpc_message.clear();
    }
}

/// A decimal number; what is none counts as the status of an unknown error, which gRPC says too.
fn number<N: std::str::FromStr + TryFrom<u32>>(value: &[u8]) -> Option<N> {
    let number = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    number.or_else(|| N::try_from(UNKNOWN).ok())
}

/// A message as gRPC writes it into a header.
fn percent_decoded(text: &[u8]) -> Cow<'_, str> {
    if !text.contains(&b'%') {
        return String::from_utf8_lossy(text);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, behind)) = rest.split_first() {
        let coded = behind.get(..2).filter(|_| first == b'%');
        let coded =
            coded.and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        bytes.push(coded.unwrap_or(first));
        rest = if coded.is_some() { &behind[2..] } else { behind };
    }
    Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())
}
