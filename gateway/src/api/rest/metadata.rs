//! Health, metadata, configuration and statistics over HTTP.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::path::Names;
use super::respond;
use crate::api::{Api, EXTENSIONS, SERVER_NAME, model_config, proto_json};
use crate::error::{Kind, Rejection};
use crate::models::ServedVersion;
use crate::types::ModelName;

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
    Names(model): Names<String>,
) -> Response {
    readiness(&api, &model, None)
}

pub(super) async fn version_ready(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    readiness(&api, &model, Some(&version))
}

fn readiness(api: &Api, model: &str, version: Option<&str>) -> Response {
    let snapshot = api.pipeline.snapshots.load();
    if let Err(rejection) = snapshot.find(model, version)
        && rejection.kind() == Kind::NotFound
    {
        return respond::rejection(&rejection);
    }
    let ready = api.is_model_ready(model, version);
    state(ready, json!({ "name": model, "ready": ready }))
}

fn state(good: bool, body: Value) -> Response {
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    respond::with_status(status, body.to_string().into_bytes())
}

pub(super) async fn models(State(api): State<Arc<Api>>) -> Response {
    let snapshot = api.pipeline.snapshots.load();
    let ready = snapshot.models().into_iter().filter(|(_, model)| !model.ready.is_empty());
    let names: Vec<_> = ready.map(|(name, _)| name.as_str()).collect();
    respond::json(&json!({ "models": names }))
}

pub(super) async fn model(State(api): State<Arc<Api>>, Names(model): Names<String>) -> Response {
    answer(metadata(&api, &model, None))
}

pub(super) async fn version(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    answer(metadata(&api, &model, Some(&version)))
}

fn metadata(api: &Api, model: &str, version: Option<&str>) -> Result<Vec<u8>, Rejection> {
    let snapshot = api.pipeline.snapshots.load();
    let served = snapshot.find(model, version)?;
    let all = snapshot.model(model).ok_or_else(|| ModelName::unknown(model))?;
    let versions: Vec<String> = all.ready.keys().map(ToString::to_string).collect();
    let signature = served.signature();
    let spec = |spec: &engine::TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape });
    let body = json!({
        "name": model,
        "versions": versions,
        "platform": model_config::platform(&served.manifest),
        "inputs": signature.inputs.iter().map(spec).collect::<Vec<_>>(),
        "outputs": signature.outputs.iter().map(|o| spec(&o.spec)).collect::<Vec<_>>(),
        "properties": properties(served),
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
    Names(model): Names<String>,
) -> Response {
    answer(config(&api, &model, None))
}

pub(super) async fn version_config(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    answer(config(&api, &model, Some(&version)))
}

fn config(api: &Api, model: &str, version: Option<&str>) -> Result<Vec<u8>, Rejection> {
    let snapshot = api.pipeline.snapshots.load();
    let served = snapshot.find(model, version)?;
    Ok(proto_json::to_json("ModelConfig", &model_config::of_version(served)))
}

pub(super) async fn statistics_of_all(State(api): State<Arc<Api>>) -> Response {
    answer(statistics(&api, "", None))
}

pub(super) async fn model_statistics(
    State(api): State<Arc<Api>>,
    Names(model): Names<String>,
) -> Response {
    answer(statistics(&api, &model, None))
}

pub(super) async fn version_statistics(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
) -> Response {
    answer(statistics(&api, &model, Some(&version)))
}

fn statistics(api: &Api, model: &str, version: Option<&str>) -> Result<Vec<u8>, Rejection> {
    let statistics = api.statistics(model, version)?;
    Ok(proto_json::to_json("ModelStatisticsResponse", &statistics))
}

fn answer(result: Result<Vec<u8>, Rejection>) -> Response {
    match result {
        Ok(body) => respond::json_text(body),
        Err(rejection) => respond::rejection(&rejection),
    }
}
