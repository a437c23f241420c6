//! The repository and logging extensions over HTTP.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::HeaderMap;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::path::Names;
use super::{body, encoding, respond};
use crate::api::Api;
use crate::api::load_call::LoadParameter;
use crate::api::timeouts::Arrival;
use crate::error::{Kind, Rejection};
use crate::overload::Permit;
use crate::telemetry::logging::{self, Settings};
use crate::types::{Caller, Role, Version};

#[derive(Default, Deserialize)]
struct IndexBody {
    #[serde(default)]
    ready: bool,
}

pub(super) async fn index(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(rejection) = api.authorize_reading(&caller) {
        return respond::rejection(&rejection);
    }
    let body: IndexBody = match read(&api, &headers, body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let lines: Vec<Value> = api
        .control
        .index(body.ready)
        .into_iter()
        .filter(|entry| caller.identity.may_call(entry.name.as_str()))
        .map(|entry| {
            let mut line = Map::new();
            line.insert("name".into(), entry.name.as_str().into());
            if let Some(version) = entry.version {
                line.insert("version".into(), version.to_string().into());
            }
            if let Some(state) = entry.state {
                line.insert("state".into(), state.name().into());
            }
            if !entry.reason.is_empty() {
                line.insert("reason".into(), entry.reason.into());
            }
            Value::Object(line)
        })
        .collect();
    respond::json(&lines)
}

#[derive(Default, Deserialize)]
struct ParametersBody {
    #[serde(default)]
    parameters: Map<String, Value>,
}

pub(super) async fn load_model(
    State(api): State<Arc<Api>>,
    Names(model): Names<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(rejection) = api.authorize_change(&caller, &model) {
        return respond::rejection(&rejection);
    }
    let parameters = match read::<ParametersBody>(&api, &headers, body).await {
        Ok(body) => body.parameters,
        Err(response) => return response,
    };
    finish(load(&api, &caller, (&model, None), parameters).await)
}

pub(super) async fn load_version(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let Err(rejection) = api.authorize_change(&caller, &model) {
        return respond::rejection(&rejection);
    }
    finish(load(&api, &caller, (&model, Some(version)), Map::new()).await)
}

async fn load(
    api: &Arc<Api>,
    caller: &Caller,
    (model, version): (&str, Option<String>),
    parameters: Map<String, Value>,
) -> Result<(), Rejection> {
    let named = version.clone();
    let result = load_allowed(api, caller, (model, version), parameters).await;
    api.audit(caller, ("load", model, named.as_deref()), &result).await;
    result
}

async fn load_allowed(
    api: &Arc<Api>,
    caller: &Caller,
    (model, version): (&str, Option<String>),
    parameters: Map<String, Value>,
) -> Result<(), Rejection> {
    let mut decoded = Vec::with_capacity(parameters.len() + 1);
    for (key, value) in parameters {
        let text = match value {
            Value::String(text) => text,
            _ => return Err(Rejection::invalid(format!("parameter '{key}' must be text"))),
        };
        let value = if key.starts_with("file:") {
            let bytes = STANDARD
                .decode(text)
                .map_err(|_| Rejection::invalid(format!("parameter '{key}' is not base64")))?;
            LoadParameter::Bytes(bytes)
        } else {
            LoadParameter::Text(text)
        };
        decoded.push((key, value));
    }
    decoded.extend(version.map(|version| ("version".to_owned(), LoadParameter::Text(version))));
    api.load(caller, model, decoded).await
}

pub(super) async fn unload_model(
    State(api): State<Arc<Api>>,
    Names(model): Names<String>,
    Extension(caller): Extension<Caller>,
) -> Response {
    finish(unload(&api, &model, None, &caller).await)
}

pub(super) async fn unload_version(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
    Extension(caller): Extension<Caller>,
) -> Response {
    finish(unload(&api, &model, Some(version), &caller).await)
}

async fn unload(
    api: &Api,
    model: &str,
    version: Option<String>,
    caller: &Caller,
) -> Result<(), Rejection> {
    api.authorize_change(caller, model)?;
    let result = match version.as_deref().map(str::parse::<Version>).transpose() {
        Ok(version) => api.control.unload(model, version).await,
        Err(rejection) => Err(rejection),
    };
    api.audit(caller, ("unload", model, version.as_deref()), &result).await;
    result
}

pub(super) async fn log_settings(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
) -> Response {
    if let Err(rejection) = api.authorize_reading(&caller) {
        return respond::rejection(&rejection);
    }
    respond::json(&shown(logging::settings()))
}

pub(super) async fn change_log_settings(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if let Err(rejection) = api.authorize(&caller, Role::Operate) {
        return respond::rejection(&rejection);
    }
    let wanted: Map<String, Value> = match read(&api, &headers, body).await {
        Ok(body) => body,
        Err(response) => return response,
    };
    let mut settings = logging::settings();
    for (key, value) in &wanted {
        if let Err(rejection) = change(&mut settings, key, value) {
            return respond::rejection(&rejection);
        }
    }
    logging::change(settings);
    respond::json(&shown(logging::settings()))
}

fn change(settings: &mut Settings, key: &str, value: &Value) -> Result<(), Rejection> {
    let flag = || {
        value.as_bool().ok_or_else(|| Rejection::invalid(format!("'{key}' must be true or false")))
    };
    match key {
        "log_error" => settings.error = flag()?,
        "log_warning" => settings.warning = flag()?,
        "log_info" => settings.info = flag()?,
        "log_verbose_level" => {
            let level = value.as_u64().and_then(|level| u32::try_from(level).ok());
            settings.verbose = level.ok_or_else(|| {
                Rejection::invalid("'log_verbose_level' must be a whole number from 0 on")
            })?;
        }
        "log_file" | "log_format" => {
            let text = format!("'{key}' is fixed at start: see [log] in the configuration");
            return Err(Rejection::new(Kind::Unsupported, text));
        }
        _ => {
            let shown: String = key.chars().take(80).collect();
            return Err(Rejection::invalid(format!("'{shown}' is not a log setting")));
        }
    }
    Ok(())
}

fn shown(settings: Settings) -> Value {
    json!({
        "log_file": "",
        "log_info": settings.info,
        "log_warning": settings.warning,
        "log_error": settings.error,
        "log_verbose_level": settings.verbose,
        "log_format": "default",
    })
}

fn finish(result: Result<(), Rejection>) -> Response {
    match result {
        Ok(()) => respond::empty(),
        Err(rejection) => respond::rejection(&rejection),
    }
}

/// Reads a JSON body whatever its Content-Type says; an empty one means the defaults.
async fn read<T: DeserializeOwned + Default>(
    api: &Api,
    headers: &HeaderMap,
    body: Body,
) -> Result<T, Response> {
    let body = body::read(headers, body, &api.limits, (Arrival::now(), &mut Permit::default()))
        .await
        .map_err(body::BodyError::response)?;
    let parsed = encoding::decode(headers, body, &api.limits).and_then(|body| {
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(T::default());
        }
        serde_json::from_slice(&body)
            .map_err(|error| Rejection::invalid(format!("the body is not valid: {error}")))
    });
    parsed.map_err(|rejection| respond::rejection(&rejection))
}
