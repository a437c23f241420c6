//! POST …/infer.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use tokio::time::Instant;

use super::path::Names;
use super::response::Wanted;
use super::{body, encoding, request, respond};
use crate::api::Api;
use crate::error::Rejection;
use crate::types::{Call, Protocol, Schedule};

pub(super) async fn model(
    State(api): State<Arc<Api>>,
    Names(model): Names<String>,
    request: Request,
) -> Response {
    answer(&api, model, None, request).await
}

pub(super) async fn version(
    State(api): State<Arc<Api>>,
    Names((model, version)): Names<(String, String)>,
    request: Request,
) -> Response {
    answer(&api, model, Some(version), request).await
}

async fn answer(api: &Api, model: String, version: Option<String>, request: Request) -> Response {
    let arrived = Instant::now();
    let (head, body) = request.into_parts();
    let body = match body::read(&head.headers, body, &api.limits).await {
        Ok(body) => body,
        Err(error) => {
            api.pipeline.undecodable(Protocol::Http, error.kind());
            return error.response();
        }
    };
    let decoded = encoding::decode(&head.headers, body, &api.limits)
        .and_then(|body| request::decode(&head.headers, body));
    let decoded = match decoded {
        Ok(decoded) => decoded,
        Err(rejection) => {
            api.pipeline.undecodable(Protocol::Http, rejection.kind());
            return respond::rejection(&rejection);
        }
    };
    let coding = encoding::accepted(&head.headers);
    let (inputs, outputs, wanted) = Wanted::split(decoded, coding);
    let schedule = Schedule::default();
    let call =
        Call { model, version, inputs, outputs, schedule, protocol: Protocol::Http, arrived };
    match infer(api, call, &wanted).await {
        Ok(response) => response,
        Err(rejection) => respond::rejection(&rejection),
    }
}

async fn infer(api: &Api, call: Call, wanted: &Wanted) -> Result<Response, Rejection> {
    let reply = api.pipeline.infer(call).await?;
    match wanted.encode(&reply) {
        Ok(response) => {
            reply.encoded();
            Ok(response)
        }
        Err(rejection) => Err(reply.refuse(rejection)),
    }
}
