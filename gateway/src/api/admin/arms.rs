//! How what the routes lead to stands.

use serde_json::{Value, json};

use crate::api::Api;
use crate::routing::RoutePlan;
use crate::snapshot::{Arm, Shadow};

/// How the arms of a route stand, in its order, and what they were asked for since the start.
/// Those of a route that is not in force yet stand empty.
pub(super) fn standing(api: &Api, plan: &RoutePlan) -> Vec<Value> {
    let snapshot = api.pipeline.snapshots.load();
    let route = snapshot.route(plan.route.name.as_str());
    let shown = |arm: &Arm| {
        let (state, reason) = arm.seat.state();
        let (requests, fallbacks) = arm.metrics.counts();
        json!({ "state": state, "reason": reason, "requests": requests, "fallbacks": fallbacks })
    };
    let nothing = || {
        let reason = "the route is not in force yet";
        json!({ "state": "not_ready", "reason": reason, "requests": 0, "fallbacks": 0 })
    };
    let arms = plan.route.arms.iter();
    arms.map(|planned| {
        let arm = route.and_then(|route| route.arms.get(route.arm(planned.name.as_str())?));
        arm.map_or_else(nothing, shown)
    })
    .collect()
}

/// How the shadows of a route stand, in its order.
pub(super) fn shadows(api: &Api, plan: &RoutePlan) -> Vec<&'static str> {
    let snapshot = api.pipeline.snapshots.load();
    let route = snapshot.route(plan.route.name.as_str());
    let shadows = plan.route.shadows.iter();
    shadows
        .map(|planned| {
            let shadow = route.and_then(|route| route.shadow(planned.name.as_str()));
            shadow.map_or("not_ready", |shadow| shadow.seat.state().0)
        })
        .collect()
}

/// What the shadows of a route have seen: a report each, with the shadow's `name`.
pub(super) async fn reports(api: &Api, plan: &RoutePlan) -> Vec<Value> {
    api.pipeline.comparer.flush().await;
    let snapshot = api.pipeline.snapshots.load();
    let Some(route) = snapshot.route(plan.route.name.as_str()) else { return vec![] };
    let report = |shadow: &Shadow| {
        let mut report = serde_json::to_value(shadow.watch.report()).unwrap_or_default();
        report["name"] = json!(shadow.name);
        report
    };
    route.shadows.iter().map(report).collect()
}

/// Counts anew what the shadows of a route see.
pub(super) async fn reset_reports(api: &Api, plan: &RoutePlan) {
    api.pipeline.comparer.flush().await;
    let snapshot = api.pipeline.snapshots.load();
    if let Some(route) = snapshot.route(plan.route.name.as_str()) {
        route.shadows.iter().for_each(|shadow| shadow.watch.reset());
    }
}
