//! Revisions of the routes for operators: what was in force when, who changed it, and the way
//! back.

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::desk::{self, Desk};
use super::intake::{Note, Query};
use super::routes::written;
use crate::api::rest::{self, Names};
use crate::error::{Kind, Rejection};
use crate::types::Caller;

/// Revisions that are listed without a wish.
const SOME: usize = 20;
/// Revisions that one answer lists at most.
const MOST: usize = 1000;

pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/v1/revisions", get(list))
        .route("/v1/revisions/{revision}", get(one))
        .route("/v1/rollback", post(rollback))
}

/// The newest first.
async fn list(State(desk): State<Desk>, RawQuery(query): RawQuery) -> Response {
    let limit =
        Query::read(query.as_deref(), &["limit"]).and_then(|query| query.get::<usize>("limit"));
    match limit {
        Ok(limit) => rest::answer(&json!({
            "revision": desk.operations.effective().revision,
            "revisions": desk.operations.revisions(limit.unwrap_or(SOME).min(MOST)),
        })),
        Err(rejection) => rest::refuse(&rejection),
    }
}

async fn one(State(desk): State<Desk>, Names(number): Names<String>) -> Response {
    let found = number.parse().ok().and_then(|number| desk.operations.revision(number));
    let Some((revision, plans)) = found else {
        let shown: String = number.chars().take(20).collect();
        let text = format!("there is no revision {shown}, or it is no longer kept");
        return rest::refuse(&Rejection::new(Kind::NotFound, text));
    };
    let mut shown = json!(revision);
    shown["routes"] = plans.iter().map(|plan| written(plan)).collect::<Vec<Value>>().into();
    rest::answer(&shown)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rollback {
    to: Option<u64>,
    expect_revision: Option<u64>,
    author: Option<Note>,
    reason: Option<Note>,
}

async fn rollback(
    State(desk): State<Desk>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let wanted: Rollback = match desk.json(body).await {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    let edit = desk::edit(&caller, (wanted.author, wanted.reason), wanted.expect_revision);
    desk::answer(desk.operations.rollback(wanted.to, edit).await)
}
