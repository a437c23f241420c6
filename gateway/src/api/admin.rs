//! The admin port: what operators look at and act on, as JSON. [`ENDPOINTS`] is the table of all
//! paths. Never on a data port.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

mod arms;
mod audit;
mod breakers;
mod changes;
mod intake;
mod openapi;
mod reload;
mod revisions;
mod routes;

use self::audit::{Deed, Strangers};
use super::{Api, guard, rest};
use crate::config::Store;
use crate::control::IndexEntry;
use crate::delivery::Delivery;
use crate::error::{Kind, Rejection};
use crate::types::{Peer, Role};

/// Method and path of everything served on the admin port.
pub const ENDPOINTS: &[(&str, &str)] = &[
    ("get", "/v1/status"),
    ("post", "/v1/drain"),
    ("get", "/v1/limits"),
    ("get", "/v1/breakers"),
    ("post", "/v1/breakers/{model}/{version}/{action}"),
    ("get", "/v1/routes"),
    ("get", "/v1/routes/{route}"),
    ("patch", "/v1/routes/{route}"),
    ("get", "/v1/routes/{route}/report"),
    ("delete", "/v1/routes/{route}/report"),
    ("delete", "/v1/routes/{route}/overlay"),
    ("get", "/v1/revisions"),
    ("get", "/v1/revisions/{revision}"),
    ("post", "/v1/rollback"),
    ("post", "/v1/reload"),
    ("post", "/v1/check"),
    ("get", "/v1/upstreams"),
    ("get", "/v1/openapi.yaml"),
];

/// Routes the admin port. Everybody needs the role `operate`.
pub fn router(api: Api) -> Router {
    let api = Arc::new(api);
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/drain", post(drain))
        .route("/v1/limits", get(limits))
        .merge(breakers::routes())
        .merge(routes::routes())
        .merge(revisions::routes())
        .merge(reload::routes())
        .route("/v1/upstreams", get(upstreams))
        .route("/v1/openapi.yaml", get(openapi::document))
        .with_state(api.clone())
        .layer(from_fn_with_state((api, Arc::new(Strangers::default())), check))
}

async fn check(
    State((api, strangers)): State<(Arc<Api>, Arc<Strangers>)>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let attempt = audit::attempt(&request);
    let caller = guard::refuse_pages(request.headers())
        .and_then(|()| api.identify_operator(request.headers(), peer.clone()));
    let who = caller.as_ref().ok().cloned();
    let allowed = caller.and_then(|caller| {
        api.authorize(&caller, Role::Operate)?;
        Ok(caller)
    });
    let answered = async move {
        match allowed {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                next.run(request).await
            }
            Err(rejection) => rest::refuse(&rejection),
        }
    };
    let (sender, receiver) = oneshot::channel();
    // A caller that goes away leaves no change half done, and none that nobody wrote down. Away
    // from the event loop of the connection: it answers predictions too, and a thousand routes
    // take a while.
    api.home.clone().spawn("admin", async move {
        let response = answered.await;
        let refused = matches!(response.status().as_u16(), 401 | 403);
        let entry =
            attempt.and_then(|attempt| audit::entry(attempt, (who.as_ref(), &peer), &response));
        if let Some(entry) = entry.filter(|_| !refused || strangers.may_be_noted()) {
            api.note(entry).await;
        }
        drop(sender.send(response));
    });
    receiver.await.unwrap_or_else(|_| {
        rest::refuse(&Rejection::new(Kind::Internal, "the change failed, see the log"))
    })
}

async fn upstreams(State(api): State<Arc<Api>>) -> Response {
    let upstreams = api.pipeline.snapshots.load().routing().upstreams.status();
    rest::answer(&json!({ "upstreams": upstreams }))
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
            let mut model = entry.json();
            model["breaker"] = json!(breaker(entry));
            model
        })
        .collect();
    let state = api.health.state();
    let rollback = if api.traffic.allows_overlay() {
        api.traffic.preview_rollback(None).await.ok()
    } else {
        None
    };
    rest::answer(&json!({
        "version": env!("CARGO_PKG_VERSION"),
        "stage": state.stage.name(),
        "drain": state.drain,
        "live": api.is_live(),
        "ready": api.is_ready(),
        "config": api.reloader.as_ref().map(|reloader| configuration(&reloader.status())),
        "rollback": rollback.map(|found| json!({
            "revision": found.restored,
            "needs_load": found.needs_load,
        })),
        "overload": api.pipeline.overload.status(),
        "prediction_log": api.delivery.as_ref().map(Delivery::status),
        "models": models,
        "engine": {
            "devices": devices,
            "stuck_threads": loader.stuck().count(),
            "abandoned_threads": loader.stuck().abandoned(),
            "panics": loader.stuck().panics(),
        },
    }))
}

/// How the configuration file stands.
fn configuration(status: &crate::reload::Status) -> Value {
    let problems: Vec<Value> = status
        .problems
        .iter()
        .map(|problem| json!({ "path": problem.path, "message": problem.message }))
        .collect();
    json!({
        "path": status.path.display().to_string(),
        "hash": status.hash,
        "revision": status.revision,
        "last_error": status.last_error(),
        "problems": problems,
        "age": status.age.as_secs_f64(),
    })
}

/// The rules and what they have done, never who was limited.
async fn limits(State(api): State<Arc<Api>>) -> Response {
    let report = api.pipeline.snapshots.limiter().report();
    let rates: Vec<Value> = report
        .rates
        .iter()
        .map(|rate| {
            let config = &rate.config;
            json!({
                "name": config.name,
                "key": config.key.text(),
                "rate": { "count": config.rate.count, "seconds": config.rate.per.as_secs() },
                "burst": config.burst,
                "cost": config.cost.text(),
                "models": config.models,
                "mode": config.mode.text(),
                "shared": config.store == Store::Redis,
                "keys": rate.keys,
                "max_keys": config.max_keys,
                "admitted": rate.admitted,
                "limited": rate.limited,
                "would_limit": rate.would_limit,
                "overflow": rate.overflow,
                "store_errors": rate.store_errors,
            })
        })
        .collect();
    let quotas: Vec<Value> = report
        .quotas
        .iter()
        .map(|quota| {
            json!({
                "name": quota.config.name,
                "key": quota.config.key.text(),
                "max_in_flight": quota.config.max_in_flight,
                "models": quota.config.models,
                "mode": quota.config.mode.text(),
                "keys": quota.keys,
                "admitted": quota.admitted,
                "limited": quota.limited,
                "would_limit": quota.would_limit,
            })
        })
        .collect();
    let fair_share = report.fair_share.map(|fair| {
        let groups: serde_json::Map<String, Value> =
            fair.groups.into_iter().map(|(device, count)| (device, count.into())).collect();
        json!({ "refused": fair.refused, "groups": groups })
    });
    rest::answer(&json!({
        "rate_limits": rates,
        "quotas": quotas,
        "fair_share": fair_share,
        "redis": report.redis.map(|redis| json!({ "url": redis.url, "up": redis.up })),
    }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    /// `false` takes it back.
    on: bool,
}

/// Reports not ready while calls are answered as before, so that load balancers turn away.
async fn drain(State(api): State<Arc<Api>>, body: Body) -> Response {
    let wanted: Drain = match intake::json(body, api.limits.body_timeout).await {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    let response = match api.health.set_drain(wanted.on) {
        Ok(state) => rest::answer(&json!({ "stage": state.stage.name(), "drain": state.drain })),
        Err(stage) => {
            let text = format!("the gateway is {} and does not open again", stage.name());
            rest::refuse(&Rejection::new(Kind::Conflict, text))
        }
    };
    Deed::of(if wanted.on { "drain on" } else { "drain off" }).attach(response)
}
