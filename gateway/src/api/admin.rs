//! The admin port: what operators look at and act on, as JSON. [`ENDPOINTS`] is the table of all
//! paths. Never on a data port.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

mod breakers;

use super::health::Stage;
use super::{Api, rest};
use crate::control::IndexEntry;
use crate::error::{Kind, Rejection};
use crate::types::{Peer, Role};

/// Method and path of everything served on the admin port.
pub const ENDPOINTS: &[(&str, &str)] = &[
    ("get", "/v1/status"),
    ("post", "/v1/drain"),
    ("get", "/v1/breakers"),
    ("post", "/v1/breakers/{model}/{version}/{action}"),
];

/// Routes the admin port. Everybody needs the role `operate`.
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/drain", post(drain))
        .merge(breakers::routes())
        .layer(from_fn_with_state(api.clone(), guard))
        .with_state(api)
}

async fn guard(
    State(api): State<Arc<Api>>,
    Extension(peer): Extension<Peer>,
    request: Request,
    next: Next,
) -> Response {
    let allowed = api
        .identify(request.headers(), peer)
        .and_then(|caller| api.authorize(&caller, Role::Operate));
    match allowed {
        Ok(()) => next.run(request).await,
        Err(rejection) => rest::refuse(&rejection),
    }
}

async fn status(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.pipeline.snapshots.load();
    let breaker = |entry: &IndexEntry| {
        let model = snapshot.model(entry.name.as_str())?;
        Some(model.ready.get(&entry.version?)?.breaker.state().name())
    };
    let loader = api.control.loader();
    let devices: Vec<Value> = loader
        .threads()
        .into_iter()
        .map(|(device, (running, wanted))| {
            json!({ "device": device.0, "threads": running, "wanted": wanted })
        })
        .collect();
    let models: Vec<Value> = api
        .control
        .index(false)
        .iter()
        .map(|entry| {
            json!({
                "name": entry.name.as_str(),
                "version": entry.version.map(|version| version.0),
                "state": entry.state.map(|state| state.name()),
                "reason": entry.reason,
                "breaker": breaker(entry),
            })
        })
        .collect();
    rest::answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "stage": api.health.stage().name(),
        "live": api.is_live(),
        "ready": api.is_ready(),
        "models": models,
        "engine": {
            "devices": devices,
            "stuck_threads": loader.stuck().count(),
            "abandoned_threads": loader.stuck().abandoned(),
            "panics": loader.stuck().panics(),
        },
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    /// `false` takes it back.
    on: bool,
}

/// Reports not ready while calls are answered as before, so that load balancers turn away.
async fn drain(State(api): State<Arc<Api>>, body: Bytes) -> Response {
    let wanted: Drain = match serde_json::from_slice(&body) {
        Ok(wanted) => wanted,
        Err(error) => return rest::refuse(&Rejection::invalid(format!("the body: {error}"))),
    };
    let changed = api.health.set_draining(wanted.on);
    match changed {
        Ok(stage) => rest::answer(&json!({ "stage": stage.name() })),
        Err(stage) => {
            let text = format!("the gateway is {}: nothing to drain", Stage::name(stage));
            rest::refuse(&Rejection::new(Kind::Conflict, text))
        }
    }
}
