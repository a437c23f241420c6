//! The configuration file for operators: reading it again, and what another one would change.

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::json;

use super::desk::{self, Desk};
use super::intake::Note;
use crate::api::rest;
use crate::types::Caller;

pub(super) fn routes() -> Router<Desk> {
    Router::new().route("/v1/reload", post(reload)).route("/v1/check", post(check))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reload {
    author: Option<Note>,
    reason: Option<Note>,
}

/// All of the file or nothing.
async fn reload(
    State(desk): State<Desk>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let wanted: Reload = match desk.json(body).await {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    let edit = desk::edit(&caller, (wanted.author, wanted.reason), None);
    desk::answer(desk.operations.reload(edit).await)
}

/// Changes nothing, so that a text with problems is no error of the call.
async fn check(State(desk): State<Desk>, body: Body) -> Response {
    let text = match desk.text(body).await {
        Ok(text) => text,
        Err(response) => return response,
    };
    let preview = desk.operations.preview(text).await;
    rest::answer(&json!({
        "problems": desk::problems(&preview.problems),
        "diff": preview.diff,
        "needs_restart": preview.needs_restart,
    }))
}
