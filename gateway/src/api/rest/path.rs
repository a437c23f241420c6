//! Names out of a request's path, with our own answer when they are no text.

use axum::extract::{FromRequestParts, Path};
use axum::response::Response;
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::respond;

/// What stood in the places of `{model}` and `{version}`, percent-decoded.
#[derive(Debug)]
pub(in crate::api) struct Names<T>(pub(in crate::api) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Names<T> {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Response> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(names)) => Ok(Self(names)),
            Err(_) => Err(respond::error(StatusCode::BAD_REQUEST, "the path is not valid UTF-8")),
        }
    }
}
