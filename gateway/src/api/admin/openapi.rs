//! The OpenAPI document of both HTTP APIs, as it stands beside the sources.

use axum::response::{IntoResponse, Response};
use http::header::CONTENT_TYPE;

const DOCUMENT: &str = include_str!("../../../../docs/openapi.yaml");

/// The media type is that of RFC 9512.
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, "application/yaml")], DOCUMENT).into_response()
}
