//! Reads a request body within its limits of size and time.

use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use http::StatusCode;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http_body_util::BodyExt;
use tokio::time::timeout;

use super::respond;
use crate::config::Limits;
use crate::error::{Kind, Rejection};

/// Why a body could not be read.
pub(super) enum BodyError {
    Rejected(Rejection),
    /// It did not come in time: 408, and the connection is of no more use.
    TooSlow(Duration),
    /// The caller went away in the middle.
    Broken,
}

impl From<BodyError> for Rejection {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Rejected(rejection) => rejection,
            BodyError::TooSlow(limit) => {
                Self::new(Kind::Cancelled, format!("the body did not come within {limit:?}"))
            }
            BodyError::Broken => Self::new(Kind::Cancelled, "the body ended before its length"),
        }
    }
}

impl BodyError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Rejected(rejection) => rejection.kind(),
            Self::TooSlow(_) | Self::Broken => Kind::Cancelled,
        }
    }

    pub(super) fn response(self) -> Response {
        let is_slow = matches!(self, Self::TooSlow(_));
        let rejection = Rejection::from(self);
        if !is_slow {
            return respond::rejection(&rejection);
        }
        let mut response = respond::error(StatusCode::REQUEST_TIMEOUT, rejection.public_message());
        let close = http::HeaderValue::from_static("close");
        response.headers_mut().insert(http::header::CONNECTION, close);
        response
    }
}

/// Reads the whole body. A declared length beyond the limit is refused before a byte is read.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
) -> Result<Bytes, BodyError> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    if declared > limits.max_request as u64 {
        return Err(too_large(limits));
    }
    let reading = collect(body, limits);
    match timeout(limits.body_timeout, reading).await {
        Ok(result) => result,
        Err(_) => Err(BodyError::TooSlow(limits.body_timeout)),
    }
}

async fn collect(mut body: Body, limits: &Limits) -> Result<Bytes, BodyError> {
    let mut first: Option<Bytes> = None;
    let mut rest = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        // Most bodies are one frame: they are passed on as they came, without a copy.
        let Some(begin) = &first else {
            if data.len() > limits.max_request {
                return Err(too_large(limits));
            }
            first = Some(data);
            continue;
        };
        if rest.is_empty() {
            rest.extend_from_slice(begin);
        }
        if rest.len() + data.len() > limits.max_request {
            return Err(too_large(limits));
        }
        rest.extend_from_slice(&data);
    }
    Ok(if rest.is_empty() { first.unwrap_or_default() } else { rest.freeze() })
}

fn too_large(limits: &Limits) -> BodyError {
    BodyError::Rejected(too_large_rejection(limits))
}

pub(super) fn too_large_rejection(limits: &Limits) -> Rejection {
    Rejection::new(
        Kind::TooLarge,
        format!("the request is larger than {} bytes, see limits.max_request", limits.max_request),
    )
}
