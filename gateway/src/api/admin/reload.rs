//! The configuration file for operators: reading it again, and what another one would change.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::json;

use super::audit::{Audited, Deed};
use super::changes;
use super::intake::{self, Note};
use crate::api::{Api, rest};
use crate::error::{Kind, Rejection};
use crate::reload::{Asked, Reloader};
use crate::types::Caller;

pub(super) fn routes() -> Router<Arc<Api>> {
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
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let wanted: Reload = match intake::json(body, api.limits.body_timeout).await {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    let reloader = match reloader(&api) {
        Ok(reloader) => reloader,
        Err(rejection) => return rest::refuse(&rejection),
    };
    let by = changes::by(&caller, (wanted.author, wanted.reason), None);
    let reason = Some(by.reason.clone()).filter(|reason| !reason.is_empty());
    let asked = Asked { author: by.author.clone(), from: by.from.clone(), reason };
    let result = reloader.reload(&asked).await;
    // What was applied or refused is in the log already, as it is when nobody asks.
    let is_unchanged = result.as_ref().is_ok_and(|done| !done.changed);
    let mut response = match result {
        Ok(done) => rest::answer(&json!({
            "revision": done.revision,
            "changed": done.changed,
            "diff": done.diff,
        })),
        Err(problems) => changes::refuse_file(&problems),
    };
    if is_unchanged {
        return Deed { what: None, author: Some(by.author), reason: Some(by.reason) }
            .attach(response);
    }
    response.extensions_mut().insert(Audited);
    response
}

/// Changes nothing, so that a text with problems is no error of the call.
async fn check(State(api): State<Arc<Api>>, body: Body) -> Response {
    let text = match intake::text(body, api.limits.body_timeout).await {
        Ok(text) => text,
        Err(response) => return response,
    };
    let preview = match reloader(&api) {
        Ok(reloader) => reloader.preview(&text).await,
        Err(rejection) => return rest::refuse(&rejection),
    };
    rest::answer(&json!({
        "problems": changes::problems(&preview.problems),
        "diff": preview.diff,
        "needs_restart": preview.needs_restart,
    }))
}

fn reloader(api: &Api) -> Result<&Reloader, Rejection> {
    api.reloader.as_deref().ok_or_else(|| {
        let text = "there is no configuration file: the gateway was started on a folder";
        Rejection::new(Kind::Unsupported, text)
    })
}
