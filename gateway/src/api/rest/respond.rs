//! HTTP answers: JSON, and errors as `{"error": "text"}`, never compressed.

use axum::body::Body;
use axum::response::Response;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use tracing::debug;

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
    mark(response.headers_mut(), rejection.is_replayed(), None);
    if let Some(after) = rejection.retry_after() {
        let seconds = after.as_secs_f64().ceil();
        if let Ok(value) = HeaderValue::from_str(&format!("{seconds:.0}")) {
            response.headers_mut().insert(RETRY_AFTER, value);
        }
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
