//! POST /v2/feedback.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use http::header::HeaderMap;
use serde_json::{Value, json};

use super::{body, encoding, respond};
use crate::api::Api;
use crate::api::feedback::MAX_REQUEST;
use crate::api::timeouts::Arrival;
use crate::config::Limits;
use crate::error::{Kind, Rejection};
use crate::feedback::{Intake, MOST, Refusal, Told, Wrong, from_body};
use crate::types::Caller;

/// What JSON takes in memory, as a multiple of its text: values of one digit are the worst.
const TIMES: usize = 16;

/// Takes one feedback or several.
pub(super) async fn tell(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let intake = match api.enter_feedback(caller, &headers).await {
        Ok(intake) => intake,
        Err(rejection) => return respond::rejection_unread(&rejection, &headers),
    };
    let mut permit = match api.pipeline.overload.enter(0) {
        Ok(permit) => permit,
        Err(rejection) => return respond::rejection_unread(&rejection, &headers),
    };
    let limits =
        Limits { max_request: api.limits.max_request.min(MAX_REQUEST), ..api.limits.clone() };
    let arrival = (Arrival::now(), &mut permit);
    let body = match body::read(&headers, body, &limits, arrival).await {
        Ok(body) => body,
        Err(error) => return error.response(),
    };
    let decoded = encoding::decode(&headers, body, &limits).and_then(|body| {
        permit.cover(body.len() * TIMES)?;
        serde_json::from_slice::<Value>(&body)
            .map_err(|error| Rejection::invalid(format!("the body is not valid JSON: {error}")))
    });
    let count = decoded.as_ref().map_or(1, count);
    let told = match decoded {
        Ok(_) if count > MOST => {
            let text = format!("more than {MOST} in one request: send them in parts");
            Err(Refusal::Rejected(Rejection::new(Kind::TooLarge, text)))
        }
        Ok(body) => from_body(body).map_err(Refusal::Wrong),
        Err(rejection) => Err(Refusal::Rejected(rejection)),
    };
    match told {
        Ok(told) => answer(intake, told).await,
        Err(refusal) => {
            intake.refused(count);
            refused(&refusal)
        }
    }
}

/// Feedback in a body, as far as its form tells.
fn count(body: &Value) -> usize {
    body.get("feedback").and_then(Value::as_array).map_or(1, Vec::len)
}

async fn answer(intake: &Intake, told: Vec<Told>) -> Response {
    match intake.take(told).await {
        Ok(settled) => {
            let line = |id: &str, outcome: &str| json!({ "id": id, "outcome": outcome });
            let results: Vec<_> =
                settled.iter().map(|one| line(&one.id, one.outcome.word())).collect();
            respond::json(&json!({ "results": results }))
        }
        Err(refusal) => refused(&refusal),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let rejection = refusal.rejection();
    let Refusal::Wrong(all) = refusal else { return respond::rejection(&rejection) };
    let problem = |Wrong { index, field, text }: &Wrong| json!({ "index": index, "field": field, "problem": text });
    let problems: Vec<_> = all.iter().map(problem).collect();
    let body = json!({ "error": rejection.public_message(), "problems": problems });
    super::refuse_with(&rejection, &body)
}
