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

use super::intake::{self, Note, Query};
use super::{arms, changes};
use crate::api::Api;
use crate::api::rest::{self, Names};
use crate::config::{Route, Target};
use crate::error::{Kind, Rejection};
use crate::routing::RoutePlan;
use crate::types::{ArmName, Caller, ModelName, Share};

pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/v1/routes", get(list))
        .route("/v1/routes/{route}", get(one).patch(set))
        .route("/v1/routes/{route}/report", get(report).delete(reset_report))
        .route("/v1/routes/{route}/overlay", delete(reset))
}

async fn list(State(api): State<Arc<Api>>) -> Response {
    let current = api.traffic.current();
    let shown = |plan: &Arc<RoutePlan>| describe(&api, plan, current.number);
    let routes: Vec<Value> = current.plans.iter().map(shown).collect();
    rest::answer(&json!({
        "revision": current.number,
        "overlay": api.traffic.allows_overlay(),
        "routes": routes,
    }))
}

async fn one(State(api): State<Arc<Api>>, Names(route): Names<String>) -> Response {
    let current = api.traffic.current();
    match current.plan(&route) {
        Some(plan) => rest::answer(&describe(&api, plan, current.number)),
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
    State(api): State<Arc<Api>>,
    Names(route): Names<String>,
    Extension(caller): Extension<Caller>,
    body: Body,
) -> Response {
    let change: Change = match intake::json(body, api.limits.body_timeout).await {
        Ok(change) => change,
        Err(response) => return response,
    };
    let Ok(name) = route.parse::<ModelName>() else { return rest::refuse(&unknown(&route)) };
    let by = changes::by(&caller, (change.author, change.reason), change.expect_revision);
    changes::answer(api.traffic.set(name, change.shares.0, by.clone()).await, by)
}

/// Back to the file.
async fn reset(
    State(api): State<Arc<Api>>,
    Names(route): Names<String>,
    Extension(caller): Extension<Caller>,
    RawQuery(query): RawQuery,
) -> Response {
    let read = || {
        let query = Query::read(query.as_deref(), &["expect_revision", "author", "reason"])?;
        let notes = (query.get("author")?, query.get("reason")?);
        Ok::<_, Rejection>((notes, query.get("expect_revision")?))
    };
    let by = match read() {
        Ok((notes, expect)) => changes::by(&caller, notes, expect),
        Err(rejection) => return rest::refuse(&rejection),
    };
    let Ok(name) = route.parse::<ModelName>() else { return rest::refuse(&unknown(&route)) };
    changes::answer(api.traffic.drop_overlay(name, by.clone()).await, by)
}

async fn report(State(api): State<Arc<Api>>, Names(route): Names<String>) -> Response {
    match api.traffic.current().plan(&route) {
        Some(plan) => {
            let shadows = arms::reports(&api, plan).await;
            rest::answer(&json!({ "route": route, "shadows": shadows }))
        }
        None => rest::refuse(&unknown(&route)),
    }
}

async fn reset_report(State(api): State<Arc<Api>>, Names(route): Names<String>) -> Response {
    match api.traffic.current().plan(&route) {
        Some(plan) => {
            arms::reset_reports(&api, plan).await;
            rest::answer(&json!({ "route": route, "reset": true }))
        }
        None => rest::refuse(&unknown(&route)),
    }
}

/// The refusal for a route that is not there.
fn unknown(route: &str) -> Rejection {
    let shown: String = route.chars().take(128).collect();
    Rejection::new(Kind::NotFound, format!("there is no route '{shown}'"))
}

fn describe(api: &Api, plan: &RoutePlan, revision: u64) -> Value {
    let mut shown = written(plan);
    shown["revision"] = revision.into();
    for (index, standing) in arms::standing(api, plan).into_iter().enumerate() {
        if let (Value::Object(arm), Value::Object(standing)) = (&mut shown["arms"][index], standing)
        {
            arm.extend(standing);
        }
    }
    for (index, state) in arms::shadows(api, plan).into_iter().enumerate() {
        shown["shadows"][index]["state"] = state.into();
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
        "sticky": route.sticky.text(),
        "salt": route.salt,
        "fallback": route.fallback.text(),
        "source": plan.source,
        "arms": arms,
        "shadows": shadows,
    })
}

fn target(target: &Target) -> Value {
    match target {
        Target::Local { model, version } => {
            json!({ "model": model, "version": version.to_string() })
        }
        Target::Upstream { upstream, model, version } => {
            json!({ "upstream": upstream, "model": model, "version": version })
        }
    }
}
