//! Health, metadata, configuration and statistics over HTTP.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::path::Names;
use super::respond;
use crate::api::{Api, EXTENSIONS, SERVER_NAME, model_config, proto_json};
use crate::error::Rejection;
use crate::models::ServedVersion;
use crate::snapshot::Described;
use crate::types::Caller;

pub(super) async fn server() -> Response {
    respond::json(&json!({
        "name": SERVER_NAME,
        "version": env!("CARGO_PKG_VERSION"),
        "extensions": EXTENSIONS,
    }))
}

pub(super) async fn live(State(api): State<Arc<Api>>) -> Response {
    let live = api.is_live();
    state(live, json!({ "live": live }))
}

pub(super) async fn ready(State(api): State<Arc<Api>>) -> Response {
    let ready = api.is_ready();
    state(ready, json!({ "live": api.is_live(), "ready": ready }))
}

pub(super) async fn model_ready(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names(model): Names<String>,
) -> Response {
    readiness(&api, &caller, (&model, None))
}

pub(super) async fn version_ready(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    readiness(&api, &caller, (&model, Some(&version)))
}

/// The model that a request names, and the version if it names one.
type Named<'r> = (&'r str, Option<&'r str>);

fn readiness(api: &Api, caller: &Caller, (model, version): Named<'_>) -> Response {
    if let Err(rejection) = api.authorize_reading_of(caller, model) {
        return respond::rejection(&rejection);
    }
    let snapshot = api.pipeline.snapshots.load();
    match snapshot.is_ready(model, version) {
        Err(rejection) => respond::rejection(&rejection),
        Ok(ready) => {
            let ready = ready && api.is_live();
            state(ready, json!({ "name": model, "ready": ready }))
        }
    }
}

fn state(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::with_status(status, body.to_string().into_bytes())
}

pub(super) async fn models(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let Err(rejection) = api.authorize_reading(&caller) {
        return respond::rejection(&rejection);
    }
    let snapshot = api.pipeline.snapshots.load();
    let ready = snapshot.models().into_iter().filter(|(_, model)| !model.ready.is_empty());
    let names = ready.map(|(name, _)| name.as_str());
    let names: Vec<_> = names.filter(|name| caller.identity.may_call(name)).collect();
    respond::json(&json!({ "models": names }))
}

pub(super) async fn model(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names(model): Names<String>,
) -> Response {
    answer(metadata(&api, &caller, (&model, None)))
}

pub(super) async fn version(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    answer(metadata(&api, &caller, (&model, Some(&version))))
}

fn metadata(api: &Api, caller: &Caller, (model, version): Named<'_>) -> Result<Vec<u8>, Rejection> {
    api.authorize_reading_of(caller, model)?;
    let snapshot = api.pipeline.snapshots.load();
    let Described { backend, versions } = snapshot.describe(model, version)?;
    let signature = backend.signature();
    let spec = |spec: &engine::TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape });
    let body = json!({
        "name": model,
        "versions": versions,
        "platform": model_config::platform_of(&backend),
        "inputs": signature.inputs.iter().map(spec).collect::<Vec<_>>(),
        "outputs": signature.outputs.iter().map(|o| spec(&o.spec)).collect::<Vec<_>>(),
        "properties": backend.local().map(|served| properties(served)).unwrap_or_default(),
    });
    Ok(body.to_string().into_bytes())
}

fn properties(served: &ServedVersion) -> Map<String, Value> {
    let mut properties = Map::new();
    properties.insert("version".to_owned(), served.version.to_string().into());
    properties.extend(served.properties().into_iter().map(|(key, value)| (key, value.into())));
    properties
}

pub(super) async fn model_config(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names(model): Names<String>,
) -> Response {
    answer(config(&api, &caller, (&model, None)))
}

pub(super) async fn version_config(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    answer(config(&api, &caller, (&model, Some(&version))))
}

fn config(api: &Api, caller: &Caller, (model, version): Named<'_>) -> Result<Vec<u8>, Rejection> {
    api.authorize_reading_of(caller, model)?;
    let snapshot = api.pipeline.snapshots.load();
    let served = snapshot.find(model, version)?;
    Ok(proto_json::to_json("ModelConfig", &model_config::of_version(served)))
}

pub(super) async fn statistics_of_all(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    answer(statistics(&api, &caller, ("", None)))
}

pub(super) async fn model_statistics(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names(model): Names<String>,
) -> Response {
    answer(statistics(&api, &caller, (&model, None)))
}

pub(super) async fn version_statistics(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    answer(statistics(&api, &caller, (&model, Some(&version))))
}

fn statistics(
    api: &Api,
    caller: &Caller,
    (model, version): Named<'_>,
) -> Result<Vec<u8>, Rejection> {
    let statistics = api.statistics(caller, model, version)?;
    Ok(proto_json::to_json("ModelStatisticsResponse", &statistics))
}

fn answer(result: Result<Vec<u8>, Rejection>) -> Response {
    match result {
        Ok(body) => respond::json_text(body),
        Err(rejection) => respond::rejection(&rejection),
    }
}
