//! `/metrics`: the Prometheus text, on a port of its own.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::HeaderValue;
use http::header::CONTENT_TYPE;

use super::Api;
use crate::telemetry::{metrics, process};

/// Routes the metrics port.
pub fn router(api: Api) -> Router {
    Router::new().route("/metrics", get(render)).with_state(Arc::new(api))
}

async fn render(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.pipeline.snapshots.load();
    for served in snapshot.ready() {
        served.publish_stats();
    }
    snapshot.limiter.publish();
    snapshot.publish_routes();
    api.control.loader().publish();
    api.pipeline.overload.publish();
    if let Some(log) = &api.pipeline.log {
        log.settle_early().await;
        log.publish();
    }
    process::refresh();
    let mut response = Response::new(metrics::recorder().render().into());
    let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, text);
    response
}
