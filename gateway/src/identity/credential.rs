//! The credential in the headers of a request, on both protocols: gRPC metadata are headers.

use http::HeaderMap;
use http::header::{AUTHORIZATION, HeaderName, HeaderValue};

use super::Refusal;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Longest credential that is looked at; tokens with many claims take a few kilobytes.
const LONGEST: usize = 8 << 10;

/// What a request presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credential<'h> {
    pub(super) text: &'h [u8],
    /// Tokens come as `authorization: Bearer` alone.
    pub(super) may_be_token: bool,
}

/// The credential of a request, `None` where there is none.
pub(super) fn presented(headers: &HeaderMap) -> Result<Option<Credential<'_>>, Refusal> {
    let bearer = single(headers, &AUTHORIZATION)?;
    let key = single(headers, &API_KEY)?;
    let (text, may_be_token) = match (bearer, key) {
        (None, None) => return Ok(None),
        // Which of the two would count must not be left to chance.
        (Some(_), Some(_)) => return Err(Refusal::Malformed),
        (Some(value), None) => (of_bearer(value.as_bytes()).ok_or(Refusal::Malformed)?, true),
        (None, Some(value)) => (value.as_bytes(), false),
    };
    if text.len() > LONGEST {
        return Err(Refusal::Oversized);
    }
    if text.is_empty() || !text.iter().all(u8::is_ascii_graphic) {
        return Err(Refusal::Malformed);
    }
    Ok(Some(Credential { text, may_be_token }))
}

/// What tells of a caller in the headers of a request, for calls that last: who it is may change.
#[must_use]
pub fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [AUTHORIZATION, API_KEY] {
        for value in headers.get_all(&name) {
            kept.append(name.clone(), value.clone());
        }
    }
    kept
}

/// The one value of a header.
fn single<'h>(
    headers: &'h HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'h HeaderValue>, Refusal> {
    if !headers.contains_key(name) {
        return Ok(None);
    }
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value),
        _ => Err(Refusal::Malformed),
    }
}

/// What follows the scheme `Bearer` (RFC 6750, 2.1), whose case does not matter (RFC 9110, 11.1).
fn of_bearer(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"bearer ";
    let (scheme, text) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then(|| text.trim_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SECRET_HEADERS;

    fn of(headers: &[(&'static str, &str)]) -> Result<Option<(String, bool)>, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let found = presented(&map)?;
        Ok(found.map(|c| (String::from_utf8(c.text.to_vec()).unwrap(), c.may_be_token)))
    }

    #[test]
    fn no_credential_may_be_in_the_prediction_log() {
        assert!([AUTHORIZATION, API_KEY].iter().all(|name| SECRET_HEADERS.contains(name)));
    }

    #[test]
    fn a_credential_comes_in_one_of_two_headers() {
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[("authorization", "Bearer abc")]), Ok(Some(("abc".into(), true))));
        assert_eq!(of(&[("authorization", "bEARER   abc ")]), Ok(Some(("abc".into(), true))));
        assert_eq!(of(&[("x-api-key", "abc")]), Ok(Some(("abc".into(), false))));
    }

    #[test]
    fn anything_unclear_is_refused_and_not_ignored() {
        for headers in [
            &[("authorization", "Basic abc")] as &[_],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("authorization", "")],
            &[("authorization", "abc")],
            &[("authorization", "Bearer a b")],
            &[("authorization", "Bearer ü")],
            &[("x-api-key", "")],
            &[("x-api-key", "a"), ("x-api-key", "a")],
            &[("x-api-key", "a"), ("authorization", "Bearer a")],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
        ] {
            assert_eq!(of(headers), Err(Refusal::Malformed), "{headers:?}");
        }
    }

    #[test]
    fn a_credential_beyond_any_length_is_refused_unread() {
        let (fits, beyond) = ("k".repeat(LONGEST), "k".repeat(LONGEST + 1));
        assert!(of(&[("x-api-key", &fits)]).is_ok());
        assert_eq!(of(&[("x-api-key", &beyond)]), Err(Refusal::Oversized));
    }
}
