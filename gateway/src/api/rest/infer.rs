//! POST …/infer.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request, State};
use bytes::Bytes;
use http::HeaderMap;

use super::path::Names;
use super::payload::Payload;
use super::response::Wanted;
use super::{body, encoding, request, respond};
use crate::api::timeouts::{Arrival, Timeouts};
use crate::api::{Api, parameters};
use crate::error::Rejection;
use crate::limits::Limiter;
use crate::types::{Call, Caller, Protocol};

type Response = http::Response<Payload>;

pub(super) async fn model(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names(model): Names<String>,
    request: Request,
) -> axum::response::Response {
    let (mut head, body) = request.into_parts();
    answer(&api, caller, (&model, None), (&mut head.headers, body)).await.map(Body::new)
}

pub(super) async fn version(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    Names((model, version)): Names<(String, String)>,
    request: Request,
) -> axum::response::Response {
    let (mut head, body) = request.into_parts();
    let named = (model.as_str(), Some(version.as_str()));
    answer(&api, caller, named, (&mut head.headers, body)).await.map(Body::new)
}

/// Answers a prediction for a model and, if one is named, its version. Takes the headers.
pub(super) async fn answer<B>(
    api: &Api,
    mut caller: Caller,
    (model, version): (&str, Option<&str>),
    (given, body): (&mut HeaderMap, B),
) -> Response
where
    B: http_body::Body<Data = Bytes> + Unpin,
    B::Error: Into<axum::BoxError>,
{
    let headers = &*given;
    if let Err(rejection) = api.authorize_call(&caller, model) {
        api.pipeline.refused_early(Protocol::Http, rejection.kind());
        return respond::rejection_unread(&rejection, headers).map(Payload::Routed);
    }
    let arrival = match Timeouts::over_http(headers) {
        Ok(timeouts) => Arrival::now().within(timeouts.own),
        Err(rejection) => {
            api.pipeline.refused_early(Protocol::Http, rejection.kind());
            return respond::rejection_unread(&rejection, headers).map(Payload::Routed);
        }
    };
    let declared = body::declared(headers).min(api.limits.max_request);
    // First what costs the caller nothing of its limits.
    let mut permit = match api.pipeline.overload.enter(declared) {
        Ok(permit) => permit,
        Err(rejection) => {
            api.pipeline.refused_early(Protocol::Http, rejection.kind());
            return respond::rejection_unread(&rejection, headers).map(Payload::Routed);
        }
    };
    // The limits that the call meets to its end.
    let limiter = api.pipeline.snapshots.limiter();
    limiter.mark(&mut caller, headers);
    if let Err(rejection) = api.pipeline.limit(Protocol::Http, &limiter, &caller).await {
        return respond::rejection_unread(&rejection, headers).map(Payload::Routed);
    }
    let body = match body::read(headers, body, &api.limits, (arrival, &mut permit)).await {
        Ok(body) => body,
        Err(error) => {
            api.pipeline.refused_early(Protocol::Http, error.kind());
            return error.response().map(Payload::Routed);
        }
    };
    let decoded = arrival
        .check()
        .and_then(|()| encoding::decode(headers, body, &api.limits))
        // What was compressed is larger now.
        .and_then(|body| permit.cover(body.len()).map(|()| body))
        .and_then(|body| request::decode(headers, body))
        .and_then(|request| {
            let key = parameters::idempotency_key(api, headers)?;
            Ok(((request.policy.schedule(arrival)?, key), request))
        });
    let ((schedule, key), mut decoded) = match decoded {
        Ok(decoded) => decoded,
        Err(rejection) => {
            api.pipeline.refused_early(Protocol::Http, rejection.kind());
            return respond::rejection(&rejection).map(Payload::Routed);
        }
    };
    let coding = encoding::accepted(headers);
    let parameters = std::mem::take(&mut decoded.parameters);
    let is_kept = api.pipeline.log.is_some() && !decoded.id.is_empty();
    let id = is_kept.then(|| decoded.id.as_str().into());
    let (inputs, outputs, wanted) = Wanted::split(decoded, coding);
    let call = Call {
        caller,
        id,
        model: model.to_owned(),
        version: version.map(ToOwned::to_owned),
        inputs,
        outputs,
        schedule,
        key,
        protocol: Protocol::Http,
        arrived: arrival.at,
        headers: Arc::new(std::mem::take(given)),
        parameters,
    };
    match infer(api, call, &limiter, &wanted).await {
        Ok(response) => response,
        Err(rejection) => respond::rejection(&rejection).map(Payload::Routed),
    }
}

async fn infer(
    api: &Api,
    call: Call,
    limiter: &Arc<Limiter>,
    wanted: &Wanted,
) -> Result<Response, Rejection> {
    let reply = api.pipeline.infer(call, limiter).await?;
    match wanted.encode(&reply) {
        Ok(response) => {
            reply.encoded();
            Ok(response)
        }
        Err(rejection) => Err(reply.refuse(rejection)),
    }
}
