//! Content codings: gzip and deflate (zlib), in both directions. Answers are compressed for
//! inference only, since no client inflates anything else.

use std::io::{Read, Write};

use bytes::Bytes;
use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap};

use super::body::too_large_rejection;
use crate::config::Limits;
use crate::error::{Kind, Rejection};

/// Below this a compressed answer is hardly smaller and costs more than it saves.
const WORTH_COMPRESSING: usize = 1024;

/// A coding of the protocol's clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Gzip,
    Deflate,
}

impl Coding {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "gzip" | "x-gzip" => Some(Self::Gzip),
            "deflate" => Some(Self::Deflate),
            _ => None,
        }
    }
}

/// Inflates a request body; what it inflates to is bounded like any request.
pub(super) fn decode(
    headers: &HeaderMap,
    body: Bytes,
    limits: &Limits,
) -> Result<Bytes, Rejection> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(body) };
    let text = value.to_str().unwrap_or("");
    if text.is_empty() || text.eq_ignore_ascii_case("identity") {
        return Ok(body);
    }
    let Some(coding) = Coding::parse(text) else {
        let shown: String = text.chars().take(40).collect();
        return Err(Rejection::new(
            Kind::Unsupported,
            format!("Content-Encoding '{shown}' is not supported: use gzip, deflate or identity"),
        ));
    };
    let bound = limits.max_request as u64 + 1;
    let mut out = Vec::new();
    let result = match coding {
        Coding::Gzip => GzDecoder::new(&body[..]).take(bound).read_to_end(&mut out),
        Coding::Deflate => ZlibDecoder::new(&body[..]).take(bound).read_to_end(&mut out),
    };
    result.map_err(|_| Rejection::invalid(format!("the body is not valid {}", coding.name())))?;
    if out.len() > limits.max_request {
        return Err(too_large_rejection(limits));
    }
    Ok(out.into())
}

/// The coding that the caller prefers, among those with a weight above zero.
pub(super) fn accepted(headers: &HeaderMap) -> Option<Coding> {
    let text = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    text.split(',')
        .filter_map(|item| {
            let (name, weight) = item.split_once(";q=").unwrap_or((item, "1"));
            let weight: f32 = weight.trim().parse().ok()?;
            Some((Coding::parse(name)?, weight))
        })
        .filter(|(_, weight)| *weight > 0.0)
        // `max_by` takes the last of equals; the caller's first choice should win.
        .rev()
        .max_by(|a, b| a.1.total_cmp(&b.1))
        .map(|(coding, _)| coding)
}

/// Compresses an answer if that is worth it.
pub(super) fn encode(coding: Coding, body: &[u8]) -> Option<Vec<u8>> {
    if body.len() < WORTH_COMPRESSING {
        return None;
    }
    match coding {
        Coding::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).ok()?;
            encoder.finish().ok()
        }
        Coding::Deflate => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(body).ok()?;
            encoder.finish().ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn limits() -> Limits {
        let text = "version = 1\n[limits]\nmax_request = '4KiB'";
        crate::config::parse(text, Path::new("")).unwrap().limits
    }

    fn headers(name: http::HeaderName, value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(name, http::HeaderValue::from_static(value))])
    }

    #[test]
    fn what_was_compressed_inflates_to_itself() {
        let body = vec![7; 3000];
        for coding in [Coding::Gzip, Coding::Deflate] {
            let small = encode(coding, &body).unwrap();
            let headers = headers(CONTENT_ENCODING, coding.name());
            assert_eq!(decode(&headers, small.into(), &limits()).unwrap(), body);
        }
    }

    #[test]
    fn a_bomb_is_refused_at_the_limit() {
        let bomb = encode(Coding::Gzip, &vec![0; 10 << 20]).unwrap();
        let error = decode(&headers(CONTENT_ENCODING, "gzip"), bomb.into(), &limits()).unwrap_err();
        assert_eq!(error.kind(), Kind::TooLarge);
    }

    #[test]
    fn unknown_codings_and_broken_streams_are_refused() {
        let body = || Bytes::from_static(b"not compressed at all");
        let error = decode(&headers(CONTENT_ENCODING, "br"), body(), &limits()).unwrap_err();
        assert_eq!(error.kind(), Kind::Unsupported);
        let error = decode(&headers(CONTENT_ENCODING, "gzip"), body(), &limits()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidInput);
    }

    #[test]
    fn weights_decide_and_zero_means_no() {
        let accept = |value| accepted(&headers(ACCEPT_ENCODING, value));
        assert_eq!(accept("gzip, deflate"), Some(Coding::Gzip));
        assert_eq!(accept("gzip;q=0.2, deflate;q=0.8"), Some(Coding::Deflate));
        assert_eq!(accept("gzip;q=0, br"), None);
        assert_eq!(accept("br, zstd"), None);
    }
}
