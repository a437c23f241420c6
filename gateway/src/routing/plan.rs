//! A route with the buckets of its arms, as it takes effect.

use serde::{Deserialize, Serialize};

use super::Ranges;
use crate::config::Route;

/// A route whose callers have been divided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RoutePlan {
    pub route: Route,
    /// Of each arm, in the route's order.
    pub ranges: Vec<Ranges>,
    pub source: Source,
}

/// Where the shares of a route come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    File,
    /// Changed by hand beside the file.
    Overlay,
}
