//! Health, metadata, configuration and statistics over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use http::StatusCode;
use serde_json::{Value, json};

use super::path::Names;
use super::respond;
use crate::api::{Api, EXTENSIONS, SERVER_NAME, proto_json};
use crate::error::{Kind, Rejection};
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

/// The model or route that a request names, and the version or arm if it names one.
type Named<'r> = (&'r str, Option<&'r str>);

fn readiness(api: &Api, caller: &Caller, (model, version): Named<'_>) -> Response {
    if let Err(rejection) = api.authorize_reading_of(caller, model) {
        return respond::rejection(&rejection);
    }
    let snapshot = api.pipeline.snapshots.load();
    if let Err(rejection) = snapshot.named(model, version)
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

pub(super) async fn models(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let Err(rejection) = api.authorize_reading(&caller) {
        return respond::rejection(&rejection);
    }
    let snapshot = api.pipeline.snapshots.load();
    let names = snapshot.callable().into_iter();
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
    let described = api.describe(model, version)?;
    let signature = &described.signature;
    let spec = |spec: &engine::TensorSpec| json!({ "name": spec.name, "datatype": spec.datatype.name(), "shape": spec.shape });
    let body = json!({
        "name": described.name,
        "versions": described.versions,
        "platform": described.platform(),
        "inputs": signature.inputs.iter().map(spec).collect::<Vec<_>>(),
        "outputs": signature.outputs.iter().map(|o| spec(&o.spec)).collect::<Vec<_>>(),
        "properties": described.properties().into_iter().collect::<BTreeMap<_, _>>(),
    });
    Ok(body.to_string().into_bytes())
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
    let described = api.describe(model, version)?;
    Ok(proto_json::to_json("ModelConfig", &described.config()))
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
