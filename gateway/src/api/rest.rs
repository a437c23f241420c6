//! The protocol over HTTP/1.1. [`ENDPOINTS`] is the table of all paths; the OpenAPI document and
//! a test follow it.

mod body;
mod door;
mod encoding;
mod feedback;
mod infer;
mod management;
mod metadata;
mod path;
mod payload;
mod request;
mod respond;
mod response;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{any, get, post};

use super::Api;
use crate::error::Rejection;

pub use door::Http;
pub(super) use path::Names;
pub use payload::Payload;

/// Method and path of everything served over HTTP.
pub const ENDPOINTS: &[(&str, &str)] = &[
    ("get", "/v2"),
    ("get", "/v2/health/live"),
    ("get", "/v2/health/ready"),
    ("get", "/v2/models"),
    ("get", "/v2/models/stats"),
    ("get", "/v2/models/{model}"),
    ("get", "/v2/models/{model}/versions/{version}"),
    ("get", "/v2/models/{model}/ready"),
    ("get", "/v2/models/{model}/versions/{version}/ready"),
    ("get", "/v2/models/{model}/config"),
    ("get", "/v2/models/{model}/versions/{version}/config"),
    ("get", "/v2/models/{model}/stats"),
    ("get", "/v2/models/{model}/versions/{version}/stats"),
    ("post", "/v2/models/{model}/infer"),
    ("post", "/v2/models/{model}/versions/{version}/infer"),
    ("post", "/v2/feedback"),
    ("post", "/v2/repository/index"),
    ("post", "/v2/repository/models/{model}/load"),
    ("post", "/v2/repository/models/{model}/unload"),
    ("post", "/v2/repository/models/{model}/versions/{version}/load"),
    ("post", "/v2/repository/models/{model}/versions/{version}/unload"),
    ("get", "/v2/logging"),
    ("post", "/v2/logging"),
];

/// Paths of the protocol that this server knows and does not implement: 501.
const UNSUPPORTED: &[&str] = &[
    "/v2/trace/setting",
    "/v2/models/{model}/trace/setting",
    "/v2/systemsharedmemory/{*rest}",
    "/v2/cudasharedmemory/{*rest}",
    "/v2/repository/{repository}/index",
    "/v2/repository/{repository}/models/{model}/load",
    "/v2/repository/{repository}/models/{model}/unload",
];

/// 200 with a JSON body, for other doors that speak HTTP.
pub(super) fn answer(body: &impl serde::Serialize) -> axum::response::Response {
    respond::json(body)
}

/// A refusal, for other doors that speak HTTP. The response knows what it is in its extensions.
pub(super) fn refuse(rejection: &Rejection) -> axum::response::Response {
    let mut response = respond::rejection(rejection);
    response.extensions_mut().insert(rejection.clone());
    response
}

/// A refusal with more to say than its text, for other doors that speak HTTP.
pub(super) fn refuse_with(
    rejection: &Rejection,
    body: &impl serde::Serialize,
) -> axum::response::Response {
    let (head, _) = refuse(rejection).into_parts();
    let body = serde_json::to_vec(body).unwrap_or_default();
    axum::response::Response::from_parts(head, body.into())
}

/// 408 for a body that took longer than its limit, for other doors that speak HTTP.
pub(super) fn too_slow(limit: Duration) -> axum::response::Response {
    body::BodyError::TooSlow(limit).response()
}

/// Routes every endpoint.
fn router(api: Api) -> Router {
    let mut router = Router::new()
        .route("/v2", get(metadata::server))
        .route("/v2/", get(metadata::server))
        .route("/v2/health/live", get(metadata::live))
        .route("/v2/health/ready", get(metadata::ready))
        .route("/v2/models", get(metadata::models))
        .route("/v2/models/stats", get(metadata::statistics_of_all))
        .route("/v2/models/{model}", get(metadata::model))
        .route("/v2/models/{model}/versions/{version}", get(metadata::version))
        .route("/v2/models/{model}/ready", get(metadata::model_ready))
        .route("/v2/models/{model}/versions/{version}/ready", get(metadata::version_ready))
        .route("/v2/models/{model}/config", get(metadata::model_config))
        .route("/v2/models/{model}/versions/{version}/config", get(metadata::version_config))
        .route("/v2/models/{model}/stats", get(metadata::model_statistics))
        .route("/v2/models/{model}/versions/{version}/stats", get(metadata::version_statistics))
        .route("/v2/models/{model}/infer", post(infer::model))
        .route("/v2/models/{model}/versions/{version}/infer", post(infer::version))
        .route("/v2/feedback", post(feedback::tell))
        .route("/v2/repository/index", post(management::index))
        .route("/v2/repository/models/{model}/load", post(management::load_model))
        .route("/v2/repository/models/{model}/unload", post(management::unload_model))
        .route(
            "/v2/repository/models/{model}/versions/{version}/load",
            post(management::load_version),
        )
        .route(
            "/v2/repository/models/{model}/versions/{version}/unload",
            post(management::unload_version),
        )
        .route("/v2/logging", get(management::log_settings).post(management::change_log_settings));
    for path in UNSUPPORTED {
        router = router.route(path, any(respond::unsupported));
    }
    router
        .fallback(respond::not_found)
        .method_not_allowed_fallback(respond::method_not_allowed)
        .with_state(Arc::new(api))
}
