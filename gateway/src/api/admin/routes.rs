//! Routes for operators: which arm has which share and how it stands, and giving arms others.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{delete, get};
use axum::{Extension, Router};
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::desk::{self, Desk};
use super::intake::{Note, Query};
use super::operations::{Effective, Operations};
use crate::api::rest::{self, Names};
use crate::config::{Fallback, Route, Sticky, Target, VersionChoice};
use crate::error::{Kind, Rejection};
use crate::routing::RoutePlan;
use crate::types::{ArmName, Caller, Share};

pub(super) fn routes() -> Router<Desk> {
    Router::new()
        .route("/v1/routes", get(list))
        .route("/v1/routes/{route}", get(one).patch(set))
        .route("/v1/routes/{route}/report", get(report).delete(reset_report))
        .route("/v1/routes/{route}/overlay", delete(reset))
}

async fn list(State(desk): State<Desk>) -> Response {
    let effective = desk.operations.effective();
    let shown = |plan: &Arc<RoutePlan>| describe(plan, &effective, desk.operations.as_ref());
    let routes: Vec<Value> = effective.routes.iter().map(shown).collect();
    rest::answer(&json!({
        "revision": effective.revision,
        "overlay": effective.overlay,
        "routes": routes,
    }))
}

async fn one(State(desk): State<Desk>, Names(route): Names<String>) -> Response {
    let effective = desk.operations.effective();
    match effective.routes.iter().find(|plan| plan.route.name.as_str() == route) {
        Some(plan) => rest::answer(&describe(plan, &effective, desk.operations.as_ref())),
        None => rest::refuse(&unknown(&route)),
    }
}

/// New shares by arm; JSON lets a key stand twice, a change does not.
#[derive(Debug)]
struct Shares(BTreeMap<ArmName, Share>);

impl<'de> Deserialize<'de> for Shares {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;

        impl<'de> Visitor<'de> for Pairs {
            type Value = Shares;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("shares by the names of arms")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut pairs: M) -> Result<Shares, M::Error> {
                let mut shares = BTreeMap::new();
                while let Some((arm, share)) = pairs.next_entry::<ArmName, Share>()? {
                    if shares.contains_key(&arm) {
                        return Err(de::Error::custom(format!("names '{arm}' twice")));
                    }
                    shares.insert(arm, share);
                }
                if shares.is_empty() {
                    return Err(de::Error::custom("names no arm"));
                }
                Ok(Shares(shares))
            }
        }

        from.deserialize_map(Pairs)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    shares: Shares,
    expect_revision: Option<u64>,
    author: Option<Note>,
    reason: Option<Note>,
}

async fn set(
    State(desk): State<Desk>,
    Names(route): Names<String>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let change: Change = match desk.json(body).await {
        Ok(change) => change,
        Err(response) => return response,
    };
    let shares = change.shares.0;
    let edit = desk::edit(&caller, (change.author, change.reason), change.expect_revision);
    desk::answer(desk.operations.set(&route, &shares, edit).await)
}

/// Back to the file.
async fn reset(
    State(desk): State<Desk>,
    Names(route): Names<String>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Response {
    let read = || {
        let query = Query::read(query.as_deref(), &["expect_revision", "author", "reason"])?;
        let notes = (query.get("author")?, query.get("reason")?);
        Ok::<_, Rejection>((notes, query.get("expect_revision")?))
    };
    let edit = match read() {
        Ok((notes, expect)) => desk::edit(&caller, notes, expect),
        Err(rejection) => return rest::refuse(&rejection),
    };
    desk::answer(desk.operations.reset(&route, edit).await)
}

async fn report(State(desk): State<Desk>, Names(route): Names<String>) -> Response {
    match desk.operations.report(&route) {
        Ok(report) => rest::answer(&report),
        Err(rejection) => rest::refuse(&rejection),
    }
}

async fn reset_report(State(desk): State<Desk>, Names(route): Names<String>) -> Response {
    match desk.operations.reset_report(&route) {
        Ok(()) => rest::answer(&json!({ "route": route, "reset": true })),
        Err(rejection) => rest::refuse(&rejection),
    }
}

/// The refusal for a route that is not there.
pub(super) fn unknown(route: &str) -> Rejection {
    let shown: String = route.chars().take(128).collect();
    Rejection::new(Kind::NotFound, format!("there is no route '{shown}'"))
}

fn describe(plan: &RoutePlan, effective: &Effective, operations: &dyn Operations) -> Value {
    let mut shown = written(plan);
    shown["revision"] = effective.revision.into();
    for (index, standing) in operations.standing(plan).iter().enumerate() {
        let arm = &mut shown["arms"][index];
        arm["state"] = standing.state.into();
        arm["requests"] = standing.requests.into();
        arm["fallbacks"] = standing.fallbacks.into();
    }
    shown
}

/// A route as it was or is decided, without how it stands.
pub(super) fn written(plan: &RoutePlan) -> Value {
    let route: &Route = &plan.route;
    let arms: Vec<Value> = route
        .arms
        .iter()
        .zip(&plan.ranges)
        .map(|(arm, ranges)| {
            json!({
                "name": arm.name,
                "target": target(&arm.target),
                "share": arm.share,
                "buckets": ranges,
            })
        })
        .collect();
    let shadows: Vec<Value> = route
        .shadows
        .iter()
        .map(|shadow| {
            json!({
                "name": shadow.name,
                "target": target(&shadow.target),
                "sample": shadow.sample,
            })
        })
        .collect();
    json!({
        "name": route.name,
        "sticky": sticky(&route.sticky),
        "salt": route.salt,
        "fallback": match &route.fallback {
            Fallback::Refuse => "refuse",
            Fallback::Arm(arm) => arm.as_str(),
            Fallback::Static(_) => "static",
        },
        "source": plan.source,
        "arms": arms,
        "shadows": shadows,
    })
}

/// As the file has it.
fn sticky(sticky: &Sticky) -> String {
    match sticky {
        Sticky::Off => "off".to_owned(),
        Sticky::Header(name) => format!("header:{name}"),
        Sticky::Parameter(name) => format!("parameter:{name}"),
        Sticky::Identity => "identity".to_owned(),
    }
}

fn target(target: &Target) -> Value {
    match target {
        Target::Local { model, version } => {
            let version = match version {
                VersionChoice::Latest => "latest".to_owned(),
                VersionChoice::Number(number) => number.to_string(),
                VersionChoice::Label(label) => label.clone(),
            };
            json!({ "model": model, "version": version })
        }
        Target::Upstream { upstream, model, version } => {
            json!({ "upstream": upstream, "model": model, "version": version })
        }
    }
}
