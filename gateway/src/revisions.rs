//! The state folder: numbered revisions of the routes, and who changed what.
//!
//! A revision is written once, whole, and never changed. What counts is the newest whole one: its
//! number decides and not its time, since clocks go backwards. This module keeps revisions and
//! knows nothing of how they come about (`traffic`).

mod audit;
mod file;
mod store;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::config::Route;
use crate::routing::RoutePlan;
use crate::types::ModelName;

pub use audit::{Audit, Entry, Event};
pub use store::{Draft, Store};

#[cfg(test)]
pub(crate) use store::{Fault, Step};

/// The routes as they took effect at some time, and why. Immutable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// From 1, growing; a number is never used twice, but some may be missing.
    pub number: u64,
    /// When it was written, by the wall clock, in milliseconds since 1970.
    pub at: u64,
    pub author: String,
    pub reason: String,
    pub cause: Cause,
    /// The configuration file that was in force.
    pub config_hash: String,
    /// Every route, in the order of names.
    #[serde(with = "plans")]
    pub plans: Vec<Arc<RoutePlan>>,
    pub overlay: Overlay,
    /// What changed against the revision before, in words.
    pub diff: Vec<String>,
}

/// What was changed by hand, by route. A route that has an entry here and no plan was removed.
pub type Overlay = BTreeMap<ModelName, OverlayEntry>;

/// That a route is held by hand, and against which definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OverlayEntry {
    /// The route as the file had it then; `None`: the file had no such route. When the file says
    /// otherwise, the entry ends. The definition itself and no hash of it: a hash would change
    /// with every new field of a route, and drop what was set by hand at an upgrade.
    pub file: Option<Route>,
}

/// Why a revision was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The gateway started with a file that differs from the one before.
    Start,
    /// The file changed.
    File,
    /// Shares of a route were set.
    Set { route: ModelName },
    /// A route was given back to the file.
    OverlayDropped { route: ModelName },
    /// The routes of an earlier revision came back.
    Rollback { to: u64 },
}

/// A revision without its routes, for lists.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    pub number: u64,
    /// Milliseconds since 1970.
    pub at: u64,
    pub author: String,
    pub reason: String,
    pub cause: Cause,
    pub config_hash: String,
    pub routes: usize,
    pub diff: Vec<String>,
}

impl Revision {
    /// The revision without its routes.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            number: self.number,
            at: self.at,
            author: self.author.clone(),
            reason: self.reason.clone(),
            cause: self.cause.clone(),
            config_hash: self.config_hash.clone(),
            routes: self.plans.len(),
            diff: self.diff.clone(),
        }
    }

    /// The plan of one route.
    #[must_use]
    pub fn plan(&self, route: &str) -> Option<&Arc<RoutePlan>> {
        let found = self.plans.binary_search_by(|plan| plan.route.name.as_str().cmp(route));
        found.ok().and_then(|index| self.plans.get(index))
    }
}

/// Plans are shared between revisions in memory, and written out in each file.
mod plans {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::routing::RoutePlan;

    pub(super) fn serialize<S: Serializer>(
        plans: &[Arc<RoutePlan>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(plans.iter().map(AsRef::as_ref))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Arc<RoutePlan>>, D::Error> {
        Ok(Vec::<RoutePlan>::deserialize(from)?.into_iter().map(Arc::new).collect())
    }
}

#[cfg(test)]
mod tests;
