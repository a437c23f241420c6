//! How what the routes lead to stands: asked for by the admin port, known further down.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use crate::routing::RoutePlan;

/// Knows how arms, shadows and upstreams stand.
pub trait Arms: fmt::Debug + Send + Sync {
    /// How the arms of a route stand, in its order.
    fn standing(&self, plan: &RoutePlan) -> Vec<Standing>;

    /// What the shadows of a route have seen: a report each, with the shadow's `name`.
    fn reports(&self, plan: &RoutePlan) -> Vec<Value>;

    /// Counts anew what the shadows of a route see.
    fn reset_reports(&self, plan: &RoutePlan);

    /// The upstreams with their endpoints, each with its `name`.
    fn upstreams(&self) -> Vec<Value>;
}

/// How one arm stands, and what it was asked for since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Standing {
    /// `ready`, or why it does not answer.
    pub state: &'static str,
    /// Calls that were its to answer.
    pub requests: u64,
    /// Those of them that the fallback answered.
    pub fallbacks: u64,
}
