//! A route with the buckets of its arms, as it takes effect.

use serde::{Deserialize, Serialize};

use super::{Ranges, Seed, Table, rebalance};
use crate::config::Route;
use crate::types::ArmName;

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
    /// Divides the callers of a route: by its pinned ranges, or with as few moves from `before`
    /// as its shares demand.
    ///
    /// # Errors
    /// When shares do not add up, pins do not fit them, or only some arms have pins: what the
    /// file cannot say, and a changed share may.
    pub fn new(
        route: Route,
        before: Option<&[(ArmName, Ranges)]>,
        source: Source,
    ) -> Result<Self, String> {
        let arms = &route.arms;
        let divided = if arms.iter().any(|arm| arm.buckets.is_some()) {
            let pinned = arms.iter().map(|arm| {
                let pins = arm.buckets.clone();
                let pins = pins.ok_or_else(|| format!("arm '{}' has no pinned buckets", arm.name));
                let wrong = |text| format!("buckets of arm '{}': {text}", arm.name);
                Ok((arm.name.clone(), Ranges::new(pins?).map_err(wrong)?))
            });
            pinned.collect::<Result<Vec<_>, String>>()?
        } else {
            let shares: Vec<_> = arms.iter().map(|arm| (arm.name.clone(), arm.share)).collect();
            rebalance(before.unwrap_or_default(), &shares)
        };
        for (arm, (_, ranges)) in arms.iter().zip(&divided) {
            if ranges.len() != arm.share.buckets() {
                return Err(format!(
                    "arm '{}' has {} buckets, its share of {} is {}",
                    arm.name,
                    ranges.len(),
                    arm.share,
                    arm.share.buckets()
                ));
            }
        }
        Table::new(&divided)?;
        let ranges = divided.into_iter().map(|(_, ranges)| ranges).collect();
        Ok(Self { route, ranges, source })
    }

    /// The buckets of each arm with its name: what a later division starts from.
    #[must_use]
    pub fn divided(&self) -> Vec<(ArmName, Ranges)> {
        let names = self.route.arms.iter().map(|arm| arm.name.clone());
        names.zip(self.ranges.iter().cloned()).collect()
    }

    /// Which arm each bucket belongs to.
    ///
    /// # Errors
    /// When the ranges, as they were stored, are in two arms or leave a bucket out.
    pub fn table(&self) -> Result<Table, String> {
        if self.ranges.len() != self.route.arms.len() {
            let (ranges, arms) = (self.ranges.len(), self.route.arms.len());
            return Err(format!("{arms} arms with {ranges} sets of buckets"));
        }
        Table::new(&self.divided())
    }

    /// What the keys of callers are hashed with.
    #[must_use]
    pub fn seed(&self) -> Seed {
        Seed::of(self.route.name.as_str(), &self.route.salt)
    }
}

/// Whether a change of a route divides its callers anew, whatever the shares are: another salt
/// gives every key another bucket, another `sticky` gives every caller another key.
#[must_use]
pub fn reshuffles(old: &Route, new: &Route) -> bool {
    old.salt != new.salt || old.sticky != new.sticky
}
