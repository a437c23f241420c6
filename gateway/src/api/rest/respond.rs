//! HTTP answers: JSON, and errors as `{"error": "text"}`, never compressed.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tracing::debug;

use crate::api::hints;
use crate::error::{Kind, Rejection};

pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// On what an earlier call with the same idempotency key was told.
const REPLAYED: HeaderName = HeaderName::from_static("penstock-replayed");
/// Values that break a rule of the model's input contract.
const FLAGS: HeaderName = HeaderName::from_static("penstock-flags");

/// 200 with a JSON body.
pub(super) fn json(body: &impl Serialize) -> Response {
    with_status(StatusCode::OK, serde_json::to_vec(body).unwrap_or_default())
}

/// 200 with JSON that is text already.
pub(super) fn json_text(body: Vec<u8>) -> Response {
    with_status(StatusCode::OK, body)
}

pub(super) fn with_status(status: StatusCode, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

/// 200 without a body, as the repository extension answers.
pub(super) fn empty() -> Response {
    Response::new(Body::empty())
}

/// The one place where a rejection becomes an HTTP status.
pub(super) fn rejection(rejection: &Rejection) -> Response {
    let kind = rejection.kind();
    debug!(kind = kind.label(), error = %rejection, detail = rejection.detail(), "refused");
    let status = StatusCode::from_u16(kind.http()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = error(status, rejection.public_message());
    if kind == Kind::Unauthenticated {
        // The scheme alone (RFC 6750, 3.1): what was wrong is not for the caller.
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    mark(response.headers_mut(), rejection.is_replayed(), None);
    for (name, text) in hints::of(rejection) {
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// Refuses a request before its body was read. Where there is one the connection ends: what is
/// left of the body stands before the next request, and a caller that was not told would send that
/// into a closed connection.
pub(super) fn rejection_unread(refused: &Rejection, headers: &HeaderMap) -> Response {
    let mut response = rejection(refused);
    let has_length = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    if has_length || headers.contains_key(TRANSFER_ENCODING) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// Says that an answer or a refusal is that of an earlier call, and which values were flagged.
pub(super) fn mark(headers: &mut HeaderMap, is_replayed: bool, flags: Option<&str>) {
    if is_replayed {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(value) = flags.and_then(|flags| HeaderValue::from_str(flags).ok()) {
        headers.insert(FLAGS, value);
    }
}

pub(super) fn error(status: StatusCode, text: &str) -> Response {
    let body = serde_json::json!({ "error": text }).to_string().into_bytes();
    with_status(status, body)
}

pub(super) async fn not_found() -> Response {
    error(StatusCode::NOT_FOUND, "Not Found")
}

pub(super) async fn method_not_allowed() -> Response {
    error(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")
}

pub(super) async fn unsupported() -> Response {
    rejection(&Rejection::new(Kind::Unsupported, "this extension is not implemented"))
}
