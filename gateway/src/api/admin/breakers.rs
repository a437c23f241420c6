//! Circuit breakers for operators: what each counts, and opening and closing one by hand.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::{Value, json};
use tracing::info;

use crate::api::Api;
use crate::api::rest::{self, Names};
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/breakers", get(list))
        .route("/v1/breakers/{model}/{version}/{action}", post(act))
}

async fn list(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.pipeline.snapshots.load();
    let breakers: Vec<Value> = snapshot.ready().map(|served| describe(served)).collect();
    rest::answer(&json!({ "breakers": breakers }))
}

/// `trip` opens it until `reset` closes it, or what it counts.
async fn act(
    State(api): State<Arc<Api>>,
    Names((model, version, action)): Names<(String, String, String)>,
) -> Response {
    let snapshot = api.pipeline.snapshots.load();
    let served = match snapshot.find(&model, Some(&version)) {
        Ok(served) => served,
        Err(rejection) => return rest::refuse(&rejection),
    };
    match action.as_str() {
        "trip" => served.breaker.hold_open(),
        "reset" => served.breaker.reset(),
        _ => {
            let text = "a breaker knows trip and reset";
            return rest::refuse(&Rejection::new(Kind::NotFound, text));
        }
    }
    info!(model = served.label(), action, "an operator moved the circuit breaker");
    rest::answer(&describe(served))
}

fn describe(served: &ServedVersion) -> Value {
    let status = served.breaker.status();
    json!({
        "model": served.model.as_str(),
        "version": served.version.0,
        "device": served.manifest.device,
        "state": status.state.name(),
        "reason": status.reason.map(|reason| reason.label()),
        "retry_after_seconds": status.retry_after.map(|after| after.as_secs_f64()),
        "held": status.held,
        "trips": status.trips,
        "window": {
            "batches": status.counts.samples,
            "failed": status.counts.failed,
            "slow": status.counts.slow,
        },
        "consecutive_failures": status.consecutive,
        "nan_answers": status.nan_answers,
    })
}
