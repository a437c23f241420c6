//! Stands between the routes and what serves them for as long as nothing does: routes are refused.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use serde_json::Value;

use crate::api::admin::arms::{Arms, Standing};
use crate::config::Problem;
use crate::control::{Control, Pins};
use crate::routing::RoutePlan;
use crate::traffic::{Incoming, Target};

/// Serves no route.
#[derive(Debug)]
pub(super) struct Unrouted {
    pub(super) control: Arc<Control>,
}

impl Target for Unrouted {
    fn prepare<'a>(&'a self, incoming: &'a [Incoming]) -> BoxFuture<'a, Result<(), Vec<Problem>>> {
        let refused = |coming: &Incoming| {
            Problem::new(format!("route[{}]", coming.plan.route.name), "routes are not served")
        };
        let problems: Vec<Problem> = incoming.iter().map(refused).collect();
        ready(if problems.is_empty() { Ok(()) } else { Err(problems) }).boxed()
    }

    fn needs_load(&self, _: &[Incoming]) -> Vec<String> {
        Vec::new()
    }

    fn commit(&self, _: u64, _: &[Arc<RoutePlan>]) {}

    fn pin(&self, pins: Pins) {
        self.control.pin(pins);
    }
}

impl Arms for Unrouted {
    fn standing(&self, plan: &RoutePlan) -> Vec<Standing> {
        let standing = Standing { state: "not_ready", requests: 0, fallbacks: 0 };
        vec![standing; plan.route.arms.len()]
    }

    fn reports(&self, _: &RoutePlan) -> Vec<Value> {
        Vec::new()
    }

    fn reset_reports(&self, _: &RoutePlan) {}

    fn upstreams(&self) -> Vec<Value> {
        Vec::new()
    }
}
