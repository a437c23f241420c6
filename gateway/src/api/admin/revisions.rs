//! Revisions of the routes for operators: what was in force when, who changed it, and the way
//! back.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::changes;
use super::intake::{self, Note, Query};
use super::routes::written;
use crate::api::Api;
use crate::api::rest::{self, Names};
use crate::error::{Kind, Rejection};
use crate::revisions::{Cause, Summary};
use crate::types::Caller;

/// Revisions that are listed without a wish.
const SOME: usize = 20;
/// Revisions that one answer lists at most.
const MOST: usize = 1000;
/// The last millisecond of the year 9999, since 1970.
const LAST: Duration = Duration::from_millis(253_402_300_799_999);

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/revisions", get(list))
        .route("/v1/revisions/{revision}", get(one))
        .route("/v1/rollback", post(rollback))
}

/// The newest first.
async fn list(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> Response {
    let limit =
        Query::read(query.as_deref(), &["limit"]).and_then(|query| query.get::<usize>("limit"));
    let limit = match limit {
        Ok(limit) => limit.unwrap_or(SOME).min(MOST),
        Err(rejection) => return rest::refuse(&rejection),
    };
    let revisions = match api.traffic.revisions(limit).await {
        Ok(revisions) => revisions,
        Err(rejection) => return rest::refuse(&rejection),
    };
    rest::answer(&json!({
        "revision": api.traffic.current().number,
        "revisions": revisions.iter().map(summary).collect::<Vec<Value>>(),
    }))
}

async fn one(State(api): State<Arc<Api>>, Names(number): Names<String>) -> Response {
    let found = match number.parse::<u64>() {
        Ok(number) => api.traffic.revision(number).await,
        Err(_) => Ok(None),
    };
    let found = match found {
        Ok(found) => found,
        Err(rejection) => return rest::refuse(&rejection),
    };
    let Some(revision) = found else {
        let shown: String = number.chars().take(20).collect();
        let text = format!("there is no revision {shown}, or it is no longer kept");
        return rest::refuse(&Rejection::new(Kind::NotFound, text));
    };
    let mut shown = summary(&revision.summary());
    shown["routes"] = revision.plans.iter().map(|plan| written(plan)).collect();
    rest::answer(&shown)
}

/// A revision without its routes.
fn summary(revision: &Summary) -> Value {
    let cause = match revision.cause {
        Cause::Start => "start",
        Cause::File => "file",
        Cause::Set { .. } => "set",
        Cause::OverlayDropped { .. } => "reset",
        Cause::Rollback { .. } => "rollback",
    };
    // A clock may have said anything; no later time has a text.
    let time = UNIX_EPOCH + Duration::from_millis(revision.at).min(LAST);
    json!({
        "revision": revision.number,
        "time": humantime::format_rfc3339_millis(time).to_string(),
        "author": revision.author,
        "reason": revision.reason,
        "cause": cause,
        "config_hash": revision.config_hash,
        "diff": revision.diff,
    })
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
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let wanted: Rollback = match intake::json(body, api.limits.body_timeout).await {
        Ok(wanted) => wanted,
        Err(response) => return response,
    };
    let by = changes::by(&caller, (wanted.author, wanted.reason), wanted.expect_revision);
    changes::answer(api.traffic.rollback(wanted.to, by.clone()).await, by)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_far_off_is_shown_as_far_as_there_are_dates() {
        let mut revision = Summary {
            number: 1,
            at: u64::MAX,
            author: String::new(),
            reason: String::new(),
            cause: Cause::Start,
            config_hash: String::new(),
            routes: 0,
            diff: vec![],
        };
        assert_eq!(summary(&revision)["time"], "9999-12-31T23:59:59.999Z");
        revision.at = 0;
        assert_eq!(summary(&revision)["time"], "1970-01-01T00:00:00.000Z");
    }
}
