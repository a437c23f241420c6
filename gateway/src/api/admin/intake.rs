//! What comes in on the admin port: bodies and queries, bounded, in time, and without a key that
//! nobody asked for.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, de};
use tokio::time::timeout;

use crate::api::rest;
use crate::error::{Kind, Rejection};

/// The largest body of a change, in bytes.
const MAX_CHANGE: usize = 64 << 10;
/// The largest configuration file that is checked, in bytes.
const MAX_FILE: usize = 16 << 20;
/// Longest text that says who or why, in bytes.
const MAX_NOTE: usize = 500;

/// Who or why, in a caller's own words: short, and without characters that move a terminal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note(pub(super) String);

impl FromStr for Note {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.len() > MAX_NOTE {
            return Err(format!("is longer than {MAX_NOTE} bytes"));
        }
        if text.chars().any(char::is_control) {
            return Err("holds a control character".to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Note {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// The JSON of a change. An empty body is an empty object.
///
/// # Errors
/// The answer that says what is wrong, with the path of the key.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limit: Duration) -> Result<T, Response> {
    let mut body = read(body, MAX_CHANGE, limit).await?;
    if body.iter().all(u8::is_ascii_whitespace) {
        body = Bytes::from_static(b"{}");
    }
    let mut reader = serde_json::Deserializer::from_slice(&body);
    let read = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        match path.as_str() {
            "." => format!("the body: {}", error.inner()),
            path => format!("the body: {path}: {}", error.inner()),
        }
    });
    let ended = |value| match reader.end() {
        Ok(()) => Ok(value),
        Err(error) => Err(format!("the body: {error}")),
    };
    read.and_then(ended).map_err(|text| rest::refuse(&Rejection::invalid(text)))
}

/// The text of a file.
///
/// # Errors
/// The answer that says what is wrong.
pub(super) async fn text(body: Body, limit: Duration) -> Result<String, Response> {
    let body = read(body, MAX_FILE, limit).await?;
    String::from_utf8(body.into())
        .map_err(|_| rest::refuse(&Rejection::invalid("the body is no text in UTF-8")))
}

async fn read(body: Body, longest: usize, limit: Duration) -> Result<Bytes, Response> {
    let Ok(read) = timeout(limit, Limited::new(body, longest).collect()).await else {
        return Err(rest::too_slow(limit));
    };
    let body = read.map_err(|error| {
        rest::refuse(&match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                Rejection::new(Kind::TooLarge, format!("the body is larger than {longest} bytes"))
            }
            None => Rejection::new(Kind::Cancelled, "the body ended before its length"),
        })
    })?;
    Ok(body.to_bytes())
}

/// The parameters behind the question mark; each may be said once.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query that may have these names.
    ///
    /// # Errors
    /// `InvalidInput` for any other name, and for one said twice.
    pub(super) fn read(query: Option<&str>, names: &[&str]) -> Result<Self, Rejection> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(query.unwrap_or("").as_bytes()) {
            let problem = if !names.contains(&name.as_ref()) {
                "is not known"
            } else if found.iter().any(|(other, _)| *other == name) {
                "stands twice"
            } else {
                found.push((name.into_owned(), value.into_owned()));
                continue;
            };
            let shown: String = name.chars().take(64).collect();
            return Err(Rejection::invalid(format!("the parameter '{shown}' {problem}")));
        }
        Ok(Self(found))
    }

    /// The value of a parameter.
    ///
    /// # Errors
    /// `InvalidInput` when it cannot be read.
    pub(super) fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, Rejection>
    where
        T::Err: std::fmt::Display,
    {
        let Some((_, value)) = self.0.iter().find(|(other, _)| other == name) else {
            return Ok(None);
        };
        let wrong = |error| Rejection::invalid(format!("the parameter '{name}': {error}"));
        value.parse().map(Some).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Wanted {
        number: Option<u64>,
        reason: Option<Note>,
    }

    async fn refused<T: std::fmt::Debug>(result: Result<T, Response>) -> (u16, String) {
        let response = result.unwrap_err();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        (status, body["error"].as_str().unwrap().to_owned())
    }

    #[tokio::test]
    async fn a_body_without_a_word_asks_for_nothing() {
        for empty in ["", " \n", "{}"] {
            assert_eq!(json::<Wanted>(empty.into(), LIMIT).await.unwrap(), Wanted::default());
        }
    }

    #[tokio::test]
    async fn what_is_wrong_with_a_body_is_named_with_its_path() {
        for (body, expected) in [
            (r#"{"number": "x"}"#, "number: invalid type"),
            (r#"{"numbers": 1}"#, "unknown field `numbers`"),
            (r#"{"number": 1} {}"#, "trailing characters"),
            (r#"{"number": 1"#, "EOF"),
            (r#"{"reason": "a\nb"}"#, "reason: holds a control character"),
            ("[]x", "the body: "),
        ] {
            let (status, text) = refused(json::<Wanted>(body.into(), LIMIT).await).await;
            assert_eq!(status, 400, "{body}");
            assert!(text.contains(expected), "{body}: {text}");
        }
        let long = format!(r#"{{"reason": "{}"}}"#, "x".repeat(MAX_NOTE + 1));
        let (_, text) = refused(json::<Wanted>(long.into(), LIMIT).await).await;
        assert!(text.contains("longer than 500 bytes"), "{text}");
    }

    #[tokio::test]
    async fn large_bodies_are_not_read_to_their_end() {
        let (status, _) =
            refused(json::<Wanted>(" ".repeat(MAX_CHANGE + 1).into(), LIMIT).await).await;
        assert_eq!(status, 413);
        let file = " ".repeat(MAX_CHANGE + 1);
        assert_eq!(text(file.clone().into(), LIMIT).await.unwrap(), file);
        let (status, _) = refused(text(" ".repeat(MAX_FILE + 1).into(), LIMIT).await).await;
        assert_eq!(status, 413);
        let (status, _) = refused(text(vec![0xff].into(), LIMIT).await).await;
        assert_eq!(status, 400);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let never =
            Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>());
        let (status, _) = refused(json::<Wanted>(never, LIMIT).await).await;
        assert_eq!(status, 408);
    }

    #[test]
    fn queries_name_what_is_known_and_once() {
        let query = Query::read(Some("limit=5&reason=too%20slow"), &["limit", "reason"]).unwrap();
        assert_eq!(query.get::<usize>("limit"), Ok(Some(5)));
        assert_eq!(query.get::<Note>("reason"), Ok(Some(Note("too slow".into()))));
        assert_eq!(Query::read(None, &[]).unwrap().get::<usize>("limit"), Ok(None));
        for (query, expected) in [("other=1", "'other' is not known"), ("limit=1&limit=2", "twice")]
        {
            let error = Query::read(Some(query), &["limit"]).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let query = Query::read(Some("limit=many"), &["limit"]).unwrap();
        assert!(query.get::<usize>("limit").unwrap_err().to_string().contains("'limit'"));
    }
}
