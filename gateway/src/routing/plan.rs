//! A route with the buckets of its arms, as it takes effect.

use serde::{Deserialize, Serialize};

use super::Ranges;
use crate::config::{Route, Target};
use crate::types::ModelName;

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

impl RoutePlan {
    /// Whether an arm or a shadow is a version of this model.
    #[must_use]
    pub fn names_model(&self, name: &ModelName) -> bool {
        let arms = self.route.arms.iter().map(|arm| &arm.target);
        let mut targets = arms.chain(self.route.shadows.iter().map(|shadow| &shadow.target));
        targets.any(|target| matches!(target, Target::Local { model, .. } if model == name))
    }
}
